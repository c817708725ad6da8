"""The command ``diagnose``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from saddlepoint.cli.app import FINDINGS, RunArgument, app
from saddlepoint.cli.streams import make_console, print_text
from saddlepoint.errors import UsageError

if TYPE_CHECKING:
    from saddlepoint.training.run_directory import At


@app.command(
    epilog=(
        "Examples:\n\n`saddlepoint diagnose runs/digits-gradient-adam-001`\n\n`saddlepoint diagnose"
        " RUN --at best --spectrum` · with the eigenvalues of the game at the best checkpoint"
    )
)
def diagnose(
    run: RunArgument,
    at: Annotated[
        str, typer.Option(metavar="last|best|STEP", help="Checkpoint to measure.")
    ] = "last",
    spectrum: Annotated[
        bool,
        typer.Option(
            "--spectrum",
            help="Compute eigenvalues of the game; takes some hundred Jacobian products.",
        ),
    ] = False,
) -> None:
    """Find out what went wrong in a run; print findings, write them to a file, draw figures.

    The exit code is 1 if a finding is an alarm or a warning.
    """
    from saddlepoint.training import RunDirectory
    from saddlepoint.training.diagnosis import diagnose as diagnose_run

    directory = RunDirectory.open(run)
    checkpoint: At = "best" if at == "best" else "last"
    if at not in ("best", "last"):
        if not re.fullmatch(r"[0-9]{1,18}", at):
            raise UsageError(f'--at "{at}" is neither last, best nor the number of a step.')
        checkpoint = int(at)
    console = make_console()
    with console.status("measuring"):
        diagnosis = diagnose_run(directory, checkpoint, spectrum=spectrum)
        path = directory.write_diagnosis(diagnosis.to_dict(), diagnosis.figures())
    for line in diagnosis.lines():
        print_text(console, line)
    print_text(console, f"{path}; figures in {directory.path / 'diagnosis'}")
    if any(finding.level != "note" for finding in diagnosis.findings):
        raise typer.Exit(FINDINGS)
