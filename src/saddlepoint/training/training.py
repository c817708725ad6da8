"""One training: the live objects that a configuration describes, one step of them, and their complete state."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from time import perf_counter
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from saddlepoint import registry
from saddlepoint.diagnostics import Probe, Provenance, Trace, find_nonfinite
from saddlepoint.errors import DivergenceError, UsageError, did_you_mean
from saddlepoint.game import Closure
from saddlepoint.game_optimizer import GameOptimizer, Record
from saddlepoint.metrics import Measure
from saddlepoint.models import moving_average
from saddlepoint.problems.base import DISCRIMINATOR, GENERATOR, Batch
from saddlepoint.training.config import RunConfig
from saddlepoint.training.probes import LastUpdates, take_probe
from saddlepoint.training.randomness import OwnRandomness
from saddlepoint.training.state_check import blamed_on_state, check_state


class Training:
    """Networks, their game optimizer and the generator's moving average, somewhere along the way.

    The batch of a step is a function of (seed, step), so the position in the data is the step itself.

    Args:
        config: decides everything but the clock.
        clock: what training time is read from, in seconds: the wall clock, or ``time.process_time`` where a busy machine must not count.
    """

    def __init__(self, config: RunConfig, *, clock: Callable[[], float] = perf_counter) -> None:
        self.config = config
        self._clock = clock
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
        if (config.best_by or "").startswith("average/") and not self.optimizer.keeps_average:
            raise UsageError(
                f'Configuration: best_by="{config.best_by}", but neither rule {config.rule.name} nor optimizer {config.optimizer.name} '
                "keeps an average. Use its name with ema/, or without a prefix."
            )
        self.ema = moving_average(self.networks[GENERATOR], config.ema)
        self.step = 0
        self.seconds = 0.0
        self.metrics: dict[str, float] = {}
        self.best: dict[str, float] | None = None
        self.rollbacks = 0
        self.rate_factor = 1.0
        self.checkpointed = 0
        self.trace = Trace(self.networks, seed=config.seed)
        self.updates = LastUpdates(self.networks)
        self._random = OwnRandomness(config.seed, self.device)
        self._turns = _turns(config)
        self._turn = 0
        self._untried = False  # whether a state was loaded that no step was taken with yet
        self._rates = {player: [group["lr"] for group in inner.param_groups] for player, inner in self.optimizer.optimizers.items()}

    def advance(self) -> list[Record]:
        """Take one training step: every turn of the scheme once, then the moving average."""
        started = self._clock()
        self._set_learning_rates()
        records = []
        with blamed_on_state() if self._untried else nullcontext(), self._random.installed():
            for turn in range(len(self._turns)):
                self._turn = turn
                self.optimizer.step(self._closure())
                assert self.optimizer.last is not None
                records.append(self.optimizer.last)
        self.ema.update_parameters(self.networks[GENERATOR])
        self._untried = False
        self.step += 1
        self.seconds += self._clock() - started
        return records

    @property
    def progress(self) -> float:
        """The share of the budget that is used, from 0 to 1; of its bounds the one that is further along."""
        config = self.config
        bounds = ((self.step, config.steps), (self.seconds, config.seconds), (self.gradient_equivalents, config.gradient_equivalents))
        return min(max(used / bound for used, bound in bounds if bound), 1.0)

    @property
    def gradient_equivalents(self) -> float:
        """What the derivatives of all steps cost so far; see ``Cost.equivalents``."""
        return self.optimizer.cost.equivalents

    def evaluate(
        self, samples: int | None = None, seed: int | None = None, *, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> dict[str, float]:
        """Return the metrics of the generator on the held-out data, under ``ema/…`` those of its moving average.

        Where the rule or the generator's optimizer keeps an average of its own, its metrics are under ``average/…``.
        """
        measured = self.measures(samples, seed, progress=progress)
        return {prefix + name: measure.value for prefix, measures in measured.items() for name, measure in measures.items()}

    def measures(
        self, samples: int | None = None, seed: int | None = None, *, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> dict[str, dict[str, Measure]]:
        """Return the same with what each was measured on: prefix → metric → Measure."""
        n = self.config.evaluation_samples if samples is None else samples
        seed = self.config.evaluation_seed if seed is None else seed
        held = self._weights()
        names, found = len(self.problem.metric_names), dict[str, dict[str, Measure]]()
        for number, (prefix, context) in enumerate(held.items()):
            progress(number * names, len(held) * names)
            with context:
                drawn = self._drawn(prefix, n, seed)
            found[prefix] = {}
            for name, measure in self.problem.measures(drawn):
                found[prefix][name] = measure
                progress(number * names + len(found[prefix]), len(held) * names)
        return found

    def measured(self, names: Collection[str]) -> dict[str, float]:
        """Return the named metrics, prefixes included, and those of the same weights that are computed on the way to them.

        Raises:
            UsageError: a name is no metric of the problem, or one of an average that is not kept.
        """
        missing, found = set(names), dict[str, float]()
        for prefix, context in self._weights().items():
            wanted = {name for name in missing if weights_of(name) == prefix}
            with context:
                samples = self._drawn(prefix, self.config.evaluation_samples, self.config.evaluation_seed) if wanted else None
            for name, measure in self.problem.measures(samples) if samples is not None else ():
                found[prefix + name] = measure.value
                wanted.discard(prefix + name)
                missing.discard(prefix + name)
                if not wanted:
                    break
        if missing:
            known = [prefix + name for prefix in self._weights() for name in self.problem.metric_names]
            name = min(missing)
            raise UsageError(f'"{name}" is no metric of {self.problem.name} in this run.' + did_you_mean(name, known))
        return found

    def score(self, metrics: Mapping[str, float], by: str | None = None) -> float:
        """Return what the best evaluation has least of: by a metric, by ``best_by``, or else the problem's score of the averaged generator.

        Raises:
            UsageError: the metric was not measured, or is none by which one is better.
        """
        by = self.config.best_by if by is None else by
        if by is None:
            return self.problem.score({name.removeprefix("ema/"): value for name, value in metrics.items() if name.startswith("ema/")})
        directed = {name: better for name in metrics if (better := self.problem.metric_names[bare(name)].better)}
        if by not in directed:
            raise UsageError(f'"{by}" is no metric of this run by which one is better.' + did_you_mean(by, directed))
        return metrics[by] if directed[by] == "smaller" else -metrics[by]

    def picture(self, n: int | None = None, seed: int | None = None, *, ema: bool = True) -> Image.Image:
        """Return a picture of n samples, by default the problem's number, from noise that is the same at every step."""
        network = self.ema.module if ema else self.networks[GENERATOR]
        n = self.problem.picture_samples if n is None else n
        return self.problem.picture(self.problem.generate(network, n, self.config.seed if seed is None else seed, "samples"))

    def probe(self) -> Probe:
        """Measure gradients, saturation, rotation and diversity at the present point; nothing changes by it."""
        return take_probe(self)

    def locate(self, error: DivergenceError) -> Provenance:
        """Return where the NaN or infinity arose that ended the latest turn."""
        batch = self.batch(self._extra())
        data = {"the real samples": batch.real, "the generator's noise": batch.noise}
        with self.own_randomness():
            return find_nonfinite(self.networks, self._closure(), data, player=error.player)

    def batch(self, ahead: int = 0) -> Batch:
        """Return the next mini-batch, or the one ``ahead`` of it."""
        number = self.step * self.config.discriminator_steps + ahead
        return self.problem.batch(number, self.config.batch_size, self.config.seed).to(self.device)

    def own_randomness(self) -> AbstractContextManager[None]:
        """Draw from the run's own global random state inside."""
        return self._random.installed()

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
            "rollbacks": self.rollbacks,
            "rate_factor": self.rate_factor,
            "checkpointed": self.checkpointed,
            "trace": self.trace.state_dict(),
            "updates": self.updates.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``state_dict`` returned.

        Raises:
            UsageError: the state is not one of this configuration.
        """
        check_state(self, state)
        self._untried = True
        self.step, self.seconds = state["step"], state["seconds"]
        for player, network in self.networks.items():
            network.load_state_dict(state["networks"][player])
        self.ema.load_state_dict(state["ema"])
        with blamed_on_state():
            self.optimizer.load_state_dict(state["optimizer"])
        self._random.load_state_dict(state["random"])
        self.metrics, self.best = dict(state["metrics"]), state["best"]
        self.rollbacks, self.rate_factor, self.checkpointed = state["rollbacks"], state["rate_factor"], state["checkpointed"]
        self.trace.load_state_dict(state["trace"])
        self.updates.load_state_dict(state["updates"])

    def _weights(self) -> dict[str, AbstractContextManager[None]]:
        """Return the prefix of each kind of weights that is kept, with what puts them into the generator."""
        held: dict[str, AbstractContextManager[None]] = {"": nullcontext(), "ema/": nullcontext()}
        if self.step and self.optimizer.keeps_average:
            held["average/"] = self.optimizer.averaged()
        return held

    def _drawn(self, prefix: str, n: int, seed: int) -> Tensor:
        """Return n generated samples that are to be measured."""
        return self.problem.generate(self.ema.module if prefix == "ema/" else self.networks[GENERATOR], n, seed, "evaluation")

    def _closure(self) -> Closure:
        """Return the losses of the present turn."""
        return partial(self.problem.losses, self.networks, self.batch(self._extra()), self._turns[self._turn])

    def _extra(self) -> int:
        """Return which batch of the step the turn sees: the players' turns share one, further discriminator turns have their own."""
        return min(self._turn, self.config.discriminator_steps - 1)

    def _set_learning_rates(self) -> None:
        factor = self.rate_factor * (1 - self.progress if self.config.schedule == "linear" else 1.0)
        for player, inner in self.optimizer.optimizers.items():
            for group, rate in zip(inner.param_groups, self._rates[player], strict=True):
                group["lr"] = rate * factor


def _turns(config: RunConfig) -> list[tuple[str, ...]]:
    """Return who moves together, in order, in one training step."""
    alone: list[tuple[str, ...]] = [(DISCRIMINATOR,)] * config.discriminator_steps
    if config.scheme == "simultaneous":
        return [*alone[1:], (DISCRIMINATOR, GENERATOR)]
    return [*alone, (GENERATOR,)]


def bare(metric: str) -> str:
    """Return a metric's name without the prefix that says whose it is.

    >>> bare("ema/modes"), bare("modes")
    ('modes', 'modes')
    """
    return metric.removeprefix("ema/").removeprefix("average/")


def weights_of(metric: str) -> str:
    """Return the prefix of a metric's name.

    >>> weights_of("ema/modes"), weights_of("modes")
    ('ema/', '')
    """
    return metric[: len(metric) - len(bare(metric))]


def network_sizes(networks: Mapping[str, nn.Module]) -> dict[str, int]:
    """Return player → number of parameters."""
    return {player: sum(p.numel() for p in network.parameters()) for player, network in networks.items()}
