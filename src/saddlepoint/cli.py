"""The command line. Heavy imports happen inside the commands, so that ``--help`` answers at once."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saddlepoint.errors import DivergenceError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from saddlepoint.training import RunConfig, RunDirectory, Training

USAGE, DIVERGED = 2, 3

app = typer.Typer(
    name="saddlepoint",
    help="Train GANs and other differentiable games with gradients, curvature and subgradients.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

Run = Annotated[Path, typer.Argument(help="The directory that `saddlepoint train` printed.", show_default=False)]


class Listing(StrEnum):
    """What ``saddlepoint list`` can list."""

    problems = "problems"
    rules = "rules"
    optimizers = "optimizers"
    metrics = "metrics"


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
    from saddlepoint.training import RunDirectory, Training, resolve
    from saddlepoint.training.config import read_yaml, renamed, with_settings

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
        budget = {"steps": _total_steps(steps, training.step), "seconds": None}
    elif seconds is not None:
        if not seconds > 0:
            raise UsageError(f"--seconds {seconds} must be positive.")
        budget = {"steps": None, "seconds": training.seconds + seconds}
    if budget:
        training.config = config.model_copy(update=budget)
        directory.write_config(training.config)
    if training.progress >= 1:
        raise UsageError(f"{run} has used its budget of {_budget(config)}. Give it more with --steps +N or --seconds S.")
    training.problem.load()
    directory.truncate_log(training.step)
    _train(training, directory)


@app.command(epilog="Example:\n\n`saddlepoint sample runs/digits-gradient-adam-001 -n 100 -o grid.png`")
def sample(
    run: Run,
    n: Annotated[int | None, typer.Option("-n", min=1, max=10_000, help="Number of samples; the problem's by default.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="PNG file; RUN/samples-N.png by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides the noise.")] = 0,
    best: Annotated[bool, typer.Option("--best", help="From the best checkpoint instead of the last.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="From the generator instead of its moving average.")] = False,
) -> None:
    """Draw samples of a trained generator into a picture."""
    from saddlepoint.training.files import write_atomic
    from saddlepoint.training.run_directory import png

    training, directory = _load(run, best)
    n = training.problem.picture_samples if n is None else n
    target = directory.path / f"samples-{n}.png" if output is None else output
    try:
        write_atomic(target, png(training.picture(n, seed, ema=not raw)))
    except OSError as error:
        raise UsageError(f"Cannot write {target}: {error.strerror or error}.") from error
    typer.echo(f"{n} samples of step {training.step}: {target}")


@app.command(epilog="Example:\n\n`saddlepoint evaluate runs/digits-gradient-adam-001 --samples 2000`")
def evaluate(
    run: Run,
    samples: Annotated[int | None, typer.Option(min=1, help="Generated samples; as in training by default.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Decides the noise; as in training by default.")] = None,
    best: Annotated[bool, typer.Option("--best", help="The best checkpoint instead of the last.")] = False,
) -> None:
    """Measure a trained generator, and its moving average, on the held-out data."""
    training, directory = _load(run, best)
    config = training.config
    metrics = training.evaluate(samples, seed)
    used = {
        "samples": samples if samples is not None else config.evaluation_samples,
        "seed": seed if seed is not None else config.evaluation_seed,
    }
    result = {"step": training.step, "metrics": metrics, "extractors": training.problem.extractors(), "evaluation": used}
    _print_metrics(_console(), training, metrics)
    for name, digest in training.problem.extractors().items():
        typer.echo(f"{name}: SHA-256 {digest}")
    typer.echo(f"{used['samples']} samples, seed {used['seed']}: {directory.write_evaluation(result)}")


@app.command("list", epilog="Example:\n\n`saddlepoint list rules`")
def list_names(what: Annotated[Listing, typer.Argument(help="problems, rules, optimizers or metrics.")]) -> None:
    """List what can be named on the command line and in configurations."""
    from rich.markup import escape
    from rich.table import Table

    from saddlepoint import registry

    table = Table("name", "what it is", box=None, header_style="bold")
    if what is Listing.problems:
        for name, entry in registry.PROBLEMS.items():
            table.add_row(name, entry.summary)
    elif what is Listing.rules:
        table = Table("name", "order", "what it is", "cost, two players", "bilinear game", "local minimax points", "paper", box=None)
        table.columns[0].no_wrap = True
        for name, rule in registry.RULES.items():
            table.add_row(name, str(rule.order), rule.summary, rule.cost, rule.bilinear, rule.minimax, rule.paper)
    elif what is Listing.optimizers:
        for name, optimizer in registry.OPTIMIZERS.items():
            table.add_row(name, f"{optimizer.summary} (lr {optimizer.options['lr']:g})")
        table.add_row("package.module:Class", "any torch.optim.Optimizer, such as pytorch_optimizer:SOAP")
    else:
        table = Table("name", "what it is", "problem", box=None, header_style="bold")
        for problem, entry in registry.PROBLEMS.items():
            for name, meaning in registry.load(entry.path).metric_names.items():
                table.add_row(escape(name), meaning, problem)
    _console().print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a user's mistake ends with a sentence and exit code 2, a diverged run with 3."""
    try:
        app(args=list(arguments) if arguments is not None else None, prog_name="saddlepoint")
    except DivergenceError as error:
        _fail(str(error), DIVERGED)
    except UsageError as error:
        _fail(str(error), USAGE)
    except BrokenPipeError:  # the reader of a pipe went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _train(training: Training, run: RunDirectory) -> None:
    from saddlepoint.training.interrupts import deferred_interrupts
    from saddlepoint.training.loop import train as run_loop
    from saddlepoint.training.progress import watcher
    from saddlepoint.training.training import network_sizes

    console, config = _console(), training.config
    sizes = ", ".join(f"{player} {size:,} parameters" for player, size in network_sizes(training.networks).items())
    _say(console, f"{config.problem.name}, {config.rule.name} + {config.optimizer.name}, {config.scheme}, {config.device} ({sizes})")
    _say(console, f"run directory: {run.path}")
    warnings.showwarning = lambda message, *_: _say(console, f"note: {message}")
    with deferred_interrupts() as interrupt:
        try:
            with watcher(console) as shown:
                status = run_loop(training, run, shown, interrupt)
        except DivergenceError as error:
            message = f"Diverged in step {training.step + 1}: {error} The last finite state is in {run.path}/checkpoints."
            raise DivergenceError(message, player=error.player, term=error.term) from error
    if status == "interrupted":
        _say(console, f"Stopped after step {training.step}; saved. Go on with: saddlepoint resume {run.path}")
        raise typer.Exit(interrupt.exit_code)
    _print_metrics(console, training, training.metrics)
    _say(console, f"{training.step} steps in {training.seconds:.1f} s, {1000 * training.seconds / training.step:.2f} ms a step")
    _say(console, f"samples: {run.samples_picture}")


def _load(path: Path, best: bool) -> tuple[Training, RunDirectory]:
    from saddlepoint.training import RunDirectory, Training

    directory = RunDirectory.open(path)
    config = directory.read_config()
    training = Training(config)
    training.load_state_dict(directory.load_checkpoint(config, "best" if best else "last"))
    return training, directory


def _budget(config: RunConfig) -> str:
    return f"{config.steps} steps" if config.steps else f"{config.seconds:g} seconds"


def _total_steps(text: str, done: int) -> int:
    try:
        number = int(text)
    except ValueError:
        raise UsageError(f'--steps "{text}" is not a number of steps; write 20000 for a total or +2000 for more.') from None
    total = done + number if text.startswith("+") else number
    if total <= done:
        raise UsageError(f"--steps {text}: the run has {done} steps already. Write +N for N more.")
    return total


def _print_metrics(console: Console, training: Training, metrics: dict[str, float]) -> None:
    from rich.markup import escape
    from rich.table import Table

    titles = {"": "generator", "ema/": "moving average", "average/": "optimizer's average"}
    first = next(iter(training.problem.metric_names))
    shown = [prefix for prefix in titles if prefix + first in metrics]
    table = Table("metric", *(titles[prefix] for prefix in shown), "what it is", box=None, header_style="bold")
    for name, meaning in training.problem.metric_names.items():
        table.add_row(escape(name), *(f"{metrics[prefix + name]:.4g}" for prefix in shown), meaning)
    console.print(table)


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 140)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)


def _fail(message: str, code: int) -> None:
    sys.stdout.flush()
    typer.echo(f"Error: {message}", err=True)
    sys.exit(code)
