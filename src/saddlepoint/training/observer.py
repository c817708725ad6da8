"""What is observed between the steps of a training, and recorded in its run directory: the log, findings, pictures, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from time import perf_counter
from typing import Any, Literal, Protocol

from saddlepoint.diagnostics import LOSS_RANGES, Finding, History, diagnose
from saddlepoint.errors import DivergenceError
from saddlepoint.step_result import StepResult
from saddlepoint.training.agreement import check_parameters
from saddlepoint.training.run_directory import RunDirectory
from saddlepoint.training.training import Training

Status = Literal["finished", "stopped early", "interrupted", "diverged"]


class Watcher(Protocol):
    """Something that shows how training goes."""

    def update(self, training: Training, records: list[StepResult]) -> None:
        """Called after every step."""

    def report(self, sentence: str) -> None:
        """Called with what the user should know now: a new finding, a roll-back."""

    def evaluating(self, done: int, total: int) -> None:
        """Called as an evaluation goes on, with ``done`` from 0 to ``total`` metrics."""


class SilentWatcher:
    """Shows nothing."""

    def update(self, training: Training, records: list[StepResult]) -> None: ...

    def report(self, sentence: str) -> None: ...

    def evaluating(self, done: int, total: int) -> None: ...


class Observer:
    """Records a training into its run directory and diagnoses it.

    Attributes:
        spent: seconds spent here, which is not training time: on "all" of it, on "metrics", and on
            "probes" with their checks.
        findings: what holds at present, ranked.
    """

    def __init__(self, training: Training, run: RunDirectory, watcher: Watcher) -> None:
        self.training, self.run, self.watcher = training, run, watcher
        self.spent = {"all": 0.0, "metrics": 0.0, "probes": 0.0}
        self._started_at = training.seconds
        self.history = self._read_history()
        self.findings: list[Finding] = diagnose(self.history)
        self._reported = {finding.key for finding in self.findings}

    def start(self) -> None:
        """StepResult the untrained networks, whose gradients later ones are compared with; a resumed run has them."""
        if self.training.step == 0 and not self.history.last:
            with self._timed("all"):
                self._picture()
                self._log([], {"probe": self._probe()})
                self._checkpoint(better=False)

    def after_step(self, records: list[StepResult]) -> None:
        """StepResult what is due after a step, at the end of the budget everything."""
        with self._timed("all"):
            self._observe(records)
            self.watcher.update(self.training, records)

    @property
    def patient(self) -> bool:
        """Whether the best evaluation is less than ``patience`` evaluations old."""
        config, best = self.training.config, self.training.best
        return (
            config.patience is None
            or best is None
            or self.training.step - best["step"] < config.patience * config.evaluate_every
        )

    @property
    def seconds_here(self) -> float:
        """Training time since the last start."""
        return self.training.seconds - self._started_at

    def diverged(self, error: DivergenceError) -> None:
        """Log the origin of the first non-finite tensor in the step that failed."""
        with self._timed("all"):
            origin = self.training.distributed.broadcast(
                lambda: self.training.locate(error).to_dict()
            )
            points = self.training.trace.state_dict()
            self._log(
                [],
                {"divergence": {"step": self.training.step + 1, "message": str(error), **origin}},
            )
            # a run that goes on from here drops this line
            self.training.trace.load_state_dict(points)

    def roll_back(self) -> bool:
        """Go back to the last checkpoint with smaller steps, if the policy allows it once more; say whether it did."""
        training, config = self.training, self.training.config
        if config.on_divergence == "stop" or training.rollbacks >= config.max_rollbacks:
            return False
        with self._timed("all"):
            failed, rollbacks, factor = (
                training.step + 1,
                training.rollbacks + 1,
                training.rate_factor / 2,
            )
            divergence = self.history.last["divergence"]
            training.load_state_dict(
                training.distributed.broadcast(
                    lambda: self.run.load_checkpoint(config, training.checkpointed)
                )
            )
            training.rollbacks, training.rate_factor = rollbacks, factor
            self.run.truncate_log(training.step)
            self.history = self._read_history()
            self._log(
                [],
                {
                    "rollback": {
                        "number": rollbacks,
                        "failed_step": failed,
                        "rate_factor": factor,
                        "divergence": divergence,
                    }
                },
            )
            # with the smaller rate, so that a resumed run has it too
            self._checkpoint(better=False)
            self.run.drop_checkpoints_after(training.step)
        self.watcher.report(
            f"Step {failed} diverged; back to step {training.step} with learning rates ×"
            f" {factor:g}. {divergence['description']}"
        )
        return True

    def end(self, status: Status, error: DivergenceError | None = None) -> Status:
        """Write the summary, and a checkpoint of an interrupted or diverged run; return the status."""
        training = self.training
        if status == "interrupted" or (status == "diverged" and training.finite()):
            self._save(better=False)
        self.findings = diagnose(self.history)
        said = {} if error is None else {"error": f"Step {training.step + 1}: {error}"}
        self.run.write_summary(summary(training, status, self) | said)
        return status

    def _observe(self, records: list[StepResult]) -> None:
        training, config, step = self.training, self.training.config, self.training.step
        last = training.progress >= 1
        line: dict[str, Any] = {}
        with self._timed("probes"):
            self._follow(records, last)
        better = False
        if last or step % config.evaluate_every == 0:
            with self._timed("metrics"):
                line["metrics"], better = self._evaluate()
        # nothing comes after it, so it has everything that the end of the budget has
        last = last or not self.patient
        if last or step % config.probe_every == 0:
            with self._timed("probes"):
                line["probe"] = self._probe()
                training.updates.forget()
        if last or line or step % config.log_every == 0:
            self._log(records, line)
        if "probe" in line:
            with self._timed("probes"):
                self._diagnose()
        if last or step % config.sample_every == 0:
            self._picture()
        if last or better or step % config.checkpoint_every == 0:
            self._checkpoint(better=better)

    def _probe(self) -> dict[str, Any]:
        """Return a probe of the whole batch, taken by one process for all."""
        return self.training.distributed.broadcast(lambda: asdict(self.training.probe()))

    def _read_history(self) -> History:
        """Return the log as the checks read it."""
        problem = self.training.problem
        return History(
            loss=problem.loss,
            coverage=problem.coverage_metric,
            lines=self.training.distributed.broadcast(self.run.read_log),
        )

    def _follow(self, records: list[StepResult], last: bool) -> None:
        """Keep what probes and checks need of the steps between them."""
        training, config, step = self.training, self.training.config, self.training.step
        if last or step % config.trace_every == 0:
            training.trace.sample(
                step, {player: loss for record in records for player, loss in record.losses.items()}
            )
        if config.probe_every > 2 and -step % config.probe_every <= 2:
            training.updates.keep(step)

    def _evaluate(self) -> tuple[dict[str, float], bool]:
        """Return the metrics, and whether they are the best so far."""
        training = self.training
        training.metrics = training.evaluate(progress=self.watcher.evaluating)
        score = training.score(training.metrics)
        better = training.best is None or score < training.best["score"]
        if better:
            training.best = {"score": score, "step": training.step}
        return training.metrics, better

    def _diagnose(self) -> None:
        self.findings = diagnose(self.history)
        for finding in self.findings:
            if finding.key not in self._reported and finding.level != "note":
                self._reported.add(finding.key)
                self.watcher.report(finding.message)

    def _log(self, records: list[StepResult], extra: dict[str, Any]) -> None:
        training, trace = self.training, self.training.trace.take()
        points = {"trace": trace} if trace["steps"] else {}
        # of finished steps only
        spent = {"gradient_equivalents": round(training.gradient_equivalents, 2)} if records else {}
        line = {
            "step": training.step,
            "seconds": round(training.seconds, 4),
            **spent,
            **_numbers(records),
            **points,
            **extra,
        }
        self.run.log(line)
        self.history.add(line)

    def _picture(self) -> None:
        self.run.save_picture(self.training.picture(), self.training.step)

    def _checkpoint(self, *, better: bool) -> None:
        """Save a state to roll back to; that of an interruption is none, so that a resumed run rolls back as the straight one does."""
        check_parameters(self.training)
        self.training.checkpointed = self.training.step
        self._save(better=better)

    def _save(self, *, better: bool) -> None:
        training, keep = self.training, self.training.config.keep_checkpoints
        self.run.save_checkpoint(
            training.state_dict(), training.step, keep, spare=training.checkpointed, best=better
        )

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        started = perf_counter()
        yield
        self.spent[what] += perf_counter() - started


def summary(training: Training, status: Status, observer: Observer | None = None) -> dict[str, Any]:
    """Return what ``summary.json`` holds.

    ``cost`` counts passes over one player's loss: a step of two players takes two gradients.
    ``seconds_here`` is the training time since the last start, ``observing_seconds`` what
    evaluation, probes, pictures and checkpoints took beside it, ``evaluating_seconds`` the part of
    metrics and ``probing_seconds`` that of probes and checks. ``loss_ranges`` and ``metric_names``
    say how to read losses and metrics to whoever has the file alone; an infinite bound
    becomes null.
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
        "seconds_here": observer.seconds_here if observer else math.nan,
        "observing_seconds": observer.spent["all"] if observer else math.nan,
        "evaluating_seconds": observer.spent["metrics"] if observer else math.nan,
        "probing_seconds": observer.spent["probes"] if observer else math.nan,
        "cost": asdict(optimizer.cost),
        "unconverged_solves": optimizer.unconverged,
        "rollbacks": training.rollbacks,
        "metrics": training.metrics,
        "best": training.best,
        "findings": [finding.to_dict() for finding in observer.findings] if observer else [],
        "loss_ranges": {
            player: asdict(healthy)
            for player, healthy in LOSS_RANGES[training.problem.loss].items()
        },
        "metric_names": {
            name: asdict(metric) for name, metric in training.problem.metric_names.items()
        },
        "extractors": training.problem.extractors(),
        "evaluation": {"samples": config.evaluation_samples, "seed": config.evaluation_seed},
    }


def _numbers(records: list[StepResult]) -> dict[str, Any]:
    """Merge the records of one step's turns; of a player that moved twice the last one stays."""
    merged: dict[str, Any] = {
        "losses": {},
        "terms": {},
        "gradient_norms": {},
        "direction_norms": {},
        "solves": {},
    }
    for record in records:
        for name in ("losses", "terms", "gradient_norms", "direction_norms"):
            merged[name] |= getattr(record, name)
        merged["solves"] |= {name: asdict(report) for name, report in record.solves.items()}
    return {name: value for name, value in merged.items() if value}
