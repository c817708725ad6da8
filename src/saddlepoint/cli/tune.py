"""The command ``tune``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from saddlepoint.errors import quoted

if TYPE_CHECKING:
    from rich.console import Console

    from saddlepoint.compare import SearchResult


@app.command(
    epilog=(
        "Examples:\n\n`saddlepoint tune digits --method acgd --trials 20`\n\n`saddlepoint tune"
        " digits --method acgd --trials 100 --storage postgresql+psycopg://me@host/base` · the same"
        " command on several machines"
    )
)
def tune(
    problem: Annotated[
        str, typer.Argument(help="Name of a problem; see `saddlepoint list problems`.")
    ],
    method: Annotated[str, typer.Option(help="Method: RULE, OPTIMIZER or RULE+OPTIMIZER.")],
    trials: Annotated[
        int,
        typer.Option(
            parser=integer(1),
            metavar="N",
            help="Total number of trials, over all processes that share the search.",
        ),
    ] = 20,
    budget: BudgetOption = None,
    metric: MetricOption = None,
    seeds: Annotated[
        list[int] | None,
        typer.Option(
            "--seed",
            parser=integer(0),
            metavar="N",
            help="Seed of every trial; repeat the option to average over several.",
            show_default="100",
        ),
    ] = None,
    jobs: JobsOption = None,
    storage: StorageOption = None,
    rerun: RerunOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=parse_path,
            metavar="PATH",
            help="Directory of the search; an existing one is resumed.",
            show_default=(
                "comparisons/tune-PROBLEM-METHOD, with a hash where that holds another study"
            ),
        ),
    ] = None,
) -> None:
    """Search for the best hyperparameters of a method.

    Processes that run the same command share the trials.
    """
    from saddlepoint.compare import tune_method
    from saddlepoint.compare.runs import parameters_to_settings
    from saddlepoint.compare.storage import without_password
    from saddlepoint.compare.study import slug

    study = study_from_options(
        problem,
        method,
        seeds=1,
        budget=budget,
        trials=trials,
        metric=metric,
        tuning_seeds=seeds,
        name=f"tune-{problem}-{slug(method)}",
    )
    console, plan = make_console(), study.problems[0]
    path = out or default_path(console, study)
    where = path if storage is None else without_password(storage)
    budgets = ", ".join(
        f"{amount:g} {kind.replace('_', '-')}" for kind, amount in plan.budget.items()
    )
    print_text(
        console,
        f"{problem}, {method}: {trials} trials of {budgets} by {plan.metric}; stored in {where}",
    )
    kinds = parse_rerun(rerun)
    with exit_on_signals(console), Progress(console) as progress:
        found, config = tune_method(
            study, path, jobs=jobs or DEFAULT_JOBS, storage=storage, watcher=progress, rerun=kinds
        )
    print_trials(console, found)
    settings = " ".join(
        f"--set {quoted(f'{key}={json.dumps(value)}')}"
        for key, value in parameters_to_settings(found.best).items()
    )
    names = f"{problem} --rule {config.rule.name} --optimizer {config.optimizer.name}"
    print_text(console, f"train with the best: saddlepoint train {names} {settings}")


def print_trials(console: Console, tuned: SearchResult) -> None:
    """Print the trials of a search, with the best one marked."""
    from rich.markup import escape
    from rich.table import Table

    keys = [escape(key) for key in tuned.space]
    titles = ["trial", "value", "with final seeds", *keys, ""]
    table = Table(*titles, box=None, header_style="bold")
    for trial in tuned.trials:
        value = trial["status"] if trial["value"] is None else f"{trial['value']:.4g}"
        final = "" if trial["final"] is None else f"{trial['final']:.4g}"
        parameters = [escape(str(trial["parameters"].get(key, "–"))) for key in tuned.space]
        mark = "best" if trial["parameters"] == tuned.best else ""
        table.add_row(str(trial["number"]), value, final, *parameters, mark)
    print_table(console, table)
