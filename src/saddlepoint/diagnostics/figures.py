"""Figures of a diagnosis, drawn with Matplotlib into PNG bytes."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np

from saddlepoint.diagnostics.bands import BANDS
from saddlepoint.diagnostics.findings import Finding
from saddlepoint.diagnostics.history import History, Series
from saddlepoint.diagnostics.rotation import PathAngle
from saddlepoint.diagnostics.spectrum import GameSpectrum
from saddlepoint.extras import needs

with needs("train", "saddlepoint.diagnostics.figures"):
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

COLOURS = {"discriminator": "#c2571a", "generator": "#1f5fa8", "game": "#444444"}
"""Orange and blue: told apart also without red and green, and in print."""

GREY = "#8a8a8a"


def figures(
    history: History,
    findings: Sequence[Finding],
    spectrum: GameSpectrum | None,
    path: PathAngle | None,
) -> dict[str, bytes]:
    """Return name → PNG: the course of training, and the spectrum and the path where they were measured."""
    drawn = {"course": course(history, findings)}
    if spectrum is not None:
        drawn["spectrum"] = spectrum_figure(spectrum)
    if path is not None:
        drawn["path"] = path_figure(path)
    return {name: png(figure) for name, figure in drawn.items()}


def course(history: History, findings: Sequence[Finding]) -> Figure:
    """Draw losses with their bands, gradient norms, what the discriminator knows, rotation and diversity, coverage; onsets as lines."""
    figure = _figure(11, 9.5)
    axes = figure.subplots(3, 2, sharex=True).ravel()
    _losses(axes[0], history)
    _gradients(axes[1], history)
    _shares(
        axes[2],
        history,
        {"accuracy": "accuracy", "memory": "rank of training above held-out"},
        "discriminator",
        chance=0.5,
    )
    _shares(
        axes[3],
        history,
        {"antisymmetric": "rotation along the field"},
        "share of rotation",
        chance=None,
    )
    _cosines(axes[3], history)
    _shares(axes[4], history, {"diversity": "spread of samples / of data"}, "diversity", chance=1.0)
    _coverage(axes[5], history)
    for axis in axes:
        _onsets(axis, findings)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=8)
    for axis in axes[-2:]:
        axis.set_xlabel("step")
    return figure


def spectrum_figure(spectrum: GameSpectrum) -> Figure:
    """Draw the eigenvalues of J in the complex plane, and those of the players' own Hessians on their lines."""
    figure = _figure(11, 5)
    plane, lines = figure.subplots(1, 2)
    values = np.array(spectrum.jacobian)
    plane.axvline(0, color=GREY, linewidth=0.8)
    plane.axhline(0, color=GREY, linewidth=0.8)
    stable = values.real > 0
    for chosen, marker, label in ((stable, "o", "attracts, Re λ > 0"), (~stable, "x", "repels")):
        plane.scatter(
            values.real[chosen],
            values.imag[chosen],
            marker=marker,
            color=COLOURS["game"],
            label=label,
        )
    plane.set(title="eigenvalues of the game's Jacobian J", xlabel="Re λ", ylabel="Im λ")
    scale = float(np.abs(values).max(initial=0.0)) or 1.0
    plane.set_xscale("symlog", linthresh=scale / 100)
    # the same scale as for the real parts: what looks like rotation is
    plane.set_yscale("symlog", linthresh=scale / 100)
    plane.set(
        xlim=(-2 * scale, 2 * scale),
        ylim=(-2 * scale, 2 * scale),
        xticks=_ticks(scale),
        yticks=_ticks(scale),
    )
    plane.legend(frameon=False, fontsize=8)
    for height, (player, own) in enumerate(spectrum.own.items()):
        lines.scatter(own, [height] * len(own), marker="|", s=400, color=COLOURS.get(player, GREY))
    lines.axvline(0, color=GREY, linewidth=0.8)
    lines.set_yticks(range(len(spectrum.own)), list(spectrum.own))
    lines.set_ylim(-0.6, len(spectrum.own) - 0.4)
    widest = max((abs(value) for own in spectrum.own.values() for value in own), default=1.0) or 1.0
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
    figure.suptitle(path.verdict, fontsize=10)
    return figure


def png(figure: Figure) -> bytes:
    """Return a figure as PNG bytes, the same for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _figure(width: float, height: float) -> Figure:
    # not pyplot: it would keep the figure, and choose a screen
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _losses(axis: Axes, history: History) -> None:
    for player, band in BANDS[history.loss].items():
        fine = history.trace("losses", player)
        _line(axis, fine if len(fine) else history.series("losses", player), player, player)
        if math.isfinite(band.low) and math.isfinite(band.high):
            axis.axhspan(band.low, band.high, color=COLOURS[player], alpha=0.08, linewidth=0)
        axis.axhline(band.chance, color=COLOURS[player], linewidth=0.8, linestyle=":")
    axis.set_title(f"{history.loss} losses; shaded: healthy, dotted: chance", fontsize=9)


def _gradients(axis: Axes, history: History) -> None:
    for player in ("discriminator", "generator"):
        series = history.series("gradient_norms", player)
        _line(axis, series, player, player)
        if len(series) and series.values.max() > 0:
            axis.set_yscale("log", nonpositive="mask")
    axis.set_title("gradient norms ‖ξ_i‖", fontsize=9)


def _shares(
    axis: Axes, history: History, names: dict[str, str], title: str, *, chance: float | None
) -> None:
    for (name, label), style in zip(names.items(), ("-", "--"), strict=False):
        series = history.series("probe", name)
        if len(series):  # no entry in the legend for what was not measured
            axis.plot(
                series.steps,
                series.values,
                style,
                color=COLOURS["game"],
                label=label,
                linewidth=1.2,
            )
    if chance is not None:
        axis.axhline(chance, color=GREY, linewidth=0.8, linestyle=":")
    axis.set_ylim(bottom=0)
    axis.set_title(title, fontsize=9)


def _cosines(axis: Axes, history: History) -> None:
    for player in ("discriminator", "generator"):
        _line(
            axis,
            history.series("probe", "update_cosine", player),
            player,
            f"cosine of successive updates, {player}",
        )
    axis.set_ylim(-1.05, 1.05)
    axis.set_title("rotation", fontsize=9)


def _coverage(axis: Axes, history: History) -> None:
    if history.coverage is None:
        return
    name, full = history.coverage
    for prefix, colour, label in (
        ("", COLOURS["generator"], name),
        ("ema/", COLOURS["game"], f"{name}, moving average"),
    ):
        series = history.series("metrics", prefix + name)
        axis.plot(
            series.steps,
            series.values,
            "o-",
            color=colour,
            label=label,
            linewidth=1.2,
            markersize=3,
        )
    axis.axhline(full, color=GREY, linewidth=0.8, linestyle=":")
    axis.set_ylim(0, 1.08 * full)
    axis.set_title("coverage", fontsize=9)


def _line(axis: Axes, series: Series, player: str, label: str) -> None:
    axis.plot(series.steps, series.values, color=COLOURS[player], label=label, linewidth=0.9)


def _onsets(axis: Axes, findings: Sequence[Finding]) -> None:
    for finding in findings:
        if finding.since is not None and finding.level != "note":
            axis.axvline(finding.since, color="#b00020", linewidth=0.9, alpha=0.7)


def _ticks(scale: float) -> list[float]:
    """Return 0 and the powers of ten between a thirtieth of the scale and twice it, with both signs: nearer to 0 they would overlap."""
    last = math.floor(math.log10(2 * scale))
    powers = [
        10.0**exponent for exponent in range(last, last - 3, -1) if 10.0**exponent >= scale / 30
    ]
    return [-power for power in powers] + [0.0, *reversed(powers)]
