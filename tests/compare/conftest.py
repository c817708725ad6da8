from __future__ import annotations

import os
import threading

import pytest

from saddlepoint.compare.study import study_from_dict

# before any process is started: they inherit it
os.environ.setdefault("SADDLEPOINT_TRUST", "tests.compare.deadly")


@pytest.fixture
def small_study():
    """A study whose runs take milliseconds."""

    def make(**changes):
        problem = {
            "name": "tiny ring",
            "problem": {"name": "mixture8", "hidden": 4, "latent": 2},
            "budget": {"steps": 6},
            "settings": {"batch_size": 8, "evaluation_samples": 160, "lr_schedule": "linear"},
            "target": 2.0,  # mode_distance is at most 1, so every finished run succeeds
            "points": 3,
        }
        tree = {
            "name": "small",
            "seeds": 2,
            "methods": ["adam", "sign"],
            "problems": [problem | changes.pop("problem", {})],
        }
        return study_from_dict(tree | changes, "The study")

    return make


class Recorded:
    """Executes jobs in this process, counts them, and can be told to stop after so many."""

    def __init__(self, most=10**9, result=None):
        self.jobs, self.most, self.result = [], most, result
        self._lock, self._running = threading.Lock(), threading.Lock()

    def __call__(self, job, heartbeat):
        from saddlepoint.compare.execution import execute

        heartbeat()
        with self._lock:
            if len(self.jobs) == self.most:
                raise KeyboardInterrupt
            self.jobs.append(job)
        with self._running:  # a process has one global random state, so two runs in it take turns
            return execute(job) if self.result is None else self.result(job)


@pytest.fixture
def recorded():
    return Recorded
