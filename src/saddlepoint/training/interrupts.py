"""Ctrl-C, SIGTERM and SIGHUP as a wish to stop after the current step."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from saddlepoint.distributed import SingleProcess


class Interrupt:
    """The signal that arrived, or None: SIGINT for Ctrl-C, SIGTERM for every stop from outside. Calling it returns that."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self) -> int | None:
        return self.signal

    def stop_from_outside(self) -> None:
        """Count something else as SIGTERM, unless a signal has arrived: nobody reads what is printed any more."""
        self.signal = self.signal or signal.SIGTERM

    def agreed(self, distributed: SingleProcess) -> int | None:
        """Return the signal that arrived in any of several processes before they were asked: they stop after the same step.

        One that arrives while they are asked is kept, and told the next time.
        """
        told = int(distributed.all_reduce_max(self.signal or 0))
        if told:
            self.signal = told
        return told or None

    @property
    def exit_code(self) -> int:
        """128 + the signal, as shells report it: 130 for Ctrl-C, 143 for SIGTERM and whatever counts as it."""
        return 128 + (self.signal or 0)


@contextmanager
def deferred_interrupts() -> Iterator[Interrupt]:
    """Note SIGINT, SIGTERM and SIGHUP instead of dying of them; a second Ctrl-C stops at once.

    SIGHUP, which a terminal sends when it is closed, counts as SIGTERM. Where it is ignored, as
    under ``nohup``, it stays so.
    """
    interrupt = Interrupt()

    def note(number: int, _frame: FrameType | None) -> None:
        if interrupt.signal == signal.SIGINT == number:
            raise KeyboardInterrupt
        interrupt.signal = signal.SIGINT if number == signal.SIGINT else signal.SIGTERM

    noted = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        noted.append(signal.SIGHUP)
    before = {number: signal.signal(number, note) for number in noted}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
