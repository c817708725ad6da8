"""What does it cost to watch? Default runs of ``digits``, with the time of probes and checks as a
share of that of training steps.

    python -m benchmarks.observing [--runs 3]

Both times are of the same run, in one thread: probes, checks, the trace and the snapshots between
them against everything that ``Trainer.train_step`` does. Metrics and pictures are not part of it;
their time is shown by every run.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import torch


def share(seed: int) -> tuple[float, float, float]:
    """Return milliseconds of a step, of observing for each step, and their ratio, in one default
    run."""
    from saddlepoint.training import RunDirectory, Trainer, resolve, train

    config = resolve({"problem": "digits", "seed": seed, "evaluation_samples": 200})
    with tempfile.TemporaryDirectory() as place:
        run = RunDirectory.create(config, Path(place) / "run")
        train(Trainer(config), run)
        summary = run.read_summary()
    step, probes = (
        1000 * summary[name] / summary["steps"] for name in ("seconds_here", "probing_seconds")
    )
    return step, probes, probes / step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [share(seed) for seed in range(options.runs)]
    for step, probes, ratio in rows:
        print(f"step {step:.2f} ms, probes {probes:.3f} ms a step: {ratio:.2%}")
    print(f"median {statistics.median(ratio for _, _, ratio in rows):.2%}")


if __name__ == "__main__":
    main()
