"""The course of several seeds as one: a median and the range around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from saddlepoint.report.charts import Points


@dataclass(frozen=True)
class Curve:
    """The course of one seed; ``ended`` when it broke off before the end of its budget."""

    x: Sequence[float]
    y: Sequence[float]
    ended: bool


def across_seeds(curves: Sequence[Curve], *, better: str) -> Points:
    """Return the median of the curves with their range from the smallest to the largest, on the grid of the longest of them.

    A seed that broke off counts as worse than all others from there on, so that the median does not
    get better when runs diverge; the line ends where half of the seeds have broken off. The range
    is that of the seeds that are still there.

    >>> curves = [Curve([1, 2], [4.0, 2.0], ended=False), Curve([1, 2], [6.0, 6.0], ended=False), Curve([1], [5.0], ended=True)]
    >>> points = across_seeds(curves, better="smaller")
    >>> points.y, points.low, points.high
    ([5.0, 6.0], [4.0, 2.0], [6.0, 6.0])
    """
    worst = math.inf if better == "smaller" else -math.inf
    begun = [curve for curve in curves if len(curve.x)]
    whole = [curve for curve in begun if not curve.ended] or begun
    if not whole:
        return Points(x=[], y=[])
    grid = _grid(whole, start=max(curve.x[0] for curve in begun))
    values = np.stack([_on(grid, curve, worst) for curve in curves])
    there = np.isfinite(values)
    return Points(
        x=grid.tolist(),
        y=_finite(np.median(values, axis=0)),
        low=_finite(np.where(there, values, np.inf).min(axis=0)),
        high=_finite(np.where(there, values, -np.inf).max(axis=0)),
    )


def _grid(curves: Sequence[Curve], start: float) -> np.ndarray:
    """Return where the longest curve was measured, between the latest start and the earliest end: nothing is extrapolated."""
    longest = max(curves, key=lambda curve: len(curve.x))
    end = min(curve.x[-1] for curve in curves)
    grid: np.ndarray = np.unique(np.clip(longest.x, min(start, end), end))
    return grid


def _on(grid: np.ndarray, curve: Curve, worst: float) -> np.ndarray:
    if not len(curve.x):
        return np.full(len(grid), worst)
    values: np.ndarray = np.interp(grid, curve.x, curve.y, right=worst if curve.ended else None)
    return values


def _finite(values: np.ndarray) -> list[float | None]:
    return [float(value) if math.isfinite(value) else None for value in values]
