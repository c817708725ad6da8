"""Training runs: configuration, trainer, evaluator, training loop, run directory, resuming."""

from saddlepoint.extras import needs

with needs("train", "saddlepoint.training"):
    from saddlepoint.training.config import RunConfig, resolve
    from saddlepoint.training.evaluator import Evaluator
    from saddlepoint.training.loop import train
    from saddlepoint.training.recorder import Recorder, SilentWatcher, summary
    from saddlepoint.training.run_directory import NullRunDirectory, RunDirectory
    from saddlepoint.training.trainer import Trainer

__all__ = [
    "Evaluator",
    "NullRunDirectory",
    "Recorder",
    "RunConfig",
    "RunDirectory",
    "SilentWatcher",
    "Trainer",
    "resolve",
    "summary",
    "train",
]
