"""Overfitting: a discriminator that knows the training samples by heart, and a generator that copies them."""

from __future__ import annotations

from saddlepoint.diagnostics.findings import Finding
from saddlepoint.diagnostics.history import History

MEMORY = 0.7
"""P(D(training sample) > D(held-out sample)) above which the discriminator has learnt samples by heart; with 256 samples on each side its
standard error is 0.026 around ½."""

COPIES = 0.75
"""P(a generated sample lies nearer to the training set than a held-out one) above which samples are copies."""


def memorising(history: History) -> list[Finding]:
    """Return a finding where the discriminator tells training from held-out samples at the last two probes."""
    series = history.series("probe", "memory")
    if len(series) < 2 or not (series.values[-2:] > MEMORY).all():
        return []
    since = series.since(series.values > MEMORY)
    sentence = (
        f"The discriminator ranks a training sample above a held-out one in {series.last:.0%} of"
        f" pairs (50 % is healthy): it has learnt samples by heart since step {since}. Try more"
        " data or augmentation, R1 (problem.r1), a smaller discriminator, or the best checkpoint"
        " (saddlepoint best)."
    )
    return [Finding("overfitting", "discriminator", sentence, {"memory": series.last}, since=since)]


def copying(history: History) -> list[Finding]:
    """Return a finding where generated samples lie nearer to the training set than held-out samples do."""
    found = []
    for name in [name for name in history.metrics() if name.startswith("ema/copying")]:
        series = history.series("metrics", name)
        if len(series) and series.last > COPIES:
            since = series.since(series.values > COPIES)
            sentence = (
                f"In {series.last:.0%} of pairs a generated sample lies nearer to the training set"
                f" than a held-out one (50 % is healthy): the generator copies since step {since}."
                " Try more data, or an earlier checkpoint (saddlepoint best)."
            )
            found.append(
                Finding(
                    "copying",
                    "generator",
                    sentence,
                    {"copying": series.last},
                    level="alarm",
                    since=since,
                )
            )
    return found
