"""What the outcomes of a method's runs say together, and how methods do against the baseline."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from saddlepoint.compare.execution import Outcome
from saddlepoint.compare.statistics import (
    exchange_test,
    holm,
    median_interval,
    median_time,
    probability_better,
    share_interval,
)
from saddlepoint.compare.study import ProblemPlan
from saddlepoint.compare.tuning import loss_of, smaller_is_better
from saddlepoint.training.config import Tree


def summary_of(plan: ProblemPlan, runs: Sequence[Outcome]) -> Tree:
    """Return what a method's runs say: median with interval, success rate, divergence, time to the target, cost of a step.

    A run that diverged or failed counts as worse than every other: it is in the median, the
    interval and the success rate.
    """
    sign = 1.0 if smaller_is_better(plan) else -1.0
    losses = [loss_of(plan, run) for run in runs]
    middle, (low, high) = median_interval(losses)
    ends = sorted((sign * low, sign * high))
    moved = [run for run in runs if run["steps"]]
    return {
        "median": sign * middle,
        "interval": ends,
        "success": _success(plan, runs),
        "diverged": sum(run["status"] == "diverged" for run in runs),
        "failed": sum(run["status"] == "failed" for run in runs),
        "time_to_target": _time_to_target(plan, runs),
        "milliseconds_per_step": _median(1000 * run["seconds"] / run["steps"] for run in moved),
        "gradient_equivalents_per_step": _median(
            run["gradient_equivalents"] / run["steps"] for run in moved
        ),
        "peak_memory": _median(
            run["peak_memory"] for run in moved if run["peak_memory"] is not None
        ),
    }


def succeeded(plan: ProblemPlan, outcome: Outcome) -> bool:
    """Say whether a run ended at the target of its problem, or beyond it."""
    return outcome["metrics"] is not None and _reached(plan, outcome["metrics"])


def pairs_of(plan: ProblemPlan, runs: Mapping[str, Sequence[Outcome]], baseline: str) -> list[Tree]:
    """Return how every method does against the baseline: the probability of being better, its p-value, and that corrected by Holm."""
    others = [name for name in runs if name != baseline and runs[name]]
    if not others or not runs.get(baseline):
        return []
    losses = {name: [loss_of(plan, run) for run in own] for name, own in runs.items()}
    p_values = [exchange_test(losses[name], losses[baseline]) for name in others]
    return [
        {
            "first": name,
            "second": baseline,
            "better": probability_better(losses[name], losses[baseline]),
            "p": p,
            "p_adjusted": adjusted,
        }
        for name, p, adjusted in zip(others, p_values, holm(p_values), strict=True)
    ]


def _success(plan: ProblemPlan, runs: Sequence[Outcome]) -> Tree | None:
    if plan.target is None:
        return None
    successes = sum(succeeded(plan, run) for run in runs)
    return {
        "rate": successes / len(runs),
        "interval": list(share_interval(successes, len(runs))),
        "runs": len(runs),
    }


def _time_to_target(plan: ProblemPlan, runs: Sequence[Outcome]) -> Tree | None:
    """Return the median of the time to the target over all runs; those that never reached it are censored at the end of the budget.

    A run that diverged would not have reached it later either, so it is never left out of those at
    risk.
    """
    if plan.target is None:
        return None
    times = [
        next(
            (point["seconds"] for point in run["points"] if _reached(plan, point["metrics"])), None
        )
        for run in runs
    ]
    ends = [run["seconds"] if run["status"] == "finished" else math.inf for run in runs]
    reached = sum(time is not None for time in times)
    return {"median": median_time(times, ends), "reached": reached, "censored": len(runs) - reached}


def _reached(plan: ProblemPlan, metrics: Tree) -> bool:
    value = metrics[plan.metric]
    if plan.target is None or value is None:
        return False
    return bool(value <= plan.target) if smaller_is_better(plan) else bool(value >= plan.target)


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return float(median(found)) if found else None
