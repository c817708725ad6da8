"""Reading a comparison: its methods from the best to the worst, its duels, its numbers as text."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import median

from saddlepoint.compare.statistics import mann_whitney_test, probability_better

FAMILIES = ("second-order", "subgradient", "first-order")


def number(value, digits=3):
    if value is None:
        return "none"
    return f"{value:.2g}" if 0 < abs(value) < 0.01 else f"{value:.{digits}g}"


def table(head, rows):
    return "\n".join(
        [
            f"| {' | '.join(head)} |",
            "|---" * len(head) + "|",
            *(f"| {' | '.join(row)} |" for row in rows),
        ]
    )


def methods(problem):
    """The methods that were run, the best median first."""
    return sorted(
        (method for method in problem["methods"] if method["summary"]),
        key=lambda method: worth(problem, method),
    )


def sign(problem):
    return 1 if problem["better"] == "smaller" else -1


def worth(problem, method):
    """The median as a number that is smaller for better methods, infinite where most runs have no
    end."""
    middle = method["summary"]["median"]
    return math.inf if middle is None else sign(problem) * middle


def losses(problem, method):
    """Each run's metric as such a number."""
    return [
        math.inf if run["metrics"] is None else sign(problem) * run["metrics"][problem["metric"]]
        for run in method["runs"]
    ]


def best(problem, family):
    return next((method for method in methods(problem) if method["family"] == family), None)


def called(study, name):
    return next((problem for problem in study["problems"] if problem["name"] == name), None)


def against(problem, family, rival="first-order"):
    """The best of a family and of another one, how often a run of the former is better, and the
    exact test's p."""
    mine, theirs = best(problem, family), best(problem, rival)
    if mine is None or theirs is None:
        return None
    a, b = losses(problem, mine), losses(problem, theirs)
    return mine, theirs, probability_better(a, b), mann_whitney_test(a, b)


def with_interval(method):
    summary = method["summary"]
    lost = summary["diverged"] + summary["failed"]
    low, high = summary["interval"]
    return f"{number(summary['median'])} ({number(low)} … {number(high)})" + (
        f", {lost} failed" if lost else ""
    )


def successes(method):
    success = method["summary"]["success"]
    return (
        "–"
        if success is None
        else f"{round(success['rate'] * success['runs'])} of {success['runs']}"
    )


def time_to_target(method):
    time = method["summary"]["time_to_target"]
    if time is None:
        return "–"
    middle = "not reached" if time["median"] is None else f"{time['median']:.2g} s"
    return f"{middle} ({time['reached']} of {time['reached'] + time['censored']})"


def budget(problem):
    return ", ".join(
        f"{amount:g} {kind.replace('_', '-')}" for kind, amount in problem["budget"].items()
    )


def setbacks(problem, method):
    """The share of evaluations, in the second half of the runs, that are worse than the last."""
    steps = []
    for run in method["runs"]:
        values = [sign(problem) * point["metrics"][problem["metric"]] for point in run["points"]]
        steps += [later > earlier for earlier, later in pairwise(values[len(values) // 2 :])]
    return sum(steps) / len(steps) if steps else None


def unsteady(study, family):
    shares = [
        share
        for p in study["problems"]
        for m in methods(p)
        if m["family"] == family and (share := setbacks(p, m)) is not None
    ]
    return sum(shares) / len(shares) if shares else math.nan


def step_factors(study):
    """Yield every method with its median cost of a step in steps of the baseline."""
    found = {}
    for problem in study["problems"]:
        base = next(
            method["summary"]
            for method in problem["methods"]
            if method["name"] == problem["baseline"]
        )
        for method in methods(problem):
            entry = found.setdefault(method["name"], (method, []))
            entry[1].append(
                method["summary"]["milliseconds_per_step"] / base["milliseconds_per_step"]
            )
    return [(method, median(factors)) for method, factors in found.values()]
