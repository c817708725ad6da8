"""One training: the live objects that a configuration describes, one step of them, and their complete state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from time import perf_counter
from typing import Any

import torch
from PIL import Image
from torch import nn

from saddlepoint import registry
from saddlepoint.curvature.replay import Replay
from saddlepoint.diagnostics import Finding, GradientHealth, gradient_health, saturation, vanishing_gradients
from saddlepoint.game_optimizer import GameOptimizer, Record
from saddlepoint.games import GAN_LOSSES
from saddlepoint.models import moving_average
from saddlepoint.problems.base import DISCRIMINATOR, GENERATOR
from saddlepoint.training.config import RunConfig
from saddlepoint.training.randomness import OwnRandomness

PROBE_BATCHES = 4
"""Mini-batches of a probe: enough for a signal-to-noise ratio, a small share of the time at the default of 24 probes a run."""


@dataclass(frozen=True)
class Probe:
    """What a probe found at one step."""

    gradients: GradientHealth
    saturated: dict[str, float]
    findings: list[Finding]


class Training:
    """Networks, their game optimizer and the generator's moving average, somewhere along the way.

    The batch of a step is a function of (seed, step), so the position in the data is the step itself.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.device = torch.device(config.device)
        self.problem = registry.build_problem(config.problem.name, config.problem.options)
        self.networks = {player: network.to(self.device) for player, network in self.problem.networks(config.seed).items()}
        self.optimizer = GameOptimizer(
            {
                player: registry.build_optimizer(config.optimizer.name, network.named_parameters(), config.optimizer.options_for(player))
                for player, network in self.networks.items()
            },
            registry.build_rule(config.rule.name, config.rule.options),
            modules=self.networks.values(),
        )
        self.ema = moving_average(self.networks[GENERATOR], config.ema)
        self.step = 0
        self.seconds = 0.0
        self.metrics: dict[str, float] = {}
        self.best: dict[str, float] | None = None
        self.initial: GradientHealth | None = None
        self.findings: dict[str, dict[str, Any]] = {}
        self._random = OwnRandomness(config.seed, self.device)
        self._turns = _turns(config)
        self._by_gradient: set[str] = set()
        self._rates = {player: [group["lr"] for group in inner.param_groups] for player, inner in self.optimizer.optimizers.items()}

    def advance(self) -> list[Record]:
        """Take one training step: every turn of the scheme once, then the moving average."""
        started = perf_counter()
        self._set_learning_rates()
        records = []
        with self._random.installed():
            for turn, movers in enumerate(self._turns):
                self.optimizer.step(partial(self.problem.losses, self.networks, self._batch(turn), movers))
                assert self.optimizer.last is not None
                records.append(self.optimizer.last)
                self._by_gradient |= set(self.optimizer.last.gradient_norms)
        self.ema.update_parameters(self.networks[GENERATOR])
        self.step += 1
        self.seconds += perf_counter() - started
        return records

    @property
    def progress(self) -> float:
        """The share of the budget that is used, from 0 to 1; of steps and seconds the one further along."""
        by_steps = self.step / self.config.steps if self.config.steps else 0.0
        by_seconds = self.seconds / self.config.seconds if self.config.seconds else 0.0
        return min(max(by_steps, by_seconds), 1.0)

    def evaluate(self, samples: int | None = None, seed: int | None = None) -> dict[str, float]:
        """Return the metrics of the generator on the held-out data, under ``ema/…`` those of its moving average.

        Where the rule or the generator's optimizer keeps an average of its own, its metrics are under ``average/…``.
        """
        n = self.config.evaluation_samples if samples is None else samples
        seed = self.config.evaluation_seed if seed is None else seed
        found = {**self._measured("", self.networks[GENERATOR], n, seed), **self._measured("ema/", self.ema.module, n, seed)}
        if self.step and self.optimizer.keeps_average:
            with self.optimizer.averaged():
                found |= self._measured("average/", self.networks[GENERATOR], n, seed)
        return found

    def _measured(self, prefix: str, network: nn.Module, n: int, seed: int) -> dict[str, float]:
        metrics = self.problem.metrics(self.problem.generate(network, n, seed, "evaluation"))
        return {prefix + name: value for name, value in metrics.items()}

    def score(self, metrics: Mapping[str, float]) -> float:
        """Return what the best checkpoint has least of: the problem's score of the averaged generator."""
        return self.problem.score({name.removeprefix("ema/"): value for name, value in metrics.items() if name.startswith("ema/")})

    def picture(self, n: int | None = None, seed: int | None = None, *, ema: bool = True) -> Image.Image:
        """Return a picture of n samples, by default the problem's number, from noise that is the same at every step."""
        network = self.ema.module if ema else self.networks[GENERATOR]
        n = self.problem.picture_samples if n is None else n
        return self.problem.picture(self.problem.generate(network, n, self.config.seed if seed is None else seed, "samples"))

    def probe(self) -> Probe:
        """Measure the gradients on the next mini-batches, and how many of the discriminator's outputs are flat; nothing changes by it.

        Findings compare with the first probe. A player that the rule moves without its gradient has none.
        """
        everyone = (DISCRIMINATOR, GENERATOR)
        first = self.step * self.config.discriminator_steps
        batches = [self.problem.batch(first + k, self.config.batch_size, self.config.seed).to(self.device) for k in range(PROBE_BATCHES)]
        with self._random.installed(), Replay(self.networks.values(), cuda=self.device.type == "cuda").again():
            health = gradient_health(self.networks, [partial(self.problem.losses, self.networks, batch, everyone) for batch in batches])
            logits = [self.problem.logits(self.networks, batch) for batch in batches]
        real, fake = (torch.cat(parts) for parts in zip(*logits, strict=True))
        saturated = saturation(GAN_LOSSES[self.problem.loss], real, fake)
        self.initial = health if self.initial is None else self.initial
        findings = vanishing_gradients(self.initial, health, saturated)
        return Probe(health, saturated, [finding for finding in findings if finding.player in self._by_gradient])

    def note(self, findings: list[Finding], step: int) -> list[Finding]:
        """Keep the findings that are new with the step of their onset, and return those."""
        new = [finding for finding in findings if f"{finding.name} {finding.player}" not in self.findings]
        self.findings |= {f"{finding.name} {finding.player}": {"step": step, **asdict(finding)} for finding in new}
        return new

    def finite(self) -> bool:
        """Say whether every parameter is finite."""
        return all(bool(p.isfinite().all()) for network in self.networks.values() for p in network.parameters())

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on, in plain containers that load with ``weights_only=True``."""
        return {
            "config": self.config.digest(),
            "step": self.step,
            "seconds": self.seconds,
            "networks": {player: network.state_dict() for player, network in self.networks.items()},
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": self._random.state_dict(),
            "metrics": dict(self.metrics),
            "best": self.best,
            "initial": None if self.initial is None else asdict(self.initial),
            "findings": dict(self.findings),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``state_dict`` returned."""
        self.step, self.seconds = state["step"], state["seconds"]
        for player, network in self.networks.items():
            network.load_state_dict(state["networks"][player])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._random.load_state_dict(state["random"])
        self.metrics, self.best = dict(state["metrics"]), state["best"]
        self.initial = None if state["initial"] is None else GradientHealth(**state["initial"])
        self.findings = dict(state["findings"])

    def _batch(self, turn: int) -> Any:
        """Return the batch of a turn; turns of one player after the other see the same one, further discriminator turns new ones."""
        extra = min(turn, self.config.discriminator_steps - 1)
        number = self.step * self.config.discriminator_steps + extra
        return self.problem.batch(number, self.config.batch_size, self.config.seed).to(self.device)

    def _set_learning_rates(self) -> None:
        factor = 1 - self.progress if self.config.schedule == "linear" else 1.0
        for player, inner in self.optimizer.optimizers.items():
            for group, rate in zip(inner.param_groups, self._rates[player], strict=True):
                group["lr"] = rate * factor


def _turns(config: RunConfig) -> list[tuple[str, ...]]:
    """Return who moves together, in order, in one training step."""
    alone: list[tuple[str, ...]] = [(DISCRIMINATOR,)] * config.discriminator_steps
    if config.scheme == "simultaneous":
        return [*alone[1:], (DISCRIMINATOR, GENERATOR)]
    return [*alone, (GENERATOR,)]


def network_sizes(networks: Mapping[str, nn.Module]) -> dict[str, int]:
    """Return player → number of parameters."""
    return {player: sum(p.numel() for p in network.parameters()) for player, network in networks.items()}
