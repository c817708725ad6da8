"""How much of a game's motion is rotation: in the field at one point, between two updates, and along the path to a point."""

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
from saddlepoint.errors import DivergenceError, UsageError, did_you_mean
from saddlepoint.game import Closure, Game, Players
from saddlepoint.vectors import Vector

VISIBLE = 0.2
"""A switch or a bump of a path angle counts where the cosine changes by more than this."""

Owners = Mapping[str, nn.Module | Sequence[Tensor]]
"""player → its network, or the tensors that it moves."""

Point = Mapping[str, Mapping[str, Tensor] | Sequence[Tensor]]
"""player → a state dict of its network, or its parameters in their order."""


@dataclass(frozen=True)
class Rotation:
    """How the joint gradient ξ changes along itself.

    Attributes:
        antisymmetric: ‖Aξ‖² / (‖Aξ‖² + ‖Sξ‖²), with S = (J + Jᵀ)/2 and A = (J − Jᵀ)/2: 1 where the
            field only turns, as in a bilinear game, 0 where it is a gradient, as in a game of
            common interest; NaN where both vanish.
        cosine: between ξ and Jξ, and so −d‖ξ‖/dt along θ̇ = −ξ in units of ‖Jξ‖: 0 where ‖ξ‖ stays,
            negative where it grows.
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

    Around α = 1 the cosine c(α) splits into an odd and an even part of s = α − 1. In the field ξ =
    J (θ − θ*) with J = aI + bR, R a quarter turn, and θ* at the distance p·‖θ′ − θ‖ beside θ′, they
    are a s/(r√(s² + p²)) and ±b p/(r√(s² + p²)) with r² = a² + b²: the one switches sign, the other
    is a bump of width p.

    Attributes:
        alphas: where it was measured.
        cosines: c(α) = ⟨θ′ − θ, ξ(α)⟩ / (‖θ′ − θ‖ ‖ξ(α)‖); the motion is −ξ, so from negative to
            positive it attracts. NaN where ξ vanishes relative to its largest on the way.
        norms: ‖ξ(α)‖.
        distance: ‖θ′ − θ‖.
    """

    alphas: tuple[float, ...]
    cosines: tuple[float, ...]
    norms: tuple[float, ...]
    distance: float

    @property
    def switch(self) -> float:
        """The odd part of c at the ends of the largest interval around α = 1: 1 for pure attraction, −1 for pure repulsion."""
        left, right = self._around(self._reach)
        return (right - left) / 2

    @property
    def bump(self) -> float:
        """The even part of c at α = 1, or next to it where ξ vanishes there, less that at the ends of the interval."""
        return (sum(self._around(0.0)) - sum(self._around(self._reach))) / 2

    @property
    def verdict(self) -> str:
        """What is visible at θ′, with its numbers: attraction or repulsion (a switch of sign), rotation (a bump), or neither.

        A rotation whose centre is exactly θ′, or nearer than the points lie to each other, shows
        neither: c stays near 0.
        """
        seen = (
            ["attraction" if self.switch > 0 else "repulsion"] if abs(self.switch) > VISIBLE else []
        )
        seen += ["rotation"] if abs(self.bump) > VISIBLE else []
        return (
            f"{' and '.join(seen) or 'neither'} (switch {_signed(self.switch)}, bump"
            f" {_signed(self.bump)})"
        )

    @property
    def _reach(self) -> float:
        return min(1 - self.alphas[0], self.alphas[-1] - 1)

    def _around(self, s: float) -> tuple[float, float]:
        """Return c(1 − s) and c(1 + s), interpolated over the points where c is known."""
        known = [index for index, c in enumerate(self.cosines) if not math.isnan(c)]
        if not known:
            return math.nan, math.nan
        alphas, cosines = (
            [values[index] for index in known] for values in (self.alphas, self.cosines)
        )
        return float(np.interp(1 - s, alphas, cosines)), float(np.interp(1 + s, alphas, cosines))


def rotation(players: Owners, closure: Closure) -> Rotation:
    """Measure how much of the change of ξ along itself is rotation; nothing moves, neither buffers nor random states.

    Cost: a gradient for each player, one product J ξ and one Jᵀ ξ.

    Args:
        players: player → its network, or the tensors that it moves.
        closure: as for ``GameOptimizer.step``; returns the losses of all players.

    Raises:
        UsageError: a closure that leaves out a player.
        DoubleBackwardError: a loss contains an operation without a right second derivative.
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
    """Return the cosine ⟨a, b⟩ / (‖a‖ ‖b‖) of two vectors, such as two successive updates, for each player and jointly.

    Updates that oscillate have negative cosines.

    Args:
        a: player → tensors, or a ``Vector``.
        b: the same players and shapes.

    Raises:
        UsageError: other players or shapes.

    >>> found = cosine({"x": [torch.tensor([1.0, 0.0])], "y": [torch.ones(1)]}, {"x": [torch.tensor([0.0, 1.0])], "y": [torch.ones(1)]})
    >>> found.players, round(found.joint, 6)
    ({'x': 0.0, 'y': 1.0}, 0.5)
    """
    if set(a) != set(b):
        raise UsageError(
            f"cosine: the vectors have the players {sorted(a)} and {sorted(b)}; they must have the"
            " same."
        )
    for player in a:
        shapes = [[tuple(t.shape) for t in vector[player]] for vector in (a, b)]
        if shapes[0] != shapes[1]:
            raise UsageError(
                f'cosine: the parts of player "{player}" have the shapes {shapes[0]} and'
                f" {shapes[1]}; they must be the same."
            )
    u, v = (
        Vector({player: [t.detach().double() for t in vector[player]] for player in a})
        for vector in (a, b)
    )
    return Cosine(
        {player: _cosine(u.only([player]), v.only([player])) for player in a}, _cosine(u, v)
    )


def path_angle(
    players: Owners,
    closure: Closure,
    start: Point,
    end: Point,
    *,
    points: int = 41,
    span: tuple[float, float] = (-0.5, 1.5),
) -> PathAngle:
    """Measure ξ along the line from θ, ``start``, through θ′, ``end``; afterwards all parameters are as they were, bit for bit.

    Every point has the same randomness and the modules' present buffers. A field that attracts
    switches the sign of c from negative to positive at θ′, one that turns makes a bump there.

    Cost: ``points`` joint gradients.

    Args:
        players: player → its network, or the tensors that it moves.
        closure: as for ``GameOptimizer.step``; returns the losses of all players.
        start: player → a state dict of its network (buffers in it are not used), or its parameters
            in their order.
        end: the same.
        points: how many values of α, evenly spaced; 41 meet α = 0 and α = 1.
        span: the first α, below 1, and the last, above 1.

    Raises:
        UsageError: points that do not fit the players or are the same, or fewer than 5, or a span
            without 1 inside.
        DivergenceError: a loss or ξ is NaN or infinite on the way.

    Reference: Berard et al. (2020), A closer look at the optimization landscapes of generative
    adversarial networks, arXiv:1906.04848.

    >>> from saddlepoint.games.analytic import bowl
    >>> game = bowl()
    >>> found = path_angle(game.players, game.losses, {"x": [torch.tensor([1.0, 0.0])]}, {"x": [torch.zeros(2)]}, points=5)
    >>> found.cosines, found.verdict
    ((-1.0, -1.0, -1.0, nan, 1.0), 'attraction (switch +1.00, bump +0.00)')
    """
    game = Game(players, closure)
    if points < 5 or not span[0] < 1 < span[1]:
        raise UsageError(
            f"path_angle: needs at least 5 points and a span with 1 inside, not {points} and"
            f" {span}."
        )
    theta, target = (
        _point(players, game.players, given, name)
        for given, name in ((start, "start"), (end, "end"))
    )
    way = _double(target - theta)
    distance = float(way.norm())
    if not distance > 0:
        raise UsageError(
            "path_angle: start and end are the same point, so there is no direction. Take two"
            " points of a training run."
        )
    alphas = np.linspace(*span, points).tolist()
    replay, here = _replay(players, game.players), Vector(game.players).clone()
    try:
        fields = [
            _field_at(
                game,
                replay,
                (1 - alpha) * theta + alpha * target,
                f"path_angle: at α = {alpha:.3g} ξ",
            )
            for alpha in alphas
        ]
    finally:
        _put(game.players, here)
    norms = tuple(float(xi.norm()) for xi in fields)
    vanished = 100 * torch.finfo(theta.tensors[0].dtype).eps * max(norms)
    cosines = [
        _cosine(way, xi.only(way)) if norm > vanished else math.nan
        for xi, norm in zip(fields, norms, strict=True)
    ]
    return PathAngle(tuple(alphas), tuple(cosines), norms, distance)


@contextmanager
def linearized(name: str, players: Owners, closure: Closure) -> Iterator[Linearization]:
    """Evaluate a game for Jacobian products; when the block ends, buffers and random states are as they were."""
    game = Game(players, closure)
    with _replay(players, game.players).again():
        point = Linearization(game.players, closure, cross=True)
        _require_all(point, game.players, name)
        point.check_second_derivatives()
        yield point


def _replay(players: Owners, parameters: Players) -> Replay:
    modules = [owner for owner in players.values() if isinstance(owner, nn.Module)]
    return Replay(modules, cuda=any(p.is_cuda for own in parameters.values() for p in own))


def _require_all(point: Linearization, players: Players, name: str) -> None:
    missing = [player for player in players if player not in point.active]
    if missing:
        raise UsageError(
            f'{name}: the closure left out the loss of player "{missing[0]}". Return the losses of'
            " all players."
        )


def _require_finite(vector: Vector, what: str) -> None:
    for player, tensors in vector.items():
        if not all(bool(t.isfinite().all()) for t in tensors):
            raise DivergenceError(
                f'{what} is not finite in the part of player "{player}".', player=player
            )


def _field_at(game: Game, replay: Replay, theta: Vector, what: str) -> Vector:
    _put(game.players, theta)
    with replay.again():
        point = Linearization(game.players, game.losses, order=1)
        _require_all(point, game.players, "path_angle")
        _require_finite(point.gradient, what)
        return _double(point.gradient)


def _put(players: Players, theta: Vector) -> None:
    with torch.no_grad():
        for player, parameters in players.items():
            for p, value in zip(parameters, theta[player], strict=True):
                p.copy_(value)


def _point(owners: Owners, players: Players, given: Point, name: str) -> Vector:
    """Return a point in the parameters' order and precision, checked against them."""
    if set(given) != set(players):
        raise UsageError(
            f"path_angle: {name} has the players {sorted(given)}, the game has {sorted(players)}."
        )
    parts = {
        player: _own(owners[player], given[player], f'path_angle: {name} of player "{player}"')
        for player in players
    }
    for player, parameters in players.items():
        shapes = [[tuple(t.shape) for t in tensors] for tensors in (parts[player], parameters)]
        if shapes[0] != shapes[1]:
            raise UsageError(
                f'path_angle: {name} of player "{player}" has the shapes {shapes[0]}, its'
                f" parameters have {shapes[1]}."
            )
    return Vector(
        {
            player: [t.detach().to(p) for t, p in zip(parts[player], own, strict=True)]
            for player, own in players.items()
        }
    ).clone()


def _own(
    owner: nn.Module | Sequence[Tensor], given: Mapping[str, Tensor] | Sequence[Tensor], what: str
) -> list[Tensor]:
    if not isinstance(given, Mapping):
        return list(given)
    if not isinstance(owner, nn.Module):
        raise UsageError(
            f"{what} is a mapping of names, but the player is given as tensors. Give its values as"
            " tensors too."
        )
    names = [name for name, p in owner.named_parameters() if p.requires_grad]
    for name in names:
        if name not in given:
            raise UsageError(f'{what} has no "{name}".' + did_you_mean(name, given))
    return [given[name] for name in names]


def _double(vector: Vector) -> Vector:
    return Vector(
        {player: [t.detach().double() for t in tensors] for player, tensors in vector.items()}
    )


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}"  # not −0.00


def _cosine(a: Vector, b: Vector) -> float:
    norms = float(a.norm()) * float(b.norm())
    return max(-1.0, min(1.0, float(a.dot(b)) / norms)) if norms else math.nan
