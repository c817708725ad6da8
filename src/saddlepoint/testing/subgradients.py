"""Whether what autograd returns at a point is a subgradient there."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from saddlepoint.curvature import Linearization
from saddlepoint.errors import UsageError
from saddlepoint.optim.maps import project_simplex

Function = Callable[[Tensor], Tensor]

_DECADES = 5
_ROUNDING = 16.0  # units in the last place of f(x) and ⟨g, y − x⟩
_ITERATIONS = 5000


def check_subgradient(
    f: Function,
    x: Tensor,
    subgradient: Tensor | None = None,
    *,
    convex: bool = True,
    samples: int = 200,
    radius: float = 1e-4,
    tolerance: float = 1e-3,
    generator: torch.Generator | None = None,
) -> None:
    """Raise AssertionError, with numbers, unless the gradient that autograd returns for f at x is a subgradient g.

    ``convex=True`` tests f(y) ≥ f(x) + ⟨g, y − x⟩, where y lies at distances from radius to 10⁵ ·
    radius along ±g, the coordinate axes and random directions. ``convex=False`` tests that g lies
    in the Clarke set, the convex hull of the gradients beside x: it takes them at random points of
    a ball around x and finds the distance of g to their hull. A test by samples can miss a wrong g;
    what it refuses, the convex one refuses for good. The other one knows a part of the hull only,
    which with many kinks at x in many dimensions is a small one, so that it may refuse a true g
    near the hull's corners; ``samples`` makes the part larger.

    Args:
        f: a scalar of one tensor.
        x: the point, of any shape, floating; float64 for choice, since rounding hides errors.
        subgradient: g, where it is not autograd's.
        convex: whether f is convex.
        samples: how many points to try.
        radius: the smallest distance of y, or the radius of the ball; f's curvature times it must
            be small against the tolerance.
        tolerance: how far below the plane f(y) may lie, as a share of ‖y − x‖, or how far g from
            the hull.
        generator: the source of the points; the same ones every time when left out.

    Raises:
        AssertionError: g is no subgradient, or f or its gradient is not finite.
        UsageError: x is not floating, a subgradient of another shape, or a number that must be
            positive and is not.

    Reference: Clarke (1983), Optimization and Nonsmooth Analysis, theorem 2.5.1.

    >>> zero = torch.zeros((), dtype=torch.float64)
    >>> check_subgradient(torch.abs, zero)
    >>> check_subgradient(lambda x: x.relu() - (-x).relu(), zero, convex=False)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    AssertionError: The gradient of autograd, 0, is not in the Clarke set of f at x: it is 1 away
    from the convex hull of 200 gradients ...
    """
    _check_arguments(x, subgradient, samples, radius, tolerance)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    what = "The gradient of autograd" if subgradient is None else "The given subgradient"
    g = _gradient(f, x) if subgradient is None else subgradient.detach()
    assert bool(g.isfinite().all()), (
        f"{what}, {_shown(g)}, is not finite, so it is no subgradient of f at x."
    )
    what = f"{what}, {_shown(g)},"
    if convex:
        _check_planes(f, x.detach(), g, what, _offsets(g, samples, radius, generator), tolerance)
    else:
        _check_hull(f, x.detach(), g, what, _ball(x, samples, radius, generator), radius, tolerance)


def _check_planes(
    f: Function, x: Tensor, g: Tensor, what: str, offsets: Tensor, tolerance: float
) -> None:
    here = _value(f, x)
    assert math.isfinite(here), f"f is {here} at x, so it has no subgradient there."
    worst, sentence = tolerance, ""
    for offset in offsets:
        y = x + offset.reshape(x.shape)
        move = (y - x).double()  # as it was rounded
        products, distance, there = g.double() * move, float(move.norm()), _value(f, y)
        plane = here + float(products.sum())
        rounding = _ROUNDING * torch.finfo(x.dtype).eps * (abs(here) + float(products.abs().sum()))
        assert not math.isnan(there), (
            f"f is nan at distance {distance:.1g} from x. Let it be inf outside of its domain."
        )
        if distance > 0 and (plane - there - rounding) / distance > worst:
            worst = (plane - there - rounding) / distance
            sentence = (
                f"f(x) + ⟨g, y − x⟩ = {plane:.6g} lies above f(y) = {there:.6g} at y = {_shown(y)},"
                f" {distance:.3g} from x"
            )
    assert not sentence, (
        f"{what} is no subgradient of f at x: {sentence}. If f is not convex, use convex=False."
    )


def _check_hull(
    f: Function, x: Tensor, g: Tensor, what: str, offsets: Tensor, radius: float, tolerance: float
) -> None:
    gradients = torch.stack(
        [_gradient(f, x + offset.reshape(x.shape)).reshape(-1).double() for offset in offsets]
    )
    assert bool(gradients.isfinite().all()), (
        f"A gradient of f within {radius:.1g} of x is not finite: f is not Lipschitz there."
    )
    distance = _distance_to_hull(gradients - g.reshape(-1).double(), tolerance)
    assert distance <= tolerance, (
        f"{what} is not in the Clarke set of f at x: it is {distance:.3g} away from the convex hull"
        f" of {len(gradients)} gradients within {radius:.1g} of x, which run from"
        f" {_shown(gradients.amin(0))} to {_shown(gradients.amax(0))}."
    )


def _distance_to_hull(rows: Tensor, tolerance: float) -> float:
    """Return the distance of 0 to the convex hull of the rows, by accelerated projected gradient on the weights of the rows.

    It stops where the distance is at most ``tolerance``, or where a plane between 0 and the rows
    shows that it is more, and how much.
    """
    rows = torch.unique(rows, dim=0)  # of a piecewise linear f few are left
    size = float(torch.linalg.matrix_norm(rows, 2)) ** 2
    weights = ahead = rows.new_full((len(rows),), 1 / len(rows))
    momentum, reach = 1.0, 0.0
    for _ in range(_ITERATIONS):
        point = weights @ rows
        reach = float(point.norm())
        if (
            reach <= tolerance
            or float((rows @ point).min()) >= max(0.999 * reach, tolerance) * reach
        ):
            break
        stepped = project_simplex(ahead - rows @ (ahead @ rows) / size)
        if float((ahead - stepped) @ (stepped - weights)) > 0:
            momentum = 1.0  # it overshot: start the acceleration anew
        grown = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        ahead = stepped + (momentum - 1) / grown * (stepped - weights)
        weights, momentum = stepped, grown
    return reach


def _offsets(g: Tensor, samples: int, radius: float, generator: torch.Generator) -> Tensor:
    """Return y − x, shape (about samples, n): each direction once in every decade of distances, a third of them along axes at most."""
    n, count = g.numel(), max(samples // _DECADES, 6)
    axes = one_hot(
        torch.randperm(n, generator=generator, device=generator.device)[: count // 6], n
    ).to(g)
    own = g.reshape(1, -1)
    others = _normal((count - 2 - 2 * len(axes), n), g, generator)
    directions = normalize(torch.cat([own, -own, axes, -axes, others]), dim=1)
    return torch.cat(
        [
            radius * 10 ** (decade + _uniform(count, g, generator)) * directions
            for decade in range(_DECADES)
        ]
    )


def _ball(x: Tensor, samples: int, radius: float, generator: torch.Generator) -> Tensor:
    """Return points uniform in the ball around 0, shape (samples, n)."""
    n = x.numel()
    return (
        radius
        * _uniform(samples, x, generator) ** (1 / n)
        * normalize(_normal((samples, n), x, generator), dim=1)
    )


def _uniform(n: int, like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(n, 1, generator=generator, device=generator.device, dtype=like.dtype).to(
        like.device
    )


def _normal(shape: tuple[int, int], like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device, dtype=like.dtype).to(
        like.device
    )


def _gradient(f: Function, x: Tensor) -> Tensor:
    point = x.detach().clone().requires_grad_()
    return (
        Linearization({"x": (point,)}, lambda: {"x": f(point)}, order=1, check_finite=False)
        .gradient["x"][0]
        .detach()
    )


def _value(f: Function, x: Tensor) -> float:
    return Linearization({"x": (x,)}, lambda: {"x": f(x)}, order=0, check_finite=False).losses["x"]


def _shown(tensor: Tensor) -> str:
    numbers = [f"{value + 0.0:.4g}" for value in tensor.reshape(-1)[:6].tolist()]
    if tensor.dim() == 0 or tensor.numel() == 1:
        return numbers[0]
    return f"({', '.join(numbers)}{', …' if tensor.numel() > len(numbers) else ''})"


def _check_arguments(
    x: Tensor, subgradient: Tensor | None, samples: int, radius: float, tolerance: float
) -> None:
    if not x.is_floating_point() or x.numel() == 0:
        raise UsageError(
            f"check_subgradient: x must hold floating numbers, float64 for choice, not {x.numel()}"
            f" of {x.dtype}."
        )
    if subgradient is not None and subgradient.shape != x.shape:
        raise UsageError(
            f"check_subgradient: the subgradient must have the shape of x, {tuple(x.shape)}, not"
            f" {tuple(subgradient.shape)}."
        )
    for name, value in (("samples", samples), ("radius", radius), ("tolerance", tolerance)):
        if not 0 < value < math.inf:
            raise UsageError(f"check_subgradient: {name} must be positive, not {value}.")
