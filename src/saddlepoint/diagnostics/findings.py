"""Findings: what numbers mean, in a sentence with its numbers and what to try."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from saddlepoint.errors import UsageError

Level = Literal["alarm", "warning", "note"]
"""How bad it is: the run is lost; the run is worse than it could be; good to know."""

_RANK: dict[Level, int] = {"alarm": 0, "warning": 1, "note": 2}


@dataclass(frozen=True)
class Finding:
    """Something that a user should know, with its evidence.

    Attributes:
        name: what kind of finding it is.
        player: whom it is about; "generator", "discriminator" or "game".
        sentence: the finding with its numbers and what to try.
        numbers: the evidence.
        level: "alarm", "warning" or "note".
        since: the step at which it began, where that is known.

    Raises:
        UsageError: a finding without a number, in the evidence or in the sentence.

    >>> Finding("mode-loss", "generator", "3 of 8 modes are generated.", {"modes": 3.0}, level="alarm").key
    'mode-loss generator'
    """

    name: str
    player: str
    sentence: str
    numbers: dict[str, float]
    level: Level = "warning"
    since: int | None = None

    def __post_init__(self) -> None:
        if not self.numbers or not re.search(r"\d|zero", self.sentence):
            raise UsageError(
                f'The finding "{self.name}" has no number. Give the number that it rests on, in'
                " numbers and in the sentence."
            )

    @property
    def key(self) -> str:
        """What makes two findings the same one: kind and player."""
        return f"{self.name} {self.player}"

    def to_dict(self) -> dict[str, Any]:
        """Return the finding in plain containers."""
        return asdict(self)


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings with the worst level first; those of one level stay in their order, in which causes come before effects.

    >>> found = [Finding(level, "game", "1", {"a": 1.0}, level=level) for level in ("note", "alarm", "warning")]
    >>> [finding.name for finding in ranked(found)]
    ['alarm', 'warning', 'note']
    """
    return sorted(findings, key=lambda finding: _RANK[finding.level])
