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
"""A relative error above this is a wrong derivative; right ones have about 1e-9."""

_EPSILON = torch.finfo(torch.float64).eps
# the first is best for smooth functions; the smaller ones step over fewer kinks of piecewise linear
# ones
STEPS = (_EPSILON ** (1 / 3), _EPSILON ** (1 / 2), _EPSILON**0.62)
_DIRECTIONS = 2
_ROUNDING = 50 * _EPSILON


@dataclass(frozen=True)
class Subject:
    """Losses of float64 tensors that can be evaluated again and again with the same randomness.

    Attributes:
        players: player → tensors; not only parameters, any leaves.
        closure: their losses.
        replay: what restores random state and buffers before each evaluation.
    """

    players: Players
    closure: Closure
    replay: Replay


def random_direction(players: Players, generator: torch.Generator) -> Vector:
    """Return a vector of normal entries, drawn on the CPU so that it is the same on every device."""
    return Vector(
        {
            player: [normal_like(t, generator) for t in tensors]
            for player, tensors in players.items()
        }
    )


def normal_like(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return normal numbers of a tensor's shape and type, drawn on the CPU."""
    return torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)


def product_error(subject: Subject, *, generator: torch.Generator) -> float:
    """Return the relative error of J @ v against (ξ(θ + h v) − ξ(θ − h v)) / 2h for random v, the best of a few v and h.

    The best counts because a step over a kink makes a difference wrong; a wrong derivative is wrong
    for all of them.

    Raises:
        DoubleBackwardError: PyTorch refuses the second derivative.

    >>> x = torch.ones(3, dtype=torch.float64, requires_grad=True)
    >>> subject = Subject({"x": (x,)}, lambda: {"x": (x**4).sum()}, Replay())
    >>> product_error(subject, generator=torch.Generator().manual_seed(0)) < 1e-7
    True
    """
    best = float("inf")
    for _ in range(_DIRECTIONS):
        v = random_direction(subject.players, generator)
        product, gradient = _product(subject, v)
        for step in STEPS:
            difference = (_gradient_at(subject, v, step) - _gradient_at(subject, v, -step)) / (
                2 * step
            )
            best = min(
                best,
                relative_error(
                    product.flatten(),
                    difference.flatten(),
                    noise=_ROUNDING * float(gradient.norm()) / step,
                ),
            )
            if best <= TOLERANCE:
                return best
    return best


def gradient_error(subject: Subject, *, generator: torch.Generator) -> float:
    """Return the relative error of ⟨ξ, v⟩ against (f(θ + h v) − f(θ − h v)) / 2h of a one-player game, the best of a few v and h.

    >>> x = torch.ones(3, dtype=torch.float64, requires_grad=True)
    >>> subject = Subject({"x": (x,)}, lambda: {"x": (x**4).sum()}, Replay())
    >>> gradient_error(subject, generator=torch.Generator().manual_seed(0)) < 1e-7
    True
    """
    best = float("inf")
    for _ in range(_DIRECTIONS):
        v = random_direction(subject.players, generator)
        with subject.replay.again():
            point = Linearization(subject.players, subject.closure, order=1)
            gradient = point.gradient
        slope, floor = gradient.dot(v), 1e-3 * float(gradient.norm())  # ⟨ξ, v⟩ may nearly cancel
        for step in STEPS:
            above, below = _loss_at(subject, v, step), _loss_at(subject, v, -step)
            difference = torch.tensor((above - below) / (2 * step), dtype=torch.float64)
            noise = _ROUNDING * max(abs(above), abs(below)) / step
            best = min(best, relative_error(slope.cpu(), difference, noise=noise, floor=floor))
            if best <= TOLERANCE:
                return best
    return best


def relative_error(
    a: torch.Tensor, b: torch.Tensor, *, noise: float = 0.0, floor: float = 0.0
) -> float:
    """Return ‖a − b‖ / max(‖a‖, ‖b‖, floor); what rounding explains is taken off where the result would be above the tolerance.

    >>> relative_error(torch.tensor([2.0]), torch.tensor([1.0])), relative_error(torch.zeros(1), torch.zeros(1))
    (0.5, 0.0)
    """
    distance, size = float((a - b).norm()), max(float(a.norm()), float(b.norm()), floor)
    return (
        distance / size
        if 0 < distance <= TOLERANCE * size
        else max(0.0, distance - noise) / (size or 1.0)
    )


@contextmanager
def displaced(players: Players, v: Vector, step: float) -> Iterator[None]:
    """Move the players' tensors by ``step`` times ``v`` and back, exactly, when the block ends."""
    tensors = [t for own in players.values() for t in own]
    before = [t.detach().clone() for t in tensors]
    with torch.no_grad():
        torch._foreach_add_(tensors, v.tensors, alpha=step)
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(tensors, before)


def _product(subject: Subject, v: Vector) -> tuple[Vector, Vector]:
    # products too: afterwards the buffers that the graph may have saved are written again
    with subject.replay.again():
        point = Linearization(subject.players, subject.closure)
        product = point.jacobian @ v
        return product, point.gradient


def _gradient_at(subject: Subject, v: Vector, step: float) -> Vector:
    with displaced(subject.players, v, step), subject.replay.again():
        return Linearization(subject.players, subject.closure, order=1).gradient


def _loss_at(subject: Subject, v: Vector, step: float) -> float:
    with displaced(subject.players, v, step), subject.replay.again():
        return sum(Linearization(subject.players, subject.closure, order=0).losses.values())
