"""The comparison itself: tune every method, make the runs that are missing, gather what they say."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Protocol, TypeVar

from optuna.storages import RDBStorage

from saddlepoint.compare.checking import check
from saddlepoint.compare.configuration import configuration
from saddlepoint.compare.directory import ComparisonDirectory, read_comparison
from saddlepoint.compare.execution import Job, Outcome
from saddlepoint.compare.gathering import gather, parameters_of
from saddlepoint.compare.jobs import Place, jobs_of, key_of
from saddlepoint.compare.processes import execute_apart, prepare
from saddlepoint.compare.storage import opened_storage
from saddlepoint.compare.study import ProblemPlan, Study
from saddlepoint.compare.tuning import Execute, Tuned, recalled, tune
from saddlepoint.errors import UsageError
from saddlepoint.training.config import RunConfig, Tree

_POLL = 1.0
_T = TypeVar("_T")
_R = TypeVar("_R")


class Watcher(Protocol):
    """Something that shows how a comparison goes."""

    def trial(self, problem: str, method: str, trial: Tree) -> None:
        """Called after every trial of a search."""

    def run(self, problem: str, method: str, run: str, outcome: Outcome) -> None:
        """Called after every run."""


class SilentWatcher:
    """Shows nothing."""

    def trial(self, problem: str, method: str, trial: Tree) -> None: ...

    def run(self, problem: str, method: str, run: str, outcome: Outcome) -> None: ...


def compare(
    study: Study,
    out: Path,
    *,
    jobs: int = 1,
    storage: str | None = None,
    watcher: Watcher | None = None,
    execute: Execute = execute_apart,
) -> Tree:
    """Make a comparison, or what is missing of it, and return what ``comparison.json`` holds.

    Args:
        study: what is compared.
        out: the comparison's directory; one that holds part of the study already is gone on with.
        jobs: runs at a time, each in a process of its own on one thread.
        storage: database URL of the tuning, ``tuning.db`` in the directory by default.
        watcher: is told of every run.
        execute: makes a run.

    Raises:
        UsageError: a configuration of the study is wrong, or the directory or storage cannot be used.
        KeyboardInterrupt: runs under way are given up; what is finished is written before.
    """
    with _begun(study, out, jobs, storage, watcher, execute) as comparison:
        try:
            for plan in study.problems:
                comparison.complete(plan)
                comparison.write()
        except KeyboardInterrupt:
            comparison.write()
            raise
        return read_comparison(comparison.directory.comparison)


def tune_method(
    study: Study,
    out: Path,
    *,
    jobs: int = 1,
    storage: str | None = None,
    watcher: Watcher | None = None,
    execute: Execute = execute_apart,
) -> tuple[Tuned, RunConfig]:
    """Tune the one method of a study on its one problem, so many trials at a time; return what was found and its configuration.

    The arguments and errors are those of ``compare``.
    """
    with _begun(study, out, jobs, storage, watcher, execute) as comparison:
        return comparison.tune_together(study.problems[0], study.baseline)


@contextmanager
def _begun(study: Study, out: Path, jobs: int, storage: str | None, watcher: Watcher | None, execute: Execute) -> Iterator[Comparison]:
    """Check a study, open its directory and, if anything is tuned, the storage of its trials."""
    check(study)
    directory = ComparisonDirectory.create(out, study)
    with nullcontext() if study.tuning is None else opened_storage(storage or directory.storage_url) as opened:
        yield Comparison(study, directory, jobs=jobs, storage=opened, watcher=watcher or SilentWatcher(), execute=execute)


class Stopped(Exception):  # noqa: N818 -- nothing is wrong
    """Ends a thread that waits for a run which nobody wants any more."""


class Comparison:
    """A study under way in its directory."""

    def __init__(
        self, study: Study, directory: ComparisonDirectory, *, jobs: int, storage: RDBStorage | None, watcher: Watcher, execute: Execute
    ) -> None:
        self.study, self.directory, self.jobs = study, directory, jobs
        self._watcher, self._execute = watcher, execute
        prepare(sorted({m.optimizer.name.partition(":")[0] for m in study.methods.values() if m.optimizer and ":" in m.optimizer.name}))
        self._storage = storage
        # what the finished file has is known from the start: it is written again with whatever is added, or interrupted, first
        self.searches: dict[tuple[str, str], Tuned | None] = recalled(study, directory.searches)
        self._stopping = threading.Event()

    def complete(self, plan: ProblemPlan) -> None:
        """Tune the methods of a problem and make its runs, as far as they are missing."""
        methods = self.study.methods_of(plan)
        self._at_once(lambda name: self._tune(plan, name), methods)
        missing = [
            (place, job)
            for name in methods
            for place, job in jobs_of(self.study, plan, name, parameters_of(self.searches[plan.name, name]))
            if self.directory.outcome(place, key_of(job)) is None
        ]
        missing.sort(key=lambda pair: (pair[0].factor != 1, pair[0].seed))  # seed by seed, so that an interrupted comparison is even
        while missing:
            made = self._at_once(lambda pair: self._make(*pair), missing)
            missing = [pair for pair, done in zip(missing, made, strict=True) if not done]
            if missing:
                time.sleep(_POLL)  # others are at work on the rest

    def write(self) -> None:
        """Write what there is so far."""
        self.directory.write_results(gather(self.study, self.searches, self.directory))

    def tune_together(self, plan: ProblemPlan, name: str) -> tuple[Tuned, RunConfig]:
        """Work on one method's search with all jobs; return what it found and the configuration of its best trial."""
        self._at_once(lambda _: self._tune(plan, name), range(self.jobs))
        tuned = self.searches[plan.name, name]
        if tuned is None or not tuned.trials:
            raise UsageError(f"Method {name} has no hyperparameter to search on {plan.name}.")
        return tuned, configuration(plan, self.study.methods[name], tuned.best)

    def _tune(self, plan: ProblemPlan, name: str) -> None:
        method, tuning = self.study.methods[name], self.study.tuning_of(plan)
        if (plan.name, name) in self.searches or tuning is None or self._storage is None:
            return
        try:
            self.searches[plan.name, name] = tune(
                plan,
                method,
                tuning,
                name=f"{self.study.name}/{plan.name}/{name}",
                storage=self._storage,
                execute=self._execute,
                go_on=self._go_on,
                report=lambda trial: self._watcher.trial(plan.name, name, trial),
            )
        finally:
            self._storage.remove_session()  # that of this thread

    def _make(self, place: Place, job: Job) -> bool:
        """Make a run unless another process is at it; say whether it is there now."""
        key = key_of(job)
        with self.directory.claimed(place) as mine:
            if mine and self.directory.outcome(place, key) is None:
                outcome = self._execute(job, self._go_on)
                self.directory.write_outcome(place, key, outcome)
                self._watcher.run(place.problem, place.method, place.run, outcome)
        return mine

    def _at_once(self, function: Callable[[_T], _R], items: Iterable[_T]) -> list[_R]:
        """Apply a function to items, so many at a time; after a mistake or an interrupt those under way are given up."""
        pool = ThreadPoolExecutor(self.jobs)
        try:
            return [future.result() for future in [pool.submit(function, item) for item in items]]
        except BaseException:
            self._stopping.set()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _go_on(self) -> None:
        """Called now and then by the threads that wait for runs; ends them when the comparison ends."""
        if self._stopping.is_set():
            raise Stopped
