"""A study: many runs, each in a process of its own with one thread, whose results are kept so that
it goes on where it stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

Run = dict[str, Any]
"""What identifies a run; its results are added to it."""


def train_configured(tree: dict[str, Any]) -> dict[str, Any]:
    """Train one configuration and return its metrics; a run that diverges is a result."""
    from saddlepoint import DivergenceError
    from saddlepoint.training import Evaluator, Trainer, resolve

    training = Trainer(resolve(tree))
    training.problem.load()
    try:
        while training.progress < 1:
            training.train_step()
    except DivergenceError:
        return {"metrics": None, "steps": training.step, "seconds": training.seconds}
    return {
        "metrics": Evaluator(training).evaluate(),
        "steps": training.step,
        "seconds": training.seconds,
    }


class Study:
    """Results so far, and how the missing ones are made: ``python -m module --one RUN`` prints one
    run's as JSON."""

    def __init__(self, module: str, results: Path, jobs: int) -> None:
        self.module, self.path, self.jobs = module, results, jobs
        self.results: list[Run] = json.loads(results.read_text()) if results.exists() else []

    def find(self, run: Run) -> Run | None:
        """Return the run with its results, or None."""
        return next((found for found in self.results if run.items() <= found.items()), None)

    def complete(self, runs: list[Run]) -> list[Run]:
        """Make the runs that are missing, and return all of them with their results."""
        with ThreadPoolExecutor(self.jobs) as pool:
            for result in pool.map(
                self._in_a_process, [run for run in runs if self.find(run) is None]
            ):
                self.results.append(result)
                self.path.write_text(json.dumps(self.results, indent=1) + "\n")
                print(result, file=sys.stderr, flush=True)
        return [found for run in runs if (found := self.find(run)) is not None]

    def _in_a_process(self, run: Run) -> Run:
        command = [sys.executable, "-m", self.module, "--one", json.dumps(run)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, env=environment
        )
        return {**run, **json.loads(done.stdout)}
