"""The command ``sample``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saddlepoint.cli.app import MAX_SEED, RunArgument, app, integer, parse_path
from saddlepoint.cli.streams import printable
from saddlepoint.cli.training_session import load_training
from saddlepoint.errors import UsageError


@app.command(
    epilog="Example:\n\n`saddlepoint sample runs/digits-gradient-adam-001 -n 100 -o grid.png`"
)
def sample(
    run: RunArgument,
    n: Annotated[
        int | None,
        typer.Option(
            "-n",
            parser=integer(1, 10_000),
            metavar="N",
            help="Number of samples.",
            show_default="the problem's",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            parser=parse_path,
            metavar="PATH",
            help="Picture to write; the suffix determines the format.",
            show_default="RUN/samples-N.png",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(parser=integer(0, MAX_SEED), metavar="N", help="Seed of the noise.")
    ] = 0,
    best: Annotated[
        bool, typer.Option("--best", help="Use the best checkpoint instead of the last.")
    ] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Use the generator instead of its moving average.")
    ] = False,
) -> None:
    """Write a picture of samples of a trained generator."""
    from saddlepoint.io.atomic import write_atomic
    from saddlepoint.training import Evaluator
    from saddlepoint.training.run_directory import FORMATS, picture_bytes

    suffix = "" if output is None else output.suffix
    if suffix and suffix.lower() not in FORMATS:  # before anything is loaded
        raise UsageError(
            f'Pictures cannot be written as "{suffix}". Known suffixes: {", ".join(FORMATS)}.'
        )
    training, directory = load_training(run, "best" if best else "last")
    n = training.problem.picture_samples if n is None else n
    target = directory.path / f"samples-{n}.png" if output is None else output
    try:
        picture = Evaluator(training).picture(n, seed, ema=not raw)
        write_atomic(target, picture_bytes(picture, target.suffix))
    except OSError as error:
        raise UsageError(f"Cannot write {target}: {error.strerror or error}.") from error
    typer.echo(printable(f"{n} samples of step {training.step}: {target}"))
