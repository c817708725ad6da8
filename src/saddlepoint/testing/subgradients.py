"""Check whether the gradient that autograd returns at a point is a subgradient."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from saddlepoint.curvature import Linearization
from saddlepoint.errors import UsageError
from saddlepoint.optim.proximal import project_simplex

Function = Callable[[Tensor], Tensor]

_DECADES = 5
"""Number of decades of distances at which the convex check looks."""

_ROUNDING = 16.0
"""Tolerated rounding error, in units in the last place of f(x) and ⟨g, y − x⟩."""

_ITERATIONS = 5000
"""Maximum number of iterations for the distance to the convex hull."""


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
    """Check that the gradient g that autograd returns for f at x is a subgradient.

    ``convex=True`` tests f(y) ≥ f(x) + ⟨g, y − x⟩ at points y with distances from radius to 10⁵ ·
    radius along ±g, the coordinate axes and random directions. ``convex=False`` tests that g lies
    in the Clarke subdifferential, the convex hull of the gradients near x: it computes gradients at
    random points of a ball around x and the distance of g to their hull.

    Both are tests by samples and may accept a wrong g. If the convex test fails, g is not a
    subgradient. The other test knows a part of the hull only, which is small if f has many kinks at
    x in many dimensions; it may then refuse a correct g near the boundary of the hull. A larger
    ``samples`` makes that less likely.

    Args:
        f: a scalar function of one tensor.
        x: the point, of any shape, floating; preferably float64, since rounding hides errors.
        subgradient: g, if it is not to be computed by autograd.
        convex: whether f is convex.
        samples: the number of points.
        radius: the smallest distance of y, or the radius of the ball; its product with the
            curvature of f must be small compared to the tolerance.
        tolerance: how far f(y) may lie below the plane, relative to ‖y − x‖, or how far g may lie
            from the hull.
        generator: generator of the points; None for one with a fixed seed.

    Raises:
        AssertionError: g is not a subgradient, or f or its gradient is not finite; the message
            contains the numbers.
        UsageError: x is not floating, the subgradient has another shape, or samples, radius or
            tolerance is not positive.

    Reference: Clarke (1983), Optimization and Nonsmooth Analysis, theorem 2.5.1.

    >>> zero = torch.zeros((), dtype=torch.float64)
    >>> check_subgradient(torch.abs, zero)
    >>> identity = lambda x: x.relu() - (-x).relu()
    >>> check_subgradient(identity, zero, convex=False)  # doctest: +ELLIPSIS, +NORMALIZE_WHITESPACE
    Traceback (most recent call last):
        ...
    AssertionError: The gradient of autograd, 0, is not in the Clarke set of f at x: it is 1 away
    from the convex hull of 200 gradients ...
    """
    if not x.is_floating_point() or x.numel() == 0:
        raise UsageError(
            "check_subgradient: x must contain floating-point numbers, preferably float64, not"
            f" {x.numel()} of {x.dtype}."
        )
    if subgradient is not None and subgradient.shape != x.shape:
        raise UsageError(
            f"check_subgradient: the subgradient must have the shape of x, {tuple(x.shape)}, not"
            f" {tuple(subgradient.shape)}."
        )
    for name, value in (("samples", samples), ("radius", radius), ("tolerance", tolerance)):
        if not 0 < value < math.inf:
            raise UsageError(f"check_subgradient: {name} must be positive, not {value}.")

    generator = torch.Generator().manual_seed(0) if generator is None else generator
    what = "The gradient of autograd" if subgradient is None else "The given subgradient"
    g = _gradient(f, x) if subgradient is None else subgradient.detach()
    what = f"{what}, {_format(g)},"
    assert bool(g.isfinite().all()), f"{what} is not finite, so it is not a subgradient of f at x."
    if convex:
        _check_convex(f, x.detach(), g, what, samples, radius, tolerance, generator)
    else:
        _check_clarke(f, x.detach(), g, what, samples, radius, tolerance, generator)


def _check_convex(
    f: Function,
    x: Tensor,
    g: Tensor,
    what: str,
    samples: int,
    radius: float,
    tolerance: float,
    generator: torch.Generator,
) -> None:
    # each direction once in every decade of distances; at most a third of them along axes
    n, count = g.numel(), max(samples // _DECADES, 6)
    chosen = torch.randperm(n, generator=generator, device=generator.device)[: count // 6]
    axes = one_hot(chosen, n).to(g)
    own = g.reshape(1, -1)
    others = _random(torch.randn, (count - 2 - 2 * len(axes), n), g, generator)
    directions = normalize(torch.cat([own, -own, axes, -axes, others]), dim=1)
    offsets = []
    for decade in range(_DECADES):
        exponents = decade + _random(torch.rand, (count, 1), g, generator)
        offsets.append(radius * 10**exponents * directions)

    here = _value(f, x)
    assert math.isfinite(here), f"f is {here} at x, so it has no subgradient there."
    worst, violation = tolerance, ""
    for offset in torch.cat(offsets):
        y = x + offset.reshape(x.shape)
        move = (y - x).double()  # the offset after rounding
        products, distance, there = g.double() * move, float(move.norm()), _value(f, y)
        plane = here + float(products.sum())
        rounding = _ROUNDING * torch.finfo(x.dtype).eps * (abs(here) + float(products.abs().sum()))
        assert not math.isnan(there), (
            f"f is nan at distance {distance:.1g} from x. It should be inf outside of its domain."
        )
        if distance > 0 and (plane - there - rounding) / distance > worst:
            worst = (plane - there - rounding) / distance
            violation = (
                f"f(x) + ⟨g, y − x⟩ = {plane:.6g} lies above f(y) = {there:.6g} at y ="
                f" {_format(y)}, {distance:.3g} from x"
            )
    assert not violation, (
        f"{what} is not a subgradient of f at x: {violation}. If f is not convex, use convex=False."
    )


def _check_clarke(
    f: Function,
    x: Tensor,
    g: Tensor,
    what: str,
    samples: int,
    radius: float,
    tolerance: float,
    generator: torch.Generator,
) -> None:
    # points uniform in the ball
    n = x.numel()
    distances = radius * _random(torch.rand, (samples, 1), x, generator) ** (1 / n)
    offsets = distances * normalize(_random(torch.randn, (samples, n), x, generator), dim=1)

    rows = [_gradient(f, x + offset.reshape(x.shape)).reshape(-1).double() for offset in offsets]
    gradients = torch.stack(rows)
    assert bool(gradients.isfinite().all()), (
        f"A gradient of f within {radius:.1g} of x is not finite: f is not Lipschitz there."
    )
    distance = _distance_to_hull(gradients - g.reshape(-1).double(), tolerance)
    assert distance <= tolerance, (
        f"{what} is not in the Clarke set of f at x: it is {distance:.3g} away from the convex hull"
        f" of {len(gradients)} gradients within {radius:.1g} of x, which range from"
        f" {_format(gradients.amin(0))} to {_format(gradients.amax(0))}."
    )


def _distance_to_hull(rows: Tensor, tolerance: float) -> float:
    """Return the distance of 0 to the convex hull of the rows.

    Accelerated projected gradient descent on the weights of the rows. It stops when the distance is
    at most ``tolerance``, or when a plane between 0 and the rows proves that it is greater.
    """
    rows = torch.unique(rows, dim=0)  # few rows remain if f is piecewise linear
    size = float(torch.linalg.matrix_norm(rows, 2)) ** 2
    # the weights converge slowly where rows differ little; a row itself is in the hull too
    nearest_row = float(rows.norm(dim=1).min())
    if nearest_row <= tolerance:
        return nearest_row
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
            momentum = 1.0  # overshot: restart the acceleration
        grown = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        ahead = stepped + (momentum - 1) / grown * (stepped - weights)
        weights, momentum = stepped, grown
    return min(reach, nearest_row)


def _random(
    sample: Callable[..., Tensor], shape: tuple[int, int], like: Tensor, generator: torch.Generator
) -> Tensor:
    """Return ``torch.rand`` or ``torch.randn`` numbers, drawn on the generator's device."""
    drawn = sample(shape, generator=generator, device=generator.device, dtype=like.dtype)
    return drawn.to(like.device)


def _gradient(f: Function, x: Tensor) -> Tensor:
    point = x.detach().clone().requires_grad_()
    linearization = Linearization(
        {"x": (point,)}, lambda: {"x": f(point)}, order=1, check_finite=False
    )
    return linearization.gradient["x"][0].detach()


def _value(f: Function, x: Tensor) -> float:
    return Linearization({"x": (x,)}, lambda: {"x": f(x)}, order=0, check_finite=False).losses["x"]


def _format(tensor: Tensor) -> str:
    numbers = [f"{value + 0.0:.4g}" for value in tensor.reshape(-1)[:6].tolist()]
    if tensor.dim() == 0 or tensor.numel() == 1:
        return numbers[0]
    return f"({', '.join(numbers)}{', …' if tensor.numel() > len(numbers) else ''})"
