"""Matrix-free operators on a game's parameter space: the Jacobian J, its transpose and its blocks, and their sums."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saddlepoint.errors import UsageError, did_you_mean
from saddlepoint.vectors import Vector

if TYPE_CHECKING:
    from saddlepoint.curvature.linearization import Linearization


class Operator(ABC):
    """A linear map between vectors of a game.

    ``A @ v`` applies it, ``A.T`` is the transpose, ``A + B`` and ``c * A`` combine. ``dense()``
    writes it out, with rows and columns in the order of players and parameters; it costs one
    product per column, so it is for small problems.
    """

    domain: Vector
    """A vector with the players and shapes that the operator takes (its values do not matter)."""

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
        """Return the matrix, shape (rows, columns); the transpose of a block has its rows in its own players' order."""
        size = sum(t.numel() for t in self.domain.tensors)
        like = self.domain.tensors[0]
        basis = torch.eye(size, dtype=like.dtype, device=like.device)
        return torch.stack([(self @ self.domain.unflatten(row)).flatten() for row in basis], dim=1)


class Jacobian(Operator):
    """J_ij = ∂_j ∂_i f_i at one point, or the part of it that ``blocks`` selects.

    (J v)_i = ∂_i Σ_j ⟨∂_j f_i, v_j⟩ is one backward pass per row i, because the Hessian of f_i is
    symmetric. The graph of the evaluation is kept, so that every product of a step reuses it.

    Args:
        point: an evaluation of order 2.
        blocks: the pairs (i, j) to keep; all of them by default. The others are zero.
        rows: the players of the result; all active by default.
        columns: the players of the argument; all active by default.

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
        point: Linearization,
        blocks: Iterable[tuple[str, str]] | None = None,
        *,
        rows: Iterable[str] | None = None,
        columns: Iterable[str] | None = None,
    ) -> None:
        if point.order < 2:
            raise UsageError(
                "Jacobian products need a linearization of order 2; this one has order"
                f" {point.order}."
            )
        self.point = point
        self.blocks = frozenset(
            blocks if blocks is not None else ((i, j) for i in point.active for j in point.active)
        )
        self.codomain = Vector({i: point.players[i] for i in rows or point.active})
        self.domain = Vector({j: point.players[j] for j in columns or point.active})

    def __matmul__(self, v: Vector) -> Vector:
        return Vector({i: self._row(i, v)[i] for i in self.codomain})

    @property
    def T(self) -> Operator:
        return _Transposed(self)

    def __getitem__(self, block: tuple[str, str]) -> Jacobian:
        """Return the block J_ij; it takes vectors of player j and gives vectors of player i."""
        for player in block:
            if player not in self.point.active:
                raise UsageError(
                    f'No player "{player}" moves at this point.'
                    + did_you_mean(player, self.point.active)
                )
        return Jacobian(self.point, {block}, rows=block[:1], columns=block[1:])

    @property
    def off_diagonal(self) -> Jacobian:
        """The blocks between different players, J_ij with i ≠ j."""
        return Jacobian(
            self.point, {(i, j) for i in self.point.active for j in self.point.active if i != j}
        )

    @property
    def block_diagonal(self) -> Jacobian:
        """The Hessians of each player's own loss, J_ii."""
        return Jacobian(self.point, {(i, i) for i in self.point.active})

    def transpose_matmul(self, u: Vector) -> Vector:
        """Return Jᵀ u = Σ_i ∂⟨ξ_i, u_i⟩; rows that reach the same players share one backward pass."""
        reach: dict[tuple[str, ...], list[str]] = {}
        for i in self.codomain:
            if self._columns(i):
                reach.setdefault(self._columns(i), []).append(i)
        total = {player: list(tensors) for player, tensors in self.domain.zeros().items()}
        for columns, rows in reach.items():
            outputs = [tensor for i in rows for tensor in self.point.gradient_with_graph(i)]
            weights = [tensor for i in rows for tensor in u[i]]
            pulled = self.point.vjp(outputs, weights, columns, rows=len(rows))
            for j in columns:
                total[j] = list(torch._foreach_add(total[j], pulled[j]))
        return Vector(total)

    def transposed_parts(self, u: Vector) -> tuple[Vector, Vector]:
        """Return the products of Jᵀ u apart, with the own blocks and with the interaction's, for the n products that Jᵀ u costs.

        >>> from saddlepoint import Game, linearize
        >>> x, y = (torch.tensor([1.0], requires_grad=True) for _ in range(2))
        >>> J = linearize(Game({"x": [x], "y": [y]}, lambda: {"x": (x**2 + 3 * x * y).sum(), "y": (-3 * x * y).sum()})).jacobian
        >>> own, across = J.transposed_parts(Vector({"x": [torch.ones(1)], "y": [torch.ones(1)]}))
        >>> own.flatten().tolist(), across.flatten().tolist()
        ([2.0, 0.0], [-3.0, 3.0])
        """
        own, across = (
            {player: list(tensors) for player, tensors in self.domain.zeros().items()}
            for _ in range(2)
        )
        for i in self.codomain:
            columns = self._columns(i)
            for j, pulled in self.point.vjp(
                list(self.point.gradient_with_graph(i)), list(u[i]), columns, rows=1
            ).items():
                part = own if j == i else across
                part[j] = list(torch._foreach_add(part[j], pulled))
        return Vector(own), Vector(across)

    def _columns(self, i: str) -> tuple[str, ...]:
        return tuple(j for j in self.domain if (i, j) in self.blocks)

    def _row(self, i: str, v: Vector) -> Vector:
        columns = self._columns(i)
        if not columns:
            return self.codomain.only([i]).zeros()
        alone = columns == (i,)  # then the gradient with respect to the other players is not needed
        outputs = (
            list(self.point.gradient_with_graph(i))
            if alone
            else self.point.loss_gradient_with_graph(i).only(columns).tensors
        )
        weights = [tensor for j in columns for tensor in v[j]]
        return self.point.vjp(outputs, weights, [i], rows=1)


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
