"""Who did best: the ranking table of a problem, and what it says in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from saddlepoint.report.comparison_file import Method, Pair, Problem, Success, TimeToTarget
from saddlepoint.report.formatting import (
    MISSING,
    duration,
    interval,
    memory,
    number,
    probability,
    share,
    with_unit,
)

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
        place: 1 for the best median; empty without one.
        name, family, description: of the method.
        value: the median with its interval.
        whisker: the same as lengths on a scale that all methods share; None without a median.
        success: how many seeds reach the target, and the interval of their share.
        better: the probability of being better than the baseline, and the adjusted p-value.
        time: the median time to the target, with the runs that never reached it.
        step, equivalents, memory: cost of a step, and the peak of memory.
        broken: runs that diverged or failed.
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
    """Return a row for each method, the best median first."""
    pairs, whiskers = _against(problem), _whiskers(problem)
    return [
        _rank(
            method,
            place,
            whiskers.get(method.name),
            pairs.get(method.name),
            is_baseline=method.name == problem.baseline,
        )
        for place, method in enumerate(problem.ranked, 1)
    ]


def headline(problem: Problem) -> str:
    """Return which method has the best median, and how sure it is that it is better than the baseline."""
    measured = [method for method in problem.ranked if method.summary.median is not None]
    if not measured:
        return (
            "No method has a median yet."
            if not any(method.runs for method in problem.methods)
            else _none_finished(problem)
        )
    best = measured[0]
    first = (
        f"{best.name} has the best median: {interval(best.summary.median, best.summary.interval)}"
    )
    if best.name == problem.baseline:
        return f"The baseline {first}."
    baseline = next((method for method in measured if method.name == problem.baseline), None)
    beside = (
        f", against {number(baseline.summary.median)} of the baseline {baseline.name}"
        if baseline is not None
        else ""
    )
    pair = _against(problem).get(best.name)
    return f"{first}{beside}.{_sureness(pair) if pair is not None else ''}"


def _none_finished(problem: Problem) -> str:
    return "No method has a median: with every one, half of the runs or more broke off."


def _sureness(pair: Pair) -> str:
    if pair.better is None or pair.p_adjusted is None:
        return ""
    sure = "" if pair.p_adjusted < ALPHA else ": so few runs do not tell the two apart"
    chance = f"{pair.better:.2f} (adjusted p {probability(pair.p_adjusted)})"
    return f" A run of it is better than one of {pair.second} with probability {chance}{sure}."


def _against(problem: Problem) -> Mapping[str, Pair]:
    """Return method → its pair with the baseline, turned round where the file has it the other way."""
    found = {}
    for pair in problem.pairs:
        if pair.second == problem.baseline:
            found[pair.first] = pair
        elif pair.first == problem.baseline:
            better = None if pair.better is None else 1 - pair.better
            found[pair.second] = Pair(
                first=pair.second,
                second=pair.first,
                better=better,
                p=pair.p,
                p_adjusted=pair.p_adjusted,
            )
    return found


def _rank(
    method: Method, place: int, whisker: Whisker | None, pair: Pair | None, *, is_baseline: bool
) -> Rank:
    summary = method.summary
    return Rank(
        place=str(place) if summary.median is not None else "",
        name=method.name,
        family=method.family,
        description=method.description,
        value=_median(method),
        whisker=whisker,
        success=_success(summary.success),
        better=_better(pair, is_baseline=is_baseline),
        time=_time(summary.time_to_target),
        step=with_unit(summary.milliseconds_per_step, "ms"),
        equivalents=number(summary.gradient_equivalents_per_step),
        memory=memory(summary.peak_memory),
        broken=_broken(method),
    )


def _median(method: Method) -> str:
    if not method.runs:
        return "no runs yet"
    if method.summary.median is None:
        return "half broke off" if method.summary.diverged + method.summary.failed else MISSING
    return interval(method.summary.median, method.summary.interval)


def _success(success: Success | None) -> tuple[str, str]:
    if success is None or success.rate is None:
        return MISSING, ""
    ends = success.interval
    known = f"{share(ends[0])} … {share(ends[1])}" if ends is not None else ""
    return f"{round(success.rate * success.runs)} of {success.runs}", known


def _better(pair: Pair | None, *, is_baseline: bool) -> tuple[str, str]:
    if is_baseline:
        return "baseline", ""
    if pair is None:
        return MISSING, ""
    return (
        MISSING if pair.better is None else f"{pair.better:.2f}"
    ), f"p {probability(pair.p_adjusted)}"


def _time(time: TimeToTarget | None) -> tuple[str, str]:
    """Return the median, and how many runs never reached the target.

    >>> _time(TimeToTarget(median=3.2, reached=4, censored=1))[1]
    '1 of 5 never'
    """
    if time is None:
        return MISSING, ""
    never = f"{time.censored} of {time.reached + time.censored} never" if time.censored else ""
    return duration(time.median) if time.median is not None else MISSING, never


def _whiskers(problem: Problem) -> dict[str, Whisker]:
    """Return medians and intervals between the least and the largest end of all; an open end goes as far as the scale."""
    known = {
        method.name: method.summary
        for method in problem.methods
        if method.summary.median is not None
    }
    ends = [
        end
        for summary in known.values()
        for end in (summary.median, *(summary.interval or ()))
        if end is not None
    ]
    least, reach = min(ends, default=0.0), max(ends, default=0.0) - min(ends, default=0.0)

    def at(value: float | None, otherwise: float) -> float:
        return otherwise if value is None or not reach else round(100 * (value - least) / reach, 1)

    whiskers = {}
    for name, summary in known.items():
        low, high = summary.interval or (summary.median, summary.median)
        whiskers[name] = Whisker(
            low=at(low, 0.0), middle=at(summary.median, 50.0), high=at(high, 100.0)
        )
    return whiskers


def _broken(method: Method) -> str:
    parts = {"diverged": method.summary.diverged, "failed": method.summary.failed}
    return ", ".join(f"{count} {how}" for how, count in parts.items() if count) or (
        "0" if method.runs else MISSING
    )
