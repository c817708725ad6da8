"""Diagnosing a run afterwards: the findings in its log, and what is measured again at one of its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from torch import Tensor

from saddlepoint.data import generator_for
from saddlepoint.diagnostics import (
    Finding,
    GameSpectrum,
    History,
    PathAngle,
    Probe,
    game_spectrum,
    path_angle,
)
from saddlepoint.diagnostics import diagnose as diagnose_history
from saddlepoint.diagnostics.figures import figures
from saddlepoint.errors import DivergenceError, DoubleBackwardError, UsageError
from saddlepoint.game import Closure
from saddlepoint.problems.base import DISCRIMINATOR, GENERATOR, Batch
from saddlepoint.training.run_directory import At, RunDirectory
from saddlepoint.training.training import Training

SAMPLES = 256
"""Size of the batch for spectrum and path: their eigenvalues and angles should be the game's, not a mini-batch's."""


@dataclass(frozen=True)
class Diagnosis:
    """What is known of a run.

    Attributes:
        step: of the checkpoint that was looked at.
        findings: what holds at the end of the log, ranked.
        probe: measured at the checkpoint.
        spectrum: the game's eigenvalues there, if asked for.
        path: the field on the way from an earlier checkpoint.
        path_from: that checkpoint's step.
        unmeasured: name → reason.
        history: the log.
    """

    step: int
    findings: list[Finding]
    probe: Probe
    spectrum: GameSpectrum | None
    path: PathAngle | None
    path_from: int | None
    unmeasured: dict[str, str]
    history: History

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the log in plain containers."""
        return {
            "step": self.step,
            "findings": [finding.to_dict() for finding in self.findings],
            "probe": asdict(self.probe),
            "spectrum": None if self.spectrum is None else self.spectrum.to_dict(),
            "path": (
                None
                if self.path is None
                else {
                    **asdict(self.path),
                    "from_step": self.path_from,
                    "summary": self.path.summary,
                }
            ),
            "unmeasured": self.unmeasured,
        }

    def lines(self) -> list[str]:
        """Return what a reader should see first: the findings, then what was measured at the checkpoint."""
        said = [f"{finding.level}: {finding.message}" for finding in self.findings]
        if not said:
            said = [
                f"No finding in {self.history.last_step} steps, {len(self.history.probes())}"
                " probes."
            ]
        said.append(f"At step {self.step}: {'; '.join(_numbers(self.probe))}.")
        if self.spectrum is not None:
            said.append(_of_spectrum(self.spectrum))
        if self.path is not None:
            said.append(
                f"From step {self.path_from} to {self.step} the path angle shows"
                f" {self.path.summary}."
            )
        unmeasured = {**self.probe.unmeasured, **self.unmeasured}
        return said + [
            f"Not measured: {name}, because {reason.rstrip('.')}."
            for name, reason in unmeasured.items()
        ]

    def figures(self) -> dict[str, bytes]:
        """Return name → PNG of what there is to see."""
        return figures(self.history, self.findings, self.spectrum, self.path)


def diagnose(run: RunDirectory, at: At = "last", *, spectrum: bool = False) -> Diagnosis:
    """Check a run's log, and measure again at a checkpoint: the probe, the way from the earliest kept one, and the spectrum.

    Args:
        run: the run's directory.
        at: which checkpoint.
        spectrum: whether to look for eigenvalues, which takes some hundred Jacobian products.

    Raises:
        UsageError: the checkpoint does not exist or does not belong to the run.
    """
    config = run.read_config()
    training = Training(config)
    training.problem.load()
    training.load_state_dict(run.load_checkpoint(config, at))
    history, unmeasured = run.history(training.problem), dict[str, str]()
    return Diagnosis(
        step=training.step,
        findings=diagnose_history(history),
        probe=training.probe(),
        spectrum=_spectrum(training, unmeasured) if spectrum else None,
        path=_path(training, run, unmeasured),
        path_from=_earlier(training, run),
        unmeasured=unmeasured,
        history=history,
    )


def _closure(training: Training) -> Closure:
    problem, seed = training.problem, training.config.seed
    batch = Batch(
        problem.real(training.step, SAMPLES, seed),
        problem.noise(SAMPLES, generator_for(seed, "diagnosis")),
    )
    return partial(
        problem.losses, training.networks, batch.to(training.device), (DISCRIMINATOR, GENERATOR)
    )


def _spectrum(training: Training, unmeasured: dict[str, str]) -> GameSpectrum | None:
    try:
        with training.own_randomness():
            return game_spectrum(training.networks, _closure(training), leader=GENERATOR)
    except (DoubleBackwardError, DivergenceError, UsageError) as error:
        unmeasured["spectrum"] = str(error)
        return None


def _earlier(training: Training, run: RunDirectory) -> int | None:
    """Return the earliest checkpoint before the present step that is kept."""
    steps = [step for step in run.checkpoint_steps() if step < training.step]
    return steps[0] if steps else None


def _path(training: Training, run: RunDirectory, unmeasured: dict[str, str]) -> PathAngle | None:
    start = _earlier(training, run)
    if start is None:
        unmeasured["path"] = (
            "there is no earlier checkpoint to start from; keep more with keep_checkpoints"
        )
        return None
    earlier: Mapping[str, Mapping[str, Tensor]] = run.load_checkpoint(training.config, start)[
        "networks"
    ]
    now = {player: network.state_dict() for player, network in training.networks.items()}
    try:
        with training.own_randomness():
            return path_angle(training.networks, _closure(training), earlier, now)
    except (DivergenceError, UsageError) as error:
        unmeasured["path"] = str(error)
        return None


def _numbers(probe: Probe) -> list[str]:
    norms = ", ".join(
        f"‖ξ‖ {norm:.2g} of the {player}" for player, norm in probe.gradients.norms.items()
    )
    said = [
        norms,
        f"discriminator right in {probe.accuracy:.0%}",
        f"samples {probe.diversity:.2g} times as far apart as data",
    ]
    if probe.antisymmetric is not None:
        said.append(f"{probe.antisymmetric:.0%} rotation along the field")
    if probe.membership_auc is not None:
        said.append(f"training samples ranked above held-out ones in {probe.membership_auc:.0%}")
    return said


def _of_spectrum(spectrum: GameSpectrum) -> str:
    leading = ", ".join(f"{value:.2g}" for value in spectrum.leading[:3])
    classes = ", ".join(spectrum.classes) or "no class holds beyond the tolerance"
    complete = "" if spectrum.converged else "; some eigenvalues did not converge"
    return (
        f"Spectrum: {classes} (leading eigenvalues {leading}, ‖ξ‖"
        f" {spectrum.gradient_norm:.2g}{complete})."
    )
