"""Runs in processes of their own, so that none sees another's memory, threads or failure."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from multiprocessing import forkserver, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from saddlepoint.compare.execution import Job, Outcome, execute, unfinished
from saddlepoint.io.imports import safe_path_for_subprocesses

_CONTEXT = multiprocessing.get_context("forkserver")
_BEAT = 1.0
_STOPPING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
"""What a terminal, a time limit or a scheduler sends to the whole group of processes: the parent decides what becomes of the runs."""


def prepare(packages: Iterable[str] = ()) -> None:
    """Let every run start from a process that has PyTorch, this library and the named packages loaded; of use before the first run."""
    _CONTEXT.set_forkserver_preload(
        ["saddlepoint.compare.execution", "saddlepoint.compare.warm", *packages]
    )


def execute_apart(job: Job, beat: Callable[[], None] = lambda: None) -> Outcome:
    """Execute a job in a new process and return its outcome; ``beat`` is called every second while it runs.

    What ``beat`` raises ends the process and passes on. A process that ends without a word, such as
    one that was killed for its memory, is a failed run. Signals that reach a whole group of
    processes do not reach it.
    """
    _ensure_server()
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_child, args=(sender, job), daemon=True)
    process.start()
    sender.close()
    try:
        while not receiver.poll(_BEAT):
            beat()
        outcome: Outcome = receiver.recv()
    except (EOFError, OSError):  # it ended before it said anything, or in the middle of it
        process.join()
        time.sleep(_BEAT)
        # whatever ended the run may be about to end the comparison: then the run has no outcome
        beat()
        outcome = unfinished(_end_of(process.exitcode))
    finally:
        receiver.close()
        if process.is_alive() and sys.exception() is not None:
            process.kill()
        process.join()
    return outcome


def _ensure_server() -> None:
    """Start the process that runs are forked from, unless it is there; it and they never receive the signals of ``_STOPPING``.

    A signal that is blocked stays blocked in every process that is started meanwhile; that leaves
    no moment in which one could arrive.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        with safe_path_for_subprocesses():
            resource_tracker.ensure_running()  # unblocks SIGINT and SIGTERM here once it is started
            signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_of(code: int | None) -> str:
    """Say how a process ended that said nothing itself."""
    if code is None or code >= 0:
        return f"The process of the run ended with exit code {code} and without an outcome."
    name = signal.Signals(-code).name if -code in set(signal.Signals) else "an unknown signal"
    why = " Running out of memory looks like this." if -code == signal.SIGKILL else ""
    return f"The process of the run was killed by signal {-code} ({name}).{why}"


def _child(sender: Connection, job: Job) -> None:
    threading.Thread(target=_end_with_the_parent, args=(parent_process(),), daemon=True).start()
    sender.send(execute(job))
    sender.close()


def _end_with_the_parent(parent: Any) -> None:
    """End this process when the comparison was killed: nobody waits for its run any more."""
    wait([parent.sentinel])
    os._exit(1)
