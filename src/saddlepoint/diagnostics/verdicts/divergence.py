"""NaN and infinity, and what came before them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from saddlepoint.diagnostics.findings import Finding
from saddlepoint.diagnostics.history import History


def divergence(history: History) -> list[Finding]:
    """Return a finding for a run that ended in a NaN or infinity, and a warning for one that was rolled back."""
    ended = history.last.get("divergence")  # an earlier one was overcome
    returned = history.rollbacks
    found = []
    if ended:
        found.append(_finding(history, ended))
    elif returned:
        found.append(_rolled_back(returned))
    return found


def _finding(history: History, what: Mapping[str, Any]) -> Finding:
    step, player = int(what["step"]), str(what["player"])
    losses = history.trace("losses", player)
    grown = f" Up to then the {player}'s loss went from {losses.values[0]:.3g} to {losses.last:.3g}." if len(losses) > 1 else ""
    sentence = f"Training diverged in step {step}. {what['sentence']}{grown} {_remedy(str(what['place']))}"
    numbers = {"step": float(step), "share": _number(what["share"]), "largest": _number(what["largest"])}
    return Finding("divergence", player, sentence, numbers, level="alarm", since=step)


def _remedy(place: str) -> str:
    if place == "data":
        return "Look at the data: the networks cannot be blamed."
    if place == "parameter":
        return "The parameters were bad before this step; start from an earlier checkpoint."
    return "Try a smaller learning rate, a penalty on the discriminator (problem.r1), or on_divergence=roll-back."


def _rolled_back(returned: list[Mapping[str, Any]]) -> Finding:
    last, times = returned[-1], len(returned)
    sentence = (
        f"Training diverged {times} time{'s' if times > 1 else ''}, last in step {last['failed_step']}, and went on with learning rates × "
        f"{last['rate_factor']:g}. {last['divergence']['sentence']} Try these rates from the start."
    )
    numbers = {"rollbacks": float(times), "rate_factor": float(last["rate_factor"])}
    return Finding("rolled-back", "game", sentence, numbers, since=int(last["failed_step"]))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
