"""The command ``best``."""

from __future__ import annotations

from typing import Annotated

import typer

from saddlepoint.cli.app import RunArgument, app
from saddlepoint.cli.streams import make_console, print_text
from saddlepoint.cli.tables import print_table


@app.command(
    epilog=(
        "Examples:\n\n`saddlepoint best runs/digits-gradient-adam-001`\n\n`saddlepoint best RUN"
        " --metric 'ema/recall[digit-cnn]'`"
    )
)
def best(
    run: RunArgument,
    metric: Annotated[
        str | None,
        typer.Option(help="Metric that decides.", show_default="as in training"),
    ] = None,
) -> None:
    """Print the best checkpoint of a run, and the metric at every evaluation."""
    from rich.table import Table

    from saddlepoint.training import RunDirectory
    from saddlepoint.training.evaluator import best_evaluation

    found = best_evaluation(RunDirectory.open(run), metric)
    console = make_console()
    table = Table("step", found.metric.replace("[", "\\["), "", box=None, header_style="bold")
    for step, value in found.evaluations:
        table.add_row(str(step), f"{value:.4g}", "best" if step == found.step else "")
    print_table(console, table)
    where = (
        "its checkpoint was not kept; increase keep_checkpoints to keep more"
        if found.checkpoint is None
        else str(found.checkpoint)
    )
    print_text(console, f"best by {found.metric}: step {found.step}, {where}")
