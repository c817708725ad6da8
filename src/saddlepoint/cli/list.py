"""The command ``list``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from saddlepoint.cli.app import app
from saddlepoint.cli.streams import make_console
from saddlepoint.cli.tables import print_table


class Kind(StrEnum):
    """Kinds of names that ``saddlepoint list`` prints."""

    problems = "problems"
    rules = "rules"
    optimizers = "optimizers"
    metrics = "metrics"


@app.command("list", epilog="Example:\n\n`saddlepoint list rules`")
def list_names(
    kind: Annotated[Kind, typer.Argument(help="Kind of names.")],
) -> None:
    """List the problems, rules, optimizers or metrics that can be named in commands and files."""
    from rich.markup import escape
    from rich.table import Table

    from saddlepoint import registry

    if kind is Kind.problems:
        table = Table("name", "description", box=None, header_style="bold")
        for name, entry in registry.PROBLEMS.items():
            table.add_row(name, entry.summary)
    elif kind is Kind.rules:
        columns = (
            "name",
            "order",
            "games",
            "description",
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
    elif kind is Kind.optimizers:
        table = Table("name", "description", box=None, header_style="bold")
        for name, optimizer in registry.OPTIMIZERS.items():
            table.add_row(name, f"{optimizer.summary} (lr {optimizer.options['lr']:g})")
        table.add_row(
            "package.module:Class", "any torch.optim.Optimizer, such as pytorch_optimizer:SOAP"
        )
    else:
        table = Table("name", "description", "better", "problem", box=None, header_style="bold")
        for problem, entry in registry.PROBLEMS.items():
            for name, metric in registry.load(entry.path).metric_names.items():
                table.add_row(escape(name), metric.meaning, metric.better or "–", problem)
    print_table(make_console(), table)
