"""Diagnosis of a finished or stopped run, from its log and one of its checkpoints."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

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
from saddlepoint.problems.base import DISCRIMINATOR, GENERATOR, Batch
from saddlepoint.training.probes import take_probe
from saddlepoint.training.run_directory import At, RunDirectory
from saddlepoint.training.trainer import Trainer

SAMPLES = 256
"""Batch size for spectrum and path angle, which should not depend on one mini-batch."""


@dataclass(frozen=True)
class Diagnosis:
    """The diagnosis of a run.

    Attributes:
        step: step of the checkpoint that was measured.
        findings: findings at the end of the log, ranked.
        probe: the probe at the checkpoint.
        spectrum: the game's eigenvalues there, if asked for.
        path: angles of the field on the way from an earlier checkpoint.
        path_from: step of the earlier checkpoint.
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
        """Return everything except the log in plain containers."""
        path = None
        if self.path is not None:
            summary = self.path.summary
            path = {**asdict(self.path), "from_step": self.path_from, "summary": summary}
        return {
            "step": self.step,
            "findings": [finding.to_dict() for finding in self.findings],
            "probe": asdict(self.probe),
            "spectrum": None if self.spectrum is None else self.spectrum.to_dict(),
            "path": path,
            "unmeasured": self.unmeasured,
        }

    def lines(self) -> list[str]:
        """Return the findings as text, then what was measured at the checkpoint."""
        lines = [f"{finding.level}: {finding.message}" for finding in self.findings]
        if not lines:
            probes = len(self.history.probes())
            lines = [f"No finding in {self.history.last_step} steps, {probes} probes."]

        probe = self.probe
        norms = [f"‖ξ‖ {norm:.2g} of the {name}" for name, norm in probe.gradients.norms.items()]
        numbers = [
            ", ".join(norms),
            f"discriminator right in {probe.accuracy:.0%}",
            f"samples {probe.diversity:.2g} times as far apart as data",
        ]
        if probe.antisymmetric is not None:
            numbers.append(f"{probe.antisymmetric:.0%} rotation along the field")
        if probe.membership_auc is not None:
            numbers.append(
                f"training samples ranked above held-out ones in {probe.membership_auc:.0%}"
            )
        lines.append(f"At step {self.step}: {'; '.join(numbers)}.")

        if self.spectrum is not None:
            leading = ", ".join(f"{value:.2g}" for value in self.spectrum.leading[:3])
            classes = ", ".join(self.spectrum.classes) or "no class holds beyond the tolerance"
            warning = "" if self.spectrum.converged else "; some eigenvalues did not converge"
            lines.append(
                f"Spectrum: {classes} (leading eigenvalues {leading}, ‖ξ‖"
                f" {self.spectrum.gradient_norm:.2g}{warning})."
            )
        if self.path is not None:
            lines.append(
                f"From step {self.path_from} to {self.step} the path angle shows"
                f" {self.path.summary}."
            )
        for name, reason in {**probe.unmeasured, **self.unmeasured}.items():
            lines.append(f"Not measured: {name}, because {reason.rstrip('.')}.")
        return lines

    def figures(self) -> dict[str, bytes]:
        """Return name → PNG."""
        return figures(self.history, self.findings, self.spectrum, self.path)


def diagnose(run: RunDirectory, at: At = "last", *, spectrum: bool = False) -> Diagnosis:
    """Diagnose a run from its log, and measure at a checkpoint.

    A probe is taken there, the path angle from the earliest checkpoint that is kept, and the
    spectrum if asked for.

    Args:
        run: the run's directory.
        at: which checkpoint.
        spectrum: whether to compute eigenvalues, which takes some hundred Jacobian products.

    Raises:
        UsageError: the checkpoint does not exist or does not belong to the run.
    """
    config = run.read_config()
    trainer = Trainer(config)
    trainer.problem.load()
    trainer.load_state_dict(run.load_checkpoint(config, at))
    history, unmeasured = run.history(trainer.problem), dict[str, str]()
    problem, networks = trainer.problem, trainer.networks
    batch = Batch(
        problem.real(trainer.step, SAMPLES, config.seed),
        problem.noise(SAMPLES, generator_for(config.seed, "diagnosis")),
    )
    closure = partial(
        problem.losses, networks, batch.to(trainer.device), (DISCRIMINATOR, GENERATOR)
    )
    findings, probe = diagnose_history(history), take_probe(trainer)

    found: GameSpectrum | None = None
    if spectrum:
        try:
            with trainer.rng.scope():
                found = game_spectrum(networks, closure, leader=GENERATOR)
        except (DoubleBackwardError, DivergenceError, UsageError) as error:
            unmeasured["spectrum"] = str(error)

    earlier = [step for step in run.checkpoint_steps() if step < trainer.step]
    path: PathAngle | None = None
    if earlier:
        start = run.load_checkpoint(config, earlier[0])["networks"]
        now = {player: network.state_dict() for player, network in networks.items()}
        try:
            with trainer.rng.scope():
                path = path_angle(networks, closure, start, now)
        except (DivergenceError, UsageError) as error:
            unmeasured["path"] = str(error)
    else:
        unmeasured["path"] = (
            "there is no earlier checkpoint to start from; keep more with keep_checkpoints"
        )
    return Diagnosis(
        step=trainer.step,
        findings=findings,
        probe=probe,
        spectrum=found,
        path=path,
        path_from=earlier[0] if earlier else None,
        unmeasured=unmeasured,
        history=history,
    )
