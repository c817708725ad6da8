"""The training loop."""

from __future__ import annotations

from collections.abc import Callable

from saddlepoint.errors import DivergenceError
from saddlepoint.training.recorder import Recorder, SilentWatcher, Status, Watcher
from saddlepoint.training.run_directory import RunDirectory
from saddlepoint.training.trainer import Trainer


def train(
    trainer: Trainer,
    run: RunDirectory,
    watcher: Watcher | None = None,
    interrupted: Callable[[], object] = lambda: None,
) -> Status:
    """Train until the budget is used, and record into the run directory.

    Training also ends when patience is used up, when ``interrupted`` returns a true value, or when
    a loss diverges.

    Args:
        trainer: the run.
        run: its directory.
        watcher: displays the progress; nothing by default.
        interrupted: called before every step.

    Raises:
        DivergenceError: a loss or an update is not finite, and ``on_divergence`` is "stop" or all
            roll-backs are used. The last finite state and the summary are written before.
    """
    recorder = Recorder(trainer, run, watcher or SilentWatcher())
    recorder.start()
    while trainer.progress < 1 and recorder.patient:
        if interrupted():
            return recorder.finish("interrupted")
        try:
            results = trainer.train_step()
        except DivergenceError as error:
            recorder.record_divergence(error)
            if recorder.roll_back():
                continue
            recorder.finish("diverged", error)
            raise
        recorder.record_step(results)
    return recorder.finish("finished" if trainer.progress >= 1 else "stopped early")
