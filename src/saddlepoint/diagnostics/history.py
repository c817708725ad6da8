"""The history of a run as the verdicts read it: what was logged, as series over steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Series:
    """Values over steps; values that were not finite are left out.

    Attributes:
        steps: shape (n,), increasing.
        values: shape (n,).
    """

    steps: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def last(self) -> float:
        """The latest value; NaN where there is none."""
        return float(self.values[-1]) if len(self) else float("nan")

    def since(self, holds: np.ndarray) -> int | None:
        """Return the step at which a condition began that holds without a gap up to the latest value; None where it does not hold now.

        >>> series = Series(np.array([0, 10, 20, 30]), np.array([5.0, 1.0, 5.0, 6.0]))
        >>> series.since(series.values > 4), series.since(series.values < 2)
        (20, None)
        """
        if not len(self) or not holds[-1]:
            return None
        gaps = np.flatnonzero(~holds)
        return int(self.steps[gaps[-1] + 1 if len(gaps) else 0])


class History:
    """The lines of ``metrics.jsonl``, one mapping each, and what one must know to judge them.

    Args:
        loss: the GAN loss in use, a key of ``GAN_LOSSES``.
        coverage: the metric that counts modes or classes with its value for all of them, or None.
        lines: the lines so far.

    >>> history = History(loss="minimax", lines=[{"step": 5, "losses": {"generator": -0.7}}, {"step": 9}])
    >>> history.series("losses", "generator").values.tolist(), history.last_step
    ([-0.7], 9)
    """

    def __init__(self, *, loss: str, coverage: tuple[str, float] | None = None, lines: Iterable[Mapping[str, Any]] = ()) -> None:
        self.loss, self.coverage = loss, coverage
        self.lines: list[Mapping[str, Any]] = list(lines)

    def add(self, line: Mapping[str, Any]) -> None:
        """Append a line."""
        self.lines.append(line)

    @property
    def last_step(self) -> int:
        """The step of the latest line, 0 where there is none."""
        return int(self.lines[-1]["step"]) if self.lines else 0

    def series(self, *path: str) -> Series:
        """Return the numbers found under nested keys, such as ("losses", "generator")."""
        found = [(line["step"], _at(line, path)) for line in self.lines]
        return _series((step, value) for step, value in found if isinstance(value, int | float) and not isinstance(value, bool))

    def trace(self, kind: str, player: str) -> Series:
        """Return the finely sampled series of one player, ``kind`` is "losses" or "projections"."""
        pairs: list[tuple[int, float]] = []
        for line in self.lines:
            trace = line.get("trace")
            if trace and player in trace[kind]:
                pairs += [(step, value) for step, value in zip(trace["steps"], trace[kind][player], strict=True) if value is not None]
        return _series(pairs)

    def probes(self) -> list[tuple[int, Mapping[str, Any]]]:
        """Return (step, probe) of every probe."""
        return [(line["step"], line["probe"]) for line in self.lines if line.get("probe")]

    def moved_by_gradient(self) -> set[str]:
        """Return the players whose gradients the rule uses; rules of order 0 log none."""
        return {player for line in self.lines for player in line.get("gradient_norms", {})}


def _at(line: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = line
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _series(pairs: Iterable[tuple[int, float]]) -> Series:
    finite = [(step, value) for step, value in pairs if np.isfinite(value)]
    return Series(np.array([step for step, _ in finite], dtype=int), np.array([value for _, value in finite], dtype=float))
