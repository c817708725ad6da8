"""Matrix-free linear operators: the Jacobian of a game, its blocks, transposes and sums."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saddlepoint.errors import UsageError, did_you_mean
from saddlepoint.vectors import Vector

if TYPE_CHECKING:
    from saddlepoint.curvature.linearization import Linearization


class Operator(ABC):
    """A linear map between vectors of a game.

    ``A @ v`` applies it, ``A.T`` is the transpose; ``A + B``, ``A - B``, ``-A`` and ``c * A`` are
    operators too. ``dense()`` returns the matrix, with rows and columns in the order of players and
    parameters; it costs one product per column, so it is for small problems.
    """

    domain: Vector
    """A vector with the players and shapes of the operator's argument; its values do not matter."""

    @abstractmethod
    def __matmul__(self, v: Vector) -> Vector:
        """Apply the operator to a vector."""

    @property
    @abstractmethod
    def T(self) -> Operator:
        """The transpose."""

    def __add__(self, other: Operator) -> Operator:
        return _Sum(self, other)

    def __mul__(self, factor: float) -> Operator:
        return _Scaled(self, factor)

    __rmul__ = __mul__

    def __neg__(self) -> Operator:
        return _Scaled(self, -1.0)

    def __sub__(self, other: Operator) -> Operator:
        return _Sum(self, -other)

    def dense(self) -> Tensor:
        """Return the matrix, shape (rows, columns)."""
        size = sum(t.numel() for t in self.domain.tensors)
        like = self.domain.tensors[0]
        basis = torch.eye(size, dtype=like.dtype, device=like.device)
        columns = [(self @ self.domain.unflatten(e)).flatten() for e in basis]
        return torch.stack(columns, dim=1)


class Jacobian(Operator):
    """J_ij = ∂_j ∂_i f_i at one point, or the part of it that ``blocks`` selects.

    (J v)_i = ∂_i Σ_j ⟨∂_j f_i, v_j⟩ is one backward pass per row i, because the Hessian of f_i is
    symmetric. All products use the graph of the same linearization.

    Args:
        linearization: losses and gradient of order 2.
        blocks: the pairs (i, j) to keep; all of them by default. The others are zero.
        rows: the players of the result; all active players by default.
        columns: the players of the argument; all active players by default.

    >>> from saddlepoint import Game, linearize
    >>> x, y = (torch.tensor([1.0], requires_grad=True) for _ in range(2))
    >>> def losses():
    ...     f = 3 * x * y + x**2 - y**2
    ...     return {"x": f.sum(), "y": -f.sum()}
    >>> J = linearize(Game({"x": [x], "y": [y]}, losses)).jacobian
    >>> J.dense().tolist()
    [[2.0, 3.0], [-3.0, 2.0]]
    >>> J["y", "x"].dense().tolist()
    [[-3.0]]
    """

    def __init__(
        self,
        linearization: Linearization,
        blocks: Iterable[tuple[str, str]] | None = None,
        *,
        rows: Iterable[str] | None = None,
        columns: Iterable[str] | None = None,
    ) -> None:
        if linearization.order < 2:
            raise UsageError(
                "Jacobian products need a linearization of order 2; this one has order"
                f" {linearization.order}."
            )
        self.linearization = linearization
        active = linearization.active
        self.blocks = frozenset(product(active, active) if blocks is None else blocks)
        self.codomain = Vector({i: linearization.players[i] for i in rows or linearization.active})
        self.domain = Vector({j: linearization.players[j] for j in columns or linearization.active})

    def __matmul__(self, v: Vector) -> Vector:
        parts = {}
        for i in self.codomain:
            columns = self._columns(i)
            if not columns:
                parts[i] = self.codomain.only([i]).zeros()[i]
                continue
            if columns == (i,):  # the gradient with respect to the other players is not needed
                outputs = list(self.linearization.gradient_with_graph(i))
            else:
                outputs = self.linearization.loss_gradient_with_graph(i).only(columns).tensors
            weights = v.only(columns).tensors
            parts[i] = self.linearization.vjp(outputs, weights, [i], rows=1)[i]
        return Vector(parts)

    @property
    def T(self) -> Operator:
        return _Transposed(self)

    def __getitem__(self, block: tuple[str, str]) -> Jacobian:
        """Return the block J_ij, which maps vectors of player j to vectors of player i."""
        for player in block:
            if player not in self.linearization.active:
                raise UsageError(
                    f'No player "{player}" moves at this point.'
                    + did_you_mean(player, self.linearization.active)
                )
        return Jacobian(self.linearization, {block}, rows=block[:1], columns=block[1:])

    @property
    def off_diagonal(self) -> Jacobian:
        """The blocks between different players, J_ij with i ≠ j."""
        active = self.linearization.active
        pairs = product(active, active)
        return Jacobian(self.linearization, [(i, j) for i, j in pairs if i != j])

    @property
    def block_diagonal(self) -> Jacobian:
        """The Hessians of each player's own loss, J_ii."""
        return Jacobian(self.linearization, {(i, i) for i in self.linearization.active})

    def transpose_matmul(self, u: Vector) -> Vector:
        """Return Jᵀ u = Σ_i ∂⟨ξ_i, u_i⟩; rows with the same columns share one backward pass."""
        rows_by_columns: dict[tuple[str, ...], list[str]] = {}
        for i in self.codomain:
            if self._columns(i):
                rows_by_columns.setdefault(self._columns(i), []).append(i)
        total = {player: list(tensors) for player, tensors in self.domain.zeros().items()}
        for columns, rows in rows_by_columns.items():
            outputs: list[Tensor] = []
            for i in rows:
                outputs += self.linearization.gradient_with_graph(i)
            found = self.linearization.vjp(outputs, u.only(rows).tensors, columns, rows=len(rows))
            for j in columns:
                total[j] = list(torch._foreach_add(total[j], found[j]))
        return Vector(total)

    def transpose_matmul_parts(self, u: Vector) -> tuple[Vector, Vector]:
        """Return the products of u with the transposes of block_diagonal and off_diagonal.

        Together they cost n products for n players, as Jᵀ u does.

        >>> from saddlepoint import Game, linearize
        >>> x, y = (torch.tensor([1.0], requires_grad=True) for _ in range(2))
        >>> def losses():
        ...     return {"x": (x**2 + 3 * x * y).sum(), "y": (-3 * x * y).sum()}
        >>> J = linearize(Game({"x": [x], "y": [y]}, losses)).jacobian
        >>> u = Vector({"x": [torch.ones(1)], "y": [torch.ones(1)]})
        >>> own, across = J.transpose_matmul_parts(u)
        >>> own.flatten().tolist(), across.flatten().tolist()
        ([2.0, 0.0], [-3.0, 3.0])
        """
        own = {player: list(tensors) for player, tensors in self.domain.zeros().items()}
        across = {player: list(tensors) for player, tensors in self.domain.zeros().items()}
        for i in self.codomain:
            outputs, columns = self.linearization.gradient_with_graph(i), self._columns(i)
            for j, found in self.linearization.vjp(outputs, u[i], columns, rows=1).items():
                part = own if j == i else across
                part[j] = list(torch._foreach_add(part[j], found))
        return Vector(own), Vector(across)

    def _columns(self, i: str) -> tuple[str, ...]:
        """Return the players j whose block J_ij is kept."""
        return tuple(j for j in self.domain if (i, j) in self.blocks)


class _Transposed(Operator):
    def __init__(self, jacobian: Jacobian) -> None:
        self._jacobian = jacobian
        self.domain = jacobian.codomain

    def __matmul__(self, u: Vector) -> Vector:
        return self._jacobian.transpose_matmul(u)

    @property
    def T(self) -> Operator:
        return self._jacobian


class _Scaled(Operator):
    def __init__(self, operator: Operator, factor: float) -> None:
        self._operator, self._factor = operator, factor
        self.domain = operator.domain

    def __matmul__(self, v: Vector) -> Vector:
        return self._factor * (self._operator @ v)

    @property
    def T(self) -> Operator:
        return _Scaled(self._operator.T, self._factor)


class _Sum(Operator):
    def __init__(self, left: Operator, right: Operator) -> None:
        self._left, self._right = left, right
        self.domain = left.domain

    def __matmul__(self, v: Vector) -> Vector:
        return self._left @ v + self._right @ v

    @property
    def T(self) -> Operator:
        return _Sum(self._left.T, self._right.T)
