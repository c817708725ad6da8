"""Tuning: equal numbers of Optuna trials for every method, on seeds that are not reported.

Any number of processes and machines may work on the same search.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from saddlepoint.compare.execution import RunResult
from saddlepoint.compare.provenance import (
    Rerun,
    input_hashes,
    made_with,
    should_rerun,
    versions_in,
)
from saddlepoint.compare.runs import Job, default_parameters, run_config, search_space
from saddlepoint.compare.schemas import TrialSchema, validate_as
from saddlepoint.compare.storage import (
    Worker,
    damaged_search,
    last_heartbeat,
    open_search,
    read_attributes,
    read_trials,
    to_stored,
    trial_parameters,
)
from saddlepoint.compare.study import MethodPlan, ProblemPlan, Space, Study, TuningPlan, digest
from saddlepoint.training.config import Tree

Heartbeat = Callable[[], None]

Execute = Callable[[Job, Heartbeat], RunResult]
"""Executes a run, calling the second argument now and then while it lasts."""

Objective = Callable[[optuna.Trial, int, Heartbeat], tuple[float, Tree]]
"""Runs the trial of an index: its value, and attributes to store. Calls ``Heartbeat`` regularly."""

# seconds; clocks of machines that share a search may differ by the difference of the first two
_HEARTBEAT, _GRACE = 10, 120
_POLL = 1.0
_RANDOM_TRIALS = 5

_WORKER_ATTRIBUTES = {"heartbeat", "index", "worker"}
"""Attributes of a trial that say who works on it; all others are part of its result."""

_SUPERSEDED = "superseded "


@dataclass(frozen=True)
class SearchResult:
    """What tuning found for a method on a problem.

    Attributes:
        key: hash of everything that decides the search.
        space: the search space.
        trials: number, parameters, value (of the problem's metric; None where a run diverged or
            failed), final (the mean over the final seeds too, of finalists), status, error, steps,
            seconds and made_with of each.
        best: the parameters of the best trial.
    """

    key: str
    space: Tree
    trials: list[Tree]
    best: Tree

    def to_dict(self) -> Tree:
        """Return it in plain containers."""
        return asdict(self)


def tune(
    plan: ProblemPlan,
    method: MethodPlan,
    tuning: TuningPlan,
    *,
    name: str,
    storage: RDBStorage,
    execute: Execute,
    check_cancelled: Callable[[], None] = lambda: None,
    report: Callable[[Tree], None] = lambda trial: None,
    on_wait: Callable[[str], None] = lambda worker: None,
    rerun: Collection[Rerun] = (),
) -> SearchResult:
    """Search a method's hyperparameters on a problem until all trials are finished.

    The value of a trial is the mean of the problem's metric over the tuning seeds, infinite where a
    run diverged or failed: such a trial is finished too. The best trials, the finalists, are run on
    the final seeds as well, and the least mean over all of these seeds wins: the best of many
    values from one seed is often lucky.

    Args:
        plan: the problem.
        method: the method.
        tuning: how many trials and finalists, and their seeds.
        name: of the search in the storage; processes that give the same name share the work.
        storage: stores the trials.
        execute: executes a run.
        check_cancelled: called regularly; an exception in it ends the search, and the current trial
            fails.
        report: called with number, seeds, parameters, value and status of every trial that this
            process finishes.
        on_wait: called with the processes that are waited for.
        rerun: which finished trials are made again.
    """
    space, key = search_space(plan, method), _search_key(plan, method, tuning)
    if not space:
        return SearchResult(key=key, space={}, trials=[], best={})
    search = open_search(storage, f"{name}/{key}")
    versions = made_with(run_config(plan, method, {}))
    start = default_parameters(plan, method)

    def is_superseded(trial: FrozenTrial) -> bool:
        return should_rerun(_result_attributes(trial), rerun, versions)

    def run_seeds(
        number: int, parameters: Tree, seeds: Sequence[int], heartbeat: Heartbeat
    ) -> tuple[float, Tree]:
        """Return the mean loss over the seeds, and how the runs went."""
        configs = [run_config(plan, method, parameters, seed=seed) for seed in seeds]
        jobs = [Job(config.model_dump(mode="json"), plan.metric, 1) for config in configs]
        results = [execute(job, heartbeat) for job in jobs]
        loss = fmean(plan.loss(result["metrics"]) for result in results)
        failed = [result for result in results if result["status"] != "finished"]
        shown = failed[0] if failed else results[0]
        attributes = {
            "status": shown["status"],
            "error": shown["error"],
            "steps": sum(result["steps"] for result in results),
            "seconds": sum(result["seconds"] for result in results),
            "made_with": made_with(run_config(plan, method, parameters)),
        }
        report(
            {
                "number": number,
                "seeds": seeds,
                "parameters": parameters,
                "value": plan.metric_of_loss(loss),
                "status": shown["status"],
            }
        )
        return loss, attributes

    def run_trial(trial: optuna.Trial, index: int, heartbeat: Heartbeat) -> tuple[float, Tree]:
        parameters = suggest(search, trial, index, space, start)
        return run_seeds(index, parameters, tuning.seeds, heartbeat)

    trials = run_trials(
        search,
        tuning.trials,
        run_trial,
        check_cancelled,
        on_wait=on_wait,
        is_superseded=is_superseded,
    )
    losses = [math.inf if trial.value is None else trial.value for trial in trials]
    ranking = sorted(range(tuning.trials), key=lambda index: (losses[index], index))
    finalists: list[int] = []
    if tuning.final_seeds:
        finalists = [index for index in ranking[: tuning.finalists] if math.isfinite(losses[index])]
    means: dict[int, float] = {}
    if len(finalists) > 1:
        n_seeds, n_finals = len(tuning.seeds), len(tuning.final_seeds)
        finals_name = f"{search.study_name}/finals"
        if any(key.startswith(_SUPERSEDED) for key in read_attributes(search)):
            # where trials were made again, the finals are those of exactly these trials
            finals_name += "/" + digest([trials[index].number for index in finalists])

        def run_final(trial: optuna.Trial, index: int, heartbeat: Heartbeat) -> tuple[float, Tree]:
            number, seed = finalists[index // n_finals], tuning.final_seeds[index % n_finals]
            return run_seeds(number, trial_parameters(trials[number]), (seed,), heartbeat)

        finals = run_trials(
            open_search(storage, finals_name),
            len(finalists) * n_finals,
            run_final,
            check_cancelled,
            on_wait=on_wait,
            is_superseded=is_superseded,
        )
        final_losses = [math.inf if final.value is None else final.value for final in finals]
        for k, index in enumerate(finalists):
            total = sum(final_losses[k * n_finals : (k + 1) * n_finals])
            means[index] = (n_seeds * losses[index] + total) / (n_seeds + n_finals)
    best = min(means, key=lambda index: (means[index], index)) if means else ranking[0]

    rows = []
    for index, trial in enumerate(trials):
        row = {
            "number": index,
            "parameters": trial_parameters(trial),
            "value": plan.metric_of_loss(losses[index]),
            "final": plan.metric_of_loss(means.get(index, math.inf)),
            **_result_attributes(trial),
        }
        rows.append(validate_as(TrialSchema, row, f"Trial {index} of the storage's search"))
    return SearchResult(
        key=key,
        space={
            path: values.model_dump(mode="json", exclude_none=True)
            for path, values in space.items()
        },
        trials=rows,
        best=trial_parameters(trials[best]),
    )


def saved_searches(
    study: Study, saved: Mapping[str, Tree]
) -> dict[tuple[str, str], SearchResult | None]:
    """Return (problem, method) → its finished search; None where nothing is tuned.

    Searches that are not in ``saved`` are left out.

    Args:
        study: whose searches.
        saved: key → finished search.
    """
    found: dict[tuple[str, str], SearchResult | None] = {}
    for plan in study.problems:
        tuning = study.tuning_of(plan)
        for name, method in study.methods_of(plan).items():
            if tuning is None:
                found[plan.name, name] = None
                continue
            key = _search_key(plan, method, tuning)
            if key in saved:
                found[plan.name, name] = SearchResult(**saved[key])
    return found


def _search_key(plan: ProblemPlan, method: MethodPlan, tuning: TuningPlan) -> str:
    """Return a hash of what the user decides about a search; the target is not part of it."""
    config = run_config(plan, method, {})
    space: dict[str, Any] = {
        path: values.model_dump(mode="json") for path, values in search_space(plan, method).items()
    }
    searched = {
        "config": config.non_defaults(),
        "metric": plan.metric,
        "space": space,
        "tuning": tuning.model_dump(mode="json"),
    }
    return digest({**searched, **input_hashes(config)})


def _result_attributes(trial: FrozenTrial) -> Tree:
    """Return how the runs of a finished trial went, and what they were made with."""
    own = {key: value for key, value in trial.user_attrs.items() if key not in _WORKER_ATTRIBUTES}
    made = own.get("made_with") or versions_in({})
    return {"status": None, "error": None, **own, "made_with": made}


# trials that processes share


def run_trials(
    search: optuna.Study,
    n_trials: int,
    objective: Objective,
    check_cancelled: Callable[[], None],
    *,
    on_wait: Callable[[str], None] = lambda worker: None,
    is_superseded: Callable[[FrozenTrial], bool] = lambda trial: False,
) -> list[FrozenTrial]:
    """Finish one trial for every index, together with other processes; return them in order.

    An interrupted trial fails, and its index is free again; so is that of a process that has ended.
    On this machine that is known at once, on another one when there was no heartbeat for two
    minutes.

    Args:
        search: holds the trials.
        n_trials: how many.
        objective: runs a trial.
        check_cancelled: called regularly; an exception in it propagates.
        on_wait: called with the processes that are waited for.
        is_superseded: whether a finished trial is made again.

    Raises:
        UsageError: the database holds something that this program did not write.
    """
    for finished in _finished_trials(search).values():
        if is_superseded(finished):
            search.set_user_attr(f"{_SUPERSEDED}{finished.number}", True)
    while (index := _next_free_index(search, n_trials, check_cancelled, on_wait)) is not None:
        # draws nothing: parameters depend on the index, which is not known yet
        search.sampler = optuna.samplers.RandomSampler()
        trial = search.ask()
        try:
            trial.set_user_attr("worker", Worker.current().model_dump())
            trial.set_user_attr("index", index)
            if not _acquires(search, trial, index, check_cancelled, on_wait):
                search.tell(trial, state=TrialState.FAIL)
                continue
            heartbeat = _TrialHeartbeat(trial, check_cancelled)
            value, attributes = objective(trial, index, heartbeat)
        except BaseException:
            search.tell(trial, state=TrialState.FAIL)
            raise
        for key, attribute in attributes.items():
            trial.set_user_attr(key, attribute)
        search.tell(trial, value)
        if index not in _finished_trials(search):  # else it would be made again for ever
            raise damaged_search(
                search.study_name, f"trial {trial.number} was finished, and is missing now"
            )
    found = _finished_trials(search)
    return [found[index] for index in range(n_trials)]


def suggest(
    search: optuna.Study, trial: optuna.Trial, index: int, space: Space, start: Tree
) -> Tree:
    """Return a trial's parameters: a function of its index and of the finished trials.

    The first trial is ``start``, completed at random; the next ones are random, and after five
    they come from Optuna's TPE sampler.
    """
    fixed = {} if index else {key: to_stored(value) for key, value in start.items()}
    search.sampler = _FixedTPESampler(fixed, seed=index, n_startup_trials=_RANDOM_TRIALS)
    for key, values in sorted(space.items()):  # the order of a file's keys must not matter
        if values.choices is not None:
            trial.suggest_categorical(key, [to_stored(choice) for choice in values.choices])
        else:
            low, high = values.log or values.uniform or (0.0, 0.0)
            trial.suggest_float(key, low, high, log=values.log is not None)
    return trial_parameters(trial)


class _FixedTPESampler(optuna.samplers.TPESampler):
    """A TPE sampler that returns fixed values for some parameters."""

    def __init__(self, fixed: Mapping[str, Any], **options: Any) -> None:
        super().__init__(**options)
        self._fixed = fixed

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: optuna.distributions.BaseDistribution,
    ) -> Any:
        if param_name in self._fixed:
            return self._fixed[param_name]
        return super().sample_independent(study, trial, param_name, param_distribution)


class _TrialHeartbeat:
    """Writes into the storage every ten seconds that a trial is running."""

    def __init__(self, trial: optuna.Trial, check_cancelled: Callable[[], None]) -> None:
        self._trial, self._check_cancelled = trial, check_cancelled
        self._last = -math.inf
        self()

    def __call__(self) -> None:
        self._check_cancelled()
        if time.monotonic() - self._last >= _HEARTBEAT:
            self._last = time.monotonic()
            self._trial.set_user_attr("heartbeat", time.time())


def _next_free_index(
    search: optuna.Study,
    n_trials: int,
    check_cancelled: Callable[[], None],
    on_wait: Callable[[str], None],
) -> int | None:
    """Return an index that no process works on; None when all are finished.

    Waits while other processes work on the last ones.
    """
    while True:
        running = _running_trials(search)
        taken = {trial.user_attrs.get("index") for trial in running}
        # read after the running ones: in the other order, a trial that ends meanwhile is in neither
        finished = _finished_trials(search).keys()
        free = next((index for index in range(n_trials) if index not in taken | finished), None)
        if free is not None or finished >= set(range(n_trials)):
            return free
        _report_wait(running, on_wait)
        check_cancelled()
        time.sleep(_POLL)


def _acquires(
    search: optuna.Study,
    trial: optuna.Trial,
    index: int,
    check_cancelled: Callable[[], None],
    on_wait: Callable[[str], None],
) -> bool:
    """Return whether a trial may work on the index that it took.

    Of several trials that took an index at the same time, the one with the lowest number may. A
    trial with a lower number that has not stored its index yet is waited for, as in Lamport's
    bakery algorithm.
    """
    while True:
        earlier = _running_trials(search, before=trial.number)
        indices = [other.user_attrs.get("index") for other in earlier]
        if index in indices or index in _finished_trials(search):
            return False
        if None not in indices:
            return True
        _report_wait([other for other in earlier if "index" not in other.user_attrs], on_wait)
        check_cancelled()
        time.sleep(_POLL)


def _finished_trials(search: optuna.Study) -> dict[int, FrozenTrial]:
    """Return index → finished trial, without superseded ones.

    Where a process that was taken for dead finishes too, the trial with the lower number counts.
    """
    found: dict[int, FrozenTrial] = {}
    # before the attributes: a trial that replaces another one comes later
    trials = read_trials(search, TrialState.COMPLETE)
    superseded = read_attributes(search)
    for trial in trials:
        if f"{_SUPERSEDED}{trial.number}" not in superseded:
            found.setdefault(trial.user_attrs["index"], trial)
    return found


def _running_trials(search: optuna.Study, before: float = math.inf) -> list[FrozenTrial]:
    """Return running trials of lower numbers; those of processes that have ended are set to failed.

    A process is alive if it is not known to have ended and there was a heartbeat in the last two
    minutes.
    """
    alive = []
    for trial in read_trials(search, TrialState.RUNNING):
        if trial.number >= before:
            continue
        worker = Worker.of(trial)
        ended = worker is not None and worker.is_alive() is False
        # a heartbeat may be in the future if the clock was set back since
        if not ended and abs(time.time() - last_heartbeat(trial)) <= _GRACE:
            alive.append(trial)
            continue
        with suppress(ValueError, RuntimeError):  # another process has already done it
            search.tell(trial.number, state=TrialState.FAIL)
    return alive


def _report_wait(trials: Sequence[FrozenTrial], on_wait: Callable[[str], None]) -> None:
    """Report which other processes' trials are waited for."""
    names = []
    for trial in trials:
        worker = Worker.of(trial)
        if worker is None:
            names.append(f"trial {trial.number} of an unknown process")
        elif worker != Worker.current():
            names.append(f"trial {trial.number} of {worker}")
    if names:
        on_wait(f"{', '.join(names)} (given up after {_GRACE:g} s without a heartbeat)")
