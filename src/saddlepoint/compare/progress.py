"""How far a comparison is: how many runs and trials are finished, and the time left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from saddlepoint.compare.jobs import mapped_seeds
from saddlepoint.compare.study import ProblemPlan, Study

_AGAIN = 30.0


@dataclass(frozen=True)
class Count:
    """Runs and trials of a study that are finished, all of them, and the seconds left; None while that is not known."""

    finished: int
    total: int
    left: float | None


class Progress:
    """Counts what is finished, by this process or another.

    The time left is what the rest costs at the rate at which this process has worked so far; before
    its first run has ended, the budgets of the rest, where these are seconds.

    Args:
        study: what is compared.
        jobs: runs at a time.
    """

    def __init__(self, study: Study, jobs: int) -> None:
        self._study, self._jobs = study, jobs
        self._began = time.monotonic()
        self._trials: dict[tuple[str, str], int] = {}
        self._finished: dict[Hashable, ProblemPlan] = {}
        self._searched: set[tuple[str, str]] = set()
        self._spent = 0.0
        self._lock = threading.Lock()

    def searched(self, plan: ProblemPlan, method: str) -> None:
        """Note that all trials of a method on a problem are finished."""
        with self._lock:
            self._searched.add((plan.name, method))

    def trial(self, plan: ProblemPlan, method: str) -> None:
        """Note that this process has finished a trial."""
        with self._lock:
            self._trials[plan.name, method] = self._trials.get((plan.name, method), 0) + 1
            self._spent += _cost(plan)

    def run(self, plan: ProblemPlan, place: Hashable, *, here: bool) -> None:
        """Note that a run is finished; ``here`` if this process has just made it."""
        with self._lock:
            self._finished[place] = plan
            self._spent += _cost(plan) if here else 0.0

    def count(self) -> Count:
        """Return how far it is now."""
        with self._lock:
            finished, total, rest = 0, 0, 0.0
            for plan in self._study.problems:
                runs = self._runs_of(plan)
                done = sum(other.name == plan.name for other in self._finished.values())
                for method in self._study.methods_of(plan):
                    trials = self._trials_of(plan)
                    runs += trials
                    own = min(trials, self._trials.get((plan.name, method), 0))
                    done += trials if (plan.name, method) in self._searched else own
                finished, total = finished + done, total + runs
                rest += (runs - done) * _cost(plan)
            return Count(finished, total, self._left(rest) if finished < total else None)

    def _left(self, rest: float) -> float | None:
        if self._spent:
            return rest * (time.monotonic() - self._began) / self._spent
        in_seconds = all("seconds" in plan.budget for plan in self._study.problems)
        return rest / self._jobs if in_seconds else None

    def _runs_of(self, plan: ProblemPlan) -> int:
        mapped = 0
        if plan.robustness:
            factors = sum(factor != 1 for factor in plan.robustness.factors)
            mapped = factors * len(mapped_seeds(self._study, plan))
        return len(self._study.methods_of(plan)) * (self._study.seeds + mapped)

    def _trials_of(self, plan: ProblemPlan) -> int:
        """Return how many trials a method gets, those of the finalists on further seeds among them."""
        tuning = self._study.tuning_of(plan)
        if tuning is None:
            return 0
        finalists = min(tuning.finalists, tuning.trials)
        return tuning.trials + (finalists * len(tuning.final_seeds) if finalists > 1 else 0)


class Waiting:
    """Says which process is waited for, and for how long: at once, when it is another one, and every half minute."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._whom: str | None = None
        self._since = self._said = 0.0
        self._lock = threading.Lock()

    def __call__(self, whom: str) -> None:
        """Wait for ``whom`` a little longer."""
        now = time.monotonic()
        with self._lock:
            if whom != self._whom:
                self._whom, self._since = whom, now
            elif now - self._said < _AGAIN:
                return
            self._said = now
        self._say(f"waiting for {whom}, since {now - self._since:.0f} s")


def _cost(plan: ProblemPlan) -> float:
    """Return what a run costs compared with others: its seconds; one like another where the budget is of another kind."""
    return plan.budget.get("seconds", 1.0)
