"""Metrics P: how long a step is, per direction, before the interaction of the players or their curvature is looked at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from saddlepoint.errors import UsageError
from saddlepoint.kronecker import (
    Sides,
    accumulate,
    eigenbases,
    empty_factors,
    permute,
    rotate,
    rotate_back,
    update_eigenbases,
)
from saddlepoint.rules.state import RuleState
from saddlepoint.vectors import Vector


class PreconditionerMatrix:
    """A metric P = Q diag(r²) Qᵀ at one point, as the coordinates e in which it is the identity: d = R e with R = Q diag(1/r), R Rᵀ = P⁻¹.

    r and Q are in single precision at least; vectors come back in the types that they have.

    Args:
        root: r, or None for ones.
        bases: player → for each of its tensors the basis of each side, or None where Q is the
            identity.
    """

    def __init__(
        self, root: Vector | None = None, bases: Mapping[str, Sequence[Sides]] | None = None
    ) -> None:
        self._root, self._bases = root, bases

    def only(self, players: Iterable[str]) -> PreconditionerMatrix:
        """Return the metric of the parameters of ``players``."""
        players = list(players)
        bases = None if self._bases is None else {player: self._bases[player] for player in players}
        return PreconditionerMatrix(None if self._root is None else self._root.only(players), bases)

    def over(self, lrs: Mapping[str, Sequence[float]], like: Vector) -> PreconditionerMatrix:
        """Return the metric P L⁻¹ with the learning lrs L: player → one of each tensor, at least 1e-30. ``like`` has the shapes."""
        roots = {player: [max(lr, 1e-30) ** 0.5 for lr in lrs[player]] for player in like}
        root = self._root or like.rebuild([torch.ones_like(t) for t in like.widened().tensors])
        return PreconditionerMatrix(
            root.scale({player: [1 / r for r in own] for player, own in roots.items()}), self._bases
        )

    def apply_inv_sqrt(self, e: Vector) -> Vector:
        """Return R e, what the coordinates e stand for."""
        return self._turned(
            rotate_back, e if self._root is None else e.widened() / self._root
        ).typed(e)

    def apply_sqrt(self, d: Vector) -> Vector:
        """Return R⁻¹ d, the inverse of ``apply_inv_sqrt``."""
        e = self._turned(rotate, d).widened()
        return (e if self._root is None else e * self._root).typed(d)

    def apply_inv_sqrt_transpose(self, v: Vector) -> Vector:
        """Return Rᵀ v: a gradient with respect to parameters as one with respect to coordinates."""
        turned = self._turned(rotate, v).widened()
        return (turned if self._root is None else turned / self._root).typed(v)

    def apply_sqrt_transpose(self, u: Vector) -> Vector:
        """Return R⁻ᵀ u, the inverse of ``apply_inv_sqrt_transpose``."""
        return self._turned(
            rotate_back, u if self._root is None else u.widened() * self._root
        ).typed(u)

    def _turned(self, turn: Callable[[Tensor, Sides], Tensor], v: Vector) -> Vector:
        if self._bases is None:
            return v
        wide = v.widened()
        return Vector(
            {
                p: [turn(t, sides) for t, sides in zip(tensors, self._bases[p], strict=True)]
                for p, tensors in wide.items()
            }
        )


@dataclass(frozen=True)
class Preconditioner(ABC):
    """How a metric follows the gradients of the steps; what it remembers lives in the rule's state."""

    @abstractmethod
    def update(self, state: RuleState, name: str, xi: Vector) -> PreconditionerMatrix:
        """Take ξ into what ``state`` holds under ``name``, and return the metric. Call it once a step."""


@dataclass(frozen=True)
class RMSPreconditioner(Preconditioner):
    """The diagonal metric of RMSProp: P = diag((√v + ε) / √(1 − βᵗ)) with v ← βv + (1 − β)ξ² after t steps.

    Args:
        beta: decay of the running mean of squares; 0.99 as in the published ACGD.
        epsilon: added to √v; 1e-5 as in the published ACGD.
        name: how a configuration calls it.

    Raises:
        UsageError: beta outside [0, 1) or epsilon not positive; in a step, a complex parameter.

    Reference: Tieleman and Hinton (2012), Lecture 6.5; the bias correction is that of Kingma and Ba
    (2015), arXiv:1412.6980.

    >>> state, xi = RuleState(), Vector({"x": [torch.tensor([3.0, -4.0])]})
    >>> metric = RMSPreconditioner(epsilon=1e-8).update(state, "x", xi)
    >>> metric.vector(metric.pullback(xi)).flatten().round(decimals=4).tolist()  # P⁻¹ ξ
    [1.0, -1.0]
    """

    beta: float = 0.99
    epsilon: float = 1e-5
    name: Literal["rms"] = "rms"

    def __post_init__(self) -> None:
        _check("RMS", self.beta, self.epsilon)

    def update(self, state: RuleState, name: str, xi: Vector) -> PreconditionerMatrix:
        _check_real("RMS", xi)
        return PreconditionerMatrix(_rooted(state, name, xi, self.beta, self.epsilon))


@dataclass(frozen=True)
class KroneckerPreconditioner(Preconditioner):
    """The metric of SOAP: P = Q diag((√v + ε) / √(1 − βᵗ)) Qᵀ with Q the eigenbasis of each tensor's second moments in Kronecker form.

    For a matrix with gradient G, Q = Q_L ⊗ Q_R with the eigenvectors of the running means of G Gᵀ
    and Gᵀ G, and v is the running mean of (Q_Lᵀ G Q_R)². Every ``frequency`` steps the bases follow
    their factors by one power iteration. Vectors, and sides that are too long, are as under RMS.

    Args:
        beta: decay of v and of the factors; 0.95 as in SOAP.
        epsilon: added to √v; 1e-5 as in the published ACGD, whose solves see 1/P.
        frequency: steps between two refreshes of the bases; 10 as in SOAP.
        max_dimension: sides longer than this are not rotated; 10,000 as in SOAP.
        name: how a configuration calls it.

    Raises:
        UsageError: an option outside of its range; in a step, a complex parameter.

    Reference: Vyas et al. (2024), SOAP: Improving and stabilizing Shampoo using Adam,
    arXiv:2409.11321, for the basis and v.

    >>> state, xi = RuleState(), Vector({"x": [torch.tensor([[3.0, 4.0], [4.0, 3.0]], dtype=torch.float64)]})
    >>> metric = KroneckerPreconditioner().update(state, "x", xi)
    >>> metric.vector(metric.pullback(xi)).flatten().round(decimals=3).abs().tolist()  # P⁻¹ ξ: eigenvalues 7 and −1 become 1 and −1
    [0.0, 1.0, 1.0, 0.0]
    """

    beta: float = 0.95
    epsilon: float = 1e-5
    frequency: int = 10
    max_dimension: int = 10_000
    name: Literal["kronecker"] = "kronecker"

    def __post_init__(self) -> None:
        _check("Kronecker", self.beta, self.epsilon)
        if self.frequency < 1 or self.max_dimension < 0:
            raise UsageError(
                f"Kronecker: needs frequency ≥ 1 and max_dimension ≥ 0, not {self.frequency} and"
                f" {self.max_dimension}."
            )

    def update(self, state: RuleState, name: str, xi: Vector) -> PreconditionerMatrix:
        _check_real("Kronecker", xi)
        factors, bases = f"factors.{name}", f"bases.{name}"
        gradients, entries = xi.widened().tensors, state.entries(xi)
        for entry, g in zip(entries, gradients, strict=True):
            if bases not in entry:
                entry[factors] = empty_factors(g, self.max_dimension)
                accumulate(entry[factors], g, self.beta)
                entry[bases] = eigenbases(entry[factors])
            # they follow a network that was moved to another device or dtype
            for what in (factors, bases):
                entry[what] = [None if matrix is None else matrix.to(g) for matrix in entry[what]]
        sides = [entry[bases] for entry in entries]
        turned = xi.rebuild([rotate(g, own) for g, own in zip(gradients, sides, strict=True)])
        metric = PreconditionerMatrix(
            _rooted(state, name, turned, self.beta, self.epsilon), _by_player(xi, sides)
        )
        for entry, g in zip(entries, gradients, strict=True):
            if entry[f"time.{name}"] > 1:
                # a step that fails goes back to the old ones
                entry[factors] = [None if F is None else F.clone() for F in entry[factors]]
                accumulate(entry[factors], g, self.beta)
        due = [entry for entry in entries if entry[f"time.{name}"] % self.frequency == 0]
        if due:
            fresh, orders = update_eigenbases(
                [entry[factors] for entry in due], [entry[bases] for entry in due]
            )
            for entry, own, order in zip(due, fresh, orders, strict=True):
                entry[bases], entry[f"square.{name}"] = (
                    own,
                    permute(entry[f"square.{name}"], order),
                )
        return metric


def _rooted(state: RuleState, name: str, xi: Vector, beta: float, epsilon: float) -> Vector:
    """Take ξ² into its running mean and return ((√v + ε) / √(1 − βᵗ))^½, t the steps of each parameter."""
    time, square = f"time.{name}", f"square.{name}"
    entries = state.entries(xi)
    for entry in entries:
        entry[time] = entry.get(time, 0) + 1
    wide = xi.widened()
    squares = wide * wide
    v = torch._foreach_lerp(
        state.recall(square, default=squares.zeros()).tensors, squares.tensors, 1 - beta
    )
    for entry, own in zip(entries, v, strict=True):
        entry[square] = own
    root = torch._foreach_sqrt(v)
    torch._foreach_add_(root, epsilon)
    torch._foreach_div_(root, [(1 - beta ** entry[time]) ** 0.5 for entry in entries])
    torch._foreach_sqrt_(root)
    return xi.rebuild(root)


def _check(preconditioner: str, beta: float, epsilon: float) -> None:
    if not (0 <= beta < 1 and epsilon > 0):
        raise UsageError(
            f"{preconditioner}: needs 0 ≤ beta < 1 and epsilon > 0, not {beta} and {epsilon}."
        )


def _check_real(preconditioner: str, xi: Vector) -> None:
    for player, tensors in xi.items():
        for index, tensor in enumerate(tensors):
            if tensor.is_complex():
                raise UsageError(
                    f'{preconditioner}: parameter {index} of player "{player}", shape'
                    f" {tuple(tensor.shape)}, is complex ({tensor.dtype}), and the metric is made"
                    " of squares of real numbers. Make the real and imaginary parts the parameter,"
                    " torch.view_as_real(p), and use torch.view_as_complex of it in the network;"
                    " or leave out the preconditioner."
                )


def _by_player(like: Vector, sides: Sequence[Sides]) -> dict[str, list[Sides]]:
    pieces = iter(sides)
    return {player: [next(pieces) for _ in tensors] for player, tensors in like.items()}
