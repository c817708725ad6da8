"""The charts of one problem of a comparison: metrics, losses and gradients, robustness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from saddlepoint.report.charts import (
    AXES,
    INK,
    PLAYERS,
    TONES,
    Cell,
    Chart,
    Level,
    Points,
    Series,
    heat_map,
    line_chart,
)
from saddlepoint.report.formatting import MISSING, number
from saddlepoint.report.schemas import Method, Problem, Robustness

LOG_SCALE_FACTOR = 30.0
"""A metric with positive values whose ratio is above this has a logarithmic scale."""


@dataclass(frozen=True)
class Curve:
    """A metric of one seed; ``broken_off`` if the run diverged or failed."""

    x: Sequence[float]
    y: Sequence[float]
    broken_off: bool


def across_seeds(curves: Sequence[Curve], *, better: str) -> Points:
    """Return the median of the curves and their minimum and maximum, on the longest curve's grid.

    After its last point, a run that broke off counts as worse than all others, so that the median
    does not improve when runs diverge; the line ends where half of the runs have broken off. The
    band covers the remaining runs. The grid reaches from the latest start to the earliest end, so
    that nothing is extrapolated.

    >>> curves = [Curve([1, 2], y, broken_off=False) for y in ([4.0, 2.0], [6.0, 6.0])]
    >>> diverged = Curve([1], [5.0], broken_off=True)
    >>> points = across_seeds([*curves, diverged], better="smaller")
    >>> points.y, points.low, points.high
    ([5.0, 6.0], [4.0, 2.0], [6.0, 6.0])
    """
    worst = math.inf if better == "smaller" else -math.inf
    started = [curve for curve in curves if len(curve.x)]
    complete = [curve for curve in started if not curve.broken_off] or started
    if not complete:
        return Points(x=[], y=[])

    longest = max(complete, key=lambda curve: len(curve.x))
    start, end = max(curve.x[0] for curve in started), min(curve.x[-1] for curve in complete)
    grid = np.unique(np.clip(longest.x, min(start, end), end))
    values = np.full((len(curves), len(grid)), worst)
    for row, curve in zip(values, curves, strict=True):
        if len(curve.x):
            right = worst if curve.broken_off else None
            row[:] = np.interp(grid, curve.x, curve.y, right=right)

    def finite(row: np.ndarray) -> list[float | None]:
        return [float(value) if math.isfinite(value) else None for value in row]

    there = np.isfinite(values)
    return Points(
        x=grid.tolist(),
        y=finite(np.median(values, axis=0)),
        low=finite(np.where(there, values, np.inf).min(axis=0)),
        high=finite(np.where(there, values, -np.inf).max(axis=0)),
    )


def metric_chart(problem: Problem, id: str, metric: str, *, group: str) -> Chart | None:
    """Return the median and range over seeds of a metric of every method, over every axis."""
    decisive = metric == problem.metric
    better = problem.better if decisive else problem.metrics[metric].better or "smaller"
    target = problem.target if decisive else None
    series = []
    for method, tone, mark in method_styles(problem):
        points = {}
        # the axis of the budget first: all runs end together on it
        for axis in dict.fromkeys([problem.axis, *AXES]):
            curves = []
            for run in method.runs:
                x, y = [], []
                for point in run.points:
                    at, value = point.at(axis), point.metrics.get(metric)
                    if at is not None and value is not None:
                        x.append(at)
                        y.append(value)
                curves.append(Curve(x, y, broken_off=run.status != "finished"))
            median = across_seeds(curves, better=better)
            if median.x:
                points[axis] = median
        series.append(Series(name=method.name, tone=tone, mark=mark, points=points))

    values = []
    for one in series:
        for points_of_axis in one.points.values():
            values += [value for value in points_of_axis.y if value is not None]
    wide = bool(values) and min(values) > 0 and max(values) > LOG_SCALE_FACTOR * min(values)
    return line_chart(
        id,
        metric,
        series,
        levels=(
            [] if target is None else [Level(tone=INK, name=f"target {number(target)}", y=target)]
        ),
        log=wide and (target is None or target > 0),
        note=(
            "Lines: median over seeds; bands: minimum and maximum over seeds. Runs that diverged or"
            " failed count as worse than all others."
        ),
        group=group,
    )


def first_seed_charts(problem: Problem, id: str, *, group: str) -> list[Chart]:
    """Return each player's losses and gradient norms in the first seed."""
    charts = []
    for kind, title, field, log in (
        ("losses", "Loss of the {}", "losses", False),
        ("gradients", "Gradient norm of the {}", "gradient_norms", True),
    ):
        for player in PLAYERS:
            series = []
            for method, tone, mark in method_styles(problem):
                run, points = method.example_run, {}
                for axis in AXES:
                    x, y = [], []
                    for point in run.points if run is not None else ():
                        at, values = point.at(axis), getattr(point, field)
                        if at is not None and player in values:
                            x.append(at)
                            y.append(values[player])
                    if x:
                        points[axis] = Points(x=x, y=y)
                series.append(Series(name=method.name, tone=tone, mark=mark, points=points))
            name = f"{id}-{kind}-{player}"
            charts.append(line_chart(name, title.format(player), series, log=log, group=group))
    return [chart for chart in charts if chart is not None]


def robustness_chart(problem: Problem, id: str) -> Chart | None:
    """Return the success rates at multiples of the tuned learning rates, None if not measured."""
    measured = {}
    for method in problem.ranked:
        if method.robustness is not None:
            measured[method.name] = method.robustness
    if not measured:
        return None
    factors = sorted(set().union(*(found.factors for found in measured.values())))
    cells = []
    for found in measured.values():
        row = [_robustness_cell(found, factor) for factor in factors]
        cells.append(row)
    return heat_map(
        id,
        "Success at multiples of the learning rate",
        columns=[f"× {factor:.3g}" for factor in factors],
        rows=list(measured),
        cells=cells,
        note=(
            "Seeds that reach the target, out of those tried, with the tuned learning rates"
            " multiplied by a factor. Hover over a cell to see its seeds."
        ),
    )


def method_styles(problem: Problem) -> list[tuple[Method, str, int]]:
    """Return every method with its tone and mark in all charts; the baseline has the tone "ink"."""
    styles, index = [], 0
    for method in problem.ranked:
        if method.name == problem.baseline:
            styles.append((method, INK, 0))
        else:
            styles.append((method, str(index % TONES), index + 1))
            index += 1
    return styles


def _robustness_cell(found: Robustness, factor: float) -> Cell:
    row = found.factors.index(factor) if factor in found.factors else len(found.success)
    outcomes = found.success[row] if row < len(found.success) else []
    values = found.values[row] if row < len(found.values) else ()
    known = [success for success in outcomes if success is not None]
    if not known:
        return Cell(share=None, text=MISSING)
    details = []
    for index, (seed, success) in enumerate(zip(found.seeds, outcomes, strict=False)):
        value = values[index] if index < len(values) else None
        if success is None:
            details.append(f"seed {seed}: not run yet")
        else:
            text = "no value" if value is None else number(value)
            details.append(f"seed {seed}: {text}, {'reached' if success else 'missed'}")
    share = sum(known) / len(known)
    return Cell(share=share, text=f"{sum(known)}/{len(known)}", details="; ".join(details))
