"""Several processes under ``torchrun``, and the shorthand that starts them on this machine."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from saddlepoint.cli.app import USAGE
from saddlepoint.errors import DistributedError, DivergenceError, UsageError

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

    from saddlepoint.distributed import SingleProcess

T = TypeVar("T")

MOST_PROCESSES = 1024
"""That ``--nproc`` starts on one machine."""

_LONGEST_TIMEOUT = 30 * 24 * 3600.0
"""Seconds; PyTorch fails, or waits for ever, with much larger ones."""

OUTCOME = "SADDLEPOINT_OUTCOME"
"""Environment variable: the file in which processes that ``--nproc`` started leave the command's exit code."""

PARTING = 10.0
"""Seconds for which a process that ends waits for the others to end with it."""

SHUTDOWN = 120
"""Seconds that processes which ``--nproc`` started have to finish a step and save after Ctrl-C or SIGTERM; PyTorch gives 30."""

RESTARTS = 3
"""How often processes that ``--nproc`` started are started again after one of them died."""


_LAUNCHER = "SADDLEPOINT_LAUNCHER"
"""Environment variable: the process that ``--nproc`` runs in, without which those that it started end too."""

_WATCH = 1.0
"""Seconds between two looks at whether the launcher lives."""


def checked_timeout(seconds: float) -> float:
    """Return the value of ``--timeout``; it is refused before anything is started."""
    if not 0 < seconds <= _LONGEST_TIMEOUT:
        raise typer.BadParameter(
            f"{seconds:g} must be positive and at most {_LONGEST_TIMEOUT:.0f} seconds, 30 days."
        )
    return seconds


def check_split(batch_size: int, processes: int) -> None:
    """Refuse a batch that cannot be split evenly, before processes are started for it.

    Raises:
        UsageError: it says which sizes can.
    """
    from saddlepoint.distributed import SingleProcess

    distributed = SingleProcess()
    distributed.world_size = processes
    distributed.batch_slice(batch_size)


def restarted() -> bool:
    """Say whether the launcher started these processes again, after one had died."""
    return _of_launcher("TORCHELASTIC_RESTART_COUNT", "0") > 0


def _of_launcher(name: str, default: str | None = None) -> int:
    """Return a number that torchrun puts into the environment.

    Raises:
        UsageError: it is missing or no number.
    """
    text = os.environ.get(name, default)
    if text is None or not text.strip().isdecimal():
        found = "is not set" if text is None else f"is {text!r}, not a number"
        raise UsageError(
            f"The environment variable {name} {found}. Several processes, which WORLD_SIZE asks"
            " for, are started with --nproc or torchrun; these set RANK, WORLD_SIZE, LOCAL_RANK,"
            " MASTER_ADDR and MASTER_PORT. To train in one process, unset WORLD_SIZE."
        )
    return int(text)


@contextmanager
def joined(timeout: float) -> Iterator[SingleProcess]:
    """Join the other processes that the launcher started, if there are any.

    Args:
        timeout: seconds to wait for one that does not answer.
    """
    from saddlepoint.distributed import Distributed, SingleProcess

    if _of_launcher("WORLD_SIZE", "1") < 2:
        yield SingleProcess()
        return
    _check_environment()
    _end_with_launcher()
    from datetime import timedelta

    import torch
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    if torch.cuda.is_available():
        torch.cuda.set_device(_of_launcher("LOCAL_RANK"))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        store, rank, world = next(rendezvous("env://", timeout=timedelta(seconds=timeout)))
        # the launcher keeps its store when it starts processes again, with the addresses of those
        # that died in it
        fresh = PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        dist.init_process_group(
            backend, store=fresh, rank=rank, world_size=world, timeout=timedelta(seconds=timeout)
        )
    except (RuntimeError, dist.DistError, ValueError, OSError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        said = " ".join(str(error).split())[:200]
        raise DistributedError(
            f"Process {os.environ['RANK']} could not join the others at {where} in {timeout:g}"
            f" seconds: {said}"
        ) from error
    leaving = range(world)
    try:
        yield Distributed()
    except BaseException as error:
        # which all processes end with, or are told of
        if not isinstance(error, UsageError | DivergenceError | typer.Exit):
            leaving = range(rank, rank + 1)
        raise
    finally:
        _part(fresh, rank, leaving)
        dist.destroy_process_group()


def _check_environment() -> None:
    """Check what PyTorch reads to find the other processes; it would say what is wrong in a traceback."""
    rank, world = _of_launcher("RANK"), _of_launcher("WORLD_SIZE")
    if rank >= world:
        raise UsageError(f"RANK={rank} must be below WORLD_SIZE={world}: distributed count from 0.")
    _of_launcher("MASTER_PORT")
    if not os.environ.get("MASTER_ADDR"):
        raise UsageError(
            "The environment variable MASTER_ADDR is not set. It is the host of process 0; torchrun"
            " sets it."
        )


def _end_with_launcher() -> None:
    """Stop, as SIGTERM does, when the process is killed that ``--nproc`` ran in: nobody would stop this one any more."""
    launcher = os.environ.get(_LAUNCHER)
    if launcher is None:
        return

    def watch() -> None:
        while str(os.getppid()) == launcher:
            time.sleep(_WATCH)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _part(store: Store, rank: int, leaving: Iterable[int]) -> None:
    """Say that this process leaves, and wait until those that leave with it have said so.

    A process that ends closes its connections. One that has sent its part of the last reduction,
    but is late to fetch the result, would find the connection closed instead.
    """
    from datetime import timedelta

    import torch.distributed as dist

    with suppress(RuntimeError, dist.DistError):  # it, or the store, has ended before
        store.set(f"left {rank}", "")
        store.wait([f"left {other}" for other in leaving], timedelta(seconds=PARTING))


def together(distributed: SingleProcess, make: Callable[[], T]) -> T:
    """Return what ``make`` returns; where it is a mistake in any process, all of them end, and the first one says so."""
    said, made = None, list[T]()
    try:
        made.append(make())
    except UsageError as error:
        said = str(error)
        if distributed.world_size == 1:
            raise
    every = distributed.all_gather(said)
    if any(every):
        if distributed.rank > 0:
            raise typer.Exit(USAGE)
        rank, message = next((rank, message) for rank, message in enumerate(every) if message)
        raise UsageError(
            message if all(other == message for other in every) else f"Process {rank}: {message}"
        )
    return made[0]


def leave_outcome(code: int) -> None:
    """Exit with a code that starting again would not change.

    A process that ``--nproc`` started leaves it for the one that it was given to, and ends as one
    that need not be started again.
    """
    path = os.environ.get(OUTCOME)
    if path is None or "RANK" not in os.environ:
        sys.exit(code)
    if os.environ["RANK"] == "0":
        Path(path).write_text(str(code))
    sys.exit(0)


def launch(processes: int, arguments: Sequence[str]) -> None:
    """Run ``saddlepoint ARGUMENTS`` in so many processes, as ``torchrun`` would, and exit as they do.

    If one dies, all are started again and go on from the last checkpoint, at most three times.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SHUTDOWN))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    with tempfile.TemporaryDirectory() as directory:
        outcome = Path(directory) / "exit code"
        os.environ |= {OUTCOME: str(outcome), _LAUNCHER: str(os.getpid())}
        # no file of the current directory takes the place of a module
        os.environ["PYTHONSAFEPATH"] = "1"
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id="saddlepoint",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=RESTARTS,
            logs_specs=DefaultLogsSpecs(),
        )
        try:
            elastic_launch(config, sys.executable)("-m", "saddlepoint", *arguments)
        except SignalException as error:
            # SIGHUP counts as SIGTERM
            stopped = signal.SIGINT if error.sigval == signal.SIGINT else signal.SIGTERM
            sys.exit(128 + stopped)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            raise DistributedError(
                f"Process {rank} of {processes} ended with exit code {failure.exitcode}, {RESTARTS}"
                " restarts notwithstanding. What was saved is in the run directory; go on with"
                " saddlepoint resume."
            ) from error
        sys.exit(int(outcome.read_text()) if outcome.exists() else 0)
