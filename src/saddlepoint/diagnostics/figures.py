"""Figures of a diagnosis, drawn with Matplotlib as PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from saddlepoint.diagnostics.findings import Finding
from saddlepoint.diagnostics.history import History, Series
from saddlepoint.diagnostics.loss_ranges import LOSS_RANGES
from saddlepoint.diagnostics.rotation import PathAngle
from saddlepoint.diagnostics.spectrum import GameSpectrum
from saddlepoint.extras import needs

with needs("train", "saddlepoint.diagnostics.figures"):
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

COLOURS = {"discriminator": "#c2571a", "generator": "#1f5fa8", "game": "#444444"}
"""Orange and blue are distinguishable without red-green vision, and in print."""

GREY = "#8a8a8a"


def figures(
    history: History,
    findings: Sequence[Finding],
    spectrum: GameSpectrum | None,
    path: PathAngle | None,
) -> dict[str, bytes]:
    """Return name → PNG: "course", and "spectrum" and "path" where they were measured."""
    drawn = {"course": course(history, findings)}
    if spectrum is not None:
        drawn["spectrum"] = spectrum_figure(spectrum)
    if path is not None:
        drawn["path"] = path_figure(path)
    return {name: png(figure) for name, figure in drawn.items()}


def course(history: History, findings: Sequence[Finding]) -> Figure:
    """Draw losses, gradient norms, discriminator, rotation, diversity and coverage over steps.

    Losses have their healthy ranges; vertical lines mark the steps at which findings began.
    """
    figure = _figure(11, 9.5)
    losses, gradients, discriminator, rotation, diversity, coverage = axes = figure.subplots(
        3, 2, sharex=True
    ).ravel()

    for player, healthy in LOSS_RANGES[history.loss].items():
        trace = history.trace("losses", player)
        series = trace if len(trace) else history.series("losses", player)
        _plot(losses, series, player, color=COLOURS[player])
        if math.isfinite(healthy.low) and math.isfinite(healthy.high):
            losses.axhspan(
                healthy.low, healthy.high, color=COLOURS[player], alpha=0.08, linewidth=0
            )
        losses.axhline(healthy.chance, color=COLOURS[player], linewidth=0.8, linestyle=":")
    losses.set_title(f"{history.loss} losses; shaded: healthy, dotted: chance", fontsize=9)

    for player in ("discriminator", "generator"):
        norms = history.series("gradient_norms", player)
        _plot(gradients, norms, player, color=COLOURS[player])
        if len(norms) and norms.values.max() > 0:
            gradients.set_yscale("log", nonpositive="mask")
    gradients.set_title("gradient norms ‖ξ_i‖", fontsize=9)

    for axis, name, label, style in (
        (discriminator, "accuracy", "accuracy", "-"),
        (discriminator, "membership_auc", "AUC, training above held-out samples", "--"),
        (rotation, "antisymmetric", "rotation along the field", "-"),
        (diversity, "diversity", "distance of samples / of data", "-"),
    ):
        series = history.series("probe", name)
        if len(series):  # no legend entry for what was not measured
            _plot(axis, series, label, color=COLOURS["game"], linestyle=style, linewidth=1.2)
    for axis, title, chance in (
        (discriminator, "discriminator", 0.5),
        (diversity, "diversity", 1.0),
    ):
        axis.axhline(chance, color=GREY, linewidth=0.8, linestyle=":")
        axis.set_ylim(bottom=0)
        axis.set_title(title, fontsize=9)
    for player in ("discriminator", "generator"):
        cosines = history.series("probe", "update_cosine", player)
        label = f"cosine of successive updates, {player}"
        _plot(rotation, cosines, label, color=COLOURS[player])
    rotation.set_ylim(-1.05, 1.05)
    rotation.set_title("rotation", fontsize=9)

    if history.coverage is not None:
        name, full = history.coverage
        for prefix, colour, label in (
            ("", COLOURS["generator"], name),
            ("ema/", COLOURS["game"], f"{name}, moving average"),
        ):
            series = history.series("metrics", prefix + name)
            _plot(coverage, series, label, color=colour, linewidth=1.2, marker="o", markersize=3)
        coverage.axhline(full, color=GREY, linewidth=0.8, linestyle=":")
        coverage.set_ylim(0, 1.08 * full)
        coverage.set_title("coverage", fontsize=9)

    for axis in axes:
        for finding in findings:
            if finding.since is not None and finding.level != "note":
                axis.axvline(finding.since, color="#b00020", linewidth=0.9, alpha=0.7)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=8)
    for axis in axes[-2:]:
        axis.set_xlabel("step")
    return figure


def spectrum_figure(spectrum: GameSpectrum) -> Figure:
    """Draw the eigenvalues of J in the complex plane, and those of each player's own Hessian."""
    figure = _figure(11, 5)
    plane, lines = figure.subplots(1, 2)
    values = np.array(spectrum.jacobian)
    plane.axvline(0, color=GREY, linewidth=0.8)
    plane.axhline(0, color=GREY, linewidth=0.8)
    stable = values.real > 0
    for chosen, marker, label in ((stable, "o", "attracts, Re λ > 0"), (~stable, "x", "repels")):
        real, imag = values.real[chosen], values.imag[chosen]
        plane.scatter(real, imag, marker=marker, color=COLOURS["game"], label=label)
    plane.set(title="eigenvalues of the game's Jacobian J", xlabel="Re λ", ylabel="Im λ")
    scale = float(np.abs(values).max(initial=0.0)) or 1.0
    plane.set_xscale("symlog", linthresh=scale / 100)
    # the same scale as for the real parts, so that angles show rotation
    plane.set_yscale("symlog", linthresh=scale / 100)
    limits, ticks = (-2 * scale, 2 * scale), _ticks(scale)
    plane.set(xlim=limits, ylim=limits, xticks=ticks, yticks=ticks)
    plane.legend(frameon=False, fontsize=8)
    widest = 0.0
    for height, (player, own) in enumerate(spectrum.own.items()):
        lines.scatter(own, [height] * len(own), marker="|", s=400, color=COLOURS.get(player, GREY))
        widest = max([widest, *map(abs, own)])
    lines.axvline(0, color=GREY, linewidth=0.8)
    lines.set_yticks(range(len(spectrum.own)), list(spectrum.own))
    lines.set_ylim(-0.6, len(spectrum.own) - 0.4)
    widest = widest or 1.0
    lines.set_xscale("symlog", linthresh=widest / 100)
    lines.set(xlim=(-2 * widest, 2 * widest), xticks=_ticks(widest))
    lines.set(title="eigenvalues of each player's own Hessian, both ends", xlabel="λ")
    figure.suptitle(", ".join(spectrum.classes) or "no class holds", fontsize=10)
    return figure


def path_figure(path: PathAngle) -> Figure:
    """Draw the path angle and the size of the field on the line through two checkpoints."""
    figure = _figure(8, 4)
    axis = figure.subplots()
    axis.axhline(0, color=GREY, linewidth=0.8)
    for alpha, name in ((0, "earlier"), (1, "this one")):
        axis.axvline(alpha, color=GREY, linewidth=0.8, linestyle=":")
        axis.text(alpha + 0.02, 0.97, name, va="top", fontsize=8, color=GREY)
    axis.plot(path.alphas, path.cosines, color=COLOURS["generator"])
    axis.set(
        xlabel="α, from the earlier checkpoint (0) to this one (1)",
        ylabel="path angle: cosine of θ′ − θ and ξ",
        ylim=(-1.05, 1.05),
    )
    size = axis.twinx()
    size.plot(path.alphas, path.norms, color=COLOURS["discriminator"], linestyle="--")
    size.set_ylabel("‖ξ‖ (dashed)", color=COLOURS["discriminator"])
    size.set_ylim(bottom=0)
    figure.suptitle(path.summary, fontsize=10)
    return figure


def png(figure: Figure) -> bytes:
    """Return a figure as PNG bytes; equal figures give equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _figure(width: float, height: float) -> Figure:
    # not pyplot, which would keep the figure and choose a display
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _plot(axis: Axes, series: Series, label: str, **style: Any) -> None:
    axis.plot(series.steps, series.values, label=label, **({"linewidth": 0.9} | style))


def _ticks(scale: float) -> list[float]:
    """Return 0 and ± the powers of ten from scale / 30 to 2 · scale; smaller ones would overlap."""
    last = math.floor(math.log10(2 * scale))
    powers = [10.0**exponent for exponent in range(last, last - 3, -1)]
    powers = [power for power in powers if power >= scale / 30]
    return [-power for power in powers] + [0.0, *reversed(powers)]
