"""The training loop: steps, and what is recorded between them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from time import perf_counter
from typing import Any, Literal, Protocol

from saddlepoint.diagnostics import Finding
from saddlepoint.errors import DivergenceError
from saddlepoint.game_optimizer import Record
from saddlepoint.training.run_directory import RunDirectory
from saddlepoint.training.training import Training

Status = Literal["finished", "interrupted", "diverged"]


class Watcher(Protocol):
    """Something that shows how training goes."""

    def update(self, training: Training, records: list[Record]) -> None:
        """Called after every step."""

    def report(self, finding: Finding) -> None:
        """Called when a probe finds something for the first time."""


def train(training: Training, run: RunDirectory, watcher: Watcher, interrupted: Callable[[], object] = lambda: None) -> Status:
    """Train until the budget is used, the user interrupts or a loss diverges, recording into the run directory.

    Raises:
        DivergenceError: a loss or update is not finite. The last finite state is saved and the summary written before.
    """
    config, observed = training.config, 0.0
    if training.step == 0:
        run.save_picture(training.picture(), 0)
        training.probe()  # the sizes that later ones are compared with
        run.save_checkpoint(training.state_dict(), 0, config.keep_checkpoints)
    while training.progress < 1:
        if interrupted():
            run.save_checkpoint(training.state_dict(), training.step, config.keep_checkpoints)
            run.write_summary(summary(training, "interrupted", observed))
            return "interrupted"
        try:
            records = training.advance()
        except DivergenceError as error:
            if training.finite():
                run.save_checkpoint(training.state_dict(), training.step, config.keep_checkpoints)
            run.write_summary(summary(training, "diverged", observed) | {"error": f"Step {training.step + 1}: {error}"})
            raise
        paused = perf_counter()
        for finding in _observe(training, run, records):
            watcher.report(finding)
        watcher.update(training, records)
        observed += perf_counter() - paused
    run.write_summary(summary(training, "finished", observed))
    return "finished"


def _observe(training: Training, run: RunDirectory, records: list[Record]) -> list[Finding]:
    """Record what is due after a step, at the end of the budget everything; return what a probe found for the first time."""
    config, step, last = training.config, training.step, training.progress >= 1
    line: dict[str, Any] = {}
    better = False
    if last or step % config.evaluate_every == 0:
        training.metrics = line["metrics"] = training.evaluate()
        score = training.score(training.metrics)
        better = training.best is None or score < training.best["score"]
        if better:
            training.best = {"score": score, "step": step}
    new: list[Finding] = []
    if last or step % config.probe_every == 0:
        probe = training.probe()
        line["probe"] = asdict(probe)
        new = training.note(probe.findings, step)
    if last or line or step % config.log_every == 0:
        run.log({"step": step, "seconds": round(training.seconds, 4), **_numbers(records), **line})
    if last or step % config.sample_every == 0:
        run.save_picture(training.picture(), step)
    if last or better or step % config.checkpoint_every == 0:
        run.save_checkpoint(training.state_dict(), step, config.keep_checkpoints, best=better)
    return new


def _numbers(records: list[Record]) -> dict[str, Any]:
    """Merge the records of one step's turns; of a player that moved twice the last one stays."""
    merged: dict[str, Any] = {"losses": {}, "gradient_norms": {}, "direction_norms": {}, "solves": {}}
    for record in records:
        for name in ("losses", "gradient_norms", "direction_norms"):
            merged[name] |= getattr(record, name)
        merged["solves"] |= {name: asdict(report) for name, report in record.solves.items()}
    return {name: value for name, value in merged.items() if value}


def summary(training: Training, status: Status, observed: float = math.nan) -> dict[str, Any]:
    """Return what ``summary.json`` holds.

    ``cost`` counts passes over one player's loss: a step of two players takes two gradients. ``observing_seconds`` is the time that
    evaluation, pictures and checkpoints took since the last start; it is not part of ``seconds``.
    """
    config, optimizer = training.config, training.optimizer
    return {
        "problem": config.problem.name,
        "rule": config.rule.name,
        "optimizer": config.optimizer.name,
        "seed": config.seed,
        "status": status,
        "steps": training.step,
        "seconds": training.seconds,
        "seconds_per_step": training.seconds / training.step if training.step else None,
        "observing_seconds": observed,
        "cost": asdict(optimizer.cost),
        "unconverged_solves": optimizer.unconverged,
        "metrics": training.metrics,
        "best": training.best,
        "findings": list(training.findings.values()),
        "extractors": training.problem.extractors(),
        "evaluation": {"samples": config.evaluation_samples, "seed": config.evaluation_seed},
    }
