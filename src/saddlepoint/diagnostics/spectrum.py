"""Eigenvalues of a game: how its joint gradient field turns and contracts here, and which local solution concepts hold."""

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
"""Who leads where no leader is named."""


@dataclass(frozen=True)
class GameSpectrum:
    """Eigenvalues of J, of the players' own Hessians and of the Schur complement at one point, and what they say.

    The field is θ̇ = −ξ, so that Re λ > 0 attracts. The classes speak of the local curvature; of a
    solution they speak only where ‖ξ‖ is small. Those that need every eigenvalue on one side
    ("stable", "local Nash", "local minimax") are given only where the search for the smallest has
    converged. No class is given for what lies within the tol of zero, so a point may have
    none.

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
            None where it does not exist or was not found.
        schur_reason: why ``schur`` is None.
        zero_sum: whether J_ij = −J_jiᵀ for all pairs of players: a game of zero sum, up to terms
            that only their own player can change.
        gradient_norm: ‖ξ‖.
        rotation_ratio: the largest |Im λ| / |Re λ| of the leading eigenvalues that do not vanish;
            NaN where all do.
        classes: those of the list above that hold.
        converged: whether every search found all that it looked for.
        products: rows of Jacobian products that were taken.
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
        """The eigenvalues of J that are known: the leading ones, then those of smallest real part that are not among them."""
        waiting, others = list(self.leading), []
        same = 1e-6 * max(map(abs, self.leading + self.smallest), default=0.0)
        for value in self.smallest:
            twin = next((known for known in waiting if abs(known - value) <= same), None)
            others += [value] if twin is None else []
            waiting = [known for known in waiting if known is not twin]
        return self.leading + tuple(others)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers, a complex number as [re, im]; an infinite ``rotation_ratio`` stays a float."""
        plain = {name: _plain(value) for name, value in vars(self).items()}
        return plain | {"own": {player: list(values) for player, values in self.own.items()}}


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
    """Find the eigenvalues of J, J_ii and J_xx − J_xy J_yy⁻¹ J_yx at the current parameters; neither buffers nor random states move.

    Cost: a gradient for each player, then 50 to ``max_iter`` products for each search: n rows of an
    n-player game for each product of the two searches in J, one for each of the n own Hessians, and
    3 + the products of a solve in the Schur complement, which is looked for only where J_yy ≻ 0. A
    spectrum that is small and crowded at its lower end, as networks have it, takes the most.

    Args:
        players: player → its network, or the tensors that it moves.
        closure: as for ``GameOptimizer.step``; returns the losses of all players, of one large
            batch.
        count: how many eigenvalues of each kind.
        leader: whose Schur complement is taken in a two-player game; by default the player called
            "generator".
        zero: an eigenvalue below this share of its operator's largest counts as zero.
        tol: relative accuracy of eigenvalues and solves; by default ε^(2/3) of the
            parameters' precision.
        max_iter: the most products of each search, besides those that measure its residuals.
        solve_max_iter: the most products of each solve in the Schur complement.

    Raises:
        UsageError: a closure that leaves out a player, an unknown leader, a count below 2, or a
            max_iter too small for the count.
        DoubleBackwardError: a loss contains an operation without a right second derivative.
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
    _check(players, count, leader, zero)
    search: dict[str, Any] = {"tol": tol, "max_iter": max_iter}
    with linearized("game_spectrum", players, closure) as point:
        J = point.jacobian
        leading = eigenvalues(J, count, which="magnitude", **search)
        smallest = eigenvalues(J, count, which="smallest", **search)
        own = {
            player: eigenvalues(J[player, player], count, which="ends", symmetric=True, **search)
            for player in point.active
        }
        limits = _Limits(
            zero, _precision(point), _largest([*leading.values, *smallest.values, *_all(own)])
        )
        zero_sum = _is_zero_sum(point)
        schur, reason = _schur(point, own, limits, leader, zero_sum, count, solve_max_iter, search)
        gradient_norm = float(point.gradient.norm())
    searches = [leading, smallest, *own.values(), *([] if schur is None else [schur])]
    return GameSpectrum(
        leading=leading.values,
        smallest=smallest.values,
        own={player: found.real for player, found in own.items()},
        schur=None if schur is None else schur.values,
        schur_reason=reason,
        zero_sum=zero_sum,
        gradient_norm=gradient_norm,
        rotation_ratio=_rotation_ratio(leading.values, limits),
        classes=(
            *_of_the_field(leading, smallest, limits),
            *_of_the_losses(own, schur, zero_sum, limits, leader),
        ),
        converged=all(found.converged for found in searches),
        products=point.cost.products,
    )


@dataclass(frozen=True)
class _Limits:
    """Below which size an eigenvalue counts as zero: relative to its own operator's largest, and to what rounding leaves of J's."""

    zero: float
    precision: float
    scale: float

    def of(self, values: Iterable[complex]) -> float:
        return max(self.zero * _largest(values), 100 * self.precision * self.scale)

    def positive(self, found: Eigenvalues, *others: complex) -> bool:
        """Say whether the smallest eigenvalues have been found and all are positive."""
        return found.converged and min(found.real) > self.of([*found.values, *others])

    def negative(self, found: Eigenvalues) -> bool:
        """Say whether an eigenvalue with a negative real part has been found."""
        return min(found.real, default=0.0) < -self.of(found.values)


def _of_the_field(leading: Eigenvalues, smallest: Eigenvalues, limits: _Limits) -> list[str]:
    known = [*leading.values, *smallest.values]
    limit = limits.of(known)
    holds = {
        "stable": limits.positive(smallest, *known),
        "unstable": min((value.real for value in known), default=0.0) < -limit,
        "rotating": any(
            abs(value) > limit and abs(value.imag) > abs(value.real) for value in leading.values
        ),
        "degenerate": any(abs(value) <= limit for value in known),
    }
    return [name for name, held in holds.items() if held]


def _of_the_losses(
    own: dict[str, Eigenvalues],
    schur: Eigenvalues | None,
    zero_sum: bool,
    limits: _Limits,
    leader: str | None,
) -> list[str]:
    found = ["local Nash"] if all(limits.positive(block) for block in own.values()) else []
    if schur is not None and zero_sum and limits.positive(schur, *own[leader or LEADER].values):
        found.append("local minimax")
    for player, block in own.items():
        if limits.negative(block):
            found.append(
                f"{'saddle' if max(block.real) > limits.of(block.values) else 'no minimum'} of"
                f" {player}'s loss"
            )
    return found


def _schur(
    point: Linearization,
    own: dict[str, Eigenvalues],
    limits: _Limits,
    leader: str | None,
    zero_sum: bool,
    count: int,
    solve_max_iter: int,
    search: dict[str, Any],
) -> tuple[Eigenvalues | None, str | None]:
    """Return the smallest eigenvalues of the Schur complement, or why there are none."""
    x, others = (
        leader or LEADER,
        [player for player in point.active if player != (leader or LEADER)],
    )
    if len(others) != 1 or x not in own:
        return (
            None,
            f"a leader and one follower are needed; the players are {sorted(own)} and the leader is"
            f' "{x}"',
        )
    (y,) = others
    if not limits.positive(own[y]):
        why = (
            "the search for its smallest eigenvalues did not converge"
            if not own[y].converged
            else f"its smallest is {min(own[y].real):.2g}"
        )
        return (
            None,
            (
                f"the Hessian of the follower {y}'s own loss is not known to be positive definite:"
                f" {why}"
            ),
        )
    J = point.jacobian
    tol = _precision(point) ** (2 / 3) if search["tol"] is None else search["tol"]
    complement = SchurComplement(
        J[x, x], J[x, y], J[y, x], J[y, y], tol=tol, max_iter=solve_max_iter
    )
    try:
        return eigenvalues(complement, count, which="smallest", symmetric=zero_sum, **search), None
    except UsageError as unsolved:
        return None, str(unsolved)


def _is_zero_sum(point: Linearization) -> bool:
    """Say whether (J_o + J_oᵀ) v vanishes for the blocks J_o between players and a vector v that is always the same."""
    Jo = point.jacobian.off_diagonal
    draws = np.random.default_rng(0).standard_normal(Jo.domain.flatten().numel())
    like = Jo.domain.tensors[0]
    v = Jo.domain.unflatten(torch.as_tensor(draws, dtype=like.dtype, device=like.device))
    forward, back = Jo @ v, Jo.T @ v
    return bool(
        (forward + back).norm() <= math.sqrt(_precision(point)) * (forward.norm() + back.norm())
    )


def _rotation_ratio(leading: Sequence[complex], limits: _Limits) -> float:
    """Return the largest |Im λ| / |Re λ|, infinite where a real part is nothing but rounding."""
    found = [value for value in leading if abs(value) > limits.of(leading)]
    ratios = [
        abs(v.imag) / abs(v.real) if abs(v.real) > 100 * limits.precision * abs(v) else math.inf
        for v in found
    ]
    return max(ratios, default=math.nan)


def _check(players: Mapping[str, object], count: int, leader: str | None, zero: float) -> None:
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
            "game_spectrum: zero is a share of the largest eigenvalue and lies in [0, 1), not"
            f" {zero}."
        )


def _precision(point: Linearization) -> float:
    return float(torch.finfo(point.jacobian.domain.tensors[0].dtype).eps)


def _largest(values: Iterable[complex]) -> float:
    return max(map(abs, values), default=0.0)


def _all(own: dict[str, Eigenvalues]) -> list[complex]:
    return [value for found in own.values() for value in found.values]


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [
            [entry.real, entry.imag] if isinstance(entry, complex) else entry for entry in value
        ]
    return value
