"""The tables of a comparison: ranking, final metrics, tuning, settings, cost, versions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from saddlepoint.report.formatting import (
    MISSING,
    Table,
    duration,
    integer,
    interval,
    memory,
    number,
    p_value,
    percent,
    setting,
    with_unit,
)
from saddlepoint.report.schemas import Comparison, Pair, Problem, Tuning, flatten

ALPHA = 0.05


@dataclass(frozen=True, kw_only=True)
class Whisker:
    """A median and its interval on a scale from 0 to 100."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Rank:
    """A row of the ranking.

    Attributes:
        place: 1 for the best median; empty without a median.
        name, family, description: of the method.
        value: the median with its interval.
        whisker: median and interval on a scale shared by all methods; None without a median.
        success: the number of runs that reach the target, and the interval of their share.
        better: the probability of being better than the baseline, and the adjusted p-value.
        time: the median time to the target, and the number of runs that did not reach it.
        step, equivalents: time and gradient-equivalents of a step.
        memory: peak memory.
        broken: the number of runs that diverged and failed.
    """

    place: str
    name: str
    family: str
    description: str
    value: str
    whisker: Whisker | None
    success: tuple[str, str]
    better: tuple[str, str]
    time: tuple[str, str]
    step: str
    equivalents: str
    memory: str
    broken: str


def ranking(problem: Problem) -> list[Rank]:
    """Return a row for each method, best median first."""
    pairs, whiskers = _pairs_with_baseline(problem), _whiskers(problem)
    rows = []
    for place, method in enumerate(problem.ranked, 1):
        summary, pair = method.summary, pairs.get(method.name)

        value = interval(summary.median, summary.interval)
        if not method.runs:
            value = "no runs yet"
        elif summary.median is None:
            value = "half or more broke off" if summary.diverged + summary.failed else MISSING

        success, target = (MISSING, ""), summary.success
        if target is not None and target.rate is not None:
            bounds = target.interval
            share = "" if bounds is None else f"{percent(bounds[0])} … {percent(bounds[1])}"
            success = f"{round(target.rate * target.runs)} of {target.runs}", share

        better = MISSING, ""
        if method.name == problem.baseline:
            better = "baseline", ""
        elif pair is not None:
            probability = MISSING if pair.better is None else f"{pair.better:.2f}"
            better = probability, f"p {p_value(pair.p_adjusted)}"

        time, to_target = (MISSING, ""), summary.time_to_target
        if to_target is not None:
            missed = to_target.censored
            of = f"not reached by {missed} of {to_target.reached + missed}" if missed else ""
            time = duration(to_target.median), of

        counts = {"diverged": summary.diverged, "failed": summary.failed}
        broken = ", ".join(f"{count} {status}" for status, count in counts.items() if count)

        rows.append(
            Rank(
                place=str(place) if summary.median is not None else "",
                name=method.name,
                family=method.family,
                description=method.description,
                value=value,
                whisker=whiskers.get(method.name),
                success=success,
                better=better,
                time=time,
                step=with_unit(summary.milliseconds_per_step, "ms"),
                equivalents=number(summary.gradient_equivalents_per_step),
                memory=memory(summary.peak_memory),
                broken=broken or ("0" if method.runs else MISSING),
            )
        )
    return rows


def headline(problem: Problem) -> str:
    """Return which method has the best median, and whether it is better than the baseline."""
    measured = [method for method in problem.ranked if method.summary.median is not None]
    if not measured:
        if not any(method.runs for method in problem.methods):
            return "No method has a median yet."
        return "No method has a median: at least half of the runs of each diverged or failed."
    best, summary = measured[0], measured[0].summary
    text = f"{best.name} has the best median: {interval(summary.median, summary.interval)}"
    if best.name == problem.baseline:
        return f"The baseline {text}."
    for method in measured:
        if method.name == problem.baseline:
            text += f", against {number(method.summary.median)} of the baseline {method.name}"
    text += "."
    pair = _pairs_with_baseline(problem).get(best.name)
    if pair is not None and pair.better is not None and pair.p_adjusted is not None:
        significant = "" if pair.p_adjusted < ALPHA else "; with so few runs it is not significant"
        text += (
            f" A run of {best.name} is better than one of {pair.second} with probability"
            f" {pair.better:.2f} (adjusted p {p_value(pair.p_adjusted)}){significant}."
        )
    return text


def versions_table(comparison: Comparison) -> Table | None:
    """Return a row for each set of versions of runs and trials, None if they were not recorded."""
    runs: Counter[tuple[tuple[str, str], ...]] = Counter()
    trials: Counter[tuple[tuple[str, str], ...]] = Counter()
    for problem in comparison.problems:
        for method in problem.methods:
            runs.update(tuple(run.made_with.items()) for run in method.runs)
            if method.tuning is not None:
                trials.update(tuple(trial.made_with.items()) for trial in method.tuning.trials)
    sets = [dict(versions) for versions in dict.fromkeys([*runs, *trials])]
    names: dict[str, None] = {}
    for versions in sets:
        names |= dict.fromkeys(versions)
    if not names:
        return None
    rows = []
    for versions in sets:
        key = tuple(versions.items())
        row = [versions.get(name, MISSING) for name in names]
        rows.append([*row, integer(runs[key]), integer(trials[key])])
    return Table(
        caption="Versions used by runs and trials", header=[*names, "runs", "trials"], rows=rows
    )


def final_metrics_table(problem: Problem) -> Table | None:
    """Return the medians over seeds of all metrics at the end of the budget."""
    measured = {}
    for method in problem.ranked:
        measured[method.name] = [run.metrics for run in method.runs if run.metrics]
    found: set[str] = set()
    for own in measured.values():
        found = found.union(*own)
    known = [name for name in dict.fromkeys([problem.metric, *problem.metrics]) if name in found]
    if not known:
        return None
    rows = []
    for name, own in measured.items():
        row = [name]
        for metric in known:
            value = _median(metrics.get(metric) for metrics in own)
            row.append(number(value))
        rows.append(row)
    return Table(
        caption="Final metrics: medians over the finished runs",
        header=["method", *known],
        rows=rows,
    )


def tuning_table(tunings: Mapping[str, Tuning]) -> Table | None:
    """Return search space, number of trials and best values of each method."""
    if not tunings:
        return None
    rows = []
    for name, tuning in tunings.items():
        values = [trial.value for trial in tuning.trials if trial.value is not None]
        best = ", ".join(f"{key} {setting(value)}" for key, value in tuning.best.items())
        space = "; ".join(f"{key} {_range(where)}" for key, where in tuning.space.items())
        rows.append(
            [
                name,
                integer(len(tuning.trials)),
                integer(len(tuning.trials) - len(values)),
                number(min(values, default=None)),
                best or MISSING,
                space or MISSING,
            ]
        )
    return Table(
        caption="Hyperparameter search; smaller values are better",
        header=["method", "trials", "broke off", "smallest value", "best", "search space"],
        rows=rows,
    )


def trials_table(name: str, tuning: Tuning) -> Table:
    """Return hyperparameters, value and status of every trial of a method."""
    keys = list(tuning.space) or list(tuning.best)
    rows = []
    for trial in tuning.trials:
        parameters = [setting(trial.parameters.get(key)) for key in keys]
        rows.append([integer(trial.number), *parameters, number(trial.value), trial.status])
    return Table(caption=f"Trials of {name}", header=["trial", *keys, "value", "status"], rows=rows)


def differences_table(problem: Problem) -> Table | None:
    """Return the keys in which the methods' configurations differ."""
    leaves, keys = {}, dict[str, None]()
    for method in problem.ranked:
        if method.config:
            leaves[method.name] = flatten(method.config)
            keys |= dict.fromkeys(leaves[method.name])
    rows = []
    for key in keys:
        values = [setting(own.get(key)) for own in leaves.values()]
        if len(set(values)) > 1:
            rows.append([key, *values])
    if len(leaves) < 2 or not rows:
        return None
    return Table(
        caption="Settings that differ between the methods; all others are equal",
        header=["key", *leaves],
        rows=rows,
    )


def cost_table(problem: Problem) -> Table:
    """Return steps, time and work of each method."""
    rows = []
    for method in problem.ranked:
        runs, summary = method.runs, method.summary
        per_equivalent = None
        if summary.milliseconds_per_step is not None and summary.gradient_equivalents_per_step:
            per_equivalent = summary.milliseconds_per_step / summary.gradient_equivalents_per_step
        unconverged = sum(run.unconverged_solves or 0 for run in runs)
        rows.append(
            [
                method.name,
                integer(_median(run.steps for run in runs)),
                duration(_median(run.seconds for run in runs)),
                integer(_median(run.gradient_equivalents for run in runs)),
                number(per_equivalent),
                integer(unconverged) if runs else MISSING,
            ]
        )
    return Table(
        caption="Cost: medians over seeds; unconverged solves summed over seeds",
        header=[
            "method",
            "steps",
            "training time",
            "gradient-equivalents",
            "ms per gradient-equivalent",
            "unconverged solves",
        ],
        rows=rows,
    )


def broken_off_table(problem: Problem) -> Table | None:
    """Return the runs that diverged or failed, None if there are none."""
    rows = []
    for method in problem.ranked:
        broken_off = [run for run in method.runs if run.status != "finished"]
        rows += [
            [method.name, str(run.seed), run.status, run.error or MISSING] for run in broken_off
        ]
    if not rows:
        return None
    return Table(
        caption="Runs that diverged or failed",
        header=["method", "seed", "status", "error"],
        rows=rows,
    )


def _pairs_with_baseline(problem: Problem) -> Mapping[str, Pair]:
    """Return method → its pair with the baseline as the second method."""
    pairs = {}
    for pair in problem.pairs:
        if pair.second == problem.baseline:
            pairs[pair.first] = pair
        elif pair.first == problem.baseline:
            pairs[pair.second] = Pair(
                first=pair.second,
                second=pair.first,
                better=None if pair.better is None else 1 - pair.better,
                p=pair.p,
                p_adjusted=pair.p_adjusted,
            )
    return pairs


def _whiskers(problem: Problem) -> dict[str, Whisker]:
    """Return medians and intervals on the scale from the smallest (0) to the largest bound (100).

    An open bound reaches to the end of the scale.
    """
    known = {}
    values: list[float] = []
    for method in problem.methods:
        summary = method.summary
        if summary.median is not None:
            low, high = summary.interval or (summary.median, summary.median)
            known[method.name] = low, summary.median, high
            values += [end for end in (low, summary.median, high) if end is not None]
    start, end = min(values, default=0.0), max(values, default=0.0)

    def scaled(value: float | None, default: float) -> float:
        if value is None or start == end:
            return default
        return round(100 * (value - start) / (end - start), 1)

    whiskers = {}
    for name, (low, middle, high) in known.items():
        whiskers[name] = Whisker(
            low=scaled(low, 0.0), middle=scaled(middle, 50.0), high=scaled(high, 100.0)
        )
    return whiskers


def _range(where: Any) -> str:
    """Return the range of a hyperparameter as text."""
    if not isinstance(where, dict):
        return setting(where)
    for kind, suffix in (("log", " (log scale)"), ("uniform", "")):
        bounds = where.get(kind)
        if isinstance(bounds, list) and len(bounds) == 2:
            return f"{setting(bounds[0])} to {setting(bounds[1])}{suffix}"
    choices = where.get("choices")
    if not isinstance(choices, list):
        return setting(where)
    texts = [f"({setting(one)})" if isinstance(one, list) else setting(one) for one in choices]
    return "one of " + ", ".join(texts)


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
