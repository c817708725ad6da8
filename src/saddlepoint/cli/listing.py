"""The command ``list``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from saddlepoint.cli.app import app, make_console
from saddlepoint.cli.tables import show


class Listing(StrEnum):
    """What ``saddlepoint list`` can list."""

    problems = "problems"
    rules = "rules"
    optimizers = "optimizers"
    metrics = "metrics"


@app.command("list", epilog="Example:\n\n`saddlepoint list rules`")
def list_names(
    what: Annotated[Listing, typer.Argument(help="problems, rules, optimizers or metrics.")],
) -> None:
    """List what can be named on the command line and in configurations."""
    from rich.markup import escape
    from rich.table import Table

    from saddlepoint import registry

    table = Table("name", "what it is", box=None, header_style="bold")
    if what is Listing.problems:
        for name, entry in registry.PROBLEMS.items():
            table.add_row(name, entry.summary)
    elif what is Listing.rules:
        columns = (
            "name",
            "order",
            "games",
            "what it is",
            "cost, two players",
            "bilinear game",
            "local minimax points",
            "paper",
        )
        table = Table(*columns, box=None)
        table.columns[0].no_wrap = True
        for name, theory in registry.RULES.items():
            rule = registry.build_recipe_rule(name)
            table.add_row(
                name,
                str(rule.order),
                rule.games,
                theory.summary,
                theory.cost,
                theory.bilinear,
                theory.minimax,
                theory.paper,
            )
    elif what is Listing.optimizers:
        for name, optimizer in registry.OPTIMIZERS.items():
            table.add_row(name, f"{optimizer.summary} (lr {optimizer.options['lr']:g})")
        table.add_row(
            "package.module:Class", "any torch.optim.Optimizer, such as pytorch_optimizer:SOAP"
        )
    else:
        table = Table("name", "what it is", "better", "problem", box=None, header_style="bold")
        for problem, entry in registry.PROBLEMS.items():
            for name, metric in registry.load(entry.path).metric_names.items():
                table.add_row(escape(name), metric.meaning, metric.better or "–", problem)
    show(make_console(), table)
