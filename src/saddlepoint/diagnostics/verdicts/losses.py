"""Losses outside the band that is healthy for the loss in use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saddlepoint.diagnostics.bands import BANDS, Band
from saddlepoint.diagnostics.findings import Finding
from saddlepoint.diagnostics.history import History

WINDOW = 0.2
"""The share of the run, up to now, whose median is judged: one mini-batch says nothing."""

LEAST = 10
"""Logged losses below which nothing is said."""


def out_of_band(history: History) -> list[Finding]:
    """Return a finding where a player's median loss over the last fifth of the run lies outside its band.

    One finding says who wins, with both losses where both show it.
    """
    found: dict[str, list[_Outside]] = {}
    for player, band in BANDS[history.loss].items():
        outside = _outside(history, player, band)
        if outside is not None:
            found.setdefault(_meaning(player, outside.below), []).append(outside)
    return [_finding(history.loss, meaning, outsides) for meaning, outsides in found.items()]


@dataclass(frozen=True)
class _Outside:
    """A player's loss outside its band, and since when."""

    player: str
    value: float
    band: Band
    since: int | None

    @property
    def below(self) -> bool:
        return self.value < self.band.low

    @property
    def sentence(self) -> str:
        edge = f"below {self.band.low:.2g}" if self.below else f"above {self.band.high:.2g}"
        return f"the {self.player}'s is {self.value:.2g}, {edge} (chance: {self.band.chance:.2g})"


def _outside(history: History, player: str, band: Band) -> _Outside | None:
    series = history.series("losses", player)
    window = series.values[series.steps >= history.last_step * (1 - WINDOW)]
    if len(series) < LEAST or not len(window):
        return None
    value = float(np.median(window))
    if band.low <= value <= band.high:
        return None
    return _Outside(
        player,
        value,
        band,
        series.since(
            (series.values < band.low) if value < band.low else (series.values > band.high)
        ),
    )


def _finding(loss: str, meaning: str, outsides: list[_Outside]) -> Finding:
    losses = " and ".join(outside.sentence for outside in outsides)
    sentence = f"Of the {loss} losses {losses}. {meaning}"
    numbers = {f"{outside.player} loss": outside.value for outside in outsides}
    since = min((outside.since for outside in outsides if outside.since is not None), default=None)
    return Finding("loss-out-of-band", outsides[0].player, sentence, numbers, since=since)


def _meaning(player: str, below: bool) -> str:
    if player == "discriminator" and not below:
        return (
            "It is worse than no discriminator: it lags behind or runs in circles. Try a smaller"
            " generator rate, or --rule extragradient."
        )
    if (player == "discriminator") == below:
        return (
            "The discriminator wins. Try a smaller discriminator rate, R1 (problem.r1), or fewer"
            " discriminator steps."
        )
    return (
        "The generator wins: the discriminator does not follow. Try a larger discriminator rate or"
        " more discriminator steps."
    )
