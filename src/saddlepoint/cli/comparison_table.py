"""What a comparison found, on the terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from saddlepoint.cli.app import say
from saddlepoint.cli.tables import show

if TYPE_CHECKING:
    from rich.console import Console

    from saddlepoint.compare import SearchResult


def print_comparison(console: Console, comparison: Mapping[str, Any]) -> None:
    """Print a table for every problem, its methods from the best median to the worst, and whether the runs were made alike."""
    for problem in comparison["problems"]:
        _print_problem(console, problem)
    runs = [
        run
        for problem in comparison["problems"]
        for method in problem["methods"]
        for run in method["runs"]
    ]
    sets = Counter(
        ", ".join(f"{name} {what}" for name, what in run["made_with"].items()) for run in runs
    )
    if len(sets) > 1:
        say(console, "note: The runs were not all made with the same versions:")
        for made, count in sets.most_common():
            say(console, f"  {count} with {made}")


def print_trials(console: Console, tuned: SearchResult) -> None:
    """Print the trials of a search, the one that won marked."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        "trial",
        "value",
        "with final seeds",
        *(escape(key) for key in tuned.space),
        "",
        box=None,
        header_style="bold",
    )
    for trial in tuned.trials:
        value = trial["status"] if trial["value"] is None else f"{trial['value']:.4g}"
        final = "" if trial["final"] is None else f"{trial['final']:.4g}"
        parameters = (escape(str(trial["parameters"].get(key, "–"))) for key in tuned.space)
        table.add_row(
            str(trial["number"]),
            value,
            final,
            *parameters,
            "best" if trial["parameters"] == tuned.best else "",
        )
    show(console, table)


def _print_problem(console: Console, problem: Mapping[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    budget = ", ".join(
        f"{amount:g} {kind.replace('_', '-')}" for kind, amount in problem["budget"].items()
    )
    target = (
        ""
        if problem["target"] is None
        else f"; success: {problem['target']:g} or {problem['better']}"
    )
    title = (
        f"{problem['name']}, {budget} a run: {problem['metric']}, {problem['better']} is"
        f" better{target}"
    )
    columns = (
        "method",
        "family",
        "median (95 %)",
        "success",
        "better than " + problem["baseline"],
        "p, corrected",
        "time to target",
        "ms a step",
        "MiB",
    )
    table = Table(
        *(escape(column) for column in columns),
        title=escape(title),
        title_justify="left",
        box=None,
        header_style="bold",
    )
    pairs = {pair["first"]: pair for pair in problem["pairs"]}
    sign = 1 if problem["better"] == "smaller" else -1
    for method in sorted(problem["methods"], key=lambda method: _rank(method, sign)):
        if method["summary"] is not None:
            table.add_row(*(escape(cell) for cell in _cells(method, pairs.get(method["name"]))))
    show(console, table)


def _rank(method: Mapping[str, Any], sign: int) -> float:
    middle = (method["summary"] or {}).get("median")
    return math.inf if middle is None or not math.isfinite(middle) else sign * middle


def _cells(method: Mapping[str, Any], pair: Mapping[str, Any] | None) -> list[str]:
    summary = method["summary"]
    lost = [f"{summary[kind]} {kind}" for kind in ("diverged", "failed") if summary[kind]]
    value = (
        f"{_number(summary['median'])} ({_number(summary['interval'][0])} …"
        f" {_number(summary['interval'][1])})"
    )
    success, time, memory = summary["success"], summary["time_to_target"], summary["peak_memory"]
    return [
        method["name"],
        method["family"],
        ", ".join([value, *lost]),
        (
            "–"
            if success is None
            else f"{round(success['rate'] * success['runs'])} of {success['runs']}"
        ),
        "–" if pair is None else f"{pair['better']:.0%}",
        "–" if pair is None else f"{pair['p_adjusted']:.2g}",
        "–" if time is None else _time(time),
        (
            "–"
            if summary["milliseconds_per_step"] is None
            else f"{summary['milliseconds_per_step']:.2g}"
        ),
        "–" if memory is None else f"{memory / 2**20:.0f}",
    ]


def _time(time: Mapping[str, Any]) -> str:
    runs = time["reached"] + time["censored"]
    never = f", {time['censored']} of {runs} never" if time["censored"] else ""
    return (
        "not in half of the runs" if time["median"] is None else f"{time['median']:.3g} s"
    ) + never


def _number(value: float | None) -> str:
    """An end of an interval that is not finite is that of runs without an end."""
    return "none" if value is None or not math.isfinite(value) else f"{value:.4g}"
