"""Automatic derivatives against finite differences, in float64."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from saddlepoint.curvature import Linearization
from saddlepoint.curvature.replay import Replay
from saddlepoint.game import Closure, Players
from saddlepoint.vectors import Vector

TOLERANCE = 1e-4
"""A derivative with a relative error above this is wrong; correct ones have about 1e-9."""

_EPSILON = torch.finfo(torch.float64).eps
# the first is best for smooth functions; the smaller ones cross fewer kinks of piecewise linear
# ones
STEPS = (_EPSILON ** (1 / 3), _EPSILON ** (1 / 2), _EPSILON**0.62)
_DIRECTIONS = 2
_ROUNDING = 50 * _EPSILON


@dataclass(frozen=True)
class RepeatableGame:
    """Losses of float64 tensors that can be evaluated repeatedly with the same randomness.

    Attributes:
        players: player → leaf tensors; parameters or inputs.
        closure: returns the losses.
        replay: restores random state and buffers before each evaluation.
    """

    players: Players
    closure: Closure
    replay: Replay


def random_direction(players: Players, generator: torch.Generator) -> Vector:
    """Return a vector of normal entries, drawn on the CPU so that all devices get the same."""
    like = Vector(players)
    return like.rebuild([normal_like(t, generator) for t in like.tensors])


def normal_like(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return normal numbers with the shape and dtype of a tensor, drawn on the CPU."""
    return torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)


def product_error(game: RepeatableGame, *, generator: torch.Generator) -> float:
    """Return the relative error of J v against (ξ(θ + h v) − ξ(θ − h v)) / 2h.

    It is the smallest error over a few random v and a few h: a step across a kink makes a single
    difference wrong, whereas a wrong derivative is wrong for all of them.

    Raises:
        DoubleBackwardError: PyTorch refuses the second derivative.

    >>> x = torch.ones(3, dtype=torch.float64, requires_grad=True)
    >>> game = RepeatableGame({"x": (x,)}, lambda: {"x": (x**4).sum()}, Replay())
    >>> product_error(game, generator=torch.Generator().manual_seed(0)) < 1e-7
    True
    """
    best = float("inf")
    for _ in range(_DIRECTIONS):
        v = random_direction(game.players, generator)
        # the product too: leaving the replay rewrites buffers that the graph may have saved
        with game.replay.again():
            point = Linearization(game.players, game.closure)
            product = point.jacobian @ v
            size = float(point.gradient.norm())
        for step in STEPS:
            above, below = _gradient_at(game, v, step), _gradient_at(game, v, -step)
            difference = ((above - below) / (2 * step)).flatten()
            noise = _ROUNDING * size / step
            best = min(best, relative_error(product.flatten(), difference, noise=noise))
            if best <= TOLERANCE:
                return best
    return best


def gradient_error(game: RepeatableGame, *, generator: torch.Generator) -> float:
    """Return the relative error of ⟨ξ, v⟩ against (f(θ + h v) − f(θ − h v)) / 2h for one player.

    It is the smallest error over a few random v and a few h, as for ``product_error``.

    >>> x = torch.ones(3, dtype=torch.float64, requires_grad=True)
    >>> game = RepeatableGame({"x": (x,)}, lambda: {"x": (x**4).sum()}, Replay())
    >>> gradient_error(game, generator=torch.Generator().manual_seed(0)) < 1e-7
    True
    """
    best = float("inf")
    for _ in range(_DIRECTIONS):
        v = random_direction(game.players, generator)
        with game.replay.again():
            gradient = Linearization(game.players, game.closure, order=1).gradient
        slope, floor = gradient.dot(v), 1e-3 * float(gradient.norm())  # ⟨ξ, v⟩ may nearly cancel
        for step in STEPS:
            above, below = _loss_at(game, v, step), _loss_at(game, v, -step)
            difference = torch.tensor((above - below) / (2 * step), dtype=torch.float64)
            noise = _ROUNDING * max(abs(above), abs(below)) / step
            best = min(best, relative_error(slope.cpu(), difference, noise=noise, floor=floor))
            if best <= TOLERANCE:
                return best
    return best


def relative_error(
    a: torch.Tensor, b: torch.Tensor, *, noise: float = 0.0, floor: float = 0.0
) -> float:
    """Return ‖a − b‖ / max(‖a‖, ‖b‖, floor).

    Where that is above the tolerance, ``noise``, a bound on the rounding error, is subtracted from
    ‖a − b‖ first.

    >>> zero, one, two = torch.zeros(1), torch.ones(1), torch.full((1,), 2.0)
    >>> relative_error(two, one), relative_error(zero, zero)
    (0.5, 0.0)
    """
    distance, size = float((a - b).norm()), max(float(a.norm()), float(b.norm()), floor)
    if 0 < distance <= TOLERANCE * size:
        return distance / size
    return max(0.0, distance - noise) / (size or 1.0)


@contextmanager
def displaced(players: Players, v: Vector, step: float) -> Iterator[None]:
    """Add ``step`` times ``v`` to the players' tensors inside the block; restore them exactly."""
    tensors = Vector(players).tensors
    before = [t.detach().clone() for t in tensors]
    with torch.no_grad():
        torch._foreach_add_(tensors, v.tensors, alpha=step)
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(tensors, before)


def _gradient_at(game: RepeatableGame, v: Vector, step: float) -> Vector:
    with displaced(game.players, v, step), game.replay.again():
        return Linearization(game.players, game.closure, order=1).gradient


def _loss_at(game: RepeatableGame, v: Vector, step: float) -> float:
    with displaced(game.players, v, step), game.replay.again():
        return sum(Linearization(game.players, game.closure, order=0).losses.values())
