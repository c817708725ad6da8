"""One run of a comparison: trained with its own clock, measured on the way, whatever happens to it an outcome."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import Any

import torch

from saddlepoint.compare.memory import PeakMemory
from saddlepoint.errors import DivergenceError
from saddlepoint.step_result import StepResult
from saddlepoint.training.config import RunConfig, Tree, validate
from saddlepoint.training.evaluator import Evaluator, weights_prefix
from saddlepoint.training.run_directory import png
from saddlepoint.training.trainer import Trainer

Outcome = dict[str, Any]
"""status ("finished", "diverged" or "failed"), error, steps, seconds, gradient_equivalents, peak_memory, metrics, points, pictures."""


@dataclass(frozen=True)
class Job:
    """A run to make.

    Attributes:
        config: a complete configuration.
        metric: with the prefix of the weights; measured at every point.
        points: how many evaluations are spread over the budget; the last is at its end.
        everything: whether the last one measures all metrics, of the same weights.
        pictures: whether a picture is kept of every point.
    """

    config: Tree
    metric: str
    points: int
    everything: bool = False
    pictures: bool = False


def execute(job: Job) -> Outcome:
    """Train one run to the end of its budget, in this process, on one thread.

    On the CPU training time is processor time, so that other work on the machine does not decide a
    comparison; on CUDA it is wall time. Evaluation, pictures and reading the data are not training.
    """
    torch.set_num_threads(1)
    config = validate(job.config)
    with warnings.catch_warnings():
        # solves that stop early are counted in the outcome; the rest was said when the study was
        # read
        warnings.simplefilter("ignore")
        training = Trainer(config, clock=clock_of(config))
        memory = PeakMemory(config.device)
        outcome = unfinished("")
        try:
            training.problem.load()
            _run(training, job, memory, outcome)
        except DivergenceError as error:
            outcome |= {"status": "diverged", "error": f"Step {training.step + 1}: {error}"}
        except Exception as error:  # one run's failure is a result of the comparison, not its end
            outcome |= {"status": "failed", "error": f"{type(error).__name__}: {error}"}
    spent = {
        "steps": training.step,
        "seconds": training.seconds,
        "gradient_equivalents": training.gradient_equivalents,
    }
    return {
        **outcome,
        **spent,
        "peak_memory": memory.most,
        "unconverged_solves": training.optimizer.unconverged,
    }


def unfinished(error: str) -> Outcome:
    """Return the outcome of a run that did not come to an end, as it is before its first step."""
    spent = {
        "steps": 0,
        "seconds": 0.0,
        "gradient_equivalents": 0.0,
        "peak_memory": None,
        "unconverged_solves": 0,
    }
    return {
        "status": "failed",
        "error": error,
        "metrics": None,
        "points": [],
        "pictures": [],
        **spent,
    }


def clock_of(config: RunConfig) -> Callable[[], float]:
    """Return what training time is read from."""
    return perf_counter if config.device == "cuda" else process_time


def _run(training: Trainer, job: Job, memory: PeakMemory, outcome: Outcome) -> None:
    point, final = 1, [job.metric]
    if job.everything:
        final = [weights_prefix(job.metric) + name for name in training.problem.metric_names]
    memory.start()
    while training.progress < 1:
        records = training.train_step()
        last = training.progress >= 1
        if last or training.progress * job.points >= point:
            memory.stop()
            outcome["points"].append(_point(training, final if last else [job.metric], records))
            if job.pictures:
                outcome["pictures"].append(png(Evaluator(training).picture()))
            point = int(training.progress * job.points) + 1
            memory.start()
    outcome |= {"status": "finished", "error": None, "metrics": outcome["points"][-1]["metrics"]}


def _point(training: Trainer, metrics: list[str], records: list[StepResult]) -> dict[str, Any]:
    """Return what the run has cost so far, and what it is worth."""
    return {
        "progress": round(training.progress, 4),
        "step": training.step,
        "seconds": training.seconds,
        "gradient_equivalents": training.gradient_equivalents,
        "metrics": Evaluator(training).evaluate_metrics(metrics),
        "losses": {player: loss for record in records for player, loss in record.losses.items()},
        "gradient_norms": {
            player: norm for record in records for player, norm in record.gradient_norms.items()
        },
    }
