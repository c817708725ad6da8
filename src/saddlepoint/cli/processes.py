"""Several processes under ``torchrun``, and ``--nproc``, which starts them on this machine."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from saddlepoint.cli.app import USAGE, integer
from saddlepoint.errors import DistributedError, DivergenceError, UsageError

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

    from saddlepoint.distributed import SingleProcess

T = TypeVar("T")

MAX_RESTARTS = 3
"""How often the processes of ``--nproc`` are started again after one of them died."""

EXIT_CODE_FILE = "SADDLEPOINT_EXIT_CODE_FILE"
"""Environment variable: file in which process 0 of ``--nproc`` leaves the exit code."""

LEAVE_TIMEOUT = 10.0
"""Seconds for which a process that ends waits for the others to end with it."""

_LAUNCHER = "SADDLEPOINT_LAUNCHER"
"""Environment variable: process id of the launcher (``--nproc``); its processes end with it."""

_SHUTDOWN_TIMEOUT = 120
"""Seconds for the processes of ``--nproc`` to save after a signal; PyTorch gives them 30."""

_MAX_PROCESSES = 1024

_MAX_TIMEOUT = 30 * 24 * 3600.0
"""Seconds; PyTorch fails, or waits forever, with much larger timeouts."""

_WATCH_INTERVAL = 1.0
"""Seconds between two checks of whether the launcher is alive."""


def check_timeout(seconds: float) -> float:
    """Return the value of ``--timeout``; refuse an invalid one before anything is started."""
    if not 0 < seconds <= _MAX_TIMEOUT:
        raise typer.BadParameter(
            f"{seconds:g} must be positive and at most {_MAX_TIMEOUT:.0f} seconds, 30 days."
        )
    return seconds


ProcessesOption = Annotated[
    int | None,
    typer.Option(
        "--nproc",
        parser=integer(1, _MAX_PROCESSES),
        metavar="N",
        help="Number of local processes (use torchrun for several machines).",
        show_default="1",
    ),
]
TimeoutOption = Annotated[
    float,
    typer.Option(
        callback=check_timeout,
        help="With several processes: seconds to wait for one that does not respond, at most 30"
        " days.",
    ),
]


def check_batch_size(batch_size: int, processes: int) -> None:
    """Refuse a batch that cannot be split evenly, before processes are started for it.

    Raises:
        UsageError: it names batch sizes that can be split.
    """
    from saddlepoint.distributed import SingleProcess

    distributed = SingleProcess()
    distributed.world_size = processes
    distributed.batch_slice(batch_size)


def was_restarted() -> bool:
    """Return whether the launcher started these processes again after one had died."""
    return _launcher_variable("TORCHELASTIC_RESTART_COUNT", "0") > 0


def _launcher_variable(name: str, default: str | None = None) -> int:
    """Return a number that torchrun puts into the environment.

    Raises:
        UsageError: the variable is missing or is not a number.
    """
    text = os.environ.get(name, default)
    if text is None or not text.strip().isdecimal():
        found = "is not set" if text is None else f"is {text!r}, not a number"
        raise UsageError(
            f"The environment variable {name} {found}. WORLD_SIZE asks for several processes, which"
            " are started with --nproc or torchrun; these set RANK, WORLD_SIZE, LOCAL_RANK,"
            " MASTER_ADDR and MASTER_PORT. To train in one process, unset WORLD_SIZE."
        )
    return int(text)


@contextmanager
def join_processes(timeout: float) -> Iterator[SingleProcess]:
    """Join the process group of the launcher, if there is one.

    Args:
        timeout: seconds to wait for a process that does not respond.

    Raises:
        UsageError: variables of the launcher are missing or wrong.
        DistributedError: the other processes cannot be reached.
    """
    from saddlepoint.distributed import Distributed, SingleProcess

    world = _launcher_variable("WORLD_SIZE", "1")
    if world < 2:
        yield SingleProcess()
        return
    # what PyTorch reads to find the other processes; it would report errors with a traceback
    rank = _launcher_variable("RANK")
    if rank >= world:
        raise UsageError(f"RANK={rank} must be below WORLD_SIZE={world}: ranks count from 0.")
    _launcher_variable("MASTER_PORT")
    if not os.environ.get("MASTER_ADDR"):
        raise UsageError(
            "The environment variable MASTER_ADDR is not set. It is the host of process 0; torchrun"
            " sets it."
        )
    _end_with_launcher()

    import torch
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    if torch.cuda.is_available():
        torch.cuda.set_device(_launcher_variable("LOCAL_RANK"))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    limit = timedelta(seconds=timeout)
    try:
        store, rank, world = next(rendezvous("env://", timeout=limit))
        # the launcher keeps its store over restarts, with the addresses of dead processes in it
        start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        fresh = PrefixStore(f"start {start}", store)
        dist.init_process_group(backend, store=fresh, rank=rank, world_size=world, timeout=limit)
    except (RuntimeError, dist.DistError, ValueError, OSError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        reason = " ".join(str(error).split())[:200]
        raise DistributedError(
            f"Process {os.environ['RANK']} could not join the others at {where} in {timeout:g}"
            f" seconds: {reason}"
        ) from error
    leaving = range(world)
    try:
        yield Distributed()
    except BaseException as error:
        # all processes end with these errors, or are told of them
        if not isinstance(error, UsageError | DivergenceError | typer.Exit):
            leaving = range(rank, rank + 1)
        raise
    finally:
        _leave(fresh, rank, leaving)
        dist.destroy_process_group()


def _end_with_launcher() -> None:
    """Stop as after SIGTERM when the launcher is killed: nobody else would stop this process."""
    launcher = os.environ.get(_LAUNCHER)
    if launcher is None:
        return

    def watch() -> None:
        while str(os.getppid()) == launcher:
            time.sleep(_WATCH_INTERVAL)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _leave(store: Store, rank: int, leaving: Iterable[int]) -> None:
    """Announce that this process ends, and wait until those that end with it have done so.

    A process that ends closes its connections. Another one that has sent its part of the last
    reduction, but fetches the result late, would find the connection closed.
    """
    import torch.distributed as dist

    with suppress(RuntimeError, dist.DistError):  # another process, or the store, ended before
        store.set(f"left {rank}", "")
        store.wait([f"left {other}" for other in leaving], timedelta(seconds=LEAVE_TIMEOUT))


def on_all_ranks(distributed: SingleProcess, make: Callable[[], T]) -> T:
    """Return ``make()``; a ``UsageError`` in any process ends all of them.

    Process 0 reports the error.
    """
    message, made = None, list[T]()
    try:
        made.append(make())
    except UsageError as error:
        message = str(error)
        if distributed.world_size == 1:
            raise
    messages = distributed.all_gather(message)
    if any(messages):
        if distributed.rank > 0:
            raise typer.Exit(USAGE)
        rank, first = next((rank, text) for rank, text in enumerate(messages) if text)
        everywhere = all(text == first for text in messages)
        raise UsageError(first if everywhere else f"Process {rank}: {first}")
    return made[0]


def exit_for_good(code: int) -> None:
    """Exit with a code that a restart would not change.

    A process of ``--nproc`` leaves the code in a file for the launcher, and exits with 0 so that it
    is not started again.
    """
    path = os.environ.get(EXIT_CODE_FILE)
    if path is None or "RANK" not in os.environ:
        sys.exit(code)
    if os.environ["RANK"] == "0":
        Path(path).write_text(str(code))
    sys.exit(0)


def launch(processes: int, more_arguments: Sequence[str] = ()) -> None:
    """Run this command in several processes, as ``torchrun`` would, and exit with their code.

    If a process dies, all are started again and continue from the last checkpoint, at most three
    times.

    Args:
        processes: number of processes.
        more_arguments: arguments after those of this command, which are passed without --nproc.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    arguments, is_value = [], False
    for argument in sys.argv[1:]:
        if not (is_value or argument == "--nproc" or argument.startswith("--nproc=")):
            arguments.append(argument)
        is_value = argument == "--nproc"

    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(_SHUTDOWN_TIMEOUT))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    with tempfile.TemporaryDirectory() as directory:
        exit_code = Path(directory) / "exit code"
        os.environ |= {EXIT_CODE_FILE: str(exit_code), _LAUNCHER: str(os.getpid())}
        # no file of the current directory shadows a module
        os.environ["PYTHONSAFEPATH"] = "1"
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id="saddlepoint",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=MAX_RESTARTS,
            logs_specs=DefaultLogsSpecs(),
        )
        run = elastic_launch(config, sys.executable)
        try:
            run("-m", "saddlepoint", *arguments, *more_arguments)
        except SignalException as error:
            # SIGHUP counts as SIGTERM
            stopped = signal.SIGINT if error.sigval == signal.SIGINT else signal.SIGTERM
            sys.exit(128 + stopped)
        except ChildFailedError as error:
            rank, failed = error.get_first_failure()
            raise DistributedError(
                f"Process {rank} of {processes} ended with exit code {failed.exitcode}, after"
                f" {MAX_RESTARTS} restarts. The run directory keeps what was saved; continue with"
                " saddlepoint resume."
            ) from error
        sys.exit(int(exit_code.read_text()) if exit_code.exists() else 0)
