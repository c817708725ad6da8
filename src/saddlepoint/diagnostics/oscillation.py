"""Oscillation: the dominant period of a series, and how much of its variation it explains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saddlepoint.diagnostics.history import Series

LEAST_POINTS = 64
LEAST_PERIODS = 6
"""A period must fit six times into the window: slower changes are trends."""

LEAST_SAMPLES = 8
"""A period must have eight samples: quicker changes are the noise of mini-batches."""

BANDWIDTH = 0.25
"""A cycle of training is no clock: frequencies within a quarter of the peak's belong to it."""


@dataclass(frozen=True)
class Oscillation:
    """The strongest oscillation of a series.

    Attributes:
        period: in steps.
        amplitude: of the sine, in the series' units.
        share: the part of the variance, after a straight line is taken out, that lies within a
            quarter of its frequency.
        prominence: its variance relative to that of all slower changes. Of a random walk the slower
            ones are always stronger.
    """

    period: float
    amplitude: float
    share: float
    prominence: float


def dominant_oscillation(series: Series) -> Oscillation | None:
    """Return the strongest oscillation of an evenly sampled series; None for fewer than 64 points, or where nothing varies.

    The straight line through the values is taken out; then, of the periodogram |Σ_t v_t e^{−2πi k t
    / n}|², the frequency k is sought that has the most, and everything within [¾ k, 1¼ k] counts
    with it.

    >>> steps = np.arange(0, 1000, 5)
    >>> found = dominant_oscillation(Series(steps, 3 + 0.01 * steps + 0.5 * np.sin(2 * np.pi * steps / 100)))
    >>> round(found.period), round(found.amplitude, 2), round(found.share, 1)
    (100, 0.5, 1.0)
    """
    n = len(series)
    if n < LEAST_POINTS:
        return None
    t = np.arange(n)
    detrended = series.values - np.polyval(np.polyfit(t, series.values, 1), t)
    total = float(np.square(detrended).sum())
    if total <= 1e-24 * (1 + float(np.square(series.values).sum())):
        return None
    power = np.abs(np.fft.rfft(detrended)) ** 2 * 2 / n  # by Parseval it sums to the total
    peak = LEAST_PERIODS + int(np.argmax(power[LEAST_PERIODS : n // LEAST_SAMPLES + 1]))
    low, high = (
        min(int((1 - BANDWIDTH) * peak), peak - 1),
        max(int((1 + BANDWIDTH) * peak), peak + 1),
    )
    energy, slower = float(power[low : high + 1].sum()), float(power[:low].sum())
    spacing = float(series.steps[-1] - series.steps[0]) / (n - 1)
    return Oscillation(
        n / peak * spacing,
        float(np.sqrt(2 * energy / n)),
        min(energy / total, 1.0),
        energy / max(slower, 1e-300),
    )
