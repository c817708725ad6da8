"""The dominant period of a series, and the share of its variance that the oscillation explains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saddlepoint.diagnostics.history import Series

LEAST_POINTS = 64
LEAST_PERIODS = 6
"""Periods in the window; slower changes are trends."""

LEAST_SAMPLES = 8
"""Samples in a period; faster changes are noise of the mini-batches."""

BANDWIDTH = 0.25
"""Cycles in training are not exactly periodic: frequencies this near to the peak belong to it."""


@dataclass(frozen=True)
class Oscillation:
    """The strongest oscillation of a series.

    Attributes:
        period: period in steps.
        amplitude: amplitude of the sine, in the units of the series.
        share: share of the detrended variance that lies within a quarter of the frequency.
        prominence: variance of the oscillation relative to that of all slower changes; small for a
            random walk, whose slower changes are stronger.
    """

    period: float
    amplitude: float
    share: float
    prominence: float


def dominant_oscillation(series: Series) -> Oscillation | None:
    """Return the strongest oscillation of an evenly sampled series.

    None for fewer than 64 points and for a constant series. A straight line is fitted and
    subtracted; k is the frequency with the largest value of the periodogram |Σ_t v_t e^{−2πi k t /
    n}|², and all frequencies in [¾ k, 1¼ k] belong to the oscillation.

    >>> steps = np.arange(0, 1000, 5)
    >>> values = 3 + 0.01 * steps + 0.5 * np.sin(2 * np.pi * steps / 100)
    >>> found = dominant_oscillation(Series(steps, values))
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
    low = min(int((1 - BANDWIDTH) * peak), peak - 1)
    high = max(int((1 + BANDWIDTH) * peak), peak + 1)
    energy, slower = float(power[low : high + 1].sum()), float(power[:low].sum())
    spacing = float(series.steps[-1] - series.steps[0]) / (n - 1)
    return Oscillation(
        n / peak * spacing,
        float(np.sqrt(2 * energy / n)),
        min(energy / total, 1.0),
        energy / max(slower, 1e-300),
    )
