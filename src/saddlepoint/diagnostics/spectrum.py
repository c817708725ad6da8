"""Eigenvalues of a game at a point, and the local solution concepts that they imply."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from saddlepoint.curvature import Eigenvalues, Linearization, SchurComplement, eigenvalues
from saddlepoint.diagnostics.rotation import linearized
from saddlepoint.errors import UsageError, did_you_mean
from saddlepoint.game import Closure

LEADER = "generator"
"""The leader where none is named."""


@dataclass(frozen=True)
class GameSpectrum:
    """Eigenvalues of J, of the players' own Hessians and of the Schur complement at one point.

    The field is θ̇ = −ξ, so that Re λ > 0 attracts. The classes describe the local curvature; they
    describe a solution only where ‖ξ‖ is small. Those that need the sign of every eigenvalue
    ("stable", "local Nash", "local minimax") are given only if the search for the smallest
    eigenvalues has converged. Eigenvalues within the tolerance of zero give no class, so a point
    may have none.

    - "stable": Re λ > 0 for all eigenvalues of J; "unstable": Re λ < 0 for one.
    - "rotating": |Im λ| > |Re λ| for a leading one.
    - "local Nash": every J_ii ≻ 0.
    - "local minimax": J_yy ≻ 0 and the Schur complement ≻ 0 in a two-player game of zero sum, with
      x as leader.
    - "saddle of X's loss": J_ii has eigenvalues of both signs; "no minimum of X's loss": negative
      ones, and none that is positive.
    - "degenerate": an eigenvalue of J among those computed vanishes relative to the largest.

    Attributes:
        leading: eigenvalues of J of the largest magnitude.
        smallest: eigenvalues of J of the smallest real part.
        own: player → eigenvalues of its Hessian J_ii from both ends of the spectrum, ascending.
        schur: the smallest eigenvalues of J_xx − J_xy J_yy⁻¹ J_yx, real in a game of zero sum;
            positive real parts mean that a follower that is fast enough makes the point stable.
            None if it does not exist or was not found.
        schur_reason: why ``schur`` is None.
        zero_sum: whether J_ij = −J_jiᵀ for all pairs of players: a game of zero sum, up to terms
            that depend on the parameters of their own player only.
        gradient_norm: ‖ξ‖.
        rotation_ratio: the largest |Im λ| / |Re λ| of the leading eigenvalues that do not vanish;
            NaN where all do.
        classes: the classes of the list above that hold.
        converged: whether every search converged.
        products: number of Jacobian product rows.
    """

    leading: tuple[complex, ...]
    smallest: tuple[complex, ...]
    own: dict[str, tuple[float, ...]]
    schur: tuple[complex, ...] | None
    schur_reason: str | None
    zero_sum: bool
    gradient_norm: float
    rotation_ratio: float
    classes: tuple[str, ...]
    converged: bool
    products: int

    @property
    def jacobian(self) -> tuple[complex, ...]:
        """The known eigenvalues of J: the leading ones, then the others of smallest real part."""
        unmatched, others = list(self.leading), []
        same = 1e-6 * max(map(abs, self.leading + self.smallest), default=0.0)
        for value in self.smallest:
            twin = next((known for known in unmatched if abs(known - value) <= same), None)
            if twin is None:
                others.append(value)
            unmatched = [known for known in unmatched if known is not twin]
        return self.leading + tuple(others)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers, complex ones as [re, im].

        ``rotation_ratio`` may be infinite.
        """
        plain = dict(vars(self))
        for name in ("leading", "smallest", "schur"):
            if plain[name] is not None:
                plain[name] = [[value.real, value.imag] for value in plain[name]]
        plain["own"] = {player: list(values) for player, values in self.own.items()}
        plain["classes"] = list(self.classes)
        return plain


def game_spectrum(
    players: Mapping[str, nn.Module | Sequence[Tensor]],
    closure: Closure,
    *,
    count: int = 10,
    leader: str | None = None,
    zero: float = 1e-5,
    tol: float | None = None,
    max_iter: int = 1000,
    solve_max_iter: int = 200,
) -> GameSpectrum:
    """Find eigenvalues of J, J_ii and J_xx − J_xy J_yy⁻¹ J_yx at the current parameters.

    Buffers and random states do not change. Costs a gradient for each player, then 50 to
    ``max_iter`` products for each search: n rows of an n-player game for each product of the two
    searches in J, one for each of the n own Hessians, and 3 + the products of a solve in the Schur
    complement, which is searched only where J_yy ≻ 0. A spectrum that is small and dense at its
    lower end, as that of networks, takes the most products.

    Args:
        players: player → its network, or its tensors.
        closure: as for ``GameOptimizer.step``; returns the losses of all players, of one large
            batch.
        count: number of eigenvalues of each kind.
        leader: the leader x of the Schur complement in a two-player game; by default the player
            called "generator".
        zero: an eigenvalue below this share of its operator's largest counts as zero.
        tol: relative accuracy of eigenvalues and solves; by default ε^(2/3) of the
            parameters' precision.
        max_iter: the most products of each search, besides those that measure its residuals.
        solve_max_iter: the most products of each solve in the Schur complement.

    Raises:
        UsageError: the closure leaves out a player, the leader is unknown, the count is below 2, or
            max_iter is too small for the count.
        DoubleBackwardError: a loss contains an operation without a correct second derivative.
        DivergenceError: a loss or a product is NaN or infinite.

    References: Berard et al. (2020), A closer look at the optimization landscapes of generative
    adversarial networks, arXiv:1906.04848; Jin, Netrapalli and Jordan (2020), What is local
    optimality in nonconvex-nonconcave minimax optimization?, arXiv:1902.00618; Fiez and Ratliff
    (2020), Gradient descent-ascent provably converges to strict local minmax equilibria with a
    finite timescale separation, arXiv:2009.14820.

    >>> from saddlepoint.games.analytic import zero_sum
    >>> game = zero_sum(-6.0, 4.0, -2.0)  # f = −3x² + 4xy − y²
    >>> found = game_spectrum(game.players, game.losses, leader="x")
    >>> found.classes
    ('unstable', 'local minimax', "no minimum of x's loss")
    >>> found.own["x"], found.schur
    ((-6.0,), ((2+0j),))
    """
    if leader is not None and leader not in players:
        raise UsageError(
            f'game_spectrum: the leader "{leader}" is no player of this game.'
            + did_you_mean(leader, players)
        )
    if count < 2:
        raise UsageError(
            "game_spectrum: count must be at least 2, one for each end of a Hessian's spectrum,"
            f" not {count}."
        )
    if not 0 <= zero < 1:
        raise UsageError(
            "game_spectrum: zero is a share of the largest eigenvalue and must be in [0, 1), not"
            f" {zero}."
        )
    search: dict[str, Any] = {"tol": tol, "max_iter": max_iter}
    with linearized("game_spectrum", players, closure) as point:
        J = point.jacobian
        leading = eigenvalues(J, count, which="magnitude", **search)
        smallest = eigenvalues(J, count, which="smallest", **search)
        own, known = {}, [*leading.values, *smallest.values]
        for player in point.active:
            block = J[player, player]
            own[player] = eigenvalues(block, count, which="both_ends", symmetric=True, **search)
            known += own[player].values
        limits = _ZeroLimits(
            share=zero,
            precision=float(torch.finfo(J.domain.tensors[0].dtype).eps),
            scale=max(map(abs, known), default=0.0),
        )
        zero_sum = _is_zero_sum(point, limits.precision)
        schur, reason = _schur(
            point, own, limits, leader or LEADER, zero_sum, count, solve_max_iter, search
        )
        gradient_norm = float(point.gradient.norm())

    # a real part that is nothing but rounding makes the ratio infinite
    rotation_ratio, limit = math.nan, limits.of(leading.values)
    for value in leading.values:
        if abs(value) > limit:
            rounding = 100 * limits.precision * abs(value)
            real = abs(value.real)
            ratio = abs(value.imag) / real if real > rounding else math.inf
            rotation_ratio = max(ratio, rotation_ratio)
    searches = [leading, smallest, *own.values(), *([] if schur is None else [schur])]
    return GameSpectrum(
        leading=leading.values,
        smallest=smallest.values,
        own={player: found.real for player, found in own.items()},
        schur=None if schur is None else schur.values,
        schur_reason=reason,
        zero_sum=zero_sum,
        gradient_norm=gradient_norm,
        rotation_ratio=rotation_ratio,
        classes=_classes(leading, smallest, own, schur, zero_sum, limits, leader or LEADER),
        converged=all(found.converged for found in searches),
        products=point.cost.products,
    )


@dataclass(frozen=True)
class _ZeroLimits:
    """The size below which an eigenvalue counts as zero.

    Attributes:
        share: relative to the largest eigenvalue of the same operator.
        precision: ε of the parameters.
        scale: the largest eigenvalue of all operators, which sets the size of rounding errors.
    """

    share: float
    precision: float
    scale: float

    def of(self, values: Iterable[complex]) -> float:
        """Return the limit for an operator with these eigenvalues."""
        largest = max(map(abs, values), default=0.0)
        return max(self.share * largest, 100 * self.precision * self.scale)

    def positive(self, found: Eigenvalues, *others: complex) -> bool:
        """Return whether the smallest eigenvalues have converged and all are positive."""
        return found.converged and min(found.real) > self.of([*found.values, *others])


def _classes(
    leading: Eigenvalues,
    smallest: Eigenvalues,
    own: dict[str, Eigenvalues],
    schur: Eigenvalues | None,
    zero_sum: bool,
    limits: _ZeroLimits,
    leader: str,
) -> tuple[str, ...]:
    known = [*leading.values, *smallest.values]
    limit = limits.of(known)
    rotating = [v for v in leading.values if abs(v) > limit and abs(v.imag) > abs(v.real)]
    holds = {
        "stable": limits.positive(smallest, *known),
        "unstable": min((value.real for value in known), default=0.0) < -limit,
        "rotating": bool(rotating),
        "degenerate": any(abs(value) <= limit for value in known),
        "local Nash": all(limits.positive(block) for block in own.values()),
        "local minimax": (
            schur is not None and zero_sum and limits.positive(schur, *own[leader].values)
        ),
    }
    for player, block in own.items():
        limit = limits.of(block.values)
        if min(block.real, default=0.0) < -limit:
            kind = "saddle" if max(block.real) > limit else "no minimum"
            holds[f"{kind} of {player}'s loss"] = True
    return tuple(name for name, held in holds.items() if held)


def _schur(
    point: Linearization,
    own: dict[str, Eigenvalues],
    limits: _ZeroLimits,
    leader: str,
    zero_sum: bool,
    count: int,
    solve_max_iter: int,
    search: dict[str, Any],
) -> tuple[Eigenvalues | None, str | None]:
    """Return the smallest eigenvalues of the Schur complement, or the reason why there are none."""
    followers = [player for player in point.active if player != leader]
    if len(followers) != 1 or leader not in own:
        return None, (
            f"a leader and one follower are needed; the players are {sorted(own)} and the leader is"
            f' "{leader}"'
        )
    x, y = leader, followers[0]
    if not limits.positive(own[y]):
        why = "the search for its smallest eigenvalues did not converge"
        if own[y].converged:
            why = f"its smallest eigenvalue is {min(own[y].real):.2g}"
        return None, (
            f"the Hessian of the follower {y}'s own loss is not known to be positive definite:"
            f" {why}"
        )
    J = point.jacobian
    tol = search["tol"]
    complement = SchurComplement(
        J[x, x],
        J[x, y],
        J[y, x],
        J[y, y],
        tol=limits.precision ** (2 / 3) if tol is None else tol,
        max_iter=solve_max_iter,
    )
    try:
        return eigenvalues(complement, count, which="smallest", symmetric=zero_sum, **search), None
    except UsageError as unsolved:
        return None, str(unsolved)


def _is_zero_sum(point: Linearization, precision: float) -> bool:
    """Return whether (J_o + J_oᵀ) v vanishes for the off-diagonal part J_o and a fixed random v."""
    Jo = point.jacobian.off_diagonal
    draws = np.random.default_rng(0).standard_normal(Jo.domain.flatten().numel())
    like = Jo.domain.tensors[0]
    v = Jo.domain.unflatten(torch.as_tensor(draws, dtype=like.dtype, device=like.device))
    forward, back = Jo @ v, Jo.T @ v
    return bool((forward + back).norm() <= math.sqrt(precision) * (forward.norm() + back.norm()))
