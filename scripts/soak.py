"""Train for a long time with everything that is observed at short intervals, and look at what
grows.

    python scripts/soak.py --minutes 30                 # writes benchmarks/results/soak.json

Every ten seconds it notes the resident memory of the process, its open file descriptors and the
processor time of a step since the last note. The first fifth is warm-up: caches fill and allocators
settle. Growth is that of a line through the notes behind it, with the median of the slopes between
all pairs (Theil and Sen), over all the time behind warm-up.

The processor time of a step follows what else the machine does, so its drift is measured against a
new process that has loaded the last checkpoint: the two take steps in turn, once after warm-up and
once at the end. Where the time between changed nothing, the median of the ratios is the same.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch

import numpy
import torch

from saddlepoint.game_optimizer import Record
from saddlepoint.training import RunDirectory, Trainer, resolve, train
from saddlepoint.training.config import Tree

RESULT = Path(__file__).parents[1] / "benchmarks" / "results" / "soak.json"
EVERY = 10.0  # seconds between notes
ROUNDS, STEPS = 300, 10  # of both processes in turn
WARM_UP = 0.2

OBSERVING = {
    "log_every": 50,
    "trace_every": 25,
    "probe_every": 200,
    "sample_every": 200,
    "checkpoint_every": 200,
    "evaluate_every": 1000,
}
CONFIGURATION: dict[str, Any] = {
    "problem": "digits",
    "steps": 10_000_000,
    "lr_schedule": "constant",
    "keep_checkpoints": 3,
    **OBSERVING,
}


class Notes:
    """A watcher that notes memory, descriptors and step time, and after warm-up compares this
    process with a new one."""

    def __init__(self, run: RunDirectory, minutes: float) -> None:
        self._run, self._warm = run, WARM_UP * minutes
        self.after_warm_up: Tree = {}
        self.began = self._last = perf_counter()
        self._step, self._seconds = 0, 0.0
        self.rows: list[dict[str, float]] = []

    def update(self, training: Trainer, records: list[Record]) -> None:
        now = perf_counter()
        if now - self._last < EVERY:
            return
        if not self.after_warm_up and now - self.began > 60 * self._warm:
            self.after_warm_up = compared(training, self._run)
            self._last, self._step, self._seconds = perf_counter(), training.step, training.seconds
            self.began += self._last - now  # which is not counted
            return
        steps, seconds = training.step - self._step, training.seconds - self._seconds
        self._last, self._step, self._seconds = now, training.step, training.seconds
        row = {
            "minutes": (now - self.began) / 60,
            "step": training.step,
            "step_milliseconds": 1000 * seconds / steps,
        }
        self.rows.append(
            row | {"memory_mib": resident(), "descriptors": len(os.listdir("/proc/self/fd"))}
        )

    def report(self, sentence: str) -> None:
        print(sentence, flush=True)

    def evaluating(self, done: int, total: int) -> None:
        pass


def resident() -> float:
    """Return the resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def growth(rows: list[dict[str, float]], name: str) -> float:
    """Return by which share of its first value a quantity grows over the rows, along the median of
    the slopes between all pairs."""
    x, y = (numpy.array([row[key] for row in rows]) for key in ("minutes", name))
    i, j = numpy.triu_indices(len(rows), 1)
    slope = float(numpy.median((y[j] - y[i]) / (x[j] - x[i])))
    start = float(numpy.median(y - slope * (x - x[0])))
    return slope * float(x[-1] - x[0]) / start


def stepping(training: Trainer) -> float:
    """Return the processor time of a few steps in seconds."""
    began = process_time()
    for _ in range(STEPS):
        training.train_step()
    return process_time() - began


def answer(path: Path, questions: Connection) -> None:
    """Go on from the last checkpoint of a run in this process: for every question a few steps, and
    their time."""
    torch.set_num_threads(1)
    run = RunDirectory.open(path)
    config = run.read_config()
    training = Trainer(config, clock=process_time)
    training.problem.load()
    training.load_state_dict(run.load_checkpoint(config))
    while questions.recv():
        questions.send(stepping(training))


def compared(training: Trainer, run: RunDirectory) -> Tree:
    """Return the time of steps in this process as a multiple of that in a new one, measured in
    turn: the median, and its 95 % interval."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=answer, args=(run.path, theirs))
    process.start()

    def new() -> float:
        ours.send(True)
        return float(ours.recv())

    for _ in range(20):  # it has just begun
        new()
    ratios = []
    for turn in range(ROUNDS):
        if turn % 2:
            old = stepping(training)
            ratios.append(old / new())
        else:
            fresh = new()
            ratios.append(stepping(training) / fresh)
    ours.send(False)
    process.join()
    ours.close()
    theirs.close()
    ratios.sort()
    around = 0.98 * math.sqrt(ROUNDS)  # ranks: the number of ratios below their median is binomial
    low, high = ratios[int(ROUNDS / 2 - around)], ratios[int(ROUNDS / 2 + around)]
    return {"median": round(ratios[ROUNDS // 2], 4), "interval": [round(low, 4), round(high, 4)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = resolve(CONFIGURATION)
    with tempfile.TemporaryDirectory() as folder:
        training, run = (
            Trainer(config, clock=process_time),
            RunDirectory.create(config, Path(folder) / "run"),
        )
        notes = Notes(run, options.minutes)
        with run.lock():
            train(
                training,
                run,
                notes,
                interrupted=lambda: perf_counter() - notes.began > 60 * options.minutes,
            )
        at_the_end = compared(training, run)
        written = (
            sum(path.stat().st_size for path in (Path(folder) / "run").rglob("*") if path.is_file())
            / 2**20
        )
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
        "step_milliseconds": [
            round(rows[0]["step_milliseconds"], 2),
            round(rows[-1]["step_milliseconds"], 2),
        ],
        "step_drift": round(growth(rows, "step_milliseconds"), 4),
        "old_to_new_process": {"after warm-up": notes.after_warm_up, "at the end": at_the_end},
        "rows": [
            {name: round(value, 3) for name, value in row.items()}
            for row in notes.rows[:: max(1, len(notes.rows) // 60)]
        ],
    }
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    print({name: value for name, value in found.items() if name != "rows"})


if __name__ == "__main__":
    main()
