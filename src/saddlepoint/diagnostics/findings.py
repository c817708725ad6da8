"""Findings about a run: a message with its numbers and what to try."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from saddlepoint.errors import UsageError

Level = Literal["alarm", "warning", "note"]
"""Severity: the run is lost; the run is worse than it could be; information."""

_RANK: dict[Level, int] = {"alarm": 0, "warning": 1, "note": 2}


@dataclass(frozen=True)
class Finding:
    """The result of a check that the user should know, with its evidence.

    Attributes:
        name: kind of the finding.
        player: "generator", "discriminator" or "game".
        message: the finding with its numbers and what to try.
        numbers: the measured values behind the finding.
        level: "alarm", "warning" or "note".
        since: the step since which it holds, None where that is not known.

    Raises:
        UsageError: ``numbers`` is empty, or the message contains no number.

    >>> numbers = {"modes": 3.0}
    >>> Finding("mode-loss", "generator", "3 of 8 modes are generated.", numbers, level="alarm").key
    'mode-loss generator'
    """

    name: str
    player: str
    message: str
    numbers: dict[str, float]
    level: Level = "warning"
    since: int | None = None

    def __post_init__(self) -> None:
        if not self.numbers or not re.search(r"\d|zero", self.message):
            raise UsageError(
                f'The finding "{self.name}" has no number. Give the number that it is based on in'
                " `numbers` and in the message."
            )

    @property
    def key(self) -> str:
        """Name and player; two findings with the same key are the same finding."""
        return f"{self.name} {self.player}"

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as a dictionary of plain values."""
        return asdict(self)


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings by severity, the worst first; each level keeps the given order.

    >>> levels = ("note", "alarm", "warning")
    >>> found = [Finding(level, "game", "1", {"a": 1.0}, level=level) for level in levels]
    >>> [finding.name for finding in ranked(found)]
    ['alarm', 'warning', 'note']
    """
    return sorted(findings, key=lambda finding: _RANK[finding.level])
