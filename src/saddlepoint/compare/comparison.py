"""The comparison itself: tune every method, make the missing runs, write the results."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from optuna.storages import RDBStorage

from saddlepoint.compare.directory import ComparisonDirectory, read_comparison
from saddlepoint.compare.execution import RunResult, preload, run_in_subprocess
from saddlepoint.compare.preflight import validate_study
from saddlepoint.compare.provenance import Rerun, made_with, should_rerun, version_difference
from saddlepoint.compare.results import best_parameters, collect_results
from saddlepoint.compare.runs import Job, RunId, jobs_of, run_config
from saddlepoint.compare.storage import open_storage
from saddlepoint.compare.study import ProblemPlan, Study
from saddlepoint.compare.tuning import Execute, SearchResult, saved_searches, tune
from saddlepoint.errors import UsageError
from saddlepoint.training.config import RunConfig, Tree, validate

_POLL = 1.0
_WAIT_INTERVAL = 30.0
_MOST_NOTES = 3
_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class Count:
    """Finished runs and trials of a study, all of them, and the seconds left (None: unknown)."""

    finished: int
    total: int
    seconds_left: float | None


class Watcher(Protocol):
    """Shows the progress of a comparison."""

    def trial(self, problem: str, method: str, trial: Tree) -> None:
        """Called after every trial of a search."""

    def run(self, problem: str, method: str, run: str, result: RunResult) -> None:
        """Called after every run."""

    def note(self, text: str) -> None:
        """Called with a message, such as which process is waited for."""

    def progress(self, count: Count) -> None:
        """Called about every second, and when something is finished."""


class SilentWatcher:
    """Shows nothing."""

    def trial(self, problem: str, method: str, trial: Tree) -> None: ...

    def run(self, problem: str, method: str, run: str, result: RunResult) -> None: ...

    def note(self, text: str) -> None: ...

    def progress(self, count: Count) -> None: ...


def compare(
    study: Study,
    out: Path,
    *,
    jobs: int = 1,
    storage: str | None = None,
    watcher: Watcher | None = None,
    execute: Execute = run_in_subprocess,
    rerun: Collection[Rerun] = (),
) -> Tree:
    """Make a comparison, or what is missing of it, and return the content of ``comparison.json``.

    A run that is interrupted has no result. A run whose process is killed by something else has
    failed. Results that were made with other versions are kept and marked.

    Args:
        study: what is compared.
        out: directory of the comparison; an existing one is resumed.
        jobs: number of runs at a time, each in its own process on one thread.
        storage: database URL of the tuning, ``tuning.db`` in the directory by default.
        watcher: is notified of every run.
        execute: executes a run.
        rerun: which finished runs and trials are made again: "killed" for those whose process ended
            without a result, "failed" for all that failed, "outdated" for those that were made with
            other versions.

    Raises:
        UsageError: a configuration of the study is wrong, or the directory or storage cannot be
            used.
        KeyboardInterrupt: current runs are cancelled; finished ones are written before.
    """
    with Comparison.open(
        study, out, jobs=jobs, storage=storage, watcher=watcher, execute=execute, rerun=rerun
    ) as comparison:
        try:
            for plan in study.problems[:-1]:
                comparison.complete(plan)
                if comparison.unwritten:  # collecting the results of a large study takes a while
                    comparison.write()
            comparison.complete(study.problems[-1])
            comparison.write()
        # a broken pipe: the reader of the watcher's output is gone
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
    execute: Execute = run_in_subprocess,
    rerun: Collection[Rerun] = (),
) -> tuple[SearchResult, RunConfig]:
    """Tune the one method of a study on its one problem, ``jobs`` trials at a time.

    Returns:
        What was found, and the configuration of its best trial.

    The arguments and errors are those of ``compare``.
    """
    with Comparison.open(
        study, out, jobs=jobs, storage=storage, watcher=watcher, execute=execute, rerun=rerun
    ) as comparison:
        return comparison.tune_one(study.problems[0], study.baseline)


class Cancelled(Exception):  # noqa: N818 -- not an error
    """Ends a thread that waits for a run when the comparison is cancelled."""


class Comparison:
    """A study that is being run in its directory.

    Attributes:
        study, directory, jobs: what is compared, where, and how many runs at a time.
        searches: (problem, method) → its search, as far as they are finished.
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
        cancelled: threading.Event,
    ) -> None:
        self.study, self.directory, self.jobs = study, directory, jobs
        # all searches of the final file are known from the start: the file is written again when
        # anything is added, and after an interrupt
        self.searches = saved_searches(study, directory.searches)
        self.unwritten = False
        self._watcher, self._execute = watcher, execute
        self._storage, self._rerun = storage, frozenset(rerun)
        self._cancelled = cancelled
        self._progress = ProgressCounter(study, jobs)
        self._on_wait = WaitMessages(watcher.note)
        self._made: set[RunId] = set()
        self._added = False

        packages = set()
        for method in study.methods.values():
            if method.optimizer and ":" in method.optimizer.name:
                packages.add(method.optimizer.name.partition(":")[0])
        preload(sorted(packages))
        differences = self._count_finished()
        for difference, count in differences.most_common(_MOST_NOTES):
            watcher.note(
                f"{count} finished runs and trials were made with other versions ({difference})."
                " They are kept and marked."
            )
        if differences:
            watcher.note("To make them again: --rerun outdated.")

    @classmethod
    @contextmanager
    def open(
        cls,
        study: Study,
        out: Path,
        *,
        jobs: int,
        storage: str | None,
        watcher: Watcher | None,
        execute: Execute,
        rerun: Collection[Rerun],
    ) -> Iterator[Comparison]:
        """Validate a study, open its directory and, if anything is tuned, its storage of trials."""
        if storage is not None and study.tuning is None:
            raise UsageError(
                "--storage is for the trials of searches, and nothing is tuned here. Give --trials"
                " too, or tuning in the study."
            )
        validate_study(study)
        cancelled = threading.Event()
        with ExitStack() as stack:
            opened = None
            if storage is not None:  # before the directory is created: an error leaves no files
                opened = stack.enter_context(open_storage(storage, cancelled))
            directory = stack.enter_context(ComparisonDirectory.open(out, study))
            if study.tuning is not None and opened is None:
                opened = stack.enter_context(open_storage(directory.storage_url, cancelled))
            yield cls(
                study,
                directory,
                jobs=jobs,
                storage=opened,
                watcher=watcher or SilentWatcher(),
                execute=execute,
                rerun=rerun,
                cancelled=cancelled,
            )

    def complete(self, plan: ProblemPlan) -> None:
        """Tune the methods of a problem and make its runs, as far as they are missing."""
        methods = self.study.methods_of(plan)
        self._in_parallel(lambda name: self._tune(plan, name), methods)
        missing = []
        for name in methods:
            parameters = best_parameters(self.searches[plan.name, name])
            jobs = jobs_of(self.study, plan, name, parameters)
            missing += [(run_id, job) for run_id, job in jobs if self._is_missing(run_id, job)]
        # seed by seed, so that an interrupted comparison has equal numbers of seeds
        missing.sort(key=lambda pair: (pair[0].factor != 1, pair[0].seed))
        while missing:
            made = self._in_parallel(lambda pair: self._run(plan, *pair), missing)
            missing = [pair for pair, done in zip(missing, made, strict=True) if not done]
            if missing:
                self._check_cancelled()
                time.sleep(_POLL)  # other processes make the rest

    def write(self) -> None:
        """Write the results so far.

        Where nothing was added, the environment and command of the existing file are kept.
        """
        found = collect_results(self.study, self.searches, self.directory)
        self.unwritten = False
        if not self._added:
            found |= self.directory.origin
        self.directory.write_comparison(found)

    def tune_one(self, plan: ProblemPlan, name: str) -> tuple[SearchResult, RunConfig]:
        """Work on one method's search with all jobs.

        Returns:
            What was found, and the configuration of the best trial.
        """
        self._in_parallel(lambda _: self._tune(plan, name), range(self.jobs))
        search = self.searches[plan.name, name]
        if search is None or not search.trials:
            raise UsageError(f"Method {name} has no hyperparameter to search on {plan.name}.")
        return search, run_config(plan, self.study.methods[name], search.best)

    def _is_missing(self, run_id: RunId, job: Job) -> bool:
        """Return whether a run has to be made, or made again; again at most once."""
        result = self.directory.read_result(run_id, job.key())
        if result is None:
            return True
        if not self._rerun or run_id in self._made:
            return False
        return should_rerun(result, self._rerun, made_with(validate(job.config)))

    def _is_tuned(self, plan: ProblemPlan, name: str) -> bool:
        """Return whether a method's search is finished, and none of its trials is made again."""
        if (plan.name, name) not in self.searches:
            return False
        search = self.searches[plan.name, name]
        now = made_with(run_config(plan, self.study.methods[name], {}))
        trials = search.trials if search else []
        return not any(should_rerun(trial, self._rerun, now) for trial in trials)

    def _count_finished(self) -> Counter[str]:
        """Count what is finished before the start; return how often which versions differ."""
        differences: Counter[str] = Counter()
        for plan in self.study.problems:
            for name in self.study.methods_of(plan):
                if (plan.name, name) not in self.searches:
                    continue
                results: list[Tree] = []
                if self._is_tuned(plan, name):
                    search = self.searches[plan.name, name]
                    self._progress.search_finished(plan, name)
                    results += search.trials if search else []
                parameters = best_parameters(self.searches[plan.name, name])
                for run_id, job in jobs_of(self.study, plan, name, parameters):
                    if not self._is_missing(run_id, job):
                        self._progress.run_finished(plan, run_id, here=False)
                        results.append(self.directory.read_result(run_id, job.key()) or {})
                now = made_with(run_config(plan, self.study.methods[name], {}))
                for result in results:
                    if difference := version_difference(result["made_with"], now):
                        differences[difference] += 1
        return differences

    def _tune(self, plan: ProblemPlan, name: str) -> None:
        """Finish the search of a method, together with other processes."""
        method, tuning = self.study.methods[name], self.study.tuning_of(plan)
        if tuning is None or self._storage is None or self._is_tuned(plan, name):
            return

        def report(trial: Tree) -> None:
            self._progress.trial_finished(plan, name)
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
                check_cancelled=self._check_cancelled,
                report=report,
                on_wait=self._on_wait,
                rerun=self._rerun,
            )
            self._added = self.unwritten = True
            self._progress.search_finished(plan, name)
        finally:
            self._storage.remove_session()  # of this thread

    def _run(self, plan: ProblemPlan, run_id: RunId, job: Job) -> bool:
        """Make a run unless another process makes it; return whether it is finished now."""
        key = job.key()
        with self.directory.lock(run_id) as holder:
            if holder is not None:
                self._on_wait(
                    f"{holder}, which makes {run_id.problem}, {run_id.method}, {run_id.name}"
                )
                return False
            here = self._is_missing(run_id, job)
            if here:
                result = self._execute(job, self._check_cancelled)
                if job.key() != key:
                    raise UsageError(
                        f"Problem {run_id.problem}, method {run_id.method}: the data, or the source"
                        " of the optimizer, changed during a run. That run is discarded; give the"
                        " command again."
                    )
                self._made.add(run_id)
                self._added = self.unwritten = True
                versions = made_with(validate(job.config))
                self.directory.write_result(run_id, key, result | {"made_with": versions})
        self._progress.run_finished(plan, run_id, here=here)
        if here:
            self._watcher.progress(self._progress.count())
            self._watcher.run(run_id.problem, run_id.method, run_id.name, result)
        return True

    def _in_parallel(self, function: Callable[[_T], _R], items: Iterable[_T]) -> list[_R]:
        """Apply a function to items, ``jobs`` at a time; an exception cancels the others."""
        pool = ThreadPoolExecutor(self.jobs)
        try:
            futures = [pool.submit(function, item) for item in items]
            for future in as_completed(futures):
                future.result()  # raises at once, not when the futures before it are done
            return [future.result() for future in futures]
        except BaseException:
            self._cancelled.set()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _check_cancelled(self) -> None:
        """Called regularly by threads that wait for runs; ends them when the comparison ends."""
        if self._cancelled.is_set():
            raise Cancelled
        self._watcher.progress(self._progress.count())


class ProgressCounter:
    """Counts finished runs and trials, of this process and others.

    The time left is estimated from the rate at which this process has worked so far; before its
    first run has ended, from the budgets of the rest if these are seconds.

    Args:
        study: what is compared.
        jobs: number of runs at a time.
    """

    def __init__(self, study: Study, jobs: int) -> None:
        self._study, self._jobs = study, jobs
        self._began = time.monotonic()
        self._trials: Counter[tuple[str, str]] = Counter()
        self._runs: dict[RunId, str] = {}
        self._searches: set[tuple[str, str]] = set()
        self._cost = 0.0
        self._lock = threading.Lock()

    def search_finished(self, plan: ProblemPlan, method: str) -> None:
        """Note that all trials of a method on a problem are finished."""
        with self._lock:
            self._searches.add((plan.name, method))

    def trial_finished(self, plan: ProblemPlan, method: str) -> None:
        """Note that this process has finished a trial."""
        with self._lock:
            self._trials[plan.name, method] += 1
            self._cost += plan.budget.get("seconds", 1.0)

    def run_finished(self, plan: ProblemPlan, run_id: RunId, *, here: bool) -> None:
        """Note that a run is finished; ``here`` if this process has just made it."""
        with self._lock:
            self._runs[run_id] = plan.name
            if here:
                self._cost += plan.budget.get("seconds", 1.0)

    def count(self) -> Count:
        """Return the present counts."""
        study = self._study
        with self._lock:
            finished, total, rest = 0, 0, 0.0
            for plan in study.problems:
                runs = study.seeds
                if plan.robustness:
                    factors = sum(factor != 1 for factor in plan.robustness.factors)
                    runs += factors * len(study.robustness_seeds(plan))
                trials, tuning = 0, study.tuning_of(plan)
                if tuning is not None:
                    finalists = min(tuning.finalists, tuning.trials)
                    trials = tuning.trials
                    if finalists > 1:
                        trials += finalists * len(tuning.final_seeds)

                methods = study.methods_of(plan)
                done = sum(name == plan.name for name in self._runs.values())
                for method in methods:
                    searched = (plan.name, method) in self._searches
                    done += trials if searched else min(trials, self._trials[plan.name, method])
                finished += done
                total += len(methods) * (runs + trials)
                # what a run costs compared with others: its seconds, else the same for all
                rest += (len(methods) * (runs + trials) - done) * plan.budget.get("seconds", 1.0)

            seconds_left: float | None = None
            if finished < total and self._cost:
                seconds_left = rest * (time.monotonic() - self._began) / self._cost
            elif finished < total and all("seconds" in plan.budget for plan in study.problems):
                seconds_left = rest / self._jobs
            return Count(finished, total, seconds_left)


class WaitMessages:
    """Reports which process is waited for, and since when: at once, then every half minute."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._worker: str | None = None
        self._since = self._reported = 0.0
        self._lock = threading.Lock()

    def __call__(self, worker: str) -> None:
        """Report that ``worker`` is still waited for."""
        now = time.monotonic()
        with self._lock:
            if worker != self._worker:
                self._worker, self._since = worker, now
            elif now - self._reported < _WAIT_INTERVAL:
                return
            self._reported = now
        self._report(f"waiting for {worker}, since {now - self._since:.0f} s")
