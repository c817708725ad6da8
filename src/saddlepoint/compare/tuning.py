"""Tuning: every method gets the same number of Optuna trials, on seeds that are not reported."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import fmean
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from saddlepoint.compare.again import Rerun, is_wanted_again
from saddlepoint.compare.configuration import configuration, space_of, starting_point
from saddlepoint.compare.execution import Job, Outcome
from saddlepoint.compare.kept import checked_trial
from saddlepoint.compare.provenance import inputs_of, made_with, recorded_in
from saddlepoint.compare.storage import opened_search, parameters_of
from saddlepoint.compare.study import MethodPlan, ProblemPlan, Study, TuningPlan, digest
from saddlepoint.compare.trials import OF_SHARING, Beat, any_superseded, draw, share
from saddlepoint.errors import UsageError
from saddlepoint.registry import build_problem
from saddlepoint.training.config import Tree
from saddlepoint.training.evaluator import bare_metric

Execute = Callable[[Job, Beat], Outcome]
"""Makes a run, calling the second argument now and then while it lasts."""


@dataclass(frozen=True)
class Tuned:
    """What tuning found for a method on a problem.

    Attributes:
        key: of everything that decides the search.
        space: what was searched.
        trials: number, parameters, value (of the problem's metric; None where a run diverged or
            failed), final (the mean over the final seeds too, of finalists), status, error, steps,
            seconds and made_with of each.
        best: the parameters that won.
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
    go_on: Beat = lambda: None,
    report: Callable[[Tree], None] = lambda trial: None,
    waiting: Callable[[str], None] = lambda whom: None,
    rerun: Collection[Rerun] = (),
) -> Tuned:
    """Search a method's hyperparameters on a problem, by this process and others together, until all trials are finished.

    The value of a trial is the mean of the problem's metric over the tuning seeds, infinite where
    one of them diverged or failed: that is a finished trial too. The best few, the finalists, are
    run on the final seeds as well, and the least mean over all of these seeds wins: the best of
    many values from one seed is lucky more often than not.

    Args:
        plan: the problem.
        method: the method.
        tuning: how many trials and finalists, and their seeds.
        name: under which the search lies in the storage; processes that give the same name work on
            it together.
        storage: where trials are kept.
        execute: makes a run.
        go_on: called now and then; what it raises ends the search, and the trial under way has
            failed.
        report: called with number, seeds, parameters, value and status of what this process
            finishes.
        waiting: is told which process is waited for.
        rerun: which finished trials are made again.
    """
    space, key = space_of(plan, method), _key(plan, method, tuning)
    now = made_with(configuration(plan, method, {}))
    if not space:
        return Tuned(key=key, space={}, trials=[], best={})
    search = opened_search(storage, f"{name}/{key}")
    start, value_of = starting_point(plan, method), partial(_value, plan, method, execute)

    def trial_at(trial: optuna.Trial, place: int, beat: Beat) -> tuple[float, Tree]:
        parameters = draw(search, trial, place, space, start)
        value, kept = value_of(parameters, tuning.seeds, beat)
        report(
            {
                "number": place,
                "seeds": tuning.seeds,
                "parameters": parameters,
                "value": _metric(plan, value),
                "status": kept["status"],
            }
        )
        return value, kept

    def again(trial: FrozenTrial) -> bool:
        return is_wanted_again(_kept(trial), rerun, now)

    trials = share(search, tuning.trials, trial_at, go_on, waiting=waiting, again=again)
    ranked = sorted(range(tuning.trials), key=lambda place: (_number(trials[place]), place))
    finalists = (
        [place for place in ranked[: tuning.finalists] if math.isfinite(_number(trials[place]))]
        if tuning.final_seeds
        else []
    )

    def final_at(trial: optuna.Trial, place: int, beat: Beat) -> tuple[float, Tree]:
        number, seed = (
            finalists[place // len(tuning.final_seeds)],
            tuning.final_seeds[place % len(tuning.final_seeds)],
        )
        parameters = parameters_of(trials[number])
        value, kept = value_of(parameters, [seed], beat)
        report(
            {
                "number": number,
                "seeds": (seed,),
                "parameters": parameters,
                "value": _metric(plan, value),
                "status": kept["status"],
            }
        )
        return value, kept

    finals: list[FrozenTrial] = []
    if len(finalists) > 1:
        places = len(finalists) * len(tuning.final_seeds)
        finals = share(
            _finals(search, storage, trials, finalists),
            places,
            final_at,
            go_on,
            waiting=waiting,
            again=again,
        )
    means = _means(trials, finalists, finals, tuning)
    best = min(means, key=lambda place: (means[place], place)) if means else ranked[0]
    shown = {
        path: where.model_dump(mode="json", exclude_none=True) for path, where in space.items()
    }
    rows = [
        checked_trial(_row(plan, place, trial, means), f"Trial {place} of the storage's search")
        for place, trial in enumerate(trials)
    ]
    return Tuned(key=key, space=shown, trials=rows, best=parameters_of(trials[best]))


def _finals(
    search: optuna.Study,
    storage: RDBStorage,
    trials: Sequence[FrozenTrial],
    finalists: Sequence[int],
) -> optuna.Study:
    """Return the search of the finalists on further seeds; where trials were made again, it is that of these finalists alone."""
    name = f"{search.study_name}/finals"
    if any_superseded(search):
        name += "/" + digest([trials[place].number for place in finalists])
    return opened_search(storage, name)


def recalled(study: Study, kept: Mapping[str, Tree]) -> dict[tuple[str, str], Tuned | None]:
    """Return (problem, method) → what is known of its search beforehand: a finished one of that key, and None where nothing is tuned.

    Args:
        study: whose searches.
        kept: key → finished search.
    """
    found: dict[tuple[str, str], Tuned | None] = {}
    for plan in study.problems:
        tuning = study.tuning_of(plan)
        for name, method in study.methods_of(plan).items():
            key = None if tuning is None else _key(plan, method, tuning)
            if key is None or key in kept:
                found[plan.name, name] = None if key is None else Tuned(**kept[key])
    return found


def _means(
    trials: Sequence[FrozenTrial],
    finalists: Sequence[int],
    finals: Sequence[FrozenTrial],
    tuning: TuningPlan,
) -> dict[int, float]:
    """Return finalist → mean over all of its seeds."""
    if not finals:
        return {}
    n, m = len(tuning.seeds), len(tuning.final_seeds)
    own = {
        place: [_number(final) for final in finals[k * m : (k + 1) * m]]
        for k, place in enumerate(finalists)
    }
    return {
        place: (n * _number(trials[place]) + sum(values)) / (n + m) for place, values in own.items()
    }


def _value(
    plan: ProblemPlan,
    method: MethodPlan,
    execute: Execute,
    parameters: Tree,
    seeds: Sequence[int],
    beat: Beat,
) -> tuple[float, Tree]:
    """Return the mean loss over the seeds, and how the runs went."""
    configs = [
        configuration(plan, method, parameters, seed=seed).model_dump(mode="json") for seed in seeds
    ]
    outcomes = [execute(Job(config, plan.metric, 1), beat) for config in configs]
    worst = next((outcome for outcome in outcomes if outcome["status"] != "finished"), outcomes[0])
    spent = {name: sum(outcome[name] for outcome in outcomes) for name in ("steps", "seconds")}
    made = made_with(configuration(plan, method, parameters))
    kept = {"status": worst["status"], "error": worst["error"], **spent, "made_with": made}
    return fmean(loss_of(plan, outcome) for outcome in outcomes), kept


def _row(plan: ProblemPlan, place: int, trial: FrozenTrial, means: Mapping[int, float]) -> Tree:
    numbers = {
        "value": _metric(plan, _number(trial)),
        "final": _metric(plan, means.get(place, math.inf)),
    }
    return {"number": place, "parameters": parameters_of(trial), **numbers, **_kept(trial)}


def _kept(trial: FrozenTrial) -> Tree:
    """Return what was kept of a trial: how its runs went, and what they were made with."""
    own = {key: value for key, value in trial.user_attrs.items() if key not in OF_SHARING}
    return {
        "status": None,
        "error": None,
        **own,
        "made_with": own.get("made_with") or recorded_in({}),
    }


def _number(trial: FrozenTrial) -> float:
    return math.inf if trial.value is None else trial.value


def _metric(plan: ProblemPlan, loss: float) -> float | None:
    """Return the metric that a loss was made of; None where there is none."""
    if not math.isfinite(loss):
        return None
    return loss if smaller_is_better(plan) else -loss


def _key(plan: ProblemPlan, method: MethodPlan, tuning: TuningPlan) -> str:
    """Return the key of everything of the user's that decides a search: not the target, nor how runs are followed."""
    config = configuration(plan, method, {})
    space: dict[str, Any] = {
        path: where.model_dump(mode="json") for path, where in space_of(plan, method).items()
    }
    searched = {
        "config": config.non_defaults(),
        "metric": plan.metric,
        "space": space,
        "tuning": tuning.model_dump(mode="json"),
    }
    return digest({**searched, **inputs_of(config)})


def loss_of(plan: ProblemPlan, outcome: Outcome) -> float:
    """Return what is minimised: the problem's metric, negated where more is better, infinite for a run without an end."""
    if outcome["metrics"] is None:
        return math.inf
    kept = outcome["metrics"][plan.metric]
    # a file has null for a value that was not finite
    value = math.nan if kept is None else float(kept)
    return (value if smaller_is_better(plan) else -value) if math.isfinite(value) else math.inf


def smaller_is_better(plan: ProblemPlan) -> bool:
    """Say which way the metric of a problem goes.

    Raises:
        UsageError: the problem has no such metric, or one by which none is better.
    """
    known = build_problem(plan.problem.name, plan.problem.options).metric_names
    found = known.get(bare_metric(plan.metric))
    if found is None or found.better is None:
        directed = [
            prefix + name for prefix in ("ema/", "") for name, what in known.items() if what.better
        ]
        raise UsageError(
            f'Problem "{plan.name}": "{plan.metric}" is no metric by which one is better. Known:'
            f" {', '.join(directed)}."
        )
    return found.better == "smaller"
