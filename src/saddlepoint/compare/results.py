"""From the results of runs to the content of ``comparison.json``: summaries, pairs and maps."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from statistics import median

from saddlepoint import registry
from saddlepoint.compare.directory import FORMAT, ComparisonDirectory
from saddlepoint.compare.execution import RunResult
from saddlepoint.compare.runs import RunId, jobs_of, run_config
from saddlepoint.compare.schemas import validate_metric
from saddlepoint.compare.statistics import (
    holm,
    kaplan_meier_median,
    mann_whitney_test,
    median_interval,
    probability_better,
    wilson_interval,
)
from saddlepoint.compare.study import ProblemPlan, Study
from saddlepoint.compare.tuning import SearchResult
from saddlepoint.training.config import Tree
from saddlepoint.training.environment import environment
from saddlepoint.training.evaluator import weights_prefix

Searches = Mapping[tuple[str, str], SearchResult | None]
"""(problem, method) → what tuning found; None where nothing is tuned."""


def collect_results(study: Study, searches: Searches, directory: ComparisonDirectory) -> Tree:
    """Return all results so far: of each problem, the methods whose tuning is finished."""
    problems = []
    devices = set()
    for plan in study.problems:
        results: dict[str, dict[RunId, RunResult]] = {}
        for name in study.methods_of(plan):
            if (plan.name, name) in searches:
                results[name] = _read_runs(study, plan, name, searches, directory)
        if not results:
            continue
        methods = []
        for name, own in results.items():
            methods.append(_method_results(study, plan, name, searches[plan.name, name], own))
            devices.add(methods[-1]["config"]["device"])

        metrics = registry.build_problem(plan.problem.name, plan.problem.options).metric_names
        prefix = weights_prefix(plan.metric)
        problems.append(
            {
                "name": plan.name,
                "problem": plan.problem.model_dump(),
                "budget": dict(plan.budget),
                "metric": plan.metric,
                "better": "smaller" if plan.smaller_is_better() else "larger",
                "target": plan.target,
                "metrics": {
                    prefix + name: {"meaning": info.meaning, "better": info.better}
                    for name, info in metrics.items()
                },
                "baseline": study.baseline,
                "methods": methods,
                "pairs": compare_with_baseline(
                    plan, {method["name"]: method["runs"] for method in methods}, study.baseline
                ),
            }
        )
    return {
        "format": FORMAT,
        "name": study.name,
        "command": ["saddlepoint", *sys.argv[1:]],
        "environment": environment("cuda" if "cuda" in devices else "cpu"),
        "study": study.to_dict(),
        "problems": problems,
    }


def _read_runs(
    study: Study, plan: ProblemPlan, name: str, searches: Searches, directory: ComparisonDirectory
) -> dict[RunId, RunResult]:
    """Return the runs of a method that are finished."""
    found = {}
    for run_id, job in jobs_of(study, plan, name, best_parameters(searches[plan.name, name])):
        result = directory.read_result(run_id, job.key())
        if result is not None:
            source = f"The result {directory.path / run_id.file}"
            validate_metric(result, plan.metric, source)
            found[run_id] = result
    return found


def _method_results(
    study: Study,
    plan: ProblemPlan,
    name: str,
    search: SearchResult | None,
    results: Mapping[RunId, RunResult],
) -> Tree:
    config = run_config(plan, study.methods[name], best_parameters(search))
    reported, others = [], []
    for run_id, result in results.items():
        if run_id.factor == 1:
            reported.append({**result, "seed": run_id.seed})
        else:
            others.append({**result, "seed": run_id.seed, "factor": run_id.factor})

    robustness: Tree | None = None
    if plan.robustness:
        factors = sorted({1.0, *plan.robustness.factors})
        seeds = study.robustness_seeds(plan)
        success: list[list[bool | None]] = []
        values: list[list[float | None]] = []
        for factor in factors:
            row = [results.get(RunId(plan.name, name, seed, factor)) for seed in seeds]
            success.append(
                [None if run is None else plan.reaches_target(run["metrics"]) for run in row]
            )
            values.append(
                [run["metrics"][plan.metric] if run and run["metrics"] else None for run in row]
            )
        robustness = {
            "factors": factors,
            "seeds": list(seeds),
            "success": success,
            "values": values,
            "runs": others,
        }
    return {
        "name": name,
        "family": study.methods[name].family,
        "description": f"{config.rule.name} + {config.optimizer.name}, {config.update_scheme}",
        "config": config.model_dump(mode="json", exclude={"seed"}),
        "tuning": search.to_dict() if search and search.trials else None,
        "runs": reported,
        "summary": summarize(plan, reported) if reported else None,
        "robustness": robustness,
    }


def best_parameters(search: SearchResult | None) -> Tree:
    """Return the tuned parameters; empty where nothing is tuned."""
    return {} if search is None else search.best


def summarize(plan: ProblemPlan, runs: Sequence[RunResult]) -> Tree:
    """Return the summary of a method's runs.

    Median with interval, success rate, divergence, time to the target and cost of a step. A run
    that diverged or failed counts as worse than every other one: it is in the median, the interval
    and the success rate. In the time to the target, runs that never reached it are censored at the
    end of the budget; a run that diverged would not have reached it later and stays at risk.
    """
    sign = 1.0 if plan.smaller_is_better() else -1.0
    middle, (low, high) = median_interval([plan.loss(run["metrics"]) for run in runs])
    success: Tree | None = None
    time_to_target: Tree | None = None
    if plan.target is not None:
        n = len(runs)
        successes = sum(plan.reaches_target(run["metrics"]) for run in runs)
        interval = list(wilson_interval(successes, n))
        success = {"rate": successes / n, "interval": interval, "runs": n}
        times: list[float | None] = []
        ends = []
        for run in runs:
            reached = (p["seconds"] for p in run["points"] if plan.reaches_target(p["metrics"]))
            times.append(next(reached, None))
            ends.append(run["seconds"] if run["status"] == "finished" else math.inf)
        time_to_target = {
            "median": kaplan_meier_median(times, ends),
            "reached": n - times.count(None),
            "censored": times.count(None),
        }

    milliseconds, gradients, memory = [], [], []
    for run in runs:
        if run["steps"]:
            milliseconds.append(1000 * run["seconds"] / run["steps"])
            gradients.append(run["gradient_equivalents"] / run["steps"])
            if run["peak_memory"] is not None:
                memory.append(run["peak_memory"])
    return {
        "median": sign * middle,
        "interval": sorted((sign * low, sign * high)),
        "success": success,
        "diverged": sum(run["status"] == "diverged" for run in runs),
        "failed": sum(run["status"] == "failed" for run in runs),
        "time_to_target": time_to_target,
        "milliseconds_per_step": float(median(milliseconds)) if milliseconds else None,
        "gradient_equivalents_per_step": float(median(gradients)) if gradients else None,
        "peak_memory": float(median(memory)) if memory else None,
    }


def compare_with_baseline(
    plan: ProblemPlan, runs: Mapping[str, Sequence[RunResult]], baseline: str
) -> list[Tree]:
    """Return how every method compares with the baseline.

    The probability of being better, its p-value, and that corrected by Holm.
    """
    others = [name for name in runs if name != baseline and runs[name]]
    if not others or not runs.get(baseline):
        return []
    base = [plan.loss(run["metrics"]) for run in runs[baseline]]
    probabilities, p_values = [], []
    for name in others:
        losses = [plan.loss(run["metrics"]) for run in runs[name]]
        probabilities.append(probability_better(losses, base))
        p_values.append(mann_whitney_test(losses, base))
    adjusted = holm(p_values)
    return [
        {
            "first": name,
            "second": baseline,
            "better": probabilities[i],
            "p": p_values[i],
            "p_adjusted": adjusted[i],
        }
        for i, name in enumerate(others)
    ]
