"""Training runs: configuration, loop, run directory, resuming."""

from saddlepoint.extras import needs

with needs("train", "saddlepoint.training"):
    from saddlepoint.training.config import RunConfig, resolve
    from saddlepoint.training.loop import train
    from saddlepoint.training.observer import Observer, SilentWatcher, summary
    from saddlepoint.training.run_directory import RunDirectory
    from saddlepoint.training.training import Training

__all__ = [
    "Observer",
    "RunConfig",
    "RunDirectory",
    "SilentWatcher",
    "Training",
    "resolve",
    "summary",
    "train",
]
