"""Preconditioners P of the rules that solve a linear system, from running means of ξ².

In place of the identity, P sets the length of a step in each direction before the interaction of
the players, or their curvature, changes it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
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
    """A preconditioner P = Q diag(r²) Qᵀ at one point, in factored form.

    With R = P^(−1/2) = Q diag(1/r), so that R Rᵀ = P⁻¹, it is the identity in the coordinates
    e = R⁻¹ d of a direction d. Solvers work in these coordinates. r and Q have single precision at
    least; results have the dtypes of the arguments.

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
        """Return the preconditioner of the parameters of ``players``."""
        players = list(players)
        root = None if self._root is None else self._root.only(players)
        bases = None if self._bases is None else {player: self._bases[player] for player in players}
        return PreconditionerMatrix(root, bases)

    def divided_by_lrs(
        self, lrs: Mapping[str, Sequence[float]], like: Vector
    ) -> PreconditionerMatrix:
        """Return P L⁻¹, with L the learning rates.

        Args:
            lrs: player → the learning rate of each tensor; counted as 1e-30 at least.
            like: a vector with the shapes of the parameters.
        """
        factors = {}
        for player in like:
            factors[player] = [1 / max(lr, 1e-30) ** 0.5 for lr in lrs[player]]
        root = self._root or like.rebuild([torch.ones_like(t) for t in like.widened().tensors])
        return PreconditionerMatrix(root.scale(factors), self._bases)

    def apply_inverse(self, v: Vector) -> Vector:
        """Return P⁻¹ v = R Rᵀ v."""
        return self.apply_inv_sqrt(self.apply_inv_sqrt_transpose(v))

    def apply_inv_sqrt(self, e: Vector) -> Vector:
        """Return d = R e, the direction with the coordinates e."""
        scaled = e if self._root is None else e.widened() / self._root
        return self._apply_bases(rotate_back, scaled).typed(e)

    def apply_sqrt(self, d: Vector) -> Vector:
        """Return e = R⁻¹ d, the inverse of ``apply_inv_sqrt``."""
        e = self._apply_bases(rotate, d).widened()
        return (e if self._root is None else e * self._root).typed(d)

    def apply_inv_sqrt_transpose(self, v: Vector) -> Vector:
        """Return Rᵀ v, which turns ∂/∂d into ∂/∂e."""
        turned = self._apply_bases(rotate, v).widened()
        return (turned if self._root is None else turned / self._root).typed(v)

    def apply_sqrt_transpose(self, u: Vector) -> Vector:
        """Return R⁻ᵀ u, the inverse of ``apply_inv_sqrt_transpose``."""
        scaled = u if self._root is None else u.widened() * self._root
        return self._apply_bases(rotate_back, scaled).typed(u)

    def _apply_bases(self, apply: Callable[[Tensor, Sides], Tensor], v: Vector) -> Vector:
        """Apply Q or Qᵀ, tensor by tensor."""
        if self._bases is None:
            return v
        parts = {}
        for player, tensors in v.widened().items():
            bases = self._bases[player]
            parts[player] = [apply(t, sides) for t, sides in zip(tensors, bases, strict=True)]
        return Vector(parts)


@dataclass(frozen=True)
class Preconditioner(ABC):
    """Makes a preconditioner from the gradients of the steps; its memory is in the rule's state."""

    @abstractmethod
    def update(self, state: RuleState, name: str, xi: Vector) -> PreconditionerMatrix:
        """Add ξ to the running means that ``state`` holds under ``name``; return P.

        Call it once a step.
        """


@dataclass(frozen=True)
class RMSPreconditioner(Preconditioner):
    """The diagonal preconditioner of RMSProp: P = diag((√v + ε) / √(1 − βᵗ)).

    v ← βv + (1 − β)ξ² is the running mean of squares after t steps.

    Args:
        beta: decay of the running mean of squares; 0.99 as in the published ACGD.
        epsilon: added to √v; 1e-5 as in the published ACGD.
        name: its name in a configuration.

    Raises:
        UsageError: beta outside [0, 1) or epsilon not positive; in a step, a complex parameter.

    Reference: Tieleman and Hinton (2012), Lecture 6.5; the bias correction is that of Kingma and Ba
    (2015), arXiv:1412.6980.

    >>> state, xi = RuleState(), Vector({"x": [torch.tensor([3.0, -4.0])]})
    >>> P = RMSPreconditioner(epsilon=1e-8).update(state, "x", xi)
    >>> P.apply_inverse(xi).flatten().round(decimals=4).tolist()
    [1.0, -1.0]
    """

    beta: float = 0.99
    epsilon: float = 1e-5
    name: Literal["rms"] = "rms"

    def __post_init__(self) -> None:
        _check_range("RMSPreconditioner", self.beta, self.epsilon)

    def update(self, state: RuleState, name: str, xi: Vector) -> PreconditionerMatrix:
        _check_real("RMSPreconditioner", xi)
        return PreconditionerMatrix(_update_root(state, name, xi, self.beta, self.epsilon))


@dataclass(frozen=True)
class KroneckerPreconditioner(Preconditioner):
    """The preconditioner of SOAP: P = Q diag((√v + ε) / √(1 − βᵗ)) Qᵀ, Q a Kronecker eigenbasis.

    For a matrix with gradient G, Q = Q_L ⊗ Q_R with the eigenvectors of the running means of G Gᵀ
    and Gᵀ G, and v is the running mean of (Q_Lᵀ G Q_R)². Every ``frequency`` steps one power
    iteration brings the bases up to date. Vectors, and sides that are too long, are not rotated, as
    under RMSPreconditioner.

    Args:
        beta: decay of v and of the factors; 0.95 as in SOAP.
        epsilon: added to √v; 1e-5 as in the published ACGD, whose solves see 1/P.
        frequency: steps between two refreshes of the bases; 10 as in SOAP.
        max_dimension: sides longer than this are not rotated; 10,000 as in SOAP.
        name: its name in a configuration.

    Raises:
        UsageError: an option outside of its range; in a step, a complex parameter.

    Reference: Vyas et al. (2024), SOAP: Improving and stabilizing Shampoo using Adam,
    arXiv:2409.11321, for the basis and v.

    The eigenvalues of a symmetric gradient, here 7 and −1, become 1 and −1:

    >>> G = torch.tensor([[3.0, 4.0], [4.0, 3.0]], dtype=torch.float64)
    >>> xi = Vector({"x": [G]})
    >>> P = KroneckerPreconditioner().update(RuleState(), "x", xi)
    >>> P.apply_inverse(xi).flatten().round(decimals=3).abs().tolist()
    [0.0, 1.0, 1.0, 0.0]
    """

    beta: float = 0.95
    epsilon: float = 1e-5
    frequency: int = 10
    max_dimension: int = 10_000
    name: Literal["kronecker"] = "kronecker"

    def __post_init__(self) -> None:
        _check_range("KroneckerPreconditioner", self.beta, self.epsilon)
        if self.frequency < 1 or self.max_dimension < 0:
            raise UsageError(
                "KroneckerPreconditioner: needs frequency ≥ 1 and max_dimension ≥ 0, not"
                f" {self.frequency} and {self.max_dimension}."
            )

    def update(self, state: RuleState, name: str, xi: Vector) -> PreconditionerMatrix:
        _check_real("KroneckerPreconditioner", xi)
        factors, bases, square = f"factors.{name}", f"bases.{name}", f"square.{name}"
        gradients, entries = xi.widened().tensors, state.entries(xi)
        for entry, g in zip(entries, gradients, strict=True):
            if bases not in entry:
                entry[factors] = empty_factors(g, self.max_dimension)
                accumulate(entry[factors], g, self.beta)
                entry[bases] = eigenbases(entry[factors])
            # they follow a network that was moved to another device or dtype
            entry[factors] = [None if F is None else F.to(g) for F in entry[factors]]
            entry[bases] = [None if Q is None else Q.to(g) for Q in entry[bases]]

        sides = [entry[bases] for entry in entries]
        turned = xi.rebuild([rotate(g, own) for g, own in zip(gradients, sides, strict=True)])
        root = _update_root(state, name, turned, self.beta, self.epsilon)
        remaining = iter(sides)
        sides_by_player = {}
        for player, tensors in xi.items():
            sides_by_player[player] = list(islice(remaining, len(tensors)))
        matrix = PreconditionerMatrix(root, sides_by_player)

        for entry, g in zip(entries, gradients, strict=True):
            if entry[f"time.{name}"] > 1:
                # clones: a step that fails restores the old ones
                entry[factors] = [None if F is None else F.clone() for F in entry[factors]]
                accumulate(entry[factors], g, self.beta)
        due = [entry for entry in entries if entry[f"time.{name}"] % self.frequency == 0]
        if due:
            fresh, orders = update_eigenbases(
                [entry[factors] for entry in due], [entry[bases] for entry in due]
            )
            for entry, own, order in zip(due, fresh, orders, strict=True):
                entry[bases] = own
                entry[square] = permute(entry[square], order)
        return matrix


def update_preconditioner(
    preconditioner: Preconditioner | None, state: RuleState, name: str, xi: Vector
) -> PreconditionerMatrix:
    """Return ``preconditioner.update(state, name, xi)``, and the identity for None."""
    if preconditioner is None:
        return PreconditionerMatrix()
    return preconditioner.update(state, name, xi)


def _update_root(state: RuleState, name: str, xi: Vector, beta: float, epsilon: float) -> Vector:
    """Update v, the running mean of ξ², and return ((√v + ε) / √(1 − βᵗ))^½.

    t counts the steps of each parameter.
    """
    time, square = f"time.{name}", f"square.{name}"
    entries = state.entries(xi)
    for entry in entries:
        entry[time] = entry.get(time, 0) + 1
    wide = xi.widened()
    squares = wide * wide
    old = state.recall(square, default=squares.zeros())
    v = torch._foreach_lerp(old.tensors, squares.tensors, 1 - beta)
    for entry, own in zip(entries, v, strict=True):
        entry[square] = own
    root = torch._foreach_sqrt(v)
    torch._foreach_add_(root, epsilon)
    torch._foreach_div_(root, [(1 - beta ** entry[time]) ** 0.5 for entry in entries])
    torch._foreach_sqrt_(root)
    return xi.rebuild(root)


def _check_range(preconditioner: str, beta: float, epsilon: float) -> None:
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
                    f" {tuple(tensor.shape)}, is complex ({tensor.dtype}), and a preconditioner is"
                    " made of squares of real numbers. Make the real and imaginary parts the"
                    " parameter, torch.view_as_real(p), and use torch.view_as_complex of it in the"
                    " network; or leave out the preconditioner."
                )
