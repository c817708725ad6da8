"""The charts of a run: metrics, losses, gradients, probes and the spectrum."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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
from saddlepoint.report.schemas import Line, Probe, RunFiles, Spectrum

WEIGHTS = {"": "generator", "ema/": "moving average", "average/": "optimizer's average"}
"""Prefix of a metric → the weights it was measured on."""

_TONES = {"": "0", "ema/": INK, "average/": "2"}

Pairs = list[tuple[int, float | None]]
"""(step, value)."""


class Clock:
    """Converts steps to seconds and gradient-equivalents by linear interpolation of the log."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._known = {}
        for axis in ("seconds", "gradient_equivalents"):
            known = [line for line in lines if getattr(line, axis) is not None]
            if len(known) > 1:
                steps = np.array([line.step for line in known], dtype=float)
                self._known[axis] = steps, np.array([getattr(line, axis) for line in known])

    def points(self, pairs: Pairs) -> dict[str, Points]:
        """Return values over steps as curves over every axis of the log."""
        steps, values = [float(step) for step, _ in pairs], [value for _, value in pairs]
        curves = {"steps": Points(x=steps, y=values)}
        for axis, (at, amounts) in self._known.items():
            curves[axis] = Points(x=np.interp(steps, at, amounts).tolist(), y=values)
        return curves


def metric_names(run: RunFiles) -> list[str]:
    """Return the metrics without their prefixes, in the problem's order."""
    names = dict.fromkeys(without_prefix(name) for name in run.metrics)
    for line in run.lines:
        names |= dict.fromkeys(without_prefix(name) for name in line.metrics)
    return list(names)


def without_prefix(name: str) -> str:
    """Return a metric's name without the prefix of its weights.

    >>> without_prefix("ema/recall[digit-cnn]"), without_prefix("modes")
    ('recall[digit-cnn]', 'modes')
    """
    for prefix in WEIGHTS:
        if prefix and name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def metric_charts(run: RunFiles) -> list[Chart]:
    """Return a chart of each metric with a line for each kind of weights."""
    directions = {"larger": "Larger is better.", "smaller": "Smaller is better."}
    clock, charts = Clock(run.lines), []
    for index, name in enumerate(metric_names(run)):
        series = []
        for mark, (prefix, weights) in enumerate(WEIGHTS.items()):
            key = prefix + name
            pairs = [(line.step, line.metrics[key]) for line in run.lines if key in line.metrics]
            series.append(
                Series(name=weights, tone=_TONES[prefix], points=clock.points(pairs), mark=mark)
            )
        meaning = run.meanings.get(name)
        note = "" if meaning is None else directions.get(meaning.better or "", "")
        charts.append(line_chart(f"metric-{index}", name, series, note=note))
    return [chart for chart in charts if chart is not None]


def training_charts(run: RunFiles) -> list[Chart]:
    """Return the charts of losses, gradients and probes for which the log has values."""
    lines, clock = run.lines, Clock(run.lines)

    def player_series(
        values: Callable[[Line], Mapping[str, float | None]], name: str = "{}"
    ) -> list[Series]:
        series = []
        for player, tone in PLAYERS.items():
            pairs = [(line.step, values(line)[player]) for line in lines if player in values(line)]
            series.append(Series(name=name.format(player), tone=tone, points=clock.points(pairs)))
        return series

    def probe_series(name: str, value: Callable[[Probe], float | None], mark: int = 0) -> Series:
        pairs = [(line.step, value(line.probe)) for line in lines if line.probe is not None]
        if all(measured is None for _, measured in pairs):
            pairs = []
        tone = INK if mark == 0 else "2"
        return Series(name=name, tone=tone, points=clock.points(pairs), mark=mark)

    charts = [
        _loss_chart(run, clock),
        line_chart(
            "gradients",
            "Gradient norms ‖ξ‖",
            player_series(lambda line: line.gradient_norms),
            log=True,
        ),
        line_chart(
            "rotation",
            "Rotation",
            [
                probe_series("share of rotation", lambda probe: probe.antisymmetric),
                *player_series(
                    lambda line: line.probe.update_cosine if line.probe else {},
                    "cosine of updates, {}",
                ),
            ],
            note=(
                "Share of rotation: ‖Aξ‖² / (‖Aξ‖² + ‖Sξ‖²) with J = S + A; cosine: between a"
                " player's last two updates."
            ),
        ),
        line_chart(
            "discriminator",
            "Discriminator",
            [
                probe_series("accuracy", lambda probe: probe.accuracy),
                probe_series("membership AUC", lambda probe: probe.membership_auc, mark=1),
            ],
            levels=[Level(tone=INK, name="chance", y=0.5)],
        ),
        line_chart(
            "saturation",
            "Share of discriminator outputs where the loss is flat",
            player_series(lambda line: line.probe.saturated if line.probe else {}),
        ),
        line_chart(
            "diversity",
            "Mean distance between samples, relative to the data",
            [probe_series("samples", lambda probe: probe.diversity)],
            levels=[Level(tone=INK, name="data", y=1.0)],
        ),
    ]
    return [chart for chart in charts if chart is not None]


def spectrum_charts(spectrum: Spectrum) -> list[Chart]:
    """Return the eigenvalues of the game in the complex plane, and those of each own Hessian."""
    values = list(dict.fromkeys([*spectrum.leading, *spectrum.smallest]))
    groups = {
        "attracts, Re λ > 0": [value for value in values if value[0] > 0],
        "repels, Re λ ≤ 0": [value for value in values if value[0] <= 0],
    }
    unfinished = "" if spectrum.converged else " Some eigenvalues did not converge."
    classes = ", ".join(spectrum.classes) or "no class holds within the tolerance"
    note = (
        f"{classes[0].upper()}{classes[1:]}; ‖ξ‖ {number(spectrum.gradient_norm)}.{unfinished}"
        " Scales are logarithmic far from 0."
    )
    charts = [plane_chart("spectrum", "Eigenvalues of the game's Jacobian J", groups, note=note)]
    if spectrum.own:
        own = {}
        for row, (player, found) in enumerate(spectrum.own.items()):
            own[player] = [(value, float(row)) for value in found]
        charts.append(
            plane_chart(
                "own-hessians",
                "Smallest and largest eigenvalues of each player's own Hessian",
                own,
                rows=list(own),
                note="Values on both sides of 0 mean a saddle of the player's own loss.",
            )
        )
    return charts


def _loss_chart(run: RunFiles, clock: Clock) -> Chart | None:
    series = []
    for player, tone in PLAYERS.items():
        # every step if the log has traces, otherwise the lines of the log
        pairs: Pairs = []
        for line in run.lines:
            if line.trace is not None:
                pairs += zip(line.trace.steps, line.trace.losses.get(player, ()), strict=False)
        if not pairs:
            pairs = [
                (line.step, line.losses[player]) for line in run.lines if player in line.losses
            ]
        series.append(Series(name=player, tone=tone, points=clock.points(pairs)))

    levels = []
    for player, healthy in ({} if run.summary is None else run.summary.loss_ranges).items():
        tone = PLAYERS.get(player, INK)
        if healthy.low is not None and healthy.high is not None:
            levels.append(Level(tone=tone, low=healthy.low, high=healthy.high))
        if healthy.chance is not None:
            levels.append(Level(tone=tone, y=healthy.chance))
    note = (
        "Shaded: healthy range of the loss; dotted: its value for a discriminator at chance level."
        if levels
        else "Healthy ranges are not drawn: the run has no summary that names them."
    )
    return line_chart("losses", "Losses", series, levels=levels, note=note)
