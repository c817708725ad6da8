"""The command ``evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saddlepoint.cli.app import MAX_SEED, RunArgument, app, integer, parse_path
from saddlepoint.cli.streams import make_console, printable
from saddlepoint.cli.tables import print_differences, print_results
from saddlepoint.cli.training_session import load_training


@app.command(
    epilog=(
        "Examples:\n\n`saddlepoint evaluate runs/digits-gradient-adam-001 --samples"
        " 2000`\n\n`saddlepoint evaluate RUN --against OTHER/evaluation.json` · differences,"
        " refused if the values are not comparable"
    )
)
def evaluate(
    run: RunArgument,
    samples: Annotated[
        int | None,
        typer.Option(
            parser=integer(1),
            metavar="N",
            help="Number of generated samples.",
            show_default="as in training",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            parser=integer(0, MAX_SEED),
            metavar="N",
            help="Seed of the noise.",
            show_default="as in training",
        ),
    ] = None,
    best: Annotated[
        bool, typer.Option("--best", help="Use the best checkpoint instead of the last.")
    ] = False,
    replicates: Annotated[
        int,
        typer.Option(
            parser=integer(0),
            metavar="N",
            help="Number of bootstrap replicates for the intervals; 0 for no intervals.",
        ),
    ] = 200,
    against: Annotated[
        Path | None,
        typer.Option(
            parser=parse_path,
            metavar="PATH",
            help="evaluation.json of another run to compare with.",
        ),
    ] = None,
) -> None:
    """Compute the metrics of a trained generator and its moving average, with 95 % intervals.

    The reference is the held-out data.
    """
    from saddlepoint.training.evaluator import differences, evaluate_metrics, read_results

    other = None if against is None else read_results(against)
    training, directory = load_training(run, "best" if best else "last")
    console = make_console()
    with console.status("evaluating") as status:
        results = evaluate_metrics(
            training,
            samples=samples,
            seed=seed,
            replicates=replicates,
            progress=lambda done, total: status.update(f"evaluating, {done} of {total} metrics"),
        )
    # before anything is written: a refusal changes nothing
    compared = None if other is None else differences(results, other)
    print_results(console, results)
    if compared is not None:
        print_differences(console, compared)
    extractors = training.problem.extractors()
    for name, digest in extractors.items():
        typer.echo(f"{name}: SHA-256 {digest}")

    metrics, written_results = {}, []
    for prefix, own in results.items():
        for name, result in own.items():
            metrics[prefix + name] = result.value
            written_results.append(result.to_dict())
    first = next(iter(next(iter(results.values())).values()))
    path = directory.write_evaluation(
        {
            "step": training.step,
            "metrics": metrics,
            "extractors": extractors,
            "evaluation": {"samples": first.generated, "seed": first.seed},
            "results": written_results,
        }
    )
    typer.echo(printable(f"{first.generated} samples, seed {first.seed}: {path}"))
