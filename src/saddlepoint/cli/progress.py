"""Progress of a comparison or a search: a line for every trial and run, and a count."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

from saddlepoint.cli.streams import is_reader_gone, print_text

if TYPE_CHECKING:
    from rich.console import Console

    from saddlepoint.compare.comparison import Count
    from saddlepoint.compare.execution import RunResult
    from saddlepoint.training.config import Tree

_COUNT_INTERVAL = 60.0
"""Seconds without a line after which the count is printed, where there is no terminal."""


class Terminated(KeyboardInterrupt):
    """The command must stop as after SIGTERM."""


class Progress:
    """Prints a line, with the count, for every trial and run.

    On a terminal the count is also shown below the lines all the time.
    """

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
        """Print the result of a trial."""
        value = trial["status"] if trial["value"] is None else f"{trial['value']:.4g}"
        parameters = ", ".join(
            f"{key.removeprefix('optimizer.')}={found}"
            for key, found in trial["parameters"].items()
        )
        seeds = ", ".join(str(seed) for seed in trial["seeds"])
        self._print(
            f"{problem}, {method}, trial {trial['number']}: {value} on seed {seeds} with"
            f" {parameters} [{self._count}]"
        )

    def run(self, problem: str, method: str, run: str, result: RunResult) -> None:
        """Print the result of a run."""
        spent = f"{result['steps']} steps in {result['seconds']:.1f} s"
        error = "" if result["error"] is None else f": {result['error']}"
        status = result["status"]
        self._print(f"{problem}, {method}, {run}: {status}, {spent}{error} [{self._count}]")

    def note(self, text: str) -> None:
        """Print a note."""
        self._print(f"note: {text}")

    def progress(self, count: Count) -> None:
        """Update the count; print it where nothing was printed for a minute.

        Raises:
            Terminated: the reader of the output has closed it.
        """
        if is_reader_gone():
            raise Terminated
        left = (
            ""
            if count.seconds_left is None
            else f", about {_format_duration(count.seconds_left)} left"
        )
        self._count = f"{count.finished} of {count.total} finished{left}"
        if self._status is not None:
            self._status.update(self._count)
        elif time.monotonic() - self._printed >= _COUNT_INTERVAL:
            self._print(self._count)

    def _print(self, text: str) -> None:
        with self._lock:
            self._printed = time.monotonic()
            print_text(self._console, text)


def _format_duration(seconds: float) -> str:
    """Return an estimated duration with the precision that it deserves.

    >>> _format_duration(42.3), _format_duration(100), _format_duration(5000)
    ('42 s', '2 min', '1 h 23 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
