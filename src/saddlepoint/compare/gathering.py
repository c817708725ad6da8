"""From what a directory holds to what is reported: the content of ``comparison.json``."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from saddlepoint import registry
from saddlepoint.compare.configuration import configuration
from saddlepoint.compare.directory import FORMAT, ComparisonDirectory
from saddlepoint.compare.execution import Outcome
from saddlepoint.compare.jobs import Place, jobs_of, key_of, mapped_seeds
from saddlepoint.compare.kept import check_measured
from saddlepoint.compare.study import ProblemPlan, Study
from saddlepoint.compare.summary import pairs_of, succeeded, summary_of
from saddlepoint.compare.tuning import Tuned, smaller_is_better
from saddlepoint.training.config import Tree
from saddlepoint.training.environment import environment
from saddlepoint.training.evaluator import weights_prefix

Searches = Mapping[tuple[str, str], Tuned | None]
"""(problem, method) → what tuning found; None where nothing is tuned."""


def gather(study: Study, searches: Searches, directory: ComparisonDirectory) -> Tree:
    """Return what there is so far of a study: its problems with those methods whose tuning is finished."""
    problems = [
        _problem(study, plan, searches, directory)
        for plan in study.problems
        if _tuned(study, plan, searches)
    ]
    devices = {method["config"]["device"] for problem in problems for method in problem["methods"]}
    return {
        "format": FORMAT,
        "name": study.name,
        "command": ["saddlepoint", *sys.argv[1:]],
        "environment": environment("cuda" if "cuda" in devices else "cpu"),
        "study": study.to_dict(),
        "problems": problems,
    }


def _problem(
    study: Study, plan: ProblemPlan, searches: Searches, directory: ComparisonDirectory
) -> Tree:
    outcomes = {
        name: _outcomes(study, plan, name, searches, directory)
        for name in _tuned(study, plan, searches)
    }
    reported = {
        name: [run for place, run in own.items() if place.factor == 1]
        for name, own in outcomes.items()
    }
    metrics = registry.build_problem(plan.problem.name, plan.problem.options).metric_names
    return {
        "name": plan.name,
        "problem": plan.problem.model_dump(),
        "budget": dict(plan.budget),
        "metric": plan.metric,
        "better": "smaller" if smaller_is_better(plan) else "larger",
        "target": plan.target,
        "metrics": {
            weights_prefix(plan.metric) + name: {"meaning": m.meaning, "better": m.better}
            for name, m in metrics.items()
        },
        "baseline": study.baseline,
        "methods": [_method(study, plan, name, searches, own) for name, own in outcomes.items()],
        "pairs": pairs_of(plan, reported, study.baseline),
    }


def _tuned(study: Study, plan: ProblemPlan, searches: Searches) -> list[str]:
    return [name for name in study.methods_of(plan) if (plan.name, name) in searches]


def _outcomes(
    study: Study, plan: ProblemPlan, name: str, searches: Searches, directory: ComparisonDirectory
) -> dict[Place, Outcome]:
    """Return the runs of a method that are there."""
    jobs = jobs_of(study, plan, name, parameters_of(searches[plan.name, name]))
    found = {place: directory.outcome(place, key_of(job)) for place, job in jobs}
    made = {place: outcome for place, outcome in found.items() if outcome is not None}
    for place, outcome in made.items():
        check_measured(outcome, plan.metric, f"The outcome of {place.path} in {directory.path}")
    return made


def _method(
    study: Study,
    plan: ProblemPlan,
    name: str,
    searches: Searches,
    outcomes: Mapping[Place, Outcome],
) -> Tree:
    method, tuned = study.methods[name], searches[plan.name, name]
    config = configuration(plan, method, parameters_of(tuned))
    reported = [
        {**outcome, "seed": place.seed} for place, outcome in outcomes.items() if place.factor == 1
    ]
    return {
        "name": name,
        "family": method.family,
        "description": f"{config.rule.name} + {config.optimizer.name}, {config.update_scheme}",
        "config": config.model_dump(mode="json", exclude={"seed"}),
        "tuning": tuned.to_dict() if tuned and tuned.trials else None,
        "runs": reported,
        "summary": summary_of(plan, reported) if reported else None,
        "robustness": _map(study, plan, name, outcomes) if plan.robustness else None,
    }


def _map(study: Study, plan: ProblemPlan, name: str, outcomes: Mapping[Place, Outcome]) -> Tree:
    """Return success and value of every seed at every factor of the learning rate, the tuned rate among them; None where it is missing."""
    factors = sorted({1.0, *(plan.robustness.factors if plan.robustness else ())})
    seeds = mapped_seeds(study, plan)
    rows = [
        [outcomes.get(Place(plan.name, name, seed, factor)) for seed in seeds] for factor in factors
    ]
    return {
        "factors": factors,
        "seeds": list(seeds),
        "success": [[None if run is None else succeeded(plan, run) for run in row] for row in rows],
        "values": [
            [
                None if run is None or run["metrics"] is None else run["metrics"][plan.metric]
                for run in row
            ]
            for row in rows
        ],
        "runs": [
            {**run, "seed": place.seed, "factor": place.factor}
            for place, run in outcomes.items()
            if place.factor != 1
        ],
    }


def parameters_of(tuned: Tuned | None) -> Tree:
    """Return the tuned parameters, none where nothing is tuned."""
    return {} if tuned is None else tuned.best
