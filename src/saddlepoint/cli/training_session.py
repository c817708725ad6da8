"""Training a run from the command line, which ``train`` and ``resume`` share."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from saddlepoint.cli.app import DIVERGED, parse_integer
from saddlepoint.cli.processes import on_all_ranks, was_restarted
from saddlepoint.cli.streams import is_reader_gone, make_console, print_text, printable
from saddlepoint.cli.tables import print_metrics
from saddlepoint.errors import DistributedError, DivergenceError, UsageError, quoted

if TYPE_CHECKING:
    from saddlepoint.distributed import SingleProcess
    from saddlepoint.training import RunDirectory, Trainer
    from saddlepoint.training.config import Tree
    from saddlepoint.training.run_directory import At


def load_training(path: Path, at: At = "last") -> tuple[Trainer, RunDirectory]:
    """Return the training of a run at a checkpoint, and its directory."""
    from saddlepoint.training import RunDirectory, Trainer

    directory = RunDirectory.open(path)
    config = directory.read_config()
    training = Trainer(config)
    training.load_state_dict(directory.load_checkpoint(config, at))
    return training, directory


def start_run(distributed: SingleProcess, tree: Tree, out: Path | None) -> None:
    """Create a run from a partial configuration and train it.

    Everything is checked before the directory is created, so that an error leaves nothing behind.
    """
    from saddlepoint.training import Evaluator, RunDirectory, Trainer, resolve
    from saddlepoint.training.agreement import check_agreement
    from saddlepoint.training.inner_optimizers import check_resumable

    config = on_all_ranks(distributed, lambda: resolve(tree))
    training = on_all_ranks(distributed, lambda: Trainer(config, distributed=distributed))
    on_all_ranks(distributed, training.problem.load)
    on_all_ranks(distributed, partial(check_resumable, training))
    on_all_ranks(distributed, partial(check_agreement, training))
    on_all_ranks(distributed, Evaluator(training).check_sample_count)
    with _written_by_rank_0(distributed, lambda: RunDirectory.create(config, out)) as directory:
        try:
            run_training(training, directory)
        except (typer.Exit, DivergenceError, DistributedError, OSError):
            raise  # the content of the directory is useful
        except Exception as error:
            if training.step == 0 and not isinstance(error.__cause__, OSError):
                directory.discard()
            raise


def resume_run(
    distributed: SingleProcess,
    path: Path,
    *,
    steps: str | None = None,
    seconds: float | None = None,
) -> None:
    """Continue a run from its last checkpoint; process 0 reads it and broadcasts it.

    Args:
        distributed: the processes.
        path: the run directory.
        steps: new total number of steps, or "+N" for N more.
        seconds: how many more seconds to train. Without both the budget is unchanged.
    """
    from saddlepoint.training import RunDirectory, Trainer
    from saddlepoint.training.agreement import check_agreement

    with _written_by_rank_0(distributed, lambda: RunDirectory.open(path)) as directory:
        config = distributed.broadcast(directory.read_config)
        training = on_all_ranks(distributed, lambda: Trainer(config, distributed=distributed))
        state = distributed.broadcast(
            lambda: directory.load_checkpoint(config) if directory.has_checkpoints() else None
        )
        if state is not None:
            training.load_state_dict(state)
        elif distributed.rank == 0:
            print_text(
                make_console(),
                "note: The run was stopped before its first checkpoint; it starts from the"
                " beginning.",
            )
        # restarted processes find the new budget in the configuration
        if not was_restarted() and (steps is not None or seconds is not None):
            training.config = config.model_copy(update=_new_budget(training, steps, seconds))
            distributed.broadcast(lambda: directory.write_config(training.config))
        has_ended = training.progress >= 1 and distributed.broadcast(
            lambda: directory.has_ended(training.step)
        )
        if has_ended and not was_restarted():
            bounds = {
                "steps": config.steps,
                "seconds": config.seconds,
                "gradient-equivalents": config.gradient_equivalents,
            }
            budget = " or ".join(
                f"{bound if isinstance(bound, int) else f'{bound:g}'} {unit}"
                for unit, bound in bounds.items()
                if bound
            )
            raise UsageError(
                f"{path} has used its budget of {budget}. Extend it with --steps +N or --seconds S."
            )
        on_all_ranks(distributed, training.problem.load)
        on_all_ranks(distributed, partial(check_agreement, training))
        distributed.broadcast(lambda: directory.truncate_after(state))
        run_training(training, directory)


def _new_budget(training: Trainer, steps: str | None, seconds: float | None) -> dict[str, Any]:
    """Return the keys of the configuration for the options ``--steps`` and ``--seconds``."""
    from saddlepoint.training.config import MAX_STEPS

    if seconds is not None and not 0 < seconds < math.inf:
        finite = "" if seconds <= 0 else " and finite"
        raise UsageError(f"--seconds {seconds} must be positive{finite}.")
    total = None
    if steps is not None:
        try:
            total = parse_integer(steps[:20])  # more digits exceed the maximum anyway
        except ValueError:
            raise UsageError(
                f'--steps "{steps}" is not a number of steps; write 20000 for a total or +2000 for'
                " more."
            ) from None
        if steps.startswith("+"):
            total += training.step
        if total > MAX_STEPS:
            raise UsageError(
                f"--steps {steps[:20]} is more than {MAX_STEPS:,}, the maximum. Choose a smaller"
                " number."
            )
        if total <= training.step:
            raise UsageError(
                f"--steps {steps}: the run has {training.step} steps already. Write +N for N more."
            )
    return {
        "steps": total,
        "seconds": None if seconds is None else training.seconds + seconds,
        "gradient_equivalents": None,
    }


@contextmanager
def _written_by_rank_0(
    distributed: SingleProcess, open_directory: Callable[[], RunDirectory]
) -> Iterator[RunDirectory]:
    """Lock the run directory for process 0, which alone writes it.

    The other processes get a directory that ignores what is written.
    """
    from saddlepoint.training.run_directory import NullRunDirectory

    own: list[RunDirectory] = []
    with ExitStack() as stack:

        def open_and_lock() -> Path:
            own.append(open_directory())
            stack.enter_context(own[0].lock())
            return own[0].path

        path = distributed.broadcast(open_and_lock)
        yield own[0] if own else NullRunDirectory(path)


def run_training(training: Trainer, directory: RunDirectory) -> None:
    """Train until the budget is used; print progress, results and how to continue.

    Raises:
        DivergenceError: the run diverged.
        typer.Exit: training was interrupted.
    """
    from saddlepoint.training.interrupts import deferred_interrupts
    from saddlepoint.training.loop import train as train_loop
    from saddlepoint.training.progress import watcher
    from saddlepoint.training.trainer import network_sizes

    config, distributed = training.config, training.distributed
    console = make_console(quiet=distributed.rank > 0)
    sizes = ", ".join(
        f"{player} {size:,} parameters" for player, size in network_sizes(training.networks).items()
    )
    processes = f" in {distributed.world_size} processes" if distributed.world_size > 1 else ""
    print_text(
        console,
        f"{config.problem.name}, {config.rule.name} + {config.optimizer.name},"
        f" {config.update_scheme}, {config.device}{processes} ({sizes})",
    )
    print_text(console, f"run directory: {directory.path}")
    warnings.showwarning = lambda message, *_: print_text(console, f"note: {message}")
    with deferred_interrupts() as interrupt:

        def stopped() -> int | None:
            if is_reader_gone():
                interrupt.request_stop()
            return interrupt.all_reduce(distributed)

        try:
            with watcher(console) as progress:
                status = train_loop(training, directory, progress, stopped)
        except DivergenceError as error:
            if distributed.rank > 0:
                raise typer.Exit(DIVERGED) from error
            message = (
                f"Diverged in step {training.step + 1}: {error} The last finite state is in"
                f" {directory.path}/checkpoints."
            )
            raise DivergenceError(message, player=error.player, term=error.term) from error

    if status == "interrupted":
        message = (
            f"Stopped after step {training.step}; saved. Resume with: saddlepoint resume"
            f" {quoted(directory.path)}"
        )
        if distributed.rank == 0 and is_reader_gone():
            typer.echo(printable(message), err=True)
        print_text(console, message)
        raise typer.Exit(interrupt.exit_code)
    if distributed.rank > 0:
        return

    print_metrics(console, training, training.metrics)
    if status == "stopped early":
        best_step = training.best["step"] if training.best else 0
        print_text(console, f"stopped early: no better evaluation since step {best_step}")
    bounds = training.bounds()
    first = ""
    if len(bounds) > 1:
        reached = max(bounds, key=lambda name: bounds[name])
        first = f"; the bound of {reached} was reached first"
    print_text(
        console,
        f"{training.step} steps in {training.seconds:.1f} s,"
        f" {1000 * training.seconds / training.step:.2f} ms a step{first}",
    )

    summary = directory.read_summary()
    # zero if patience had ended before
    total = summary["seconds_here"] + summary["observing_seconds"] or 1.0
    shares = ", ".join(
        f"{name} {spent:.1f} s ({spent / total:.0%})"
        for name, spent in (
            ("metrics", summary["evaluating_seconds"]),
            ("probes", summary["probing_seconds"]),
        )
    )
    print_text(
        console,
        f"observing took {summary['observing_seconds']:.1f} s: {shares} of the total time",
    )
    findings = sum(finding["level"] != "note" for finding in summary["findings"])
    if findings:
        print_text(
            console,
            f"{findings} finding{'s' if findings > 1 else ''}; see: saddlepoint diagnose"
            f" {quoted(directory.path)}",
        )
    print_text(console, f"samples: {directory.samples_picture}")
    print_text(console, f"report: saddlepoint report {quoted(directory.path)}")
