"""Vanishing gradients, by comparison with the first probe."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from saddlepoint.diagnostics.bands import BANDS
from saddlepoint.diagnostics.findings import Finding
from saddlepoint.diagnostics.gradients import GradientHealth
from saddlepoint.diagnostics.history import History

VANISHED = 1e-3
"""A gradient below this share of its initial size counts as vanished; healthy ones stay within a factor of about thirty."""

AT_CHANCE = 1e-3
"""A discriminator's loss this near to that of chance counts as chance, where every player's gradient is gone too."""

SATURATED = 0.9
"""A discriminator counts as saturated where this share of its outputs lies on the flat part of a loss."""


def vanished(history: History) -> list[Finding]:
    """Return a finding for every player whose gradient is gone at the latest probe, with the step since when.

    Players that the rule moves without their gradients have none to miss. Where all gradients are
    gone and the discriminator's loss is that of chance, the game has come to rest at an
    equilibrium, and that is one note instead.
    """
    probes = [
        (step, probe) for step, probe in history.probes() if probe.get("gradients", {}).get("norms")
    ]
    if not probes:
        return []
    active = history.moved_by_gradient()
    initial = _health(probes[0][1])
    now = {
        finding.key: finding for finding in _of(initial, probes[-1][1]) if finding.player in active
    }
    if (
        len(now) == len(active) > 1
        and all(finding.numbers["norm"] > 0 for finding in now.values())
        and _at_chance(history)
    ):
        return [_at_rest(_health(probes[-1][1]), initial)]
    return [replace(finding, since=_since(key, initial, probes)) for key, finding in now.items()]


def vanishing_gradients(
    initial: GradientHealth, now: GradientHealth, saturated: Mapping[str, float] | None = None
) -> list[Finding]:
    """Return a finding for every player whose gradient has vanished: below 1e-3 of its initial size, or exactly zero from the beginning.

    Args:
        initial: the gradients at the start of training.
        now: the gradients now.
        saturated: player → share of the discriminator's outputs on the flat part of its loss, of
            ``saturation``, to say why.

    >>> def health(norm):
    ...     return GradientHealth(norms={"generator": norm}, layers={}, zeros={"generator": 0.0}, signal_to_noise={})
    >>> vanishing_gradients(health(0.5), health(0.1))
    []
    >>> print(vanishing_gradients(health(0.5), health(5e-10), {"generator": 1.0})[0].sentence[:58])
    The generator's gradient is 1e-09 of its initial size (5e-
    """
    found = []
    for player, norm in now.norms.items():
        first = initial.norms.get(player, math.nan)
        if now.zeros.get(player) == 1 and first == 0:
            found.append(_zero(player))
        elif norm < VANISHED * first:
            found.append(_small(player, norm, first, (saturated or {}).get(player)))
    return found


def _since(key: str, initial: GradientHealth, probes: list[tuple[int, Mapping[str, Any]]]) -> int:
    since = probes[-1][0]
    for step, probe in reversed(probes):
        if key not in {finding.key for finding in _of(initial, probe)}:
            break
        since = step
    return since


def _at_chance(history: History) -> bool:
    """Say whether the discriminator's loss is what it is when nothing can be told apart, to a thousandth: there gradients should vanish."""
    chance = BANDS[history.loss]["discriminator"].chance
    return abs(history.series("losses", "discriminator").last - chance) < AT_CHANCE


def _at_rest(now: GradientHealth, initial: GradientHealth) -> Finding:
    left = {
        player: norm / initial.norms[player]
        for player, norm in now.norms.items()
        if initial.norms.get(player)
    }
    sizes = " and ".join(f"{share:.0e} of the {player}'s" for player, share in left.items())
    sentence = (
        f"The game has come to rest: the gradients are {sizes} initial size, and the"
        " discriminator's loss is that of chance."
    )
    return Finding(
        "equilibrium", "game", sentence, {"norm": max(now.norms.values()), **left}, level="note"
    )


def _of(initial: GradientHealth, probe: Mapping[str, Any]) -> list[Finding]:
    return vanishing_gradients(initial, _health(probe), probe.get("saturated"))


def _health(probe: Mapping[str, Any]) -> GradientHealth:
    gradients = probe["gradients"]
    norms = {
        player: math.nan if norm is None else norm for player, norm in gradients["norms"].items()
    }
    kept = {name: gradients.get(name) or {} for name in ("layers", "zeros", "signal_to_noise")}
    return GradientHealth(norms=norms, **kept)


def _zero(player: str) -> Finding:
    sentence = (
        f"The {player}'s gradient is exactly zero in every entry: its output passes something that"
        " autograd cannot differentiate, such as a threshold or a sample, or every unit on the way"
        " is dead. Try a straight-through or Gumbel estimator, or a rule of order 0 (--rule"
        " per-player)."
    )
    return Finding("zero-gradient", player, sentence, {"norm": 0.0, "zeros": 1.0}, level="alarm")


def _small(player: str, norm: float, initial: float, flat: float | None) -> Finding:
    numbers = {
        "norm": norm,
        "initial_norm": initial,
        **({} if flat is None else {"saturated": flat}),
    }
    size = (
        f"The {player}'s gradient is {norm / initial:.0e} of its initial size ({norm:.1g}, at first"
        f" {initial:.1g})"
    )
    if norm == 0:
        size = (
            f"The {player}'s gradient has become exactly zero in every entry (at first"
            f" {initial:.1g})"
        )
    if flat is None or flat < SATURATED:
        why = (
            ""
            if flat is None
            else (
                f", though only {flat:.0%} of the discriminator's outputs lie where its loss is"
                " flat"
            )
        )
        sentence = f"{size}{why}. Try --optimizer sign or normalized, or a smaller learning rate."
    else:
        where = f"{flat:.0%} of its outputs lie where the {player}'s loss is flat"
        remedy = (
            "Try a smaller discriminator rate, R1 (problem.r1), the non-saturating loss, or"
            " --optimizer sign."
        )
        sentence = f"{size}: the discriminator has saturated, {where}. {remedy}"
    return Finding("vanishing-gradient", player, sentence, numbers, level="alarm")
