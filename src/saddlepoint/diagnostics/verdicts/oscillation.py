"""Players that go round each other instead of forward."""

from __future__ import annotations

import itertools

import numpy as np

from saddlepoint.diagnostics.findings import Finding
from saddlepoint.diagnostics.history import History, Series
from saddlepoint.diagnostics.oscillation import BANDWIDTH, Oscillation, dominant_oscillation

SHARE = 0.3
"""A cycle must explain this part of a series' variance; of noise the strongest frequency explains a few per cent."""

PROMINENCE = 1.5
"""And be stronger than all slower changes together, which a random walk never is for long."""

LEAST_LOSS = 0.01
"""Amplitude of a loss below which a cycle is harmless; the losses' levels are of order 1. Projections have no scale of their own."""


def oscillating(history: History) -> list[Finding]:
    """Return a finding where both players oscillate with the same period in the second half of the run, in losses or parameters.

    One player alone may wobble by chance or follow its optimizer; players that chase each other do
    so together.
    """
    ours, theirs = (_oscillations(history, player) for player in ("discriminator", "generator"))
    pairs = [
        (a, b)
        for a, b in itertools.product(ours, theirs)
        if abs(a[1].period / b[1].period - 1) <= BANDWIDTH
    ]
    if not pairs:
        return []
    return [_finding(history, *max(pairs, key=lambda pair: pair[0][1].share + pair[1][1].share))]


def _oscillations(history: History, player: str) -> list[tuple[str, Oscillation]]:
    found = [
        (kind, dominant_oscillation(_second_half(history.trace(kind, player))))
        for kind in ("losses", "projections")
    ]
    return [(kind, o) for kind, o in found if o is not None and _counts(kind, o)]


def _counts(kind: str, o: Oscillation) -> bool:
    return (
        o.share >= SHARE
        and o.prominence >= PROMINENCE
        and (kind != "losses" or o.amplitude >= LEAST_LOSS)
    )


def _second_half(series: Series) -> Series:
    half = len(series) // 2
    return Series(series.steps[half:], series.values[half:])


def _finding(
    history: History, discriminator: tuple[str, Oscillation], generator: tuple[str, Oscillation]
) -> Finding:
    names = {"losses": "loss", "projections": "parameters, projected,"}
    (d_kind, d), (g_kind, g) = discriminator, generator
    rotation = history.series("probe", "antisymmetric")
    share = float(np.median(rotation.values[-5:])) if len(rotation) else float("nan")
    turning = (
        f" {share:.0%} of the field's change along itself is rotation." if len(rotation) else ""
    )
    sentence = (
        f"The players circle: the discriminator's {names[d_kind]} with a period of {d.period:.0f}"
        f" steps and an amplitude of {d.amplitude:.2g} ({d.share:.0%} of its variation), the"
        f" generator's {names[g_kind]} with {g.period:.0f} steps and {g.amplitude:.2g}"
        f" ({g.share:.0%}).{turning} Try --rule extragradient, optimistic or averaged, or smaller"
        " rates."
    )
    numbers = {
        "period": d.period,
        "amplitude": d.amplitude,
        "share": d.share,
        "generator_period": g.period,
        "antisymmetric": share,
    }
    return Finding("oscillation", "game", sentence, numbers)
