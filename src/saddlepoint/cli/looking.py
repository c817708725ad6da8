"""Commands that look at a run: ``sample``, ``evaluate``, ``diagnose`` and ``best``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saddlepoint.cli.app import (
    FINDINGS,
    Run,
    app,
    counted,
    load,
    make_console,
    path_given,
    printable,
    say,
)
from saddlepoint.cli.tables import print_differences, print_results, show
from saddlepoint.errors import UsageError

if TYPE_CHECKING:
    from saddlepoint.training.run_directory import At


@app.command(
    epilog="Example:\n\n`saddlepoint sample runs/digits-gradient-adam-001 -n 100 -o grid.png`"
)
def sample(
    run: Run,
    n: Annotated[
        int | None,
        typer.Option(
            "-n",
            parser=counted(1, 10_000),
            metavar="N",
            help="Number of samples; the problem's by default.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            parser=path_given,
            metavar="PATH",
            help="Picture, of the format that the suffix names; RUN/samples-N.png by default.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(parser=counted(0, (1 << 63) - 1), metavar="N", help="Decides the noise.")
    ] = 0,
    best: Annotated[
        bool, typer.Option("--best", help="From the best checkpoint instead of the last.")
    ] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="From the generator instead of its moving average.")
    ] = False,
) -> None:
    """Draw samples of a trained generator into a picture."""
    from saddlepoint.files import write_atomic
    from saddlepoint.training import Evaluator
    from saddlepoint.training.run_directory import FORMATS, picture_bytes

    suffix = "" if output is None else output.suffix
    if suffix and suffix.lower() not in FORMATS:  # before anything is loaded
        raise UsageError(
            f'Pictures are not written as "{suffix}". Known suffixes: {", ".join(FORMATS)}.'
        )
    training, directory = load(run, "best" if best else "last")
    n = training.problem.picture_samples if n is None else n
    target = directory.path / f"samples-{n}.png" if output is None else output
    try:
        picture = Evaluator(training).picture(n, seed, ema=not raw)
        write_atomic(target, picture_bytes(picture, target.suffix))
    except OSError as error:
        raise UsageError(f"Cannot write {target}: {error.strerror or error}.") from error
    typer.echo(printable(f"{n} samples of step {training.step}: {target}"))


@app.command(
    epilog=(
        "Examples:\n\n`saddlepoint evaluate runs/digits-gradient-adam-001 --samples"
        " 2000`\n\n`saddlepoint evaluate RUN --against OTHER/evaluation.json` · differences,"
        " refused where the numbers are not comparable"
    )
)
def evaluate(
    run: Run,
    samples: Annotated[
        int | None,
        typer.Option(
            parser=counted(1), metavar="N", help="Generated samples; as in training by default."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            parser=counted(0, (1 << 63) - 1),
            metavar="N",
            help="Decides the noise; as in training by default.",
        ),
    ] = None,
    best: Annotated[
        bool, typer.Option("--best", help="The best checkpoint instead of the last.")
    ] = False,
    replicates: Annotated[
        int,
        typer.Option(
            parser=counted(0),
            metavar="N",
            help="Bootstrap replicates of each interval; 0 for no intervals.",
        ),
    ] = 200,
    against: Annotated[
        Path | None,
        typer.Option(
            parser=path_given, metavar="PATH", help="Another run's evaluation.json to compare with."
        ),
    ] = None,
) -> None:
    """Measure a trained generator, and its moving average, on the held-out data: values with 95 % intervals."""
    from saddlepoint.training.evaluator import differences, evaluate_metrics, read_results

    other = None if against is None else read_results(against)
    training, directory = load(run, "best" if best else "last")
    console = make_console()
    with console.status("evaluating") as status:
        results = evaluate_metrics(
            training,
            samples=samples,
            seed=seed,
            replicates=replicates,
            progress=lambda done, total: status.update(f"evaluating, {done} of {total} metrics"),
        )
    # before anything is written: a refusal leaves no trace
    compared = None if other is None else differences(results, other)
    print_results(console, results)
    if compared is not None:
        print_differences(console, compared)
    for name, digest in training.problem.extractors().items():
        typer.echo(f"{name}: SHA-256 {digest}")
    first = next(iter(next(iter(results.values())).values()))
    written = directory.write_evaluation(
        {
            "step": training.step,
            "metrics": {
                prefix + name: result.value
                for prefix, own in results.items()
                for name, result in own.items()
            },
            "extractors": training.problem.extractors(),
            "evaluation": {"samples": first.generated, "seed": first.seed},
            "results": [result.to_dict() for own in results.values() for result in own.values()],
        }
    )
    typer.echo(printable(f"{first.generated} samples, seed {first.seed}: {written}"))


@app.command(
    epilog=(
        "Examples:\n\n`saddlepoint diagnose runs/digits-gradient-adam-001`\n\n`saddlepoint diagnose"
        " RUN --at best --spectrum` · with the eigenvalues of the game at the best checkpoint"
    )
)
def diagnose(
    run: Run,
    at: Annotated[
        str, typer.Option(metavar="last|best|STEP", help="Which checkpoint is measured.")
    ] = "last",
    spectrum: Annotated[
        bool,
        typer.Option(
            "--spectrum", help="Find eigenvalues of the game; some hundred Jacobian products."
        ),
    ] = False,
) -> None:
    """Say what went wrong, in sentences with numbers, a file and figures. Exit code 1 when there is an alarm or a warning."""
    from saddlepoint.training import RunDirectory
    from saddlepoint.training.diagnosis import diagnose as look

    directory = RunDirectory.open(run)
    console = make_console()
    with console.status("measuring"):
        diagnosis = look(directory, _at(at), spectrum=spectrum)
        written = directory.write_diagnosis(diagnosis.to_dict(), diagnosis.figures())
    for line in diagnosis.lines():
        say(console, line)
    say(console, f"{written}; figures in {directory.path / 'diagnosis'}")
    if any(finding.level != "note" for finding in diagnosis.findings):
        raise typer.Exit(FINDINGS)


@app.command(
    epilog=(
        "Examples:\n\n`saddlepoint best runs/digits-gradient-adam-001`\n\n`saddlepoint best RUN"
        " --metric 'ema/recall[digit-cnn]'`"
    )
)
def best(
    run: Run,
    metric: Annotated[
        str | None, typer.Option(help="By which metric; as in training by default.")
    ] = None,
) -> None:
    """Name the best checkpoint of a run, and what each evaluation found."""
    from rich.table import Table

    from saddlepoint.training import RunDirectory
    from saddlepoint.training.evaluator import best_evaluation

    directory = RunDirectory.open(run)
    found = best_evaluation(directory, metric)
    console = make_console()
    table = Table("step", found.metric.replace("[", "\\["), "", box=None, header_style="bold")
    for step, value in found.evaluations:
        table.add_row(str(step), f"{value:.4g}", "best" if step == found.step else "")
    show(console, table)
    where = (
        "no checkpoint of it is kept; keep more with keep_checkpoints"
        if found.checkpoint is None
        else str(found.checkpoint)
    )
    say(console, f"best by {found.metric}: step {found.step}, {where}")


def _at(text: str) -> At:
    if text == "last":
        return "last"
    if text == "best":
        return "best"
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise UsageError(f'--at "{text}" is neither last, best nor the number of a step.')
    return int(text)
