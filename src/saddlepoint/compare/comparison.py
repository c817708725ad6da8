"""The comparison itself: tune every method, make the runs that are missing, gather what they say."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from optuna.storages import RDBStorage

from saddlepoint.compare.again import Rerun, is_wanted_again
from saddlepoint.compare.checking import check
from saddlepoint.compare.configuration import configuration
from saddlepoint.compare.directory import ComparisonDirectory, read_comparison
from saddlepoint.compare.execution import Job, Outcome
from saddlepoint.compare.gathering import gather, parameters_of
from saddlepoint.compare.jobs import Place, jobs_of, key_of
from saddlepoint.compare.processes import execute_apart, prepare
from saddlepoint.compare.progress import Count, Progress, Waiting
from saddlepoint.compare.provenance import difference, made_with
from saddlepoint.compare.storage import opened_storage
from saddlepoint.compare.study import ProblemPlan, Study
from saddlepoint.compare.tuning import Execute, Tuned, recalled, tune
from saddlepoint.errors import UsageError
from saddlepoint.training.config import RunConfig, Tree, validate

_POLL = 1.0
_MOST_NOTES = 3
_T = TypeVar("_T")
_R = TypeVar("_R")


class Watcher(Protocol):
    """Something that shows how a comparison goes."""

    def trial(self, problem: str, method: str, trial: Tree) -> None:
        """Called after every trial of a search."""

    def run(self, problem: str, method: str, run: str, outcome: Outcome) -> None:
        """Called after every run."""

    def note(self, text: str) -> None:
        """Called with a sentence about the comparison, such as which process is waited for."""

    def progress(self, count: Count) -> None:
        """Called about every second, and when something is finished."""


class SilentWatcher:
    """Shows nothing."""

    def trial(self, problem: str, method: str, trial: Tree) -> None: ...

    def run(self, problem: str, method: str, run: str, outcome: Outcome) -> None: ...

    def note(self, text: str) -> None: ...

    def progress(self, count: Count) -> None: ...


def compare(
    study: Study,
    out: Path,
    *,
    jobs: int = 1,
    storage: str | None = None,
    watcher: Watcher | None = None,
    execute: Execute = execute_apart,
    rerun: Collection[Rerun] = (),
) -> Tree:
    """Make a comparison, or what is missing of it, and return what ``comparison.json`` holds.

    A run that is interrupted has no outcome. One whose process is killed by something else has
    failed. An outcome that was made with other versions is kept, and says so.

    Args:
        study: what is compared.
        out: the comparison's directory; one that holds part of the study already is gone on with.
        jobs: runs at a time, each in a process of its own on one thread.
        storage: database URL of the tuning, ``tuning.db`` in the directory by default.
        watcher: is told of every run.
        execute: makes a run.
        rerun: which finished runs and trials are made again: "killed" for those whose process ended
            without an outcome, "failed" for all that failed, "outdated" for those that were made
            with other versions.

    Raises:
        UsageError: a configuration of the study is wrong, or the directory or storage cannot be
            used.
        KeyboardInterrupt: runs under way are given up; what is finished is written before.
    """
    with _begun(study, out, jobs, storage, watcher, execute, rerun) as comparison:
        try:
            for plan in study.problems[:-1]:
                comparison.complete(plan)
                if comparison.unwritten:  # to gather a large study takes a while
                    comparison.write()
            comparison.complete(study.problems[-1])
            comparison.write()
        # the latter: nobody reads what the watcher prints any more
        except (KeyboardInterrupt, BrokenPipeError):
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
    rerun: Collection[Rerun] = (),
) -> tuple[Tuned, RunConfig]:
    """Tune the one method of a study on its one problem, so many trials at a time; return what was found and its configuration.

    The arguments and errors are those of ``compare``.
    """
    with _begun(study, out, jobs, storage, watcher, execute, rerun) as comparison:
        return comparison.tune_together(study.problems[0], study.baseline)


@contextmanager
def _begun(
    study: Study,
    out: Path,
    jobs: int,
    storage: str | None,
    watcher: Watcher | None,
    execute: Execute,
    rerun: Collection[Rerun],
) -> Iterator[Comparison]:
    """Check a study, open its directory and, if anything is tuned, the storage of its trials."""
    if storage is not None and study.tuning is None:
        raise UsageError(
            "--storage is for the trials of searches, and nothing is tuned here. Give --trials too,"
            " or tuning in the study."
        )
    check(study)
    stopping = threading.Event()
    with ExitStack() as stack:
        opened = None
        if storage is not None:  # before the directory is made: a mistake leaves nothing behind
            opened = stack.enter_context(opened_storage(storage, stopping))
        directory = stack.enter_context(ComparisonDirectory.opened(out, study))
        if study.tuning is not None and opened is None:
            opened = stack.enter_context(opened_storage(directory.storage_url, stopping))
        yield Comparison(
            study,
            directory,
            jobs=jobs,
            storage=opened,
            watcher=watcher or SilentWatcher(),
            execute=execute,
            rerun=rerun,
            stopping=stopping,
        )


class Stopped(Exception):  # noqa: N818 -- nothing is wrong
    """Ends a thread that waits for a run which nobody wants any more."""


class Comparison:
    """A study under way in its directory.

    Attributes:
        study, directory, jobs: what is compared, where, and how many runs at a time.
        searches: what is known of each method's search.
        unwritten: whether anything was added since the results were last written.
    """

    def __init__(
        self,
        study: Study,
        directory: ComparisonDirectory,
        *,
        jobs: int,
        storage: RDBStorage | None,
        watcher: Watcher,
        execute: Execute,
        rerun: Collection[Rerun],
        stopping: threading.Event,
    ) -> None:
        self.study, self.directory, self.jobs = study, directory, jobs
        self._watcher, self._execute = watcher, execute
        prepare(
            sorted(
                {
                    m.optimizer.name.partition(":")[0]
                    for m in study.methods.values()
                    if m.optimizer and ":" in m.optimizer.name
                }
            )
        )
        self._storage, self._rerun = storage, frozenset(rerun)
        # what the finished file has is known from the start: it is written again with whatever is
        # added, or interrupted, first
        self.searches: dict[tuple[str, str], Tuned | None] = recalled(study, directory.searches)
        self._stopping = stopping
        self._progress, self._waiting = Progress(study, jobs), Waiting(watcher.note)
        self._made: set[Place] = set()
        self._added = self.unwritten = False
        otherwise: Counter[str] = Counter()
        for plan in study.problems:
            otherwise.update(self._count_what_is_there(plan))
        for how, count in otherwise.most_common(_MOST_NOTES):
            watcher.note(
                f"{count} finished runs and trials were made otherwise ({how}). They are kept, and"
                " say so."
            )
        if otherwise:
            watcher.note("To make again what was made with other versions: --rerun outdated.")

    def complete(self, plan: ProblemPlan) -> None:
        """Tune the methods of a problem and make its runs, as far as they are missing."""
        methods = self.study.methods_of(plan)
        self._at_once(lambda name: self._tune(plan, name), methods)
        missing = [
            (place, job)
            for name in methods
            for place, job in self._jobs_of(plan, name)
            if self._is_missing(place, job)
        ]
        # seed by seed, so that an interrupted comparison is even
        missing.sort(key=lambda pair: (pair[0].factor != 1, pair[0].seed))
        while missing:
            made = self._at_once(lambda pair: self._make(plan, *pair), missing)
            missing = [pair for pair, done in zip(missing, made, strict=True) if not done]
            if missing:
                self._go_on()
                time.sleep(_POLL)  # others are at work on the rest

    def write(self) -> None:
        """Write what there is so far; where nothing was added, the finished file keeps the record of where it was made."""
        found = gather(self.study, self.searches, self.directory)
        self.unwritten = False
        added = self._added or not self.directory.origin
        self.directory.write_results(found if added else {**found, **self.directory.origin})

    def tune_together(self, plan: ProblemPlan, name: str) -> tuple[Tuned, RunConfig]:
        """Work on one method's search with all jobs; return what it found and the configuration of its best trial."""
        self._at_once(lambda _: self._tune(plan, name), range(self.jobs))
        tuned = self.searches[plan.name, name]
        if tuned is None or not tuned.trials:
            raise UsageError(f"Method {name} has no hyperparameter to search on {plan.name}.")
        return tuned, configuration(plan, self.study.methods[name], tuned.best)

    def _jobs_of(self, plan: ProblemPlan, name: str) -> list[tuple[Place, Job]]:
        return list(jobs_of(self.study, plan, name, parameters_of(self.searches[plan.name, name])))

    def _is_missing(self, place: Place, job: Job) -> bool:
        """Say whether a run is still to be made, or to be made again; every run once at most."""
        outcome = self.directory.outcome(place, key_of(job))
        if outcome is None:
            return True
        return (
            bool(self._rerun)
            and place not in self._made
            and is_wanted_again(outcome, self._rerun, made_with(validate(job.config)))
        )

    def _count_what_is_there(self, plan: ProblemPlan) -> Iterator[str]:
        """Count the searches and runs of a problem that are finished before anything starts; yield in what they were made otherwise."""
        for name in self.study.methods_of(plan):
            if (plan.name, name) not in self.searches:
                continue
            tuned, kept = self.searches[plan.name, name], []
            if self._is_tuned(plan, name):
                self._progress.searched(plan, name)
                kept += tuned.trials if tuned else []
            for place, job in self._jobs_of(plan, name):
                if not self._is_missing(place, job):
                    self._progress.run(plan, place, here=False)
                    kept.append(self.directory.outcome(place, key_of(job)) or {})
            now = made_with(configuration(plan, self.study.methods[name], {}))
            for outcome in kept:
                if otherwise := difference(outcome["made_with"], now):
                    yield otherwise

    def _is_tuned(self, plan: ProblemPlan, name: str) -> bool:
        """Say whether the search of a method is known, and none of its trials is to be made again."""
        tuned = self.searches.get((plan.name, name))
        now = made_with(configuration(plan, self.study.methods[name], {}))
        return (plan.name, name) in self.searches and not any(
            is_wanted_again(trial, self._rerun, now) for trial in (tuned.trials if tuned else ())
        )

    def _tune(self, plan: ProblemPlan, name: str) -> None:
        method, tuning = self.study.methods[name], self.study.tuning_of(plan)
        if tuning is None or self._storage is None or self._is_tuned(plan, name):
            return

        def report(trial: Tree) -> None:
            self._progress.trial(plan, name)
            self._watcher.progress(self._progress.count())
            self._watcher.trial(plan.name, name, trial)

        try:
            self.searches[plan.name, name] = tune(
                plan,
                method,
                tuning,
                name=f"{self.study.name}/{plan.name}/{name}",
                storage=self._storage,
                execute=self._execute,
                go_on=self._go_on,
                report=report,
                waiting=self._waiting,
                rerun=self._rerun,
            )
            self._added = self.unwritten = True
            self._progress.searched(plan, name)
        finally:
            self._storage.remove_session()  # that of this thread

    def _make(self, plan: ProblemPlan, place: Place, job: Job) -> bool:
        """Make a run unless another process is at it; say whether it is there now."""
        key = key_of(job)
        with self.directory.claimed(place) as holder:
            if holder is not None:
                self._waiting(f"{holder}, which makes {place.problem}, {place.method}, {place.run}")
                return False
            here = self._is_missing(place, job)
            if here:
                outcome = self._execute(job, self._go_on)
                if key_of(job) != key:
                    raise UsageError(
                        f"Problem {place.problem}, method {place.method}: the data, or the source"
                        " of the optimizer, changed while a run was made of it. That run is not"
                        " kept; give the command again."
                    )
                self._made.add(place)
                self._added = self.unwritten = True
                self.directory.write_outcome(
                    place, key, outcome | {"made_with": made_with(validate(job.config))}
                )
        self._progress.run(plan, place, here=here)
        if here:
            self._watcher.progress(self._progress.count())
            self._watcher.run(place.problem, place.method, place.run, outcome)
        return True

    def _at_once(self, function: Callable[[_T], _R], items: Iterable[_T]) -> list[_R]:
        """Apply a function to items, so many at a time; after a mistake or an interrupt those under way are given up."""
        pool = ThreadPoolExecutor(self.jobs)
        try:
            futures = [pool.submit(function, item) for item in items]
            for future in as_completed(futures):
                # a mistake is said when it is made, not when those before it have ended
                future.result()
            return [future.result() for future in futures]
        except BaseException:
            self._stopping.set()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _go_on(self) -> None:
        """Called now and then by the threads that wait for runs; ends them when the comparison ends."""
        if self._stopping.is_set():
            raise Stopped
        self._watcher.progress(self._progress.count())
