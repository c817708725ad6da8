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
    step, player = int(what.get("step", history.last_step + 1)), str(what.get("player", "game"))
    losses = history.trace("losses", player)
    grown = (
        f" Up to then the {player}'s loss went from {losses.values[0]:.3g} to {losses.last:.3g}."
        if len(losses) > 1
        else ""
    )
    parts = [
        f"Training diverged in step {step}.",
        f"{what.get('sentence', '')}{grown}".strip(),
        _remedy(str(what.get("place"))),
    ]
    sentence = " ".join(part for part in parts if part)
    numbers = {
        "step": float(step),
        "share": _number(what.get("share")),
        "largest": _number(what.get("largest")),
    }
    return Finding("divergence", player, sentence, numbers, level="alarm", since=step)


def _remedy(place: str) -> str:
    if place == "data":
        return "Look at the data: the networks cannot be blamed."
    if place == "parameter":
        return "The parameters were bad before this step; start from an earlier checkpoint."
    return (
        "Try a smaller learning rate, a penalty on the discriminator (problem.r1), or"
        " on_divergence=roll_back."
    )


def _rolled_back(returned: list[Mapping[str, Any]]) -> Finding:
    last, times = returned[-1], len(returned)
    step, factor = int(last.get("failed_step", 0)), _number(last.get("lr_factor"))
    said = (last.get("divergence") or {}).get("sentence", "")
    sentence = (
        f"Training diverged {times} time{'s' if times > 1 else ''}, last in step {step}, and went"
        f" on with learning rates × {factor:g}. {said}{' ' if said else ''}Try these rates from the"
        " start."
    )
    return Finding(
        "rolled-back",
        "game",
        sentence,
        {"rollbacks": float(times), "lr_factor": factor},
        since=step,
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
