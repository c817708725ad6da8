"""Commands that train: ``train`` and ``resume``."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saddlepoint.cli.app import (
    DIVERGED,
    Run,
    app,
    counted,
    make_console,
    path_given,
    printable,
    say,
    whole,
)
from saddlepoint.cli.ranks import (
    MOST_PROCESSES,
    check_split,
    checked_timeout,
    joined,
    launch,
    restarted,
    together,
)
from saddlepoint.cli.streams import reader_is_gone
from saddlepoint.cli.tables import print_metrics
from saddlepoint.errors import DistributedError, DivergenceError, UsageError, quoted

if TYPE_CHECKING:
    from rich.console import Console

    from saddlepoint.distributed import SingleProcess
    from saddlepoint.training import RunConfig, RunDirectory, Trainer
    from saddlepoint.training.config import Tree

Processes = Annotated[
    int | None,
    typer.Option(
        "--nproc",
        parser=counted(1, MOST_PROCESSES),
        metavar="N",
        help="Train in so many processes of this machine; torchrun does more.",
        show_default="1",
    ),
]
Timeout = Annotated[
    float,
    typer.Option(
        callback=checked_timeout,
        help="Of several processes: seconds to wait for one that does not answer, at most 30 days.",
    ),
]


@app.command(
    epilog=(
        "Examples:\n\n`saddlepoint train` · the default GAN on embedded digits, about a"
        " minute\n\n`saddlepoint train digits --rule acgd` · competitive gradient, with the"
        " optimizer and rate that fit it\n\n`saddlepoint train digits --optimizer sign --seconds"
        " 60` · the sign subgradient\n\n`saddlepoint train mixture8 --rule newton --set"
        " rule.damping=0.1 --set problem.activation=silu`"
    )
)
def train(
    problem: Annotated[
        str | None,
        typer.Argument(
            help="What to train; see `saddlepoint list problems`.", show_default="digits"
        ),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(
            help="How losses become updates; see `saddlepoint list rules`.",
            show_default="what fits the problem",
        ),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(
            help="Inner optimizer: a listed name, or package.module:Class.",
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
            parser=counted(),
            metavar="N",
            help="Number of steps.",
            show_default="the rule's, about a minute",
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            help=(
                "Training time, evaluation excluded. With --steps too, the first that is reached"
                " ends the run."
            ),
            show_default="no bound",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            parser=counted(),
            metavar="N",
            help="Samples per step.",
            show_default="64, or what fits the problem",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            parser=counted(),
            metavar="N",
            help="Decides weights, data order and noise.",
            show_default="0",
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu or cuda.", show_default="auto")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            parser=path_given, metavar="PATH", help="YAML file; options given here override it."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Any other setting.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=path_given,
            metavar="PATH",
            help="Run directory to make.",
            show_default="runs/PROBLEM-RULE-OPTIMIZER-NNN",
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            parser=path_given, metavar="PATH", help="Directory with the files of `mnist`."
        ),
    ] = None,
    nproc: Processes = None,
    timeout: Timeout = 600.0,
) -> None:
    """Train a GAN and record everything about it in a run directory."""
    from saddlepoint.registry import trust_named
    from saddlepoint.training.config import read_yaml, renamed, with_settings

    trust_named(optimizer, *(settings or []))
    tree = read_yaml(config) if config else {}
    named = {"problem": problem, "rule": rule, "optimizer": optimizer}
    tree |= {key: renamed(tree.get(key), name) for key, name in named.items() if name is not None}
    simple = {
        "steps": steps,
        "seconds": seconds,
        "batch_size": batch_size,
        "seed": seed,
        "device": device,
        "data_dir": data_dir,
    }
    tree |= {key: value for key, value in simple.items() if value is not None}
    rate = [] if lr is None else [f"optimizer.lr={lr}"]
    tree = with_settings(tree, [*rate, *(settings or [])])
    if nproc is not None:
        from saddlepoint.training import resolve
        from saddlepoint.training.run_paths import free_path

        resolved = resolve(tree)  # a mistake is better said by one process than by many
        check_split(resolved.batch_size, nproc)
        launch(nproc, [*_without_nproc(), *([] if out else ["--out", str(free_path(resolved))])])
    with joined(timeout) as distributed:
        if restarted() and distributed.broadcast(lambda: (_given(out) / "config.yaml").is_file()):
            _go_on(distributed, _given(out), {})
        else:
            _begin(distributed, tree, out)


@app.command(
    epilog=(
        "Examples:\n\n`saddlepoint resume runs/digits-gradient-adam-001` · to the end of its"
        " budget\n\n`saddlepoint resume runs/digits-gradient-adam-001 --steps +2000` · 2,000 steps"
        " more than it has"
    )
)
def resume(
    run: Run,
    steps: Annotated[
        str | None, typer.Option(help="New total number of steps, or +N for N more than now.")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            help=(
                "Train for this many seconds more. With --steps too, the first bound that is"
                " reached ends the run."
            )
        ),
    ] = None,
    nproc: Processes = None,
    timeout: Timeout = 600.0,
) -> None:
    """Go on with a run exactly where its last checkpoint left it, in any number of processes."""
    if nproc is not None:
        from saddlepoint.training import RunDirectory

        check_split(RunDirectory.open(run).read_config().batch_size, nproc)
        launch(nproc, _without_nproc())
    with joined(timeout) as distributed:
        _go_on(distributed, run, {"steps": steps, "seconds": seconds})


def _begin(distributed: SingleProcess, tree: Tree, out: Path | None) -> None:
    """Make a run and train it."""
    from saddlepoint.training import Evaluator, RunDirectory, Trainer, resolve
    from saddlepoint.training.agreement import check_agreement
    from saddlepoint.training.inner_optimizers import check_resumable

    config = together(distributed, lambda: resolve(tree))
    training = together(distributed, lambda: Trainer(config, distributed=distributed))
    # before the directory is made: a mistake leaves nothing behind
    together(distributed, training.problem.load)
    together(distributed, partial(check_resumable, training))
    together(distributed, partial(check_agreement, training))
    together(distributed, Evaluator(training).check_sample_count)
    with _written_by_first(distributed, lambda: RunDirectory.create(config, out)) as run:
        try:
            _train(training, run)
        except (typer.Exit, DivergenceError, DistributedError, OSError):
            raise  # what the directory holds is of use
        except Exception as error:
            if training.step == 0 and not isinstance(error.__cause__, OSError):
                run.discard()
            raise


def _go_on(distributed: SingleProcess, path: Path, more: dict[str, Any]) -> None:
    """Go on with a run; what is read is read by process 0 and told to the others."""
    from saddlepoint.training import RunDirectory, Trainer
    from saddlepoint.training.agreement import check_agreement

    with _written_by_first(distributed, lambda: RunDirectory.open(path)) as directory:
        config = distributed.broadcast(directory.read_config)
        training = together(distributed, lambda: Trainer(config, distributed=distributed))
        state = distributed.broadcast(
            lambda: directory.load_checkpoint(config) if directory.has_checkpoints() else None
        )
        if state is not None:
            training.load_state_dict(state)
        elif distributed.rank == 0:
            say(
                make_console(),
                "note: The run was stopped before its first checkpoint; it starts from the"
                " beginning.",
            )
        budget = {} if restarted() else _budget_of(training, more)  # the first start has written it
        if budget:
            training.config = config.model_copy(update=budget)
            distributed.broadcast(lambda: directory.write_config(training.config))
        ended = training.progress >= 1 and distributed.broadcast(
            lambda: directory.has_ended(training.step)
        )
        if ended and not restarted():
            raise UsageError(
                f"{path} has used its budget of {_budget(config)}. Give it more with --steps +N or"
                " --seconds S."
            )
        together(distributed, training.problem.load)
        together(distributed, partial(check_agreement, training))
        distributed.broadcast(lambda: directory.truncate_after(state))
        _train(training, directory)


def _budget_of(training: Trainer, more: dict[str, Any]) -> dict[str, Any]:
    """Return the budget that the options of ``resume`` ask for; nothing where they are left out."""
    steps, seconds = more["steps"], more["seconds"]
    if steps is None and seconds is None:
        return {}
    if seconds is not None and not 0 < seconds < math.inf:
        raise UsageError(
            f"--seconds {seconds} must be positive{'' if seconds <= 0 else ' and finite'}."
        )
    total = None if steps is None else _total_steps(steps, training.step)
    return {
        "steps": total,
        "seconds": None if seconds is None else training.seconds + seconds,
        "gradient_equivalents": None,
    }


@contextmanager
def _written_by_first(
    distributed: SingleProcess, make: Callable[[], RunDirectory]
) -> Iterator[RunDirectory]:
    """Give the run directory to process 0, which alone writes it and claims it meanwhile, and to the others one that follows."""
    from saddlepoint.training.run_directory import NullRunDirectory

    own: list[RunDirectory] = []
    with ExitStack() as stack:

        def made() -> Path:
            own.append(make())
            stack.enter_context(own[0].lock())
            return own[0].path

        path = distributed.broadcast(made)
        yield own[0] if own else NullRunDirectory(path)


def _given(out: Path | None) -> Path:
    if out is None:
        raise UsageError(
            "These processes were started again after one had died; only a run that was given --out"
            " can be found again."
        )
    return out


def _without_nproc() -> list[str]:
    """Return this command's own arguments without --nproc."""
    kept, skip = [], False
    for argument in sys.argv[1:]:
        if not (skip or argument == "--nproc" or argument.startswith("--nproc=")):
            kept.append(argument)
        skip = argument == "--nproc"
    return kept


def _train(training: Trainer, run: RunDirectory) -> None:
    from saddlepoint.training.interrupts import deferred_interrupts
    from saddlepoint.training.loop import train as run_loop
    from saddlepoint.training.progress import watcher
    from saddlepoint.training.trainer import network_sizes

    console, config, distributed = (
        make_console(quiet=training.distributed.rank > 0),
        training.config,
        training.distributed,
    )
    sizes = ", ".join(
        f"{player} {size:,} parameters" for player, size in network_sizes(training.networks).items()
    )
    many = f" in {distributed.world_size} processes" if distributed.world_size > 1 else ""
    say(
        console,
        f"{config.problem.name}, {config.rule.name} + {config.optimizer.name}, {config.update_scheme},"
        f" {config.device}{many} ({sizes})",
    )
    say(console, f"run directory: {run.path}")
    warnings.showwarning = lambda message, *_: say(console, f"note: {message}")
    with deferred_interrupts() as interrupt:

        def stopped() -> int | None:
            if reader_is_gone():
                interrupt.request_stop()
            return interrupt.all_reduce(distributed)

        try:
            with watcher(console) as shown:
                status = run_loop(training, run, shown, stopped)
        except DivergenceError as error:
            if distributed.rank > 0:
                raise typer.Exit(DIVERGED) from error
            message = (
                f"Diverged in step {training.step + 1}: {error} The last finite state is in"
                f" {run.path}/checkpoints."
            )
            raise DivergenceError(message, player=error.player, term=error.term) from error
    if status == "interrupted":
        stopping = (
            f"Stopped after step {training.step}; saved. Go on with: saddlepoint resume"
            f" {quoted(run.path)}"
        )
        if distributed.rank == 0 and reader_is_gone():
            typer.echo(printable(stopping), err=True)
        say(console, stopping)
        raise typer.Exit(interrupt.exit_code)
    if distributed.rank > 0:
        return
    print_metrics(console, training, training.metrics)
    if status == "stopped early":
        say(
            console,
            "stopped early: no better evaluation since step"
            f" {training.best['step'] if training.best else 0}",
        )
    bounds = training.bounds()
    first = (
        f"; the bound of {max(bounds, key=lambda name: bounds[name])} was reached first"
        if len(bounds) > 1
        else ""
    )
    say(
        console,
        f"{training.step} steps in {training.seconds:.1f} s,"
        f" {1000 * training.seconds / training.step:.2f} ms a step{first}",
    )
    _say_observing(console, run)
    say(console, f"samples: {run.samples_picture}")
    say(console, f"report: saddlepoint report {quoted(run.path)}")


def _say_observing(console: Console, run: RunDirectory) -> None:
    """Print what observing cost beside training, and what it found."""
    summary = run.read_summary()
    # 0 where patience had ended already
    whole = summary["seconds_here"] + summary["observing_seconds"] or 1.0
    shares = {"metrics": summary["evaluating_seconds"], "probes": summary["probing_seconds"]}
    parts = ", ".join(
        f"{name} {seconds:.1f} s ({seconds / whole:.0%})" for name, seconds in shares.items()
    )
    say(console, f"observing took {summary['observing_seconds']:.1f} s: {parts} of all the time")
    serious = [finding for finding in summary["findings"] if finding["level"] != "note"]
    if serious:
        say(
            console,
            f"{len(serious)} finding{'s' if len(serious) > 1 else ''}; see: saddlepoint diagnose"
            f" {quoted(run.path)}",
        )


def _budget(config: RunConfig) -> str:
    amounts = {
        "steps": config.steps,
        "seconds": config.seconds,
        "gradient-equivalents": config.gradient_equivalents,
    }
    given = {what: amount for what, amount in amounts.items() if amount}
    return " or ".join(
        f"{amount if isinstance(amount, int) else f'{amount:g}'} {what}"
        for what, amount in given.items()
    )


def _total_steps(text: str, done: int) -> int:
    from saddlepoint.training.config import MAX_STEPS

    try:
        number = whole(text[:20])  # of more digits than anybody can train
    except ValueError:
        raise UsageError(
            f'--steps "{text}" is not a number of steps; write 20000 for a total or +2000 for more.'
        ) from None
    total = done + number if text.startswith("+") else number
    if total > MAX_STEPS:
        raise UsageError(f"--steps {text[:20]} is more than {MAX_STEPS:,}. Give a smaller number.")
    if total <= done:
        raise UsageError(f"--steps {text}: the run has {done} steps already. Write +N for N more.")
    return total
