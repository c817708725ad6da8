"""Games whose gradient, Jacobian and equilibrium are known in closed form, for tests and for learning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from saddlepoint.errors import UsageError
from saddlepoint.game import Game


class QuadraticGame(Game):
    """Losses f_i(θ) = ½ θᵀ A_i θ with symmetric A_i; the joint gradient is linear, ξ(θ) = J θ, and θ = 0 is its critical point.

    Row block i of J is row block i of A_i.

    Args:
        sizes: player → number of parameters.
        matrices: player → A_i, shape (dimension, dimension), ordered as ``sizes``.
        start: the initial θ, shape (dimension,).

    Raises:
        UsageError: a matrix is missing, not symmetric or of the wrong shape.

    >>> game = bilinear(3.0)
    >>> game.jacobian.tolist()
    [[0.0, 3.0], [-3.0, 0.0]]
    """

    def __init__(self, sizes: Mapping[str, int], matrices: Mapping[str, Tensor], start: Tensor) -> None:
        dimension = sum(sizes.values())
        for player in sizes:
            A = matrices.get(player)
            if A is None or A.shape != (dimension, dimension) or not torch.equal(A, A.T):
                raise UsageError(f'Player "{player}" needs a symmetric matrix of shape ({dimension}, {dimension}).')
        pieces = [piece.clone().requires_grad_() for piece in torch.split(start, list(sizes.values()))]
        self.matrices = dict(matrices)
        self.jacobian = torch.cat([matrices[p][rows] for p, rows in _slices(sizes).items()])
        """The dense Jacobian J of the joint gradient."""
        super().__init__({player: [piece] for player, piece in zip(sizes, pieces, strict=True)}, self._losses)

    @property
    def theta(self) -> Tensor:
        """The current parameters of all players, shape (dimension,)."""
        return torch.cat([t for tensors in self.players.values() for t in tensors])

    def _losses(self) -> dict[str, Tensor]:
        theta = self.theta
        return {player: 0.5 * theta @ self.matrices[player] @ theta for player in self.players}


def zero_sum(Hxx: float, Hxy: float, Hyy: float, start: Sequence[float] = (1.0, 1.0)) -> QuadraticGame:
    """Return f(x, y) = ½ Hxx x² + Hxy x y + ½ Hyy y², which x minimises and y maximises.

    >>> zero_sum(-6.0, 4.0, -2.0).jacobian.tolist()  # f = −3x² − y² + 4xy: the origin is a local minimax point
    [[-6.0, 4.0], [-4.0, 2.0]]
    """
    A = torch.tensor([[Hxx, Hxy], [Hxy, Hyy]], dtype=torch.float64)
    return QuadraticGame({"x": 1, "y": 1}, {"x": A, "y": 0.0 - A}, torch.tensor(start, dtype=torch.float64))


def bilinear(strength: float = 1.0, start: Sequence[float] = (1.0, 1.0)) -> QuadraticGame:
    """Return f(x, y) = strength · x · y, which x minimises and y maximises: pure rotation around the origin."""
    return zero_sum(0.0, strength, 0.0, start)


def bowl(start: Sequence[float] = (1.0, -2.0)) -> QuadraticGame:
    """Return a one-player game, ordinary minimisation of ½(x₁² + 4 x₂²)."""
    A = torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64))
    return QuadraticGame({"x": 2}, {"x": A}, torch.tensor(start, dtype=torch.float64))


def three_players(start: Sequence[float] = (1.0, 2.0, -1.0)) -> QuadraticGame:
    """Return a general-sum game of three players: f_i = ½ x_i² + ½ x_i (x_{i+1} − x_{i−1}), a stable rotation."""
    names = ("x", "y", "z")
    matrices = {}
    for i, player in enumerate(names):
        A = torch.zeros(3, 3, dtype=torch.float64)
        A[i, i] = 1.0
        A[i, (i + 1) % 3] = A[(i + 1) % 3, i] = 0.5
        A[i, (i - 1) % 3] = A[(i - 1) % 3, i] = -0.5
        matrices[player] = A
    return QuadraticGame(dict.fromkeys(names, 1), matrices, torch.tensor(start, dtype=torch.float64))


def _slices(sizes: Mapping[str, int]) -> dict[str, slice]:
    slices, first = {}, 0
    for player, size in sizes.items():
        slices[player] = slice(first, first + size)
        first += size
    return slices
