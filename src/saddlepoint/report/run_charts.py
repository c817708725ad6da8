"""The charts of a run: quality, losses, gradients, rotation, what the discriminator knows, and the spectrum."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from saddlepoint.report.charts import (
    INK,
    PLAYERS,
    Chart,
    Level,
    Points,
    Series,
    line_chart,
    plane_chart,
)
from saddlepoint.report.formatting import number
from saddlepoint.report.run_files import Line, LossRange, Probe, RunFiles, Spectrum

WEIGHTS = {"": "generator", "ema/": "moving average", "average/": "optimizer's average"}
"""Whose metrics a prefix marks."""

_TONES = {"": "0", "ema/": INK, "average/": "2"}
_DIRECTIONS = {"larger": "Larger is better.", "smaller": "Smaller is better."}

Pairs = list[tuple[int, float | None]]


class Clock:
    """Turns steps into seconds and gradient-equivalents, linearly between the lines of the log."""

    def __init__(self, lines: Sequence[Line]) -> None:
        known = {
            "seconds": [(line.step, line.seconds) for line in lines if line.seconds is not None],
            "gradient_equivalents": [
                (line.step, line.gradient_equivalents)
                for line in lines
                if line.gradient_equivalents is not None
            ],
        }
        self._known = {
            axis: np.array(pairs, dtype=float).T for axis, pairs in known.items() if len(pairs) > 1
        }

    def points(self, pairs: Pairs) -> dict[str, Points]:
        """Return values over steps as courses over every axis that the log has."""
        steps, values = [float(step) for step, _ in pairs], [value for _, value in pairs]
        courses = {"steps": Points(x=steps, y=values)}
        for axis, (at, amounts) in self._known.items():
            courses[axis] = Points(x=np.interp(steps, at, amounts).tolist(), y=values)
        return courses


def metric_names(run: RunFiles) -> list[str]:
    """Return the metrics without their prefixes, in the order in which the problem lists them."""
    found = [*run.metrics, *(name for line in run.lines for name in line.metrics)]
    return list(dict.fromkeys(bare(name) for name in found))


def bare(name: str) -> str:
    """Return a metric's name without the prefix of its weights.

    >>> bare("ema/recall[digit-cnn]"), bare("modes")
    ('recall[digit-cnn]', 'modes')
    """
    return next(
        (name.removeprefix(prefix) for prefix in WEIGHTS if prefix and name.startswith(prefix)),
        name,
    )


def quality_charts(run: RunFiles) -> list[Chart]:
    """Return a chart of each metric with a line for each kind of weights."""
    clock, charts = Clock(run.lines), []
    for index, name in enumerate(metric_names(run)):
        series = [
            Series(
                name=who,
                tone=_TONES[prefix],
                points=clock.points(_logged(run.lines, prefix + name)),
                mark=mark,
            )
            for mark, (prefix, who) in enumerate(WEIGHTS.items())
        ]
        meaning = run.meanings.get(name)
        note = "" if meaning is None else _DIRECTIONS.get(meaning.better or "", "")
        charts.append(line_chart(f"metric-{index}", name, series, note=note))
    return [chart for chart in charts if chart is not None]


def training_charts(run: RunFiles) -> list[Chart]:
    """Return the charts of losses, gradients and probes that the log has something for."""
    lines, clock = run.lines, Clock(run.lines)

    def of_players(values: Callable[[Line], Mapping[str, float | None]]) -> list[Series]:
        return [
            Series(name=player, tone=tone, points=clock.points(_pairs(lines, values, player)))
            for player, tone in PLAYERS.items()
        ]

    def of_probes(names: Mapping[str, Callable[[Probe], float | None]]) -> list[Series]:
        return [
            Series(
                name=name,
                tone=INK if mark == 0 else "2",
                points=clock.points(_probed(lines, value)),
                mark=mark,
            )
            for mark, (name, value) in enumerate(names.items())
        ]

    cosines = [
        Series(name=f"cosine of updates, {one.name}", tone=one.tone, points=one.points)
        for one in of_players(lambda line: line.probe.update_cosine if line.probe else {})
    ]
    half, equal = (
        Level(tone=INK, name="chance", y=0.5),
        Level(tone=INK, name="as far apart as data", y=1.0),
    )
    knowing = {
        "accuracy": lambda probe: probe.accuracy,
        "training ranked above held-out": lambda probe: probe.membership_auc,
    }
    turning = (
        "Share of the field's change along itself that only turns; cosine between a player's last"
        " two updates."
    )
    charts = [
        _losses(run, clock),
        line_chart(
            "gradients",
            "Gradient norms ‖ξ‖",
            of_players(lambda line: line.gradient_norms),
            log=True,
        ),
        line_chart(
            "rotation",
            "Rotation",
            [*of_probes({"share of rotation": lambda probe: probe.antisymmetric}), *cosines],
            note=turning,
        ),
        line_chart("knowing", "What the discriminator knows", of_probes(knowing), levels=[half]),
        line_chart(
            "saturation",
            "Share of outputs where the loss is flat",
            of_players(lambda line: line.probe.saturated if line.probe else {}),
        ),
        line_chart(
            "diversity",
            "Distance between samples, as a share of data's",
            of_probes({"samples": lambda p: p.diversity}),
            levels=[equal],
        ),
    ]
    return [chart for chart in charts if chart is not None]


def spectrum_charts(spectrum: Spectrum) -> list[Chart]:
    """Return the eigenvalues of the game in the complex plane, and those of the players' own Hessians on their lines."""
    values = list(dict.fromkeys([*spectrum.leading, *spectrum.smallest]))
    groups = {
        "attracts, Re λ > 0": [value for value in values if value[0] > 0],
        "repels, Re λ ≤ 0": [value for value in values if value[0] <= 0],
    }
    complete = "" if spectrum.converged else " Some eigenvalues did not converge."
    classes = ", ".join(spectrum.classes) or "no class holds beyond the tolerance"
    note = (
        f"{classes[0].upper()}{classes[1:]}; ‖ξ‖ {number(spectrum.gradient_norm)}.{complete} Scales"
        " are logarithmic far from 0."
    )
    own = {
        player: [(value, float(row)) for value in found]
        for row, (player, found) in enumerate(spectrum.own.items())
    }
    charts = [plane_chart("spectrum", "Eigenvalues of the game's Jacobian J", groups, note=note)]
    if own:
        said = "Values on both sides of 0 are a saddle of the player's own loss."
        charts.append(
            plane_chart(
                "own",
                "Eigenvalues of each player's own Hessian, both ends",
                own,
                rows=list(own),
                note=said,
            )
        )
    return charts


def _losses(run: RunFiles, clock: Clock) -> Chart | None:
    series = [
        Series(name=player, tone=tone, points=clock.points(_traced(run.lines, player)))
        for player, tone in PLAYERS.items()
    ]
    ranges = {} if run.summary is None else run.summary.loss_ranges
    levels = [level for player, healthy in ranges.items() for level in _range(healthy, player)]
    note = (
        "Shaded: the healthy range of the loss in use; dotted: a discriminator that tells nothing"
        " apart."
    )
    missing = "The healthy ranges are not drawn: the run has no summary that names them."
    return line_chart("losses", "Losses", series, levels=levels, note=note if levels else missing)


def _range(healthy: LossRange, player: str) -> list[Level]:
    tone = PLAYERS.get(player, INK)
    shaded = (
        [Level(tone=tone, low=healthy.low, high=healthy.high)]
        if healthy.low is not None and healthy.high is not None
        else []
    )
    return [*shaded, Level(tone=tone, y=healthy.chance)] if healthy.chance is not None else shaded


def _logged(lines: Iterable[Line], metric: str) -> Pairs:
    return [(line.step, line.metrics[metric]) for line in lines if metric in line.metrics]


def _pairs(
    lines: Iterable[Line], values: Callable[[Line], Mapping[str, float | None]], player: str
) -> Pairs:
    return [(line.step, values(line)[player]) for line in lines if player in values(line)]


def _probed(lines: Iterable[Line], value: Callable[[Probe], float | None]) -> Pairs:
    found = [(line.step, value(line.probe)) for line in lines if line.probe is not None]
    return found if any(number is not None for _, number in found) else []


def _traced(lines: Sequence[Line], player: str) -> Pairs:
    """Return a player's losses as finely as they were sampled."""
    fine: Pairs = []
    for line in lines:
        if line.trace is not None:
            fine += zip(line.trace.steps, line.trace.losses.get(player, ()), strict=False)
    return fine or _pairs(lines, lambda line: line.losses, player)
