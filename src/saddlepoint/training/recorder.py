"""Records a training run: the log, findings, pictures, checkpoints and the summary."""

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
from saddlepoint.training.evaluator import Evaluator
from saddlepoint.training.probes import take_probe
from saddlepoint.training.run_directory import RunDirectory
from saddlepoint.training.trainer import Trainer

Status = Literal["finished", "stopped early", "interrupted", "diverged"]


class Watcher(Protocol):
    """Displays the progress of training."""

    def update(self, trainer: Trainer, results: list[StepResult]) -> None:
        """Called after every step."""

    def report(self, message: str) -> None:
        """Called with a message for the user: a new finding, a roll-back."""

    def evaluating(self, done: int, total: int) -> None:
        """Called during an evaluation, with ``done`` from 0 to ``total`` metrics."""


class SilentWatcher:
    """Displays nothing."""

    def update(self, trainer: Trainer, results: list[StepResult]) -> None: ...

    def report(self, message: str) -> None: ...

    def evaluating(self, done: int, total: int) -> None: ...


class Recorder:
    """Records a training run into its directory and diagnoses it.

    Args:
        trainer: the run.
        run: its directory.
        watcher: displays the progress.

    Attributes:
        spent: seconds spent here, which are not training time: "all", "metrics", and "probes" with
            the findings made of them.
        findings: the present findings, ranked.
    """

    def __init__(self, trainer: Trainer, run: RunDirectory, watcher: Watcher) -> None:
        self.trainer, self.run, self.watcher = trainer, run, watcher
        self.evaluator = Evaluator(trainer)
        self.spent = {"all": 0.0, "metrics": 0.0, "probes": 0.0}
        self._started_at = trainer.seconds
        self.history = self._read_history()
        self.findings: list[Finding] = diagnose(self.history)
        self._reported = {finding.key for finding in self.findings}

    def start(self) -> None:
        """Record the untrained networks, whose gradients later ones are compared with."""
        if self.trainer.step == 0 and not self.history.last:  # a resumed run has this record
            with self._timed("all"):
                self.run.save_picture(self.evaluator.picture(), self.trainer.step)
                self._log([], {"probe": self._probe()})
                self._checkpoint(better=False)

    def record_step(self, results: list[StepResult]) -> None:
        """Record what is due after a step; after the last step, everything is due."""
        trainer, config, step = self.trainer, self.trainer.config, self.trainer.step
        with self._timed("all"):
            last = trainer.progress >= 1
            line: dict[str, Any] = {}

            # what probes and findings need of the steps between them
            with self._timed("probes"):
                if last or step % config.trace_every == 0:
                    losses: dict[str, float] = {}
                    for result in results:
                        losses.update(result.losses)
                    trainer.trace.sample(step, losses)
                if config.probe_every > 2 and -step % config.probe_every <= 2:
                    trainer.updates.keep(step)

            better = False
            if last or step % config.evaluate_every == 0:
                with self._timed("metrics"):
                    trainer.metrics = self.evaluator.evaluate(progress=self.watcher.evaluating)
                    score = self.evaluator.score(trainer.metrics)
                    better = trainer.best is None or score < trainer.best["score"]
                    if better:
                        trainer.best = {"score": score, "step": step}
                    line["metrics"] = trainer.metrics

            last = last or not self.patient  # the evaluation may have used up the patience
            if last or step % config.probe_every == 0:
                with self._timed("probes"):
                    line["probe"] = self._probe()
                    trainer.updates.forget()
            if last or line or step % config.log_every == 0:
                self._log(results, line)
            if "probe" in line:
                with self._timed("probes"):
                    self.findings = diagnose(self.history)
                    for finding in self.findings:
                        if finding.key not in self._reported and finding.level != "note":
                            self._reported.add(finding.key)
                            self.watcher.report(finding.message)
            if last or step % config.sample_every == 0:
                self.run.save_picture(self.evaluator.picture(), step)
            if last or better or step % config.checkpoint_every == 0:
                self._checkpoint(better=better)
            self.watcher.update(trainer, results)

    @property
    def patient(self) -> bool:
        """Whether the best evaluation is less than ``patience`` evaluations old."""
        config, best = self.trainer.config, self.trainer.best
        if config.patience is None or best is None:
            return True
        return self.trainer.step - best["step"] < config.patience * config.evaluate_every

    @property
    def seconds_here(self) -> float:
        """Training time since the last start."""
        return self.trainer.seconds - self._started_at

    def record_divergence(self, error: DivergenceError) -> None:
        """Record where the first non-finite tensor arose in the step that failed."""
        trainer = self.trainer
        with self._timed("all"):
            origin = trainer.distributed.broadcast(
                lambda: trainer.locate_divergence(error).to_dict()
            )
            points = trainer.trace.state_dict()
            divergence = {"step": trainer.step + 1, "message": str(error), **origin}
            self._log([], {"divergence": divergence})
            # a run that is resumed from here drops this line of the log
            trainer.trace.load_state_dict(points)

    def roll_back(self) -> bool:
        """Restore the last checkpoint with halved learning rates, if the configuration allows it.

        Returns:
            whether it was restored.
        """
        trainer, config = self.trainer, self.trainer.config
        if config.on_divergence == "stop" or trainer.rollbacks >= config.max_rollbacks:
            return False
        with self._timed("all"):
            failed_step, rollbacks = trainer.step + 1, trainer.rollbacks + 1
            lr_factor = trainer.lr_factor / 2
            divergence = self.history.last["divergence"]
            trainer.load_state_dict(
                trainer.distributed.broadcast(
                    lambda: self.run.load_checkpoint(config, trainer.checkpointed)
                )
            )
            trainer.rollbacks, trainer.lr_factor = rollbacks, lr_factor
            self.run.truncate_log(trainer.step)
            self.history = self._read_history()
            rollback = {
                "number": rollbacks,
                "failed_step": failed_step,
                "lr_factor": lr_factor,
                "divergence": divergence,
            }
            self._log([], {"rollback": rollback})
            # saved again, so that a resumed run has the smaller learning rates too
            self._checkpoint(better=False)
            self.run.drop_checkpoints_after(trainer.step)
        self.watcher.report(
            f"Step {failed_step} diverged; rolled back to step {trainer.step} with learning rates"
            f" × {lr_factor:g}. {divergence['description']}"
        )
        return True

    def finish(self, status: Status, error: DivergenceError | None = None) -> Status:
        """Write the summary, and a checkpoint of an interrupted or diverged run."""
        trainer = self.trainer
        if status == "interrupted" or (status == "diverged" and trainer.is_finite()):
            self._checkpoint(better=False, roll_back_here=False)
        self.findings = diagnose(self.history)
        content = summary(trainer, status, self)
        if error is not None:
            content["error"] = f"Step {trainer.step + 1}: {error}"
        self.run.write_summary(content)
        return status

    def _probe(self) -> dict[str, Any]:
        """Return a probe of the whole batch, which process 0 takes for all."""
        return self.trainer.distributed.broadcast(lambda: asdict(take_probe(self.trainer)))

    def _read_history(self) -> History:
        """Return the log as the diagnostics read it."""
        problem = self.trainer.problem
        return History(
            loss=problem.loss,
            coverage=problem.coverage_metric,
            lines=self.trainer.distributed.broadcast(self.run.read_log),
        )

    def _log(self, results: list[StepResult], extra: dict[str, Any]) -> None:
        """Append a line to the log; of a player with several turns the last result is logged."""
        trainer, trace = self.trainer, self.trainer.trace.take()
        line: dict[str, Any] = {"step": trainer.step, "seconds": round(trainer.seconds, 4)}
        if results:  # the cost of finished steps only
            line["gradient_equivalents"] = round(trainer.gradient_equivalents, 2)
        for name in ("losses", "terms", "gradient_norms", "direction_norms", "solves"):
            merged: dict[str, Any] = {}
            for result in results:
                merged.update(getattr(result, name))
            if name == "solves":
                merged = {solve: asdict(report) for solve, report in merged.items()}
            if merged:
                line[name] = merged
        if trace["steps"]:
            line["trace"] = trace
        line |= extra
        self.run.log(line)
        self.history.add(line)

    def _checkpoint(self, *, better: bool, roll_back_here: bool = True) -> None:
        """Save the state; a run rolls back to it unless it was saved because of an interruption.

        So a resumed run rolls back to the same step as an uninterrupted one.
        """
        trainer = self.trainer
        if roll_back_here:
            check_parameters(trainer)
            trainer.checkpointed = trainer.step
        self.run.save_checkpoint(
            trainer.state_dict(),
            trainer.step,
            trainer.config.keep_checkpoints,
            spare=trainer.checkpointed,
            best=better,
        )

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        started = perf_counter()
        yield
        self.spent[what] += perf_counter() - started


def summary(trainer: Trainer, status: Status, recorder: Recorder | None = None) -> dict[str, Any]:
    """Return the content of ``summary.json``.

    ``cost`` counts passes over one player's loss: a step of two players takes two gradients.
    ``seconds_here`` is the training time since the last start, ``observing_seconds`` the time of
    evaluation, probes, pictures and checkpoints, ``evaluating_seconds`` the part of the metrics and
    ``probing_seconds`` that of probes and findings. ``loss_ranges`` and ``metric_names`` describe
    losses and metrics for readers of the file alone; an infinite bound becomes null.
    """
    config, optimizer = trainer.config, trainer.optimizer
    return {
        "problem": config.problem.name,
        "rule": config.rule.name,
        "optimizer": config.optimizer.name,
        "seed": config.seed,
        "status": status,
        "steps": trainer.step,
        "seconds": trainer.seconds,
        "seconds_per_step": trainer.seconds / trainer.step if trainer.step else None,
        "seconds_here": recorder.seconds_here if recorder else math.nan,
        "observing_seconds": recorder.spent["all"] if recorder else math.nan,
        "evaluating_seconds": recorder.spent["metrics"] if recorder else math.nan,
        "probing_seconds": recorder.spent["probes"] if recorder else math.nan,
        "cost": asdict(optimizer.cost),
        "unconverged_solves": optimizer.unconverged,
        "rollbacks": trainer.rollbacks,
        "metrics": trainer.metrics,
        "best": trainer.best,
        "findings": [finding.to_dict() for finding in recorder.findings] if recorder else [],
        "loss_ranges": {
            player: asdict(healthy) for player, healthy in LOSS_RANGES[trainer.problem.loss].items()
        },
        "metric_names": {
            name: asdict(metric) for name, metric in trainer.problem.metric_names.items()
        },
        "extractors": trainer.problem.extractors(),
        "evaluation": {"samples": config.evaluation_samples, "seed": config.evaluation_seed},
    }
