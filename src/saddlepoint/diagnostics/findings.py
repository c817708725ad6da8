"""Findings: what a probe's numbers mean, in a sentence with its numbers and what to try."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from saddlepoint.diagnostics.gradients import GradientHealth

VANISHED = 1e-3
"""A gradient below this share of its initial size counts as vanished; healthy ones stay within a factor of about thirty."""

SATURATED = 0.9
"""A discriminator counts as saturated where this share of its outputs lies on the flat part of a loss."""


@dataclass(frozen=True)
class Finding:
    """Something that a user should know.

    Attributes:
        name: what kind of finding it is.
        player: whom it is about.
        sentence: the finding with its numbers and what to try.
        numbers: the evidence.
    """

    name: str
    player: str
    sentence: str
    numbers: dict[str, float]


def vanishing_gradients(initial: GradientHealth, now: GradientHealth, saturated: Mapping[str, float] | None = None) -> list[Finding]:
    """Return a finding for every player whose gradient has vanished: below 1e-3 of its initial size, or exactly zero.

    Args:
        initial: the gradients at the start of training.
        now: the gradients now.
        saturated: player → share of the discriminator's outputs on the flat part of its loss, of ``saturation``, to say why.

    >>> def health(norm):
    ...     return GradientHealth(norms={"generator": norm}, layers={}, zeros={"generator": 0.0}, signal_to_noise={})
    >>> vanishing_gradients(health(0.5), health(0.1))
    []
    >>> print(vanishing_gradients(health(0.5), health(5e-10), {"generator": 1.0})[0].sentence[:58])
    The generator's gradient is 1e-09 of its initial size (5e-
    """
    found = []
    for player, norm in now.norms.items():
        if now.zeros[player] == 1:
            found.append(_zero(player))
        elif norm < VANISHED * initial.norms[player]:
            found.append(_vanished(player, norm, initial.norms[player], (saturated or {}).get(player)))
    return found


def _zero(player: str) -> Finding:
    sentence = (
        f"The {player}'s gradient is exactly zero in every entry: its output passes something that autograd cannot differentiate, such as "
        "a threshold or a sample, or every unit on the way is dead. Try a straight-through or Gumbel estimator, or a rule of order 0 "
        "(--rule per-player)."
    )
    return Finding("zero-gradient", player, sentence, {"norm": 0.0, "zeros": 1.0})


def _vanished(player: str, norm: float, initial: float, flat: float | None) -> Finding:
    numbers = {"norm": norm, "initial_norm": initial, **({} if flat is None else {"saturated": flat})}
    size = f"The {player}'s gradient is {norm / initial:.0e} of its initial size ({norm:.1g}, at first {initial:.1g})"
    if flat is None or flat < SATURATED:
        why = "" if flat is None else f", though only {flat:.0%} of the discriminator's outputs lie where its loss is flat"
        return Finding(
            "vanishing-gradient", player, f"{size}{why}. Try --optimizer sign or normalized, or a smaller learning rate.", numbers
        )
    where = f"{flat:.0%} of its outputs lie where the {player}'s loss is flat"
    remedy = "Try the non-saturating loss, R1 (problem.r1), or --optimizer sign."
    return Finding("vanishing-gradient", player, f"{size}: the discriminator has saturated, {where}. {remedy}", numbers)
