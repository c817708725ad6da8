"""The charts of one problem of a comparison: quality over what it costs, losses and gradients, robustness."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain

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
    line_chart,
    map_chart,
)
from saddlepoint.report.comparison_file import Method, Point, Problem, Robustness, Run
from saddlepoint.report.formatting import MISSING, number
from saddlepoint.report.seeds import Curve, across_seeds

SPAN = 30.0
"""A metric whose values are positive and differ by more than this factor is drawn on a logarithmic scale."""

_HOW = (
    "Lines: median over seeds; bands: from the smallest to the largest seed. A seed that broke off"
    " counts as worse than all others."
)


def quality_chart(problem: Problem, id: str, metric: str, *, group: str) -> Chart | None:
    """Return a metric over seconds, steps and gradient-equivalents: each method's median and range over seeds."""
    better = (
        problem.better if metric == problem.metric else problem.metrics[metric].better or "smaller"
    )
    series = [
        Series(
            name=method.name,
            tone=tone,
            mark=mark,
            points=_over_axes(problem, method.runs, metric, better),
        )
        for method, tone, mark in toned(problem)
    ]
    target = problem.target if metric == problem.metric else None
    levels = [] if target is None else [Level(tone=INK, name=f"target {number(target)}", y=target)]
    log = _spans(series) and (target is None or target > 0)
    return line_chart(id, metric, series, levels=levels, log=log, note=_HOW, group=group)


def first_seed_charts(problem: Problem, id: str, *, group: str) -> list[Chart]:
    """Return each player's losses and gradient norms in the first seed."""
    kinds: list[tuple[str, str, Callable[[Point], Mapping[str, float | None]], bool]] = [
        ("losses", "Loss of the {}", lambda point: point.losses, False),
        ("gradients", "Gradient norm of the {}", lambda point: point.gradient_norms, True),
    ]
    charts = []
    for kind, title, values, log in kinds:
        for player in PLAYERS:
            series = [
                Series(
                    name=method.name,
                    tone=tone,
                    mark=mark,
                    points=_of_player(method, values, player),
                )
                for method, tone, mark in toned(problem)
            ]
            charts.append(
                line_chart(
                    f"{id}-{kind}-{player}", title.format(player), series, log=log, group=group
                )
            )
    return [chart for chart in charts if chart is not None]


def robustness_chart(problem: Problem, id: str) -> Chart | None:
    """Return the share of seeds that succeed at multiples of the tuned learning rate; None where it was not measured."""
    maps = {
        method.name: method.robustness for method in problem.ranked if method.robustness is not None
    }
    if not maps:
        return None
    factors = sorted(set(chain.from_iterable(found.factors for found in maps.values())))
    cells = [[_cell(found, factor) for factor in factors] for found in maps.values()]
    columns = [f"× {factor:.3g}" for factor in factors]
    note = (
        "Seeds that reach the target, of those tried, when the tuned learning rates are multiplied."
        " Point at a cell for its seeds."
    )
    return map_chart(
        id,
        "Success at multiples of the learning rate",
        columns=columns,
        rows=list(maps),
        cells=cells,
        note=note,
    )


def toned(problem: Problem) -> list[tuple[Method, str, int]]:
    """Return every method with its tone and mark, the same in all charts of the problem; the baseline has the tone of ink."""
    others = [method for method in problem.ranked if method.name != problem.baseline]
    tones = {method.name: (str(index % TONES), index + 1) for index, method in enumerate(others)}
    return [(method, *tones.get(method.name, (INK, 0))) for method in problem.ranked]


def first_run(method: Method) -> Run | None:
    """Return the run of the least seed that was measured on its way, one with pictures before others."""
    measured = sorted((run for run in method.runs if run.points), key=lambda run: run.seed)
    return next(
        (run for run in measured if any(point.picture for point in run.points)),
        measured[0] if measured else None,
    )


def _over_axes(
    problem: Problem, runs: Sequence[Run], metric: str, better: str
) -> dict[str, Points]:
    """Return a method's course over every axis, that of the budget first: on it all runs end together."""
    axes = dict.fromkeys([problem.axis, *AXES])
    courses = {
        axis: across_seeds([_curve(run, axis, metric) for run in runs], better=better)
        for axis in axes
    }
    return {axis: points for axis, points in courses.items() if points.x}


def _curve(run: Run, axis: str, metric: str) -> Curve:
    found = [
        (at, value)
        for point in run.points
        if (at := _at(point, axis)) is not None and (value := point.metrics.get(metric)) is not None
    ]
    return Curve(
        [at for at, _ in found], [value for _, value in found], ended=run.status != "finished"
    )


def _of_player(
    method: Method, values: Callable[[Point], Mapping[str, float | None]], player: str
) -> dict[str, Points]:
    run, courses = first_run(method), {}
    on_its_way = [] if run is None else [point for point in run.points if player in values(point)]
    for axis in AXES:
        pairs = [
            (at, values(point)[player])
            for point in on_its_way
            if (at := _at(point, axis)) is not None
        ]
        courses[axis] = Points(x=[at for at, _ in pairs], y=[value for _, value in pairs])
    return {axis: points for axis, points in courses.items() if points.x}


def _at(point: Point, axis: str) -> float | None:
    return {
        "seconds": point.seconds,
        "steps": point.step,
        "gradient_equivalents": point.gradient_equivalents,
    }[axis]


def _spans(series: Sequence[Series]) -> bool:
    values = [
        value
        for one in series
        for points in one.points.values()
        for value in points.y
        if value is not None
    ]
    return bool(values) and min(values) > 0 and max(values) > SPAN * min(values)


def _cell(found: Robustness, factor: float) -> Cell:
    if factor not in found.factors:
        return Cell(share=None, text=MISSING)
    row = found.factors.index(factor)
    outcomes = found.success[row] if row < len(found.success) else []
    values = found.values[row] if row < len(found.values) else []
    known = [success for success in outcomes if success is not None]
    if not known:
        return Cell(share=None, text=MISSING)
    padded = [*values, *[None] * len(outcomes)]
    details = [
        f"seed {seed}: {_ended(ok, value)}"
        for seed, ok, value in zip(found.seeds, outcomes, padded, strict=False)
    ]
    return Cell(
        share=sum(known) / len(known), text=f"{sum(known)}/{len(known)}", details="; ".join(details)
    )


def _ended(success: bool | None, value: float | None) -> str:
    if success is None:
        return "not run yet"
    said = "no value" if value is None else number(value)
    return f"{said}, {'reached' if success else 'missed'}"
