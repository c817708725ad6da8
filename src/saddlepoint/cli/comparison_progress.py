"""How a comparison goes: a line for every trial and run, and how many are finished."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

from saddlepoint.cli.app import say
from saddlepoint.cli.streams import reader_is_gone

if TYPE_CHECKING:
    from rich.console import Console

    from saddlepoint.compare.comparison import Count
    from saddlepoint.compare.execution import RunResult
    from saddlepoint.training.config import Tree

_QUIET = 60.0
"""Seconds without a line after which the count is printed where there is no terminal."""


class Terminated(KeyboardInterrupt):
    """The command is to stop as after SIGTERM."""


class Progress:
    """Lines with the count behind them; on a terminal the count stands below them all the time."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = console.status("starting") if console.is_terminal else None
        self._count = ""
        self._printed = time.monotonic()
        self._lock = threading.Lock()

    def __enter__(self) -> Progress:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def trial(self, problem: str, method: str, trial: Tree) -> None:
        """Print what a trial found."""
        value = trial["status"] if trial["value"] is None else f"{trial['value']:.4g}"
        parameters = ", ".join(
            f"{key.removeprefix('optimizer.')}={found}"
            for key, found in trial["parameters"].items()
        )
        seeds = ", ".join(str(seed) for seed in trial["seeds"])
        self._line(
            f"{problem}, {method}, trial {trial['number']}: {value} on seed {seeds} with"
            f" {parameters} [{self._count}]"
        )

    def run(self, problem: str, method: str, run: str, result: RunResult) -> None:
        """Print how a run ended."""
        spent = f"{result['steps']} steps in {result['seconds']:.1f} s"
        why = "" if result["error"] is None else f": {result['error']}"
        self._line(f"{problem}, {method}, {run}: {result['status']}, {spent}{why} [{self._count}]")

    def note(self, text: str) -> None:
        """Print a sentence."""
        self._line(f"note: {text}")

    def progress(self, count: Count) -> None:
        """Show the count; print it where nothing has been printed for a minute. Stop when nobody reads the output any more."""
        if reader_is_gone():
            raise Terminated
        left = "" if count.seconds_left is None else f", about {_duration(count.seconds_left)} left"
        self._count = f"{count.finished} of {count.total} finished{left}"
        if self._status is not None:
            self._status.update(self._count)
        elif time.monotonic() - self._printed >= _QUIET:
            self._line(self._count)

    def _line(self, text: str) -> None:
        with self._lock:
            self._printed = time.monotonic()
            say(self._console, text)


def _duration(seconds: float) -> str:
    """Return a time that is left, as precise as it is known.

    >>> _duration(42.3), _duration(100), _duration(5000)
    ('42 s', '2 min', '1 h 23 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
