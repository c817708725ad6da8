"""The content of the page of a comparison, for its template."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from saddlepoint.report.comparison_charts import (
    first_seed_charts,
    method_styles,
    metric_chart,
    robustness_chart,
)
from saddlepoint.report.comparison_tables import (
    broken_off_table,
    cost_table,
    differences_table,
    final_metrics_table,
    headline,
    ranking,
    trials_table,
    tuning_table,
    versions_table,
)
from saddlepoint.report.formatting import (
    command_text,
    duration,
    environment_table,
    integer,
    number,
    setting,
)
from saddlepoint.report.pictures import comparison_frames
from saddlepoint.report.schemas import Comparison, Problem, Run


def comparison_page(comparison: Comparison, directory: Path) -> dict[str, Any]:
    """Return the variables of the template ``comparison.html.jinja``."""
    problems, charts = [], []
    for index, problem in enumerate(comparison.problems, 1):
        problems.append(_problem(problem, f"p{index}", directory))
        charts += problems[-1]["charts"]
    command, study = comparison.command, comparison.study
    return {
        "title": comparison.name,
        "path": str(directory),
        "outcome": _outcome(comparison),
        "overview": _overview(comparison) if len(problems) > 1 else None,
        "problems": problems,
        "environment": environment_table(comparison.environment),
        "made_with": versions_table(comparison),
        "commands": [("Original command", command_text(command))] if command else [],
        "study": yaml.safe_dump(study, sort_keys=False, allow_unicode=True) if study else "",
        "charts": charts,
        "axis": comparison.problems[0].axis if comparison.problems else "seconds",
    }


def _problem(problem: Problem, id: str, directory: Path) -> dict[str, Any]:
    """Return the variables of the section of one problem."""
    axis, amount = next(iter(problem.budget.items()))
    budget = {
        "seconds": f"{duration(amount)} of training",
        "steps": f"{integer(amount)} steps",
        "gradient_equivalents": f"{integer(amount)} gradient-equivalents",
    }[axis]

    quality = metric_chart(problem, f"{id}-quality", problem.metric, group=id)
    others = []
    for name, about in problem.metrics.items():
        if name != problem.metric and about.better:
            others.append(name)
    more = []
    for index, name in enumerate(others):
        chart = metric_chart(problem, f"{id}-metric-{index}", name, group=id)
        if chart is not None and not chart.single_points:  # those are in the final metrics
            more.append(chart)
    first_seed = first_seed_charts(problem, id, group=id)
    robustness = robustness_chart(problem, f"{id}-robustness")
    charts = [quality, *more, *first_seed, robustness]

    tunings = {}
    for method in problem.ranked:
        if method.tuning is not None:
            tunings[method.name] = method.tuning
    meaning = problem.metrics.get(problem.metric)
    return {
        "id": id,
        "name": problem.name,
        "settings": [f"{key} {setting(value)}" for key, value in problem.problem.items()],
        "budget": budget,
        "metric": problem.metric,
        "better": problem.better,
        "meaning": "" if meaning is None else meaning.meaning,
        "target": None if problem.target is None else number(problem.target),
        "baseline": problem.baseline,
        "headline": headline(problem),
        "ranking": ranking(problem),
        "legend": method_styles(problem),
        "quality": quality,
        "more": more,
        "first_seed": first_seed,
        "robustness": robustness,
        "frames": comparison_frames(problem, directory),
        "final": final_metrics_table(problem),
        "tuning": tuning_table(tunings),
        "trials": [trials_table(name, tuning) for name, tuning in tunings.items()],
        "differences": differences_table(problem),
        "cost": cost_table(problem),
        "broken": broken_off_table(problem),
        "charts": [chart for chart in charts if chart is not None],
    }


def _outcome(comparison: Comparison) -> str:
    """Return the size of the comparison, and what is missing or mixed, as text."""
    methods: set[str] = set()
    runs: list[Run] = []
    incomplete = False
    for problem in comparison.problems:
        for method in problem.methods:
            methods.add(method.name)
            runs += method.runs
            incomplete = incomplete or not method.runs

    def count(n: int, noun: str) -> str:
        return f"{n:,} {noun}{'' if n == 1 else 's'}"

    seeds = len({run.seed for run in runs})
    text = (
        f"{count(len(comparison.problems), 'problem')}, {count(len(methods), 'method')},"
        f" {count(seeds, 'seed')}, {count(len(runs), 'run')}"
    )
    broken_off = sum(run.status != "finished" for run in runs)
    if broken_off:
        text += (
            f"; {count(broken_off, 'run')} diverged or failed and count as worse than all others"
        )
    text += "."
    if incomplete:
        text += " Incomplete: some methods have no runs yet."
    kinds = len({tuple(run.made_with.items()) for run in runs})
    if kinds > 1:
        text += f" The runs used {kinds} different sets of versions; see the end of the page."
    return text


def _overview(comparison: Comparison) -> dict[str, Any]:
    """Return median and rank of every method on every problem, the best mean rank first."""
    names: dict[str, None] = {}
    ranks: list[dict[str, tuple[str, int]]] = []
    for problem in comparison.problems:
        names |= dict.fromkeys(method.name for method in problem.methods)
        ranked = [method for method in problem.ranked if method.summary.median is not None]
        ranks.append({})
        for rank, method in enumerate(ranked, 1):
            ranks[-1][method.name] = number(method.summary.median), rank

    rows = []
    for name in names:
        cells = [own.get(name) for own in ranks]
        rows.append((name, cells))
    rows.sort(key=lambda row: fmean(cell[1] if cell else len(names) for cell in row[1]))
    return {
        "caption": (
            "Rank and median of each problem's metric, ordered by mean rank; a method without a"
            " median counts as last"
        ),
        "problems": [problem.name for problem in comparison.problems],
        "rows": rows,
    }
