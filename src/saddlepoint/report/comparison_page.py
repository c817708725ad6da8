"""What the page of a comparison shows, made ready for its template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import yaml

from saddlepoint.report.charts import Chart, Table
from saddlepoint.report.comparison_charts import (
    first_seed_charts,
    quality_chart,
    robustness_chart,
    toned,
)
from saddlepoint.report.comparison_file import Comparison, Problem, Tuning, flat
from saddlepoint.report.environment import command_text, environment_table
from saddlepoint.report.formatting import MISSING, duration, number, plain, whole
from saddlepoint.report.frames import frames_of
from saddlepoint.report.ranking import headline, ranking

SIZES = {
    "seconds": "{} of training",
    "steps": "{} steps",
    "gradient_equivalents": "{} gradient-equivalents",
}


def comparison_page(comparison: Comparison, directory: Path) -> dict[str, Any]:
    """Return what the template ``comparison.html.jinja`` needs."""
    problems = [
        _problem(problem, f"p{number}", directory)
        for number, problem in enumerate(comparison.problems, 1)
    ]
    return {
        "title": comparison.name,
        "path": str(directory),
        "outcome": _outcome(comparison),
        "overview": _overview(comparison) if len(problems) > 1 else None,
        "problems": problems,
        "environment": environment_table(comparison.environment),
        "made_with": _made_with(comparison),
        "commands": (
            [("As it was made", command_text(comparison.command))] if comparison.command else []
        ),
        "study": (
            yaml.safe_dump(comparison.study, sort_keys=False, allow_unicode=True)
            if comparison.study
            else ""
        ),
        "charts": [chart for problem in problems for chart in problem["charts"]],
        "axis": comparison.problems[0].axis if comparison.problems else "seconds",
    }


def budget_of(problem: Problem) -> str:
    """Return the budget that every method has."""
    axis, amount = next(iter(problem.budget.items()))
    return SIZES[axis].format(duration(amount) if axis == "seconds" else whole(amount))


def _problem(problem: Problem, id: str, directory: Path) -> dict[str, Any]:
    quality = quality_chart(problem, f"{id}-quality", problem.metric, group=id)
    others = [
        name
        for name, meaning in problem.metrics.items()
        if name != problem.metric and meaning.better
    ]
    more = [
        quality_chart(problem, f"{id}-metric-{index}", name, group=id)
        for index, name in enumerate(others)
    ]
    more_charts = [chart for chart in more if chart is not None and _is_a_course(chart)]
    first_seed = first_seed_charts(problem, id, group=id)
    robustness = robustness_chart(problem, f"{id}-robustness")
    tunings = {method.name: method.tuning for method in problem.ranked if method.tuning is not None}
    return {
        "id": id,
        "name": problem.name,
        "settings": [f"{key} {plain(value)}" for key, value in problem.problem.items()],
        "budget": budget_of(problem),
        "metric": problem.metric,
        "better": problem.better,
        "meaning": (
            problem.metrics[problem.metric].meaning if problem.metric in problem.metrics else ""
        ),
        "target": None if problem.target is None else number(problem.target),
        "baseline": problem.baseline,
        "headline": headline(problem),
        "ranking": ranking(problem),
        "legend": toned(problem),
        "quality": quality,
        "more": more_charts,
        "first_seed": first_seed,
        "robustness": robustness,
        "frames": frames_of(problem, directory),
        "ends": _ends(problem),
        "tuning": _tuning(tunings),
        "trials": [_trials(name, tuning) for name, tuning in tunings.items()],
        "differences": _differences(problem),
        "cost": _cost(problem),
        "broken": _broken(problem),
        "charts": [
            chart for chart in (quality, *more_charts, *first_seed, robustness) if chart is not None
        ],
    }


def _is_a_course(chart: Chart) -> bool:
    """Say whether a metric was measured more than once on the way."""
    return any(len(points.x) > 1 for series in chart.legend for points in series.points.values())


def _outcome(comparison: Comparison) -> str:
    methods = {method.name for problem in comparison.problems for method in problem.methods}
    runs = [
        run for problem in comparison.problems for method in problem.methods for run in method.runs
    ]
    seeds = len({run.seed for run in runs})
    parts = [
        _count(len(comparison.problems), "problem"),
        _count(len(methods), "method"),
        _count(seeds, "seed"),
        _count(len(runs), "run"),
    ]
    lost = sum(run.status != "finished" for run in runs)
    broken = (
        f"; {_count(lost, 'run')} broke off, and count as worse than all others" if lost else ""
    )
    missing = any(not method.runs for problem in comparison.problems for method in problem.methods)
    kinds = len({tuple(run.made_with.items()) for run in runs})
    mixed = (
        f" They were made with {kinds} different sets of versions; see the end of the page."
        if kinds > 1
        else ""
    )
    return f"{', '.join(parts)}{broken}.{' It is not complete: some methods have no runs yet.' if missing else ''}{mixed}"


def _made_with(comparison: Comparison) -> Table | None:
    """Return what runs and trials were made with, a row for each set of versions; None where that was not recorded."""
    runs: Counter[tuple[tuple[str, str], ...]] = Counter()
    trials: Counter[tuple[tuple[str, str], ...]] = Counter()
    for problem in comparison.problems:
        for method in problem.methods:
            runs.update(tuple(run.made_with.items()) for run in method.runs)
            trials.update(
                tuple(trial.made_with.items())
                for trial in (method.tuning.trials if method.tuning else ())
            )
    sets = dict.fromkeys([*runs, *trials])
    names = dict.fromkeys(name for made in sets for name, _ in made)
    rows = [
        [*(dict(made).get(name, MISSING) for name in names), whole(runs[made]), whole(trials[made])]
        for made in sets
    ]
    caption = "What runs and trials were made with"
    return Table(caption=caption, header=[*names, "runs", "trials"], rows=rows) if names else None


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _overview(comparison: Comparison) -> dict[str, Any]:
    """Return the median and the place of every method on every problem, the methods with the best mean place first."""
    places: list[dict[str, tuple[str, int]]] = []
    for problem in comparison.problems:
        ranked = [method for method in problem.ranked if method.summary.median is not None]
        places.append(
            {
                method.name: (number(method.summary.median), place)
                for place, method in enumerate(ranked, 1)
            }
        )
    names = dict.fromkeys(
        method.name for problem in comparison.problems for method in problem.methods
    )
    rows = [(name, [place.get(name) for place in places]) for name in names]
    rows.sort(key=lambda row: fmean(len(names) if cell is None else cell[1] for cell in row[1]))
    caption = (
        "Place and median of each problem's metric; in the order of the mean place, without a"
        " median the last"
    )
    return {
        "caption": caption,
        "problems": [problem.name for problem in comparison.problems],
        "rows": rows,
    }


def _ends(problem: Problem) -> Table | None:
    """Return the medians over seeds of all metrics at the end of the budget."""
    names = [problem.metric, *(name for name in problem.metrics if name != problem.metric)]
    found = {
        method.name: [run.metrics for run in method.runs if run.metrics]
        for method in problem.ranked
    }
    known = [
        name for name in names if any(name in metrics for own in found.values() for metrics in own)
    ]
    if not known:
        return None
    rows = [
        [name, *(number(_median([metrics.get(metric) for metrics in own])) for metric in known)]
        for name, own in found.items()
    ]
    return Table(
        caption="All metrics at the end: medians over the seeds that came to the end",
        header=["method", *known],
        rows=rows,
    )


def _tuning(tunings: Mapping[str, Tuning]) -> Table | None:
    """Return what was searched for each method, and what was found."""
    rows = []
    for name, tuning in tunings.items():
        values = [trial.value for trial in tuning.trials if trial.value is not None]
        best = ", ".join(f"{key} {plain(value)}" for key, value in tuning.best.items())
        space = "; ".join(f"{key} {_range(where)}" for key, where in tuning.space.items())
        lost = sum(trial.value is None for trial in tuning.trials)
        rows.append(
            [
                name,
                whole(len(tuning.trials)),
                whole(lost),
                number(min(values, default=None)),
                best or MISSING,
                space or MISSING,
            ]
        )
    header = ["method", "trials", "broke off", "least value", "found", "searched"]
    return (
        Table(
            caption="Tuning; of the values that were searched for, smaller is better",
            header=header,
            rows=rows,
        )
        if rows
        else None
    )


def _trials(name: str, tuning: Tuning) -> Table:
    keys = list(tuning.space) or list(tuning.best)
    rows = [
        [
            whole(trial.number),
            *(plain(trial.parameters.get(key)) for key in keys),
            number(trial.value),
            trial.status,
        ]
        for trial in tuning.trials
    ]
    return Table(caption=f"Trials of {name}", header=["trial", *keys, "value", "status"], rows=rows)


def _range(where: Any) -> str:
    """Return where a hyperparameter is searched."""
    if not isinstance(where, dict):
        return plain(where)
    kinds = {"log": "{} to {} (log scale)", "uniform": "{} to {}"}
    for kind, text in kinds.items():
        if isinstance(where.get(kind), list) and len(where[kind]) == 2:
            return text.format(*map(plain, where[kind]))
    choices = where.get("choices")
    return (
        "one of " + ", ".join(map(_choice, choices)) if isinstance(choices, list) else plain(where)
    )


def _choice(value: Any) -> str:
    return f"({plain(value)})" if isinstance(value, list) else plain(value)


def _differences(problem: Problem) -> Table | None:
    """Return the keys of the configurations in which the methods differ."""
    leaves = {method.name: flat(method.config) for method in problem.ranked if method.config}
    keys = dict.fromkeys(key for own in leaves.values() for key in own)
    differing = [key for key in keys if len({plain(own.get(key)) for own in leaves.values()}) > 1]
    if len(leaves) < 2 or not differing:
        return None
    rows = [[key, *(plain(own.get(key)) for own in leaves.values())] for key in differing]
    return Table(
        caption="What differs between the methods' configurations; all else is the same",
        header=["key", *leaves],
        rows=rows,
    )


def _cost(problem: Problem) -> Table:
    """Return what the runs of each method took, as medians over seeds."""
    header = [
        "method",
        "steps",
        "training time",
        "gradient-equivalents",
        "ms per gradient-equivalent",
        "unconverged solves",
    ]
    rows = []
    for method in problem.ranked:
        runs, summary = method.runs, method.summary
        each = summary.gradient_equivalents_per_step
        rate = (
            summary.milliseconds_per_step / each
            if summary.milliseconds_per_step is not None and each
            else None
        )
        rows.append(
            [
                method.name,
                whole(_median([run.steps for run in runs])),
                duration(_median([run.seconds for run in runs])),
                whole(_median([run.gradient_equivalents for run in runs])),
                number(rate),
                whole(sum(run.unconverged_solves or 0 for run in runs)) if runs else MISSING,
            ]
        )
    return Table(
        caption="Cost: medians over seeds; unconverged solves of all seeds together",
        header=header,
        rows=rows,
    )


def _broken(problem: Problem) -> Table | None:
    rows = [
        [method.name, str(run.seed), run.status, run.error or MISSING]
        for method in problem.ranked
        for run in method.runs
        if run.status != "finished"
    ]
    return (
        Table(
            caption="Runs that broke off",
            header=["method", "seed", "how", "what was said"],
            rows=rows,
        )
        if rows
        else None
    )


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
