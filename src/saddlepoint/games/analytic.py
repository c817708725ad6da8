"""Games with equilibrium, Jacobian and class in closed form, for tests and for learning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from saddlepoint.errors import UsageError
from saddlepoint.game import Game

Kind = Literal["minimum", "monotone", "rotating", "local minimax", "not minimax"]
"""Class of the critical point.

"minimum": the minimum of a one-player game. "monotone": an equilibrium around which the game is
strongly monotone. "rotating": the centre of a pure rotation. "local minimax": a strict local
minimax point with x as the leader. "not minimax": a critical point that is not minimax.
"""


class AnalyticGame(Game):
    """A game with a few parameters in float64 and a known critical point.

    Args:
        sizes: player → number of parameters.
        losses_at: θ, shape (dimension,), → player → loss.
        start: the initial θ.
        equilibrium: the critical point θ*.
        jacobian: the Jacobian of the joint gradient at θ*, shape (dimension, dimension).
        kind: what θ* is.

    >>> game = bilinear(3.0)
    >>> game.jacobian.tolist(), game.kind
    ([[0.0, 3.0], [-3.0, 0.0]], 'rotating')
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        losses_at: Callable[[Tensor], dict[str, Tensor]],
        *,
        start: Tensor,
        equilibrium: Tensor,
        jacobian: Tensor,
        kind: Kind,
    ) -> None:
        self.losses_at = losses_at
        self.equilibrium = equilibrium
        self.jacobian = jacobian
        self.kind = kind
        pieces = torch.split(start.double(), list(sizes.values()))
        parameters = {
            player: [piece.clone().requires_grad_()]
            for player, piece in zip(sizes, pieces, strict=True)
        }
        super().__init__(parameters, lambda: losses_at(self.theta))

    @property
    def theta(self) -> Tensor:
        """The current parameters of all players, shape (dimension,)."""
        return torch.cat([parameter for (parameter,) in self.players.values()])

    def distance(self) -> float:
        """Return ‖θ − θ*‖."""
        return float((self.theta.detach() - self.equilibrium).norm())


def quadratic(
    sizes: Mapping[str, int], matrices: Mapping[str, Tensor], start: Tensor, kind: Kind
) -> AnalyticGame:
    """Return the game f_i(θ) = ½ θᵀ A_i θ with symmetric A_i.

    Its gradient is ξ(θ) = J θ, where row block i of J is row block i of A_i, and θ* = 0.

    Raises:
        UsageError: a matrix is missing, not symmetric or of the wrong shape.
    """
    dimension = sum(sizes.values())
    for player in sizes:
        A = matrices.get(player)
        if A is None or A.shape != (dimension, dimension) or not torch.equal(A, A.T):
            raise UsageError(
                f'Player "{player}" needs a symmetric matrix of shape ({dimension}, {dimension}).'
            )
    bounds = torch.tensor([0, *sizes.values()]).cumsum(0).tolist()
    jacobian = torch.cat(
        [matrices[player][bounds[i] : bounds[i + 1]] for i, player in enumerate(sizes)]
    )
    return AnalyticGame(
        sizes,
        lambda theta: {player: 0.5 * theta @ matrices[player] @ theta for player in sizes},
        start=start,
        equilibrium=torch.zeros(dimension, dtype=torch.float64),
        jacobian=jacobian,
        kind=kind,
    )


def zero_sum(
    Hxx: float, Hxy: float, Hyy: float, start: Sequence[float] = (1.0, 1.0)
) -> AnalyticGame:
    """Return f(x, y) = ½ Hxx x² + Hxy x y + ½ Hyy y², which x minimises and y maximises.

    >>> zero_sum(-6.0, 4.0, -2.0).kind  # the origin is a minimax point although x is at a maximum
    'local minimax'
    """
    A = torch.tensor([[Hxx, Hxy], [Hxy, Hyy]], dtype=torch.float64)
    kind: Kind = "not minimax"
    if Hxx > 0 > Hyy:
        kind = "monotone"
    elif Hxx == 0 == Hyy:
        kind = "rotating"
    elif Hyy < 0 < Hxx - Hxy**2 / Hyy:
        kind = "local minimax"
    return quadratic({"x": 1, "y": 1}, {"x": A, "y": 0.0 - A}, torch.tensor(start), kind)


def bilinear(strength: float = 1.0, start: Sequence[float] = (1.0, 1.0)) -> AnalyticGame:
    """Return f(x, y) = strength · x · y, which x minimises and y maximises: a pure rotation."""
    return zero_sum(0.0, strength, 0.0, start)


def bilinear_matrix(singular_values: Sequence[float], generator: torch.Generator) -> AnalyticGame:
    """Return f(x, y) = xᵀ M y with a random M of given singular values.

    x and y have as many parameters as there are singular values; their start is random.

    >>> game = bilinear_matrix([1.0, 2.0], torch.Generator().manual_seed(0))
    >>> torch.linalg.svdvals(game.jacobian[:2, 2:]).round(decimals=6).tolist()
    [2.0, 1.0]
    """
    n = len(singular_values)
    U, V = (
        torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]
        for _ in range(2)
    )
    M = U @ torch.diag(torch.tensor(singular_values, dtype=torch.float64)) @ V.T
    zero = torch.zeros(n, n, dtype=torch.float64)
    A = torch.cat([torch.cat([zero, M], 1), torch.cat([M.T, zero], 1)])
    start = torch.randn(2 * n, generator=generator, dtype=torch.float64) / n**0.5
    return quadratic({"x": n, "y": n}, {"x": A, "y": 0.0 - A}, start, "rotating")


def with_spectrum(eigenvalues: Sequence[complex]) -> AnalyticGame:
    """Return a zero-sum game whose Jacobian has the eigenvalues a ± bi for each given a + bi.

    f = Σ ½ a x_k² + b x_k y_k − ½ a y_k².

    >>> sorted(torch.linalg.eigvals(with_spectrum([1 + 2j, 0.5]).jacobian).real.tolist())
    [0.5, 0.5, 1.0, 1.0]
    """
    a = torch.diag(torch.tensor([complex(e).real for e in eigenvalues], dtype=torch.float64))
    b = torch.diag(torch.tensor([complex(e).imag for e in eigenvalues], dtype=torch.float64))
    A = torch.cat([torch.cat([a, b], 1), torch.cat([b, -a], 1)])
    n = len(eigenvalues)
    smallest = float(a.diagonal().min())
    kind: Kind = "monotone" if smallest > 0 else "rotating" if smallest == 0 else "not minimax"
    return quadratic(
        {"x": n, "y": n}, {"x": A, "y": 0.0 - A}, torch.ones(2 * n, dtype=torch.float64), kind
    )


def bowl(start: Sequence[float] = (1.0, -2.0)) -> AnalyticGame:
    """Return a one-player game, ordinary minimisation of ½(x₁² + 4 x₂²)."""
    A = torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64))
    return quadratic({"x": 2}, {"x": A}, torch.tensor(start), "minimum")


def three_players(start: Sequence[float] = (1.0, 2.0, -1.0)) -> AnalyticGame:
    """Return a general-sum game of three players, a stable rotation.

    f_i = ½ x_i² + ½ x_i (x_{i+1} − x_{i−1}).
    """
    names = ("x", "y", "z")
    matrices = {}
    for i, player in enumerate(names):
        A = torch.zeros(3, 3, dtype=torch.float64)
        A[i, i] = 1.0
        A[i, (i + 1) % 3] = A[(i + 1) % 3, i] = 0.5
        A[i, (i - 1) % 3] = A[(i - 1) % 3, i] = -0.5
        matrices[player] = A
    return quadratic(dict.fromkeys(names, 1), matrices, torch.tensor(start), "monotone")


def ridge(start: Sequence[float] = (0.5, 0.5)) -> AnalyticGame:
    """Return a game with a curved ridge through 0, a local minimax point.

    f = (4x² − (y − 3x + x³/20)² − y⁴/10) exp(−(x² + y²)/100), minimised by x and maximised by y.

    Reference: the third example of Wang, Zhang and Ba (2020), arXiv:1910.07512.
    """

    def losses_at(theta: Tensor) -> dict[str, Tensor]:
        x, y = theta
        f = (4 * x**2 - (y - 3 * x + x**3 / 20) ** 2 - y**4 / 10) * torch.exp(-(x**2 + y**2) / 100)
        return {"x": f, "y": -f}

    jacobian = torch.tensor([[-10.0, 6.0], [-6.0, 2.0]], dtype=torch.float64)
    zero = torch.zeros(2, dtype=torch.float64)
    return AnalyticGame(
        {"x": 1, "y": 1},
        losses_at,
        start=torch.tensor(start),
        equilibrium=zero,
        jacobian=jacobian,
        kind="local minimax",
    )


def cournot(
    firms: int = 3, demand: float = 10.0, slope: float = 1.0, cost: float = 1.0
) -> AnalyticGame:
    """Return Cournot competition: firm i sells q_i at the price demand − slope · Σ q.

    Each unit costs ``cost``.
    Loss −q_i (demand − slope · Σ q − cost); q* = (demand − cost) / (slope · (firms + 1)) for all; J
    = slope · (I + 11ᵀ).

    Raises:
        UsageError: fewer than one firm, or a slope that is not positive.

    >>> game = cournot(4)
    >>> game.equilibrium.tolist()
    [1.8, 1.8, 1.8, 1.8]
    """
    if firms < 1 or not slope > 0:
        raise UsageError(
            f"cournot: needs at least one firm and a positive slope, not {firms} and {slope}."
        )
    names = [f"firm{i}" for i in range(firms)]

    def losses_at(q: Tensor) -> dict[str, Tensor]:
        margin = demand - slope * q.sum() - cost
        return {name: -q[i] * margin for i, name in enumerate(names)}

    eye, ones = torch.eye(firms, dtype=torch.float64), torch.ones(firms, dtype=torch.float64)
    return AnalyticGame(
        dict.fromkeys(names, 1),
        losses_at,
        start=0.5 * ones,
        equilibrium=(demand - cost) / (slope * (firms + 1)) * ones,
        jacobian=slope * (eye + torch.outer(ones, ones)),
        kind="monotone",
    )


def matching_pennies(start: Sequence[float] = (1.0, -0.5)) -> AnalyticGame:
    """Return matching pennies with the players' logits as parameters.

    f = (2σ(x) − 1)(2σ(y) − 1), which x minimises and y maximises. The equilibrium is x = y = 0,
    with J = [[0, ¼], [−¼, 0]]; the gradient vanishes far away from it.
    """

    def losses_at(theta: Tensor) -> dict[str, Tensor]:
        f = (2 * torch.sigmoid(theta) - 1).prod()
        return {"x": f, "y": -f}

    jacobian = torch.tensor([[0.0, 0.25], [-0.25, 0.0]], dtype=torch.float64)
    zero = torch.zeros(2, dtype=torch.float64)
    return AnalyticGame(
        {"x": 1, "y": 1},
        losses_at,
        start=torch.tensor(start),
        equilibrium=zero,
        jacobian=jacobian,
        kind="rotating",
    )
