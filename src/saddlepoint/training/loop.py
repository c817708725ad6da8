"""The training loop: steps, and between them an observer."""

from __future__ import annotations

from collections.abc import Callable

from saddlepoint.errors import DivergenceError
from saddlepoint.training.observer import Observer, SilentWatcher, Status, Watcher
from saddlepoint.training.run_directory import RunDirectory
from saddlepoint.training.training import Training


def train(
    training: Training,
    run: RunDirectory,
    watcher: Watcher | None = None,
    interrupted: Callable[[], object] = lambda: None,
) -> Status:
    """Train until the budget is used, patience ends, the user interrupts or a loss diverges, recording into the run directory.

    Raises:
        DivergenceError: a loss or update is not finite, and the policy is to stop, or was to roll
            back and that is used up. The last finite state is saved and the summary written before.
    """
    observer = Observer(training, run, watcher or SilentWatcher())
    observer.start()
    while training.progress < 1 and observer.patient:
        if interrupted():
            return observer.end("interrupted")
        try:
            records = training.advance()
        except DivergenceError as error:
            observer.diverged(error)
            if observer.roll_back():
                continue
            observer.end("diverged", error)
            raise
        observer.after_step(records)
    return observer.end("finished" if training.progress >= 1 else "stopped early")
