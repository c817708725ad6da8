"""The command ``compare``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saddlepoint.cli.app import app, integer, parse_path
from saddlepoint.cli.progress import Progress
from saddlepoint.cli.streams import make_console, print_text
from saddlepoint.cli.study import (
    DEFAULT_JOBS,
    BudgetOption,
    JobsOption,
    MetricOption,
    RerunOption,
    StorageOption,
    default_path,
    exit_on_signals,
    parse_rerun,
    study_from_options,
)
from saddlepoint.cli.tables import print_table
from saddlepoint.errors import UsageError, quoted

if TYPE_CHECKING:
    from rich.console import Console


@app.command(
    epilog=(
        "Examples:\n\n`saddlepoint compare mixture8 --methods adam,sign,extragradient+adam,acgd"
        " --seeds 10 --budget seconds=60`\n\n`saddlepoint compare mixture8 --methods adam,soap"
        " --trials 20` · every method is tuned with 20 trials first\n\n`saddlepoint compare"
        " study.yaml --jobs 2` · a study from a file; run the command again to resume it"
    )
)
def compare(
    study_or_problem: Annotated[
        str,
        typer.Argument(
            metavar="PROBLEM_OR_FILE",
            help="Name of a problem, or a YAML file that describes a study.",
        ),
    ],
    methods: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated methods: RULE, OPTIMIZER or RULE+OPTIMIZER.",
            show_default="adam,sign,acgd",
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            parser=integer(1),
            metavar="N",
            help="Number of runs of every method, with different seeds.",
            show_default="5",
        ),
    ] = None,
    budget: BudgetOption = None,
    trials: Annotated[
        int | None,
        typer.Option(
            parser=integer(1),
            metavar="N",
            help="Number of trials that tune every method before its runs.",
            show_default="no tuning",
        ),
    ] = None,
    metric: MetricOption = None,
    target: Annotated[
        float | None, typer.Option(help="Value of the metric that counts as success.")
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(help="Method that the others are compared with.", show_default="the first"),
    ] = None,
    jobs: JobsOption = None,
    storage: StorageOption = None,
    rerun: RerunOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=parse_path,
            metavar="PATH",
            help="Directory of the comparison; an existing one is resumed.",
            show_default="comparisons/NAME, or NAME-HASH where that holds another study",
        ),
    ] = None,
) -> None:
    """Compare methods at equal budgets over several seeds.

    All methods are tuned with equal effort. Diverged and failed runs are counted.
    """
    from saddlepoint.compare import compare as run_comparison
    from saddlepoint.compare import read_study

    console = make_console()
    if study_or_problem.endswith((".yaml", ".yml")):
        options = {
            "--methods": methods,
            "--seeds": seeds,
            "--budget": budget,
            "--trials": trials,
            "--metric": metric,
            "--target": target,
            "--baseline": baseline,
        }
        conflicts = [name for name, value in options.items() if value is not None]
        if conflicts:
            raise UsageError(
                f"{study_or_problem} describes the whole study and cannot be combined with"
                f" {', '.join(conflicts)}. Change the file."
            )
        study = read_study(Path(study_or_problem))
    else:
        study = study_from_options(
            study_or_problem,
            methods,
            seeds=seeds,
            budget=budget,
            trials=trials,
            metric=metric,
            target=target,
            baseline=baseline,
        )
    path = out or default_path(console, study)
    cells = sum(len(study.methods_of(plan)) for plan in study.problems)
    tuning = f" after {study.tuning.trials} trials each" if study.tuning else ""
    print_text(
        console,
        f"{len(study.problems)} problem(s), {cells} method(s) on them, {study.seeds}"
        f" seeds{tuning}; results in {path}",
    )
    kinds = parse_rerun(rerun)
    with exit_on_signals(console), Progress(console) as progress:
        comparison = run_comparison(
            study, path, jobs=jobs or DEFAULT_JOBS, storage=storage, watcher=progress, rerun=kinds
        )
    print_comparison(console, comparison)
    print_text(
        console,
        f"{path / 'comparison.json'}, {path / 'results.csv'}; report: saddlepoint report"
        f" {quoted(path)}",
    )


def print_comparison(console: Console, comparison: Mapping[str, Any]) -> None:
    """Print a table of methods, best median first, for every problem.

    A note follows if the runs were made with different versions.
    """
    versions: Counter[str] = Counter()
    for problem in comparison["problems"]:
        _print_problem(console, problem)
        for method in problem["methods"]:
            for run in method["runs"]:
                made_with = [f"{name} {version}" for name, version in run["made_with"].items()]
                versions[", ".join(made_with)] += 1
    if len(versions) > 1:
        print_text(console, "note: The runs were made with different versions:")
        for text, count in versions.most_common():
            print_text(console, f"  {count} with {text}")


def _print_problem(console: Console, problem: Mapping[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    better = problem["better"]
    budget = ", ".join(
        f"{amount:g} {kind.replace('_', '-')}" for kind, amount in problem["budget"].items()
    )
    target = "" if problem["target"] is None else f"; success: {problem['target']:g} or {better}"
    title = f"{problem['name']}, {budget} a run: {problem['metric']}, {better} is better{target}"
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
    ranked = []
    for index, method in enumerate(problem["methods"]):
        if method["summary"] is not None:
            median = method["summary"].get("median")
            if median is None or not math.isfinite(median):
                ranked.append((math.inf, index, method))
            else:
                ranked.append((median if better == "smaller" else -median, index, method))
    for _, _, method in sorted(ranked):
        cells = _method_cells(method, pairs.get(method["name"]))
        table.add_row(*(escape(cell) for cell in cells))
    print_table(console, table)


def _method_cells(method: Mapping[str, Any], pair: Mapping[str, Any] | None) -> list[str]:
    summary = method["summary"]
    low, high = summary["interval"]
    value = f"{_format(summary['median'])} ({_format(low)} … {_format(high)})"
    for kind in ("diverged", "failed"):
        if summary[kind]:
            value += f", {summary[kind]} {kind}"

    success = summary["success"]
    success_text = "–"
    if success is not None:
        success_text = f"{round(success['rate'] * success['runs'])} of {success['runs']}"

    time = summary["time_to_target"]
    time_text = "–"
    if time is not None:
        time_text = "not in half of the runs"
        if time["median"] is not None:
            time_text = f"{time['median']:.3g} s"
        if time["censored"]:
            runs = time["reached"] + time["censored"]
            time_text += f", {time['censored']} of {runs} never"

    milliseconds, memory = summary["milliseconds_per_step"], summary["peak_memory"]
    return [
        method["name"],
        method["family"],
        value,
        success_text,
        "–" if pair is None else f"{pair['better']:.0%}",
        "–" if pair is None else f"{pair['p_adjusted']:.2g}",
        time_text,
        "–" if milliseconds is None else f"{milliseconds:.2g}",
        "–" if memory is None else f"{memory / 2**20:.0f}",
    ]


def _format(value: float | None) -> str:
    # the bound of an interval is not finite where it lies among diverged runs
    return "none" if value is None or not math.isfinite(value) else f"{value:.4g}"
