"""The command ``resume``."""

from __future__ import annotations

from typing import Annotated

import typer

from saddlepoint.cli.app import RunArgument, app
from saddlepoint.cli.processes import (
    ProcessesOption,
    TimeoutOption,
    check_batch_size,
    join_processes,
    launch,
)
from saddlepoint.cli.training_session import resume_run


@app.command(
    epilog=(
        "Examples:\n\n`saddlepoint resume runs/digits-gradient-adam-001` · to the end of its"
        " budget\n\n`saddlepoint resume runs/digits-gradient-adam-001 --steps +2000` · 2,000 more"
        " steps"
    )
)
def resume(
    run: RunArgument,
    steps: Annotated[
        str | None, typer.Option(help="New total number of steps, or +N for N more.")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            help=(
                "Train for this many more seconds. With --steps, training ends at the bound that is"
                " reached first."
            )
        ),
    ] = None,
    nproc: ProcessesOption = None,
    timeout: TimeoutOption = 600.0,
) -> None:
    """Continue a run exactly from its last checkpoint, with any number of processes."""
    if nproc is not None:
        from saddlepoint.training import RunDirectory

        check_batch_size(RunDirectory.open(run).read_config().batch_size, nproc)
        launch(nproc)
    with join_processes(timeout) as distributed:
        resume_run(distributed, run, steps=steps, seconds=seconds)
