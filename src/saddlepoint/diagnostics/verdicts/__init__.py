"""Verdicts: each looks at the history of a run for one kind of trouble and returns findings.

A verdict is a function of a ``History``; adding one is adding it to ``VERDICTS``, causes before
effects, and a row to the detection benchmark.
"""

from __future__ import annotations

from collections.abc import Callable

from saddlepoint.diagnostics.findings import Finding, ranked
from saddlepoint.diagnostics.history import History
from saddlepoint.diagnostics.verdicts.collapse import mode_loss, shrunk_diversity
from saddlepoint.diagnostics.verdicts.divergence import divergence
from saddlepoint.diagnostics.verdicts.gradients import vanished
from saddlepoint.diagnostics.verdicts.losses import out_of_band
from saddlepoint.diagnostics.verdicts.oscillation import oscillating
from saddlepoint.diagnostics.verdicts.overfitting import copying, memorising

VERDICTS: tuple[Callable[[History], list[Finding]], ...] = (
    divergence,
    vanished,
    memorising,
    copying,
    mode_loss,
    shrunk_diversity,
    out_of_band,
    oscillating,
)


def judge(history: History) -> list[Finding]:
    """Return what holds at the end of a history, the worst first. It measures nothing itself, so it works during and after training.

    >>> judge(History(loss="minimax"))
    []
    """
    return ranked(finding for verdict in VERDICTS for finding in verdict(history))


__all__ = ["VERDICTS", "judge"]
