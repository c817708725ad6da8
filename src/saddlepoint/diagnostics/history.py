"""The history of a run as the checks read it: logged values as series over steps."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from saddlepoint.errors import UsageError


@dataclass(frozen=True)
class Series:
    """Finite values over steps.

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
        """Return the first step of the unbroken stretch of ``holds`` that ends at the latest value.

        None where the condition does not hold at the latest value.

        Args:
            holds: shape (n,), whether a condition holds at each value.

        >>> series = Series(np.array([0, 10, 20, 30]), np.array([5.0, 1.0, 5.0, 6.0]))
        >>> series.since(series.values > 4), series.since(series.values < 2)
        (20, None)
        """
        if not len(self) or not holds[-1]:
            return None
        gaps = np.flatnonzero(~holds)
        return int(self.steps[gaps[-1] + 1 if len(gaps) else 0])


class History:
    """The lines of ``metrics.jsonl``, one mapping each, and what is needed to interpret them.

    Args:
        loss: the GAN loss in use, a key of ``GAN_LOSSES``.
        coverage: the metric that counts modes or classes and its value for all of them, or None.
        lines: the lines so far.

    Attributes:
        last: the latest line; empty where there is none.
        rollbacks: the log entry of each rollback.

    >>> lines = [{"step": 5, "losses": {"generator": -0.7}}, {"step": 9}]
    >>> history = History(loss="minimax", lines=lines)
    >>> history.series("losses", "generator").values.tolist(), history.last_step
    ([-0.7], 9)
    """

    def __init__(
        self,
        *,
        loss: str,
        coverage: tuple[str, float] | None = None,
        lines: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        self.loss, self.coverage = loss, coverage
        self.last: Mapping[str, Any] = {}
        self.rollbacks: list[Mapping[str, Any]] = []
        # the lines themselves would take seven times the memory
        self._columns: dict[tuple[str, ...], _Column] = {}
        self._traces: dict[tuple[str, str], _Column] = {}
        self._probes: list[tuple[int, Mapping[str, Any]]] = []
        self._moved: set[str] = set()
        for line in lines:
            self.add(line)

    def add(self, line: Mapping[str, Any]) -> None:
        """Append a line of nested plain values with a "step".

        Every other key may be missing; docs/diagnostics.md lists them.

        Raises:
            UsageError: the line has no step.
        """
        if "step" not in line:
            raise UsageError(
                f'A line of the log has no "step": {str(dict(line))[:100]}. Add the number of its'
                " step."
            )
        step, trace = line["step"], line.get("trace") or {}
        for path, value in _numbers({key: part for key, part in line.items() if key != "trace"}):
            self._columns.setdefault(path, _Column()).add(step, value)
        for kind in ("losses", "projections"):
            for player, values in (trace.get(kind) or {}).items():
                column = self._traces.setdefault((kind, player), _Column())
                for at, value in zip(trace.get("steps", ()), values, strict=True):
                    if value is not None:
                        column.add(at, value)
        if line.get("probe"):
            self._probes.append((step, line["probe"]))
        if line.get("rollback"):
            self.rollbacks.append(line["rollback"])
        self._moved |= set(line.get("gradient_norms") or {})
        self.last = line

    @property
    def last_step(self) -> int:
        """The step of the latest line, 0 where there is none."""
        return int(self.last.get("step", 0))

    def series(self, *path: str) -> Series:
        """Return the numbers under nested keys, such as ("losses", "generator")."""
        return self._columns.get(path, _Column()).series()

    def trace(self, kind: str, player: str) -> Series:
        """Return the trace of one player; ``kind`` is "losses" or "projections"."""
        return self._traces.get((kind, player), _Column()).series()

    def probes(self) -> list[tuple[int, Mapping[str, Any]]]:
        """Return (step, probe) of every probe."""
        return list(self._probes)

    def metrics(self) -> list[str]:
        """Return the sorted names of the measured metrics."""
        return sorted(path[1] for path in self._columns if path[0] == "metrics" and len(path) == 2)

    def moved_by_gradient(self) -> set[str]:
        """Return the players with logged gradients; rules of order 0 log none."""
        return set(self._moved)


class _Column:
    """Steps and values in arrays of machine numbers."""

    def __init__(self) -> None:
        self._steps, self._values = array("q"), array("d")

    def add(self, step: int, value: float) -> None:
        self._steps.append(step)
        self._values.append(value)

    def series(self) -> Series:
        steps, values = np.array(self._steps, dtype=int), np.array(self._values, dtype=float)
        finite = np.isfinite(values)
        return Series(steps[finite], values[finite])


def _numbers(
    tree: Mapping[str, Any], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], float]]:
    """Yield (nested keys, number) for every number in the tree."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, (*above, key))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield (*above, key), value
