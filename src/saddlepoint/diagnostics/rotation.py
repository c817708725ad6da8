"""Rotation in a game: in the field at a point, between two updates, and along a path."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from saddlepoint.curvature import Linearization
from saddlepoint.curvature.replay import Replay
from saddlepoint.diagnostics.gradients import require_all_losses
from saddlepoint.errors import DivergenceError, UsageError, did_you_mean
from saddlepoint.game import Closure, Game, Players
from saddlepoint.vectors import Vector

VISIBLE = 0.2
"""A sign switch or a bump of a path angle is reported where the cosine changes by more."""

Owners = Mapping[str, nn.Module | Sequence[Tensor]]
"""player → its network, or its tensors."""

Point = Mapping[str, Mapping[str, Tensor] | Sequence[Tensor]]
"""player → a state dict of its network, or its parameters in their order."""


@dataclass(frozen=True)
class Rotation:
    """The change of the joint gradient ξ in its own direction.

    Attributes:
        antisymmetric: ‖Aξ‖² / (‖Aξ‖² + ‖Sξ‖²), with S = (J + Jᵀ)/2 and A = (J − Jᵀ)/2: 1 for a
            pure rotation, as in a bilinear game, 0 for a gradient field, as in a game of common
            interest; NaN where both vanish.
        cosine: the cosine between ξ and Jξ, which is −d‖ξ‖/dt along θ̇ = −ξ in units of ‖Jξ‖: 0
            where ‖ξ‖ is constant, negative where it grows.
        players: player → the cosine between ξ_i and (Jξ)_i: negative where ‖ξ_i‖ grows.
        gradient_norm: ‖ξ‖.
    """

    antisymmetric: float
    cosine: float
    players: dict[str, float]
    gradient_norm: float


@dataclass(frozen=True)
class Cosine:
    """The cosine between two vectors of a game; NaN where one of them vanishes.

    Attributes:
        players: player → cosine of its part.
        joint: cosine of the whole.
    """

    players: dict[str, float]
    joint: float


@dataclass(frozen=True)
class PathAngle:
    """The joint gradient ξ on the line θ(α) = θ + α(θ′ − θ).

    Around α = 1 the cosine c(α) has an odd and an even part in s = α − 1. In the field ξ = J (θ −
    θ*) with J = aI + bR, R a rotation by 90°, and θ* at the distance p·‖θ′ − θ‖ beside θ′, they are
    a s/(r√(s² + p²)) and ±b p/(r√(s² + p²)) with r² = a² + b²: the first switches sign, the second
    is a bump of width p.

    Attributes:
        alphas: the values of α.
        cosines: c(α) = ⟨θ′ − θ, ξ(α)⟩ / (‖θ′ − θ‖ ‖ξ(α)‖); the motion is −ξ, so a change from
            negative to positive attracts. NaN where ξ vanishes relative to its largest value.
        norms: ‖ξ(α)‖.
        distance: ‖θ′ − θ‖.
    """

    alphas: tuple[float, ...]
    cosines: tuple[float, ...]
    norms: tuple[float, ...]
    distance: float

    @property
    def switch(self) -> float:
        """The odd part of c: 1 for pure attraction, −1 for pure repulsion.

        It is taken at the ends of the largest interval around α = 1.
        """
        left, right = self._at_ends()
        return (right - left) / 2

    @property
    def bump(self) -> float:
        """The even part of c at α = 1 minus that at the ends of the interval.

        Where ξ vanishes at α = 1 the neighbouring points are interpolated.
        """
        middle = self._interpolated(1.0)
        return (middle + middle - sum(self._at_ends())) / 2

    @property
    def summary(self) -> str:
        """What is visible at θ′, with its numbers.

        Attraction or repulsion is a switch of sign, rotation is a bump; "neither" if there is none.
        A rotation whose centre is θ′, or nearer to it than the next point, is not visible: c stays
        near 0.
        """
        seen = []
        if abs(self.switch) > VISIBLE:
            seen.append("attraction" if self.switch > 0 else "repulsion")
        if abs(self.bump) > VISIBLE:
            seen.append("rotation")
        switch, bump = round(self.switch, 2) + 0.0, round(self.bump, 2) + 0.0  # not −0.00
        return f"{' and '.join(seen) or 'neither'} (switch {switch:+.2f}, bump {bump:+.2f})"

    def _at_ends(self) -> tuple[float, float]:
        """Return c at both ends of the largest interval around α = 1."""
        reach = min(1 - self.alphas[0], self.alphas[-1] - 1)
        return self._interpolated(1 - reach), self._interpolated(1 + reach)

    def _interpolated(self, alpha: float) -> float:
        """Return c(α), interpolated over the points where c is known."""
        known = [
            (a, c) for a, c in zip(self.alphas, self.cosines, strict=True) if not math.isnan(c)
        ]
        if not known:
            return math.nan
        alphas, cosines = zip(*known, strict=True)
        return float(np.interp(alpha, alphas, cosines))


def rotation(players: Owners, closure: Closure) -> Rotation:
    """Measure which share of the change of ξ in its own direction is rotation.

    Parameters, buffers and random states do not change. Costs a gradient for each player, one
    product J ξ and one product Jᵀ ξ.

    Args:
        players: player → its network, or its tensors.
        closure: as for ``GameOptimizer.step``; returns the losses of all players.

    Raises:
        UsageError: the closure leaves out a player.
        DoubleBackwardError: a loss contains an operation without a correct second derivative.
        DivergenceError: a loss, ξ or a product is NaN or infinite.

    Reference: for the split of J, Balduzzi et al. (2018), The mechanics of n-player differentiable
    games, arXiv:1802.05642.

    >>> from saddlepoint.games.analytic import bilinear, bowl
    >>> [rotation(game.players, game.losses).antisymmetric for game in (bilinear(3.0), bowl())]
    [1.0, 0.0]
    """
    with linearized("rotation", players, closure) as point:
        xi = point.gradient
        forward, back = point.jacobian @ xi, point.jacobian.T @ xi
    for name, vector in {"ξ": xi, "Jξ": forward, "Jᵀξ": back}.items():
        _require_finite(vector, f"rotation: {name}")
    turning, straight = float((forward - back).norm()) ** 2, float((forward + back).norm()) ** 2
    between = cosine(xi, forward)
    share = turning / (turning + straight) if turning + straight else math.nan
    return Rotation(share, between.joint, between.players, float(xi.norm()))


def cosine(a: Mapping[str, Sequence[Tensor]], b: Mapping[str, Sequence[Tensor]]) -> Cosine:
    """Return the cosine ⟨a, b⟩ / (‖a‖ ‖b‖) of two vectors, for each player and jointly.

    Successive updates that oscillate have negative cosines.

    Args:
        a: player → tensors, or a ``Vector``.
        b: the same players and shapes.

    Raises:
        UsageError: the players or shapes differ.

    >>> a = {"x": [torch.tensor([1.0, 0.0])], "y": [torch.ones(1)]}
    >>> b = {"x": [torch.tensor([0.0, 1.0])], "y": [torch.ones(1)]}
    >>> found = cosine(a, b)
    >>> found.players, round(found.joint, 6)
    ({'x': 0.0, 'y': 1.0}, 0.5)
    """
    if set(a) != set(b):
        raise UsageError(
            f"cosine: the vectors have the players {sorted(a)} and {sorted(b)}; they must have the"
            " same."
        )
    for player in a:
        shapes, others = [tuple(t.shape) for t in a[player]], [tuple(t.shape) for t in b[player]]
        if shapes != others:
            raise UsageError(
                f'cosine: the parts of player "{player}" have the shapes {shapes} and {others};'
                " they must be the same."
            )
    u, v = _double(a), _double(b)
    players = {player: _cosine(u.only([player]), v.only([player])) for player in a}
    return Cosine(players, _cosine(u, v.only(a)))


def path_angle(
    players: Owners,
    closure: Closure,
    start: Point,
    end: Point,
    *,
    points: int = 41,
    span: tuple[float, float] = (-0.5, 1.5),
) -> PathAngle:
    """Measure ξ along the line from θ, ``start``, through θ′, ``end``.

    Every point has the same randomness and the modules' present buffers. At θ′ an attracting field
    switches the sign of c from negative to positive, a rotating one has a bump. The parameters are
    restored bit for bit. Costs ``points`` joint gradients.

    Args:
        players: player → its network, or its tensors.
        closure: as for ``GameOptimizer.step``; returns the losses of all players.
        start: player → a state dict of its network (buffers in it are not used), or its parameters
            in their order.
        end: the same.
        points: number of values of α, evenly spaced; 41 contain α = 0 and α = 1.
        span: the first α, below 1, and the last, above 1.

    Raises:
        UsageError: ``start`` or ``end`` does not fit the players, they are the same point, there
            are fewer than 5 points, or the span does not contain 1.
        DivergenceError: a loss or ξ is NaN or infinite on the line.

    Reference: Berard et al. (2020), A closer look at the optimization landscapes of generative
    adversarial networks, arXiv:1906.04848.

    >>> from saddlepoint.games.analytic import bowl
    >>> game = bowl()
    >>> start, end = {"x": [torch.tensor([1.0, 0.0])]}, {"x": [torch.zeros(2)]}
    >>> found = path_angle(game.players, game.losses, start, end, points=5)
    >>> found.cosines, found.summary
    ((-1.0, -1.0, -1.0, nan, 1.0), 'attraction (switch +1.00, bump +0.00)')
    """
    game = Game(players, closure)
    if points < 5 or not span[0] < 1 < span[1]:
        raise UsageError(
            f"path_angle: needs at least 5 points and a span that contains 1, not {points} and"
            f" {span}."
        )
    theta = _checked_point(players, game.players, start, "start")
    target = _checked_point(players, game.players, end, "end")
    direction = _double(target - theta)
    distance = float(direction.norm())
    if not distance > 0:
        raise UsageError(
            "path_angle: start and end are the same point, so there is no direction. Take two"
            " points of a training run."
        )
    alphas = np.linspace(*span, points).tolist()
    fields = []
    replay, before = _replay(players, game.players), Vector(game.players).clone()
    try:
        for alpha in alphas:
            _assign(game.players, (1 - alpha) * theta + alpha * target)
            with replay.again():
                point = Linearization(game.players, game.losses, order=1)
                require_all_losses(point, "path_angle")
                _require_finite(point.gradient, f"path_angle: at α = {alpha:.3g} ξ")
                fields.append(_double(point.gradient))
    finally:
        _assign(game.players, before)
    norms = tuple(float(xi.norm()) for xi in fields)
    vanished = 100 * torch.finfo(theta.tensors[0].dtype).eps * max(norms)
    cosines = tuple(
        _cosine(direction, xi.only(direction)) if norm > vanished else math.nan
        for xi, norm in zip(fields, norms, strict=True)
    )
    return PathAngle(tuple(alphas), cosines, norms, distance)


@contextmanager
def linearized(name: str, players: Owners, closure: Closure) -> Iterator[Linearization]:
    """Evaluate a game for Jacobian products; restore buffers and random states after the block.

    Args:
        name: the calling function, for error messages.
        players: player → its network, or its tensors.
        closure: returns the losses of all players.
    """
    game = Game(players, closure)
    with _replay(players, game.players).again():
        point = Linearization(game.players, closure, cross=True)
        require_all_losses(point, name)
        point.check_second_derivatives()
        yield point


def _replay(owners: Owners, players: Players) -> Replay:
    modules = [owner for owner in owners.values() if isinstance(owner, nn.Module)]
    return Replay(modules, cuda=any(p.is_cuda for p in Vector(players).tensors))


def _require_finite(vector: Vector, what: str) -> None:
    for player, tensors in vector.items():
        if not all(bool(t.isfinite().all()) for t in tensors):
            raise DivergenceError(
                f'{what} is not finite in the part of player "{player}".', player=player
            )


def _assign(players: Players, theta: Vector) -> None:
    with torch.no_grad():
        for player, parameters in players.items():
            for p, value in zip(parameters, theta[player], strict=True):
                p.copy_(value)


def _checked_point(owners: Owners, players: Players, given: Point, name: str) -> Vector:
    """Return a point in the order and precision of the parameters; its shapes are checked."""
    if set(given) != set(players):
        raise UsageError(
            f"path_angle: {name} has the players {sorted(given)}, the game has {sorted(players)}."
        )
    point: dict[str, list[Tensor]] = {}
    for player, parameters in players.items():
        what, owner, values = (
            f'path_angle: {name} of player "{player}"',
            owners[player],
            given[player],
        )
        if isinstance(values, Mapping):
            if not isinstance(owner, nn.Module):
                raise UsageError(
                    f"{what} is a mapping of names, but the player is given as tensors. Give its"
                    " values as tensors too."
                )
            names = [key for key, p in owner.named_parameters() if p.requires_grad]
            for key in names:
                if key not in values:
                    raise UsageError(f'{what} has no "{key}".' + did_you_mean(key, values))
            values = [values[key] for key in names]
        shapes, expected = [tuple(t.shape) for t in values], [tuple(p.shape) for p in parameters]
        if shapes != expected:
            raise UsageError(f"{what} has the shapes {shapes}, its parameters have {expected}.")
        point[player] = [t.detach().to(p) for t, p in zip(values, parameters, strict=True)]
    return Vector(point).clone()


def _double(vector: Mapping[str, Sequence[Tensor]]) -> Vector:
    double = {}
    for player, tensors in vector.items():
        double[player] = [t.detach().double() for t in tensors]
    return Vector(double)


def _cosine(a: Vector, b: Vector) -> float:
    norms = float(a.norm()) * float(b.norm())
    return max(-1.0, min(1.0, float(a.dot(b)) / norms)) if norms else math.nan
