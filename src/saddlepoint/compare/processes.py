"""Runs in processes of their own, so that none sees another's memory, threads or failure."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection

from saddlepoint.compare.execution import Job, Outcome, execute, unfinished

_CONTEXT = multiprocessing.get_context("forkserver")
_BEAT = 1.0


def prepare(packages: Iterable[str] = ()) -> None:
    """Let every run start from a process that has PyTorch, this library and the named packages loaded; of use before the first run."""
    _CONTEXT.set_forkserver_preload(["saddlepoint.compare.execution", "saddlepoint.compare.warm", *packages])


def execute_apart(job: Job, beat: Callable[[], None] = lambda: None) -> Outcome:
    """Execute a job in a new process and return its outcome; ``beat`` is called every second while it runs.

    What ``beat`` raises ends the process and passes on. A process that ends without a word, such as one that was killed for its memory,
    is a failed run.
    """
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_child, args=(sender, job), daemon=True)
    process.start()
    sender.close()
    try:
        while not receiver.poll(_BEAT):
            beat()
        outcome: Outcome = receiver.recv()
    except EOFError:
        process.join()
        outcome = unfinished(
            f"The process of the run ended with exit code {process.exitcode}; −9 is what running out of memory looks like."
        )
    finally:
        receiver.close()
        if process.is_alive() and sys.exception() is not None:
            process.kill()
        process.join()
    return outcome


def _child(sender: Connection, job: Job) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what becomes of the run
    sender.send(execute(job))
    sender.close()
