"""Signals as requests to stop after the current step."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from saddlepoint.distributed import SingleProcess


class Interrupt:
    """The signal that arrived, or None: SIGINT for Ctrl-C, SIGTERM for every other request to stop.

    Calling the object returns the signal.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self) -> int | None:
        return self.signal

    def request_stop(self) -> None:
        """Treat another cause, such as a closed output pipe, as SIGTERM, if no signal arrived."""
        self.signal = self.signal or signal.SIGTERM

    def all_reduce(self, distributed: SingleProcess) -> int | None:
        """Return the signal that arrived in any process, so that all stop after the same step.

        A signal that arrives during the reduction is kept and returned by the next call.
        """
        largest = int(distributed.all_reduce_max(self.signal or 0))
        if largest:
            self.signal = largest
        return largest or None

    @property
    def exit_code(self) -> int:
        """128 + the signal, as shells report it: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + (self.signal or 0)


@contextmanager
def deferred_interrupts() -> Iterator[Interrupt]:
    """Record SIGINT, SIGTERM and SIGHUP instead of ending the process; a second Ctrl-C ends it.

    SIGHUP, which a terminal sends when it is closed, is treated as SIGTERM. If it is ignored, as
    under ``nohup``, it stays ignored.
    """
    interrupt = Interrupt()

    def record(number: int, _frame: FrameType | None) -> None:
        if interrupt.signal == signal.SIGINT == number:
            raise KeyboardInterrupt
        interrupt.signal = signal.SIGINT if number == signal.SIGINT else signal.SIGTERM

    handled = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        handled.append(signal.SIGHUP)
    before = {number: signal.signal(number, record) for number in handled}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
