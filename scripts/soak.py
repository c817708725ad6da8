"""Train for a long time with everything that is observed at short intervals, and look at what grows.

    python scripts/soak.py --minutes 30                 # writes benchmarks/results/soak.json

Every ten seconds it notes the resident memory of the process, its open file descriptors and the processor time of a step since the last
note, alone and as a multiple of a fixed computation's that is made once a second: what else the machine does, and the clock of its
processor, change both alike. The first fifth is warm-up: caches fill and allocators settle. Growth is that of a line through the notes
behind it, with the median of the slopes between all pairs (Theil and Sen), over all the time behind warm-up; the drift of step time
likewise.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from statistics import fmean
from time import perf_counter, process_time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch

import numpy
import torch

from saddlepoint.game_optimizer import Record
from saddlepoint.training import RunDirectory, Training, resolve, train

RESULT = Path(__file__).parents[1] / "benchmarks" / "results" / "soak.json"
EVERY = 10.0  # seconds between notes
REFERENCE_EVERY = 1.0
WARM_UP = 0.2

OBSERVING = {"log_every": 50, "trace_every": 25, "probe_every": 200, "sample_every": 200, "checkpoint_every": 200, "evaluate_every": 1000}
CONFIGURATION: dict[str, Any] = {"problem": "digits", "steps": 10_000_000, "schedule": "constant", "keep_checkpoints": 3, **OBSERVING}


class Reference:
    """Gradients of a network of the articles' size, of which nothing is kept: what a step is compared with."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self._network = torch.nn.Sequential(torch.nn.Linear(784, 128), torch.nn.LeakyReLU(0.2), torch.nn.Linear(128, 1))
        self._batch = torch.randn(64, 784, generator=generator)

    def __call__(self) -> float:
        """Return its processor time in seconds, about 0.02."""
        began = process_time()
        for _ in range(40):
            torch.autograd.grad(self._network(self._batch).square().mean(), list(self._network.parameters()))
        return process_time() - began


class Notes:
    """A watcher that notes memory, descriptors and step time."""

    def __init__(self) -> None:
        self.began = self._last = self._compared = perf_counter()
        self._step, self._seconds = 0, 0.0
        self._reference, self._references = Reference(), list[float]()
        self.rows: list[dict[str, float]] = []

    def update(self, training: Training, records: list[Record]) -> None:
        now = perf_counter()
        if now - self._compared >= REFERENCE_EVERY:
            self._compared = now
            self._references.append(self._reference())
        if now - self._last < EVERY:
            return
        steps, seconds = training.step - self._step, training.seconds - self._seconds
        self._last, self._step, self._seconds = now, training.step, training.seconds
        row = {"minutes": (now - self.began) / 60, "step": training.step, "step_milliseconds": 1000 * seconds / steps}
        row["step_to_reference"] = seconds / steps / fmean(self._references)
        self._references.clear()
        self.rows.append(row | {"memory_mib": resident(), "descriptors": len(os.listdir("/proc/self/fd"))})

    def report(self, sentence: str) -> None:
        print(sentence, flush=True)

    def evaluating(self, done: int, total: int) -> None:
        pass


def resident() -> float:
    """Return the resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def growth(rows: list[dict[str, float]], name: str) -> float:
    """Return by which share of its first value a quantity grows over the rows, along the median of the slopes between all pairs."""
    x, y = (numpy.array([row[key] for row in rows]) for key in ("minutes", name))
    i, j = numpy.triu_indices(len(rows), 1)
    slope = float(numpy.median((y[j] - y[i]) / (x[j] - x[i])))
    start = float(numpy.median(y - slope * (x - x[0])))
    return slope * float(x[-1] - x[0]) / start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = resolve(CONFIGURATION)
    with tempfile.TemporaryDirectory() as folder:
        training, run, notes = Training(config, clock=process_time), RunDirectory.create(config, Path(folder) / "run"), Notes()
        with run.claimed():
            train(training, run, notes, interrupted=lambda: perf_counter() - notes.began > 60 * options.minutes)
        written = sum(path.stat().st_size for path in (Path(folder) / "run").rglob("*") if path.is_file()) / 2**20
    rows = [row for row in notes.rows if row["minutes"] > WARM_UP * options.minutes]
    descriptors = [row["descriptors"] for row in rows]
    found = {
        "configuration": CONFIGURATION,
        "minutes": round(notes.rows[-1]["minutes"], 1),
        "steps": training.step,
        "written_mib": round(written, 1),
        "memory_mib": [round(rows[0]["memory_mib"], 1), round(rows[-1]["memory_mib"], 1)],
        "memory_growth": round(growth(rows, "memory_mib"), 4),
        "descriptors": [int(min(descriptors)), int(max(descriptors))],
        "step_milliseconds": [round(rows[0]["step_milliseconds"], 2), round(rows[-1]["step_milliseconds"], 2)],
        "step_drift": round(growth(rows, "step_milliseconds"), 4),
        "step_to_reference": [round(rows[0]["step_to_reference"], 4), round(rows[-1]["step_to_reference"], 4)],
        "step_to_reference_drift": round(growth(rows, "step_to_reference"), 4),
        "rows": [{name: round(value, 3) for name, value in row.items()} for row in notes.rows[:: max(1, len(notes.rows) // 60)]],
    }
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    print({name: value for name, value in found.items() if name != "rows"})


if __name__ == "__main__":
    main()
