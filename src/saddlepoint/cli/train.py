"""The command ``train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saddlepoint.cli.app import app, integer, parse_path
from saddlepoint.cli.processes import (
    ProcessesOption,
    TimeoutOption,
    check_batch_size,
    join_processes,
    launch,
    was_restarted,
)
from saddlepoint.cli.training_session import resume_run, start_run
from saddlepoint.errors import UsageError


@app.command(
    epilog=(
        "Examples:\n\n`saddlepoint train` · the default GAN on embedded digits, about a"
        " minute\n\n`saddlepoint train digits --rule acgd` · competitive gradient, with the"
        " optimizer and learning rate that fit it\n\n`saddlepoint train digits --optimizer sign"
        " --seconds 60` · the sign subgradient\n\n`saddlepoint train mixture8 --rule newton --set"
        " rule.damping=0.1 --set problem.activation=silu`"
    )
)
def train(
    problem: Annotated[
        str | None,
        typer.Argument(
            help="Problem to train; see `saddlepoint list problems`.", show_default="digits"
        ),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(
            help="Update rule; see `saddlepoint list rules`.",
            show_default="the problem's",
        ),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(
            help="Inner optimizer: a name of `saddlepoint list optimizers`, or"
            " package.module:Class.",
            show_default="the rule's",
        ),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Learning rate of both players.", show_default="the optimizer's under the rule"
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            parser=integer(),
            metavar="N",
            help="Number of steps.",
            show_default="the rule's, about a minute",
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            help=(
                "Training time in seconds, without evaluation. With --steps, training ends at the"
                " bound that is reached first."
            ),
            show_default="unlimited",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            parser=integer(),
            metavar="N",
            help="Samples per step.",
            show_default="64, or the problem's",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            parser=integer(),
            metavar="N",
            help="Seed of weights, data order and noise.",
            show_default="0",
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu or cuda.", show_default="auto")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            parser=parse_path,
            metavar="PATH",
            help="YAML file with the configuration; other options override it.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY.PATH=VALUE",
            help="Any key of the configuration; may be repeated.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=parse_path,
            metavar="PATH",
            help="Run directory to create.",
            show_default="runs/PROBLEM-RULE-OPTIMIZER-NNN",
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            parser=parse_path, metavar="PATH", help="Directory with the files of `mnist`."
        ),
    ] = None,
    nproc: ProcessesOption = None,
    timeout: TimeoutOption = 600.0,
) -> None:
    """Train a GAN and record everything about it in a run directory."""
    from saddlepoint.io.imports import trust_modules_named_in
    from saddlepoint.training.config import read_yaml, renamed, with_settings

    trust_modules_named_in(optimizer, *(settings or []))
    tree = read_yaml(config) if config else {}
    for key, name in {"problem": problem, "rule": rule, "optimizer": optimizer}.items():
        if name is not None:
            tree[key] = renamed(tree.get(key), name)
    options = {
        "steps": steps,
        "seconds": seconds,
        "batch_size": batch_size,
        "seed": seed,
        "device": device,
        "data_dir": data_dir,
    }
    tree |= {key: value for key, value in options.items() if value is not None}
    lr_setting = [] if lr is None else [f"optimizer.lr={lr}"]
    tree = with_settings(tree, [*lr_setting, *(settings or [])])

    if nproc is not None:
        from saddlepoint.training import resolve
        from saddlepoint.training.run_paths import free_path

        resolved = resolve(tree)  # one process reports a mistake better than many
        check_batch_size(resolved.batch_size, nproc)
        launch(nproc, [] if out else ["--out", str(free_path(resolved))])
    with join_processes(timeout) as distributed:

        def is_created() -> bool:
            if out is None:
                raise UsageError(
                    "These processes were started again after one had died, and cannot find their"
                    " run. Name its directory with --out."
                )
            return (out / "config.yaml").is_file()

        if was_restarted() and distributed.broadcast(is_created):
            assert out is not None
            resume_run(distributed, out)
        else:
            start_run(distributed, tree, out)
