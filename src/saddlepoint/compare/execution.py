"""Executing one run: training with its own clock and measurements, in this process or in its own.

A subprocess keeps runs from seeing each other's memory, threads and failures.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from multiprocessing import forkserver, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from saddlepoint.compare.runs import Job
from saddlepoint.errors import DivergenceError
from saddlepoint.io.imports import safe_path_for_subprocesses
from saddlepoint.training.config import validate
from saddlepoint.training.evaluator import Evaluator, weights_prefix
from saddlepoint.training.run_directory import png
from saddlepoint.training.trainer import Trainer

RunResult = dict[str, Any]
"""What is known of a run afterwards.

status ("finished", "diverged" or "failed"), error, steps, seconds, gradient_equivalents,
peak_memory, unconverged_solves, metrics, points, pictures.
"""

_CONTEXT = multiprocessing.get_context("forkserver")
_HEARTBEAT = 1.0  # seconds
_GROUP_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
"""Sent to whole process groups by terminals, time limits and schedulers; the parent handles them
for its runs."""

_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def execute(job: Job) -> RunResult:
    """Train one run to the end of its budget, in this process, on one thread.

    On the CPU training time is processor time, so that other work on the machine does not decide a
    comparison; on CUDA it is wall time. Evaluation, pictures and reading data are not training.
    """
    torch.set_num_threads(1)
    config = validate(job.config)
    result = failed_result("")
    with warnings.catch_warnings():
        # unconverged solves are counted in the result; other warnings came when the study was read
        warnings.simplefilter("ignore")
        clock = time.perf_counter if config.device == "cuda" else time.process_time
        training = Trainer(config, clock=clock)
        memory = PeakMemory(config.device)
        final_metrics = [job.metric]
        if job.all_metrics:
            prefix = weights_prefix(job.metric)
            final_metrics = [prefix + name for name in training.problem.metric_names]
        try:
            training.problem.load()
            point = 1
            memory.start()
            while training.progress < 1:
                steps = training.train_step()
                last = training.progress >= 1
                if not last and training.progress * job.points < point:
                    continue
                memory.stop()
                losses: dict[str, float] = {}
                norms: dict[str, float] = {}
                for step in steps:
                    losses |= step.losses
                    norms |= step.gradient_norms
                result["points"].append(
                    {
                        "progress": round(training.progress, 4),
                        "step": training.step,
                        "seconds": training.seconds,
                        "gradient_equivalents": training.gradient_equivalents,
                        "metrics": Evaluator(training).evaluate_only(
                            final_metrics if last else [job.metric]
                        ),
                        "losses": losses,
                        "gradient_norms": norms,
                    }
                )
                if job.pictures:
                    result["pictures"].append(png(Evaluator(training).picture()))
                point = int(training.progress * job.points) + 1
                memory.start()
            metrics = result["points"][-1]["metrics"]
            result |= {"status": "finished", "error": None, "metrics": metrics}
        except DivergenceError as error:
            result |= {"status": "diverged", "error": f"Step {training.step + 1}: {error}"}
        except Exception as error:  # the failure of a run is a result; the comparison continues
            result |= {"status": "failed", "error": f"{type(error).__name__}: {error}"}
    return {
        **result,
        "steps": training.step,
        "seconds": training.seconds,
        "gradient_equivalents": training.gradient_equivalents,
        "peak_memory": memory.most,
        "unconverged_solves": training.optimizer.unconverged,
    }


def failed_result(error: str) -> RunResult:
    """Return the result of a run that failed before its first step."""
    return {
        "status": "failed",
        "error": error,
        "metrics": None,
        "points": [],
        "pictures": [],
        "steps": 0,
        "seconds": 0.0,
        "gradient_equivalents": 0.0,
        "peak_memory": None,
        "unconverged_solves": 0,
    }


class PeakMemory:
    """Peak memory of this process between ``start`` and ``stop``, above that at the first start.

    On CUDA it is what PyTorch allocated. On Linux it is the resident memory of the process, whose
    peak the kernel lets a process reset; on other systems it is not measured.

    Attributes:
        most: in bytes; None where it cannot be measured.
    """

    def __init__(self, device: str) -> None:
        self.most: int | None = None
        self._cuda = device == "cuda"
        self._available = True
        self._baseline: int | None = None

    def start(self) -> None:
        """Start or continue watching."""
        try:
            if self._cuda:
                torch.cuda.reset_peak_memory_stats()
            else:
                _CLEAR_REFS.write_text("5")  # resets the kernel's record of the peak
            if self._baseline is None:
                self._baseline = self._peak()
        except OSError:  # not Linux, or not permitted
            self._available = False

    def stop(self) -> None:
        """Count the peak since ``start``."""
        if self._available and self._baseline is not None:
            self.most = max(self.most or 0, self._peak() - self._baseline)

    def _peak(self) -> int:
        if self._cuda:
            return torch.cuda.max_memory_allocated()
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])


# in a subprocess


def preload(packages: Iterable[str] = ()) -> None:
    """Let runs be forked from a process that has loaded PyTorch, this library and ``packages``.

    Has an effect before the first run only.
    """
    modules = ["saddlepoint.compare.execution", "saddlepoint.compare.preload"]
    _CONTEXT.set_forkserver_preload([*modules, *packages])


def run_in_subprocess(job: Job, heartbeat: Callable[[], None] = lambda: None) -> RunResult:
    """Execute a job in a new process and return its result.

    A process that ends without a result, for example killed when out of memory, is a failed run.
    Signals that are sent to the whole process group do not reach the process.

    Args:
        job: the run.
        heartbeat: called every second during the run; an exception in it kills the process and
            propagates.
    """
    _start_fork_server()
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_child_main, args=(sender, job), daemon=True)
    process.start()
    sender.close()
    try:
        while not receiver.poll(_HEARTBEAT):
            heartbeat()
        result: RunResult = receiver.recv()
    except (EOFError, OSError):  # the process ended before or while it sent the result
        process.join()
        time.sleep(_HEARTBEAT)
        # what ended the run may be about to cancel the comparison: then the run has no result
        heartbeat()
        result = failed_result(_exit_reason(process.exitcode))
    finally:
        receiver.close()
        if process.is_alive() and sys.exception() is not None:
            process.kill()
        process.join()
    return result


def _start_fork_server() -> None:
    """Start the fork server unless it runs; it and its children never receive ``_GROUP_SIGNALS``.

    Blocked signals stay blocked in every process started meanwhile, so there is no moment in which
    one could arrive.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        with safe_path_for_subprocesses():
            resource_tracker.ensure_running()  # unblocks SIGINT and SIGTERM here when it starts
            signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP_SIGNALS)
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _exit_reason(code: int | None) -> str:
    """Return why a process ended that sent no result."""
    if code is None or code >= 0:
        return f"The process of the run ended with exit code {code} and without a result."
    name = signal.Signals(-code).name if -code in set(signal.Signals) else "an unknown signal"
    hint = " The usual cause is running out of memory." if -code == signal.SIGKILL else ""
    return f"The process of the run was killed by signal {-code} ({name}).{hint}"


def _child_main(sender: Connection, job: Job) -> None:
    threading.Thread(target=_exit_with_parent, args=(parent_process(),), daemon=True).start()
    sender.send(execute(job))
    sender.close()


def _exit_with_parent(parent: Any) -> None:
    """End this process when its parent was killed: no process waits for its result."""
    wait([parent.sentinel])
    os._exit(1)
