"""Commands that train: ``train`` and ``resume``."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saddlepoint.cli.app import Run, app, make_console, say
from saddlepoint.cli.tables import print_metrics
from saddlepoint.errors import DivergenceError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from saddlepoint.training import RunConfig, RunDirectory, Training


@app.command(
    epilog="Examples:\n\n"
    "`saddlepoint train` · the default GAN on embedded digits, about a minute\n\n"
    "`saddlepoint train digits --rule acgd` · competitive gradient, with the optimizer and rate that fit it\n\n"
    "`saddlepoint train digits --optimizer sign --seconds 60` · the sign subgradient\n\n"
    "`saddlepoint train mixture8 --rule newton --set rule.damping=0.1 --set problem.activation=silu`"
)
def train(
    problem: Annotated[str | None, typer.Argument(help="What to train; `digits` by default. See `saddlepoint list problems`.")] = None,
    rule: Annotated[str | None, typer.Option(help="How losses become updates; see `saddlepoint list rules`.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="Inner optimizer: a listed name, or package.module:Class.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of both players.")] = None,
    steps: Annotated[int | None, typer.Option(help="Number of steps.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Training time instead, evaluation excluded.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples per step.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides weights, data order and noise.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file; options given here override it.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Any other setting.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory to make; runs/PROBLEM-… by default.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Directory with the files of `mnist`.")] = None,
) -> None:
    """Train a GAN and record everything about it in a run directory."""
    from saddlepoint.registry import trust_named
    from saddlepoint.training import RunDirectory, Training, resolve
    from saddlepoint.training.config import read_yaml, renamed, with_settings

    trust_named(optimizer, *(settings or []))
    tree = read_yaml(config) if config else {}
    named = {"problem": problem, "rule": rule, "optimizer": optimizer}
    tree |= {key: renamed(tree.get(key), name) for key, name in named.items() if name is not None}
    simple = {"steps": steps, "seconds": seconds, "batch_size": batch_size, "seed": seed, "device": device, "data_dir": data_dir}
    tree |= {key: value for key, value in simple.items() if value is not None}
    rate = [] if lr is None else [f"optimizer.lr={lr}"]
    resolved = resolve(with_settings(tree, [*rate, *(settings or [])]))
    training = Training(resolved)  # with its data before the directory is made: a mistake leaves nothing behind
    training.problem.load()
    run = RunDirectory.create(resolved, out)
    _train(training, run)


@app.command(
    epilog="Examples:\n\n`saddlepoint resume runs/digits-gradient-adam-001` · to the end of its budget\n\n"
    "`saddlepoint resume runs/digits-gradient-adam-001 --steps +2000` · 2,000 steps more than it has"
)
def resume(
    run: Run,
    steps: Annotated[str | None, typer.Option(help="New total number of steps, or +N for N more than now.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Train for this many seconds more.")] = None,
) -> None:
    """Go on with a run exactly where its last checkpoint left it."""
    from saddlepoint.training import RunDirectory, Training

    directory = RunDirectory.open(run)
    config = directory.read_config()
    training = Training(config)
    training.load_state_dict(directory.load_checkpoint(config))
    budget: dict[str, Any] = {}
    if steps is not None:
        budget = {"steps": _total_steps(steps, training.step), "seconds": None, "gradient_equivalents": None}
    elif seconds is not None:
        if not 0 < seconds < math.inf:
            raise UsageError(f"--seconds {seconds} must be positive{'' if seconds <= 0 else ' and finite'}.")
        budget = {"steps": None, "seconds": training.seconds + seconds, "gradient_equivalents": None}
    if budget:
        training.config = config.model_copy(update=budget)
        directory.write_config(training.config)
    if training.progress >= 1:
        raise UsageError(f"{run} has used its budget of {_budget(config)}. Give it more with --steps +N or --seconds S.")
    training.problem.load()
    directory.truncate_log(training.step)
    _train(training, directory)


def _train(training: Training, run: RunDirectory) -> None:
    from saddlepoint.training.interrupts import deferred_interrupts
    from saddlepoint.training.loop import train as run_loop
    from saddlepoint.training.progress import watcher
    from saddlepoint.training.training import network_sizes

    console, config = make_console(), training.config
    sizes = ", ".join(f"{player} {size:,} parameters" for player, size in network_sizes(training.networks).items())
    say(console, f"{config.problem.name}, {config.rule.name} + {config.optimizer.name}, {config.scheme}, {config.device} ({sizes})")
    say(console, f"run directory: {run.path}")
    warnings.showwarning = lambda message, *_: say(console, f"note: {message}")
    with deferred_interrupts() as interrupt:
        try:
            with watcher(console) as shown:
                status = run_loop(training, run, shown, interrupt)
        except DivergenceError as error:
            message = f"Diverged in step {training.step + 1}: {error} The last finite state is in {run.path}/checkpoints."
            raise DivergenceError(message, player=error.player, term=error.term) from error
    if status == "interrupted":
        say(console, f"Stopped after step {training.step}; saved. Go on with: saddlepoint resume {run.path}")
        raise typer.Exit(interrupt.exit_code)
    print_metrics(console, training, training.metrics)
    if status == "stopped early":
        say(console, f"stopped early: no better evaluation since step {training.best['step'] if training.best else 0}")
    say(console, f"{training.step} steps in {training.seconds:.1f} s, {1000 * training.seconds / training.step:.2f} ms a step")
    _say_observing(console, run)
    say(console, f"samples: {run.samples_picture}")
    say(console, f"report: saddlepoint report {run.path}")


def _say_observing(console: Console, run: RunDirectory) -> None:
    """Print what observing cost beside training, and what it found."""
    summary = run.read_summary()
    whole = summary["seconds_here"] + summary["observing_seconds"] or 1.0  # 0 where patience had ended already
    shares = {"metrics": summary["evaluating_seconds"], "probes": summary["probing_seconds"]}
    parts = ", ".join(f"{name} {seconds:.1f} s ({seconds / whole:.0%})" for name, seconds in shares.items())
    say(console, f"observing took {summary['observing_seconds']:.1f} s: {parts} of all the time")
    serious = [finding for finding in summary["findings"] if finding["level"] != "note"]
    if serious:
        say(console, f"{len(serious)} finding{'s' if len(serious) > 1 else ''}; see: saddlepoint diagnose {run.path}")


def _budget(config: RunConfig) -> str:
    if config.steps:
        return f"{config.steps} steps"
    return f"{config.seconds:g} seconds" if config.seconds else f"{config.gradient_equivalents:g} gradient-equivalents"


def _total_steps(text: str, done: int) -> int:
    from saddlepoint.training.config import MOST_STEPS

    try:
        number = int(text[:20])  # of more digits than anybody can train
    except ValueError:
        raise UsageError(f'--steps "{text}" is not a number of steps; write 20000 for a total or +2000 for more.') from None
    total = done + number if text.startswith("+") else number
    if total > MOST_STEPS:
        raise UsageError(f"--steps {text[:20]} is more than {MOST_STEPS:,}. Give a smaller number.")
    if total <= done:
        raise UsageError(f"--steps {text}: the run has {done} steps already. Write +N for N more.")
    return total
