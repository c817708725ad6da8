"""Mode collapse: modes or classes that are missing, and samples that resemble each other."""

from __future__ import annotations

import numpy as np

from saddlepoint.diagnostics.findings import Finding
from saddlepoint.diagnostics.history import History, Series

COVERED = 0.75
"""Below this share of the modes or classes, at the end or as a loss of what was covered before, modes count as lost."""

DIVERSE = 0.3
"""A spread of generated samples below this share of the data's counts as collapsed."""

WARM_UP = 8
"""Probes, two thirds of a run at the default, before which a generator that never spread its samples may still be growing."""

_REMEDY = (
    "Try a smaller generator rate, R1 (problem.r1), another activation (problem.activation), or"
    " curvature (optimizer soap)."
)


def mode_loss(history: History) -> list[Finding]:
    """Return a finding where the averaged generator covers fewer than three quarters of the modes or classes, after four evaluations,
    or has lost a quarter of what it covered."""
    if history.coverage is None:
        return []
    name, full = history.coverage
    series = history.series("metrics", f"ema/{name}")
    if len(series) < 2 or series.last >= COVERED * full:
        return []
    best = int(np.argmax(series.values))
    dropped = series.values[best] - series.last >= (1 - COVERED) * full
    if not dropped and len(series) < 4:
        return []
    return [_modes(name, full, series, best, dropped)]


def _modes(name: str, full: float, series: Series, best: int, dropped: bool) -> Finding:
    now, most = series.last, float(series.values[best])
    what = f"{now:.3g} of {full:g} {name.replace('-', ' ')}"
    since = series.since(series.values < COVERED * full)
    course = f" and in {len(series)} evaluations never made more than {most:.3g}"
    if dropped:
        course = (
            f", down from {most:.3g} at step {series.steps[best]}: mode collapse since step {since}"
        )
    sentence = f"The generator makes {what}{course}. {_REMEDY}"
    return Finding(
        "mode-loss",
        "generator",
        sentence,
        {name: now, "all": full, "most": most},
        level="alarm",
        since=since,
    )


def shrunk_diversity(history: History) -> list[Finding]:
    """Return a finding where generated samples spread over less than 0.3 of the data's spread at the last two probes.

    Those of an untrained generator do; so it must have spread them more before, or have had eight
    probes of time.
    """
    series = history.series("probe", "diversity")
    if len(series) < 3 or not (series.values[-2:] < DIVERSE).all():
        return []
    most, since = float(series.values.max()), series.since(series.values < DIVERSE)
    if most < DIVERSE and len(series) < WARM_UP:
        return []
    course = f"collapsed since step {since}" if most >= DIVERSE else "not learnt to vary them"
    sentence = (
        f"Generated samples lie {series.last:.2g} times as far apart as real ones (at most"
        f" {most:.2g} so far): the generator has {course}. {_REMEDY}"
    )
    return [
        Finding(
            "low-diversity",
            "generator",
            sentence,
            {"diversity": series.last, "most": most},
            level="alarm",
            since=since,
        )
    ]
