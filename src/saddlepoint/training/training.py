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
from saddlepoint.diagnostics import NonFiniteOrigin, Probe, Trace, find_nonfinite
from saddlepoint.distributed import SingleProcess
from saddlepoint.errors import DivergenceError, UsageError, did_you_mean
from saddlepoint.game import Closure, Losses
from saddlepoint.game_optimizer import GameOptimizer
from saddlepoint.metrics import Measure
from saddlepoint.models import moving_average, recompute_activations
from saddlepoint.problems.base import DISCRIMINATOR, GENERATOR, Batch
from saddlepoint.step_result import StepResult
from saddlepoint.training.config import RunConfig
from saddlepoint.training.inner_optimizers import TwoModes, try_optimizer
from saddlepoint.training.probes import LastUpdates, take_probe
from saddlepoint.training.randomness import OwnRandomness
from saddlepoint.training.state_check import blamed_on_state, check_state


class Training:
    """Networks, their game optimizer and the generator's moving average, somewhere along the way.

    The batch of a step is a function of (seed, step), so the position in the data is the step
    itself.

    Args:
        config: decides everything but the clock.
        clock: what training time is read from, in seconds: the wall clock, or ``time.process_time``
            where a busy machine must not count.
        distributed: the processes that train together, each on its share of every batch; what they
            evaluate, draw and remember is the same.

    Raises:
        UsageError: the networks do not fit the processes or what ``config.model`` asks for.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        clock: Callable[[], float] = perf_counter,
        distributed: SingleProcess | None = None,
    ) -> None:
        self.config = config
        self.distributed = SingleProcess() if distributed is None else distributed
        self._share = self.distributed.batch_slice(config.batch_size)
        self._clock = clock
        self.device = torch.device(config.device)
        self.problem = registry.build_problem(config.problem.name, config.problem.options)
        self.networks = {
            player: network.to(self.device)
            for player, network in self.problem.networks(config.seed).items()
        }
        rule, optimizers = registry.build_rule(config.rule.name, config.rule.options), {}
        for player, network in self.networks.items():
            name, options = config.optimizer.name, config.optimizer.options_for(player)
            try_optimizer(
                player, name, options, [(label, p.shape) for label, p in network.named_parameters()]
            )
            optimizers[player] = registry.build_optimizer(name, network.named_parameters(), options)
        self.optimizer = GameOptimizer(
            optimizers, rule, modules=self.networks.values(), distributed=self.distributed
        )
        self._two_modes = TwoModes(optimizers, rule)
        if self.distributed.world_size > 1:
            _refuse_batch_norm(
                self.networks,
                "shared by several processes",
                "the statistics would be those of each one's share",
            )
        if (config.best_by or "").startswith("average/") and not self.optimizer.keeps_average:
            raise UsageError(
                f'Configuration: best_by="{config.best_by}", but neither rule {config.rule.name}'
                f" nor optimizer {config.optimizer.name} keeps an average. Use its name with ema/,"
                " or without a prefix."
            )
        self.ema = moving_average(self.networks[GENERATOR], config.ema)
        if config.model.checkpoint:
            _refuse_batch_norm(
                self.networks,
                "evaluated again for its activations",
                "its running statistics would move twice",
            )
            for network in self.networks.values():
                recompute_activations(network)
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
        self._rates = {
            player: [group["lr"] for group in inner.param_groups]
            for player, inner in self.optimizer.optimizers.items()
        }

    def advance(self) -> list[StepResult]:
        """Take one training step: every turn of the scheme once, then the moving average."""
        started = self._clock()
        self._set_learning_rates()
        records = []
        with blamed_on_state() if self._untried else nullcontext(), self._random.installed():
            for number, players in enumerate(self._turns):
                self._turn = number
                records.append(self.optimizer.step(self._closure(), only=players))
        with self._two_modes.measured():
            self.ema.update_parameters(self.networks[GENERATOR])
        self._untried = False
        self.step += 1
        self.seconds += self._agreed(self._clock() - started)
        return records

    def _agreed(self, seconds: float) -> float:
        """Return the slowest process's time where it decides when training ends; elsewhere each has its own."""
        return self.distributed.all_reduce_max(seconds) if self.config.seconds else seconds

    @property
    def progress(self) -> float:
        """The share of the budget that is used, from 0 to 1; of its bounds the one that is further along."""
        return min(max(self.bounds().values()), 1.0)

    def bounds(self) -> dict[str, float]:
        """Return the bounds of the budget, "steps", "seconds" and "gradient_equivalents", with the share of each that is used."""
        config = self.config
        bounds = {
            "steps": (self.step, config.steps),
            "seconds": (self.seconds, config.seconds),
            "gradient_equivalents": (self.gradient_equivalents, config.gradient_equivalents),
        }
        return {name: used / bound for name, (used, bound) in bounds.items() if bound}

    @property
    def gradient_equivalents(self) -> float:
        """What the derivatives of all steps cost so far; see ``Cost.equivalents``."""
        return self.optimizer.cost.equivalents

    def evaluate(
        self,
        samples: int | None = None,
        seed: int | None = None,
        *,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> dict[str, float]:
        """Return the metrics of the generator on the held-out data, under ``ema/…`` those of its moving average.

        Where the rule or the generator's optimizer keeps an average of its own, its metrics are
        under ``average/…``. Several processes share the work: each generates some of the samples
        and measures some of the weights, and all know all values.
        """
        own = self.measures(
            samples,
            seed,
            progress=progress,
            number=self.distributed.rank,
            of=self.distributed.world_size,
        )
        measured = {
            prefix: measures
            for part in self.distributed.all_gather(_values(own))
            for prefix, measures in part.items()
        }
        return {
            prefix + name: value
            for prefix in self._weights()
            for name, value in measured[prefix].items()
        }

    def check_evaluation(self) -> None:
        """Measure once where that might fail, before a run is made: with fewer samples than the problem's own number on either side.

        Raises:
            UsageError: a metric needs more samples.
        """
        usual = self.problem.evaluation_samples
        real = self.problem.held_out(usual, self.config.seed)
        if self.config.evaluation_samples < usual or (real is not None and len(real) < usual):
            try:
                self.measures()
            except UsageError as error:
                held_out = (
                    ""
                    if real is None or len(real) >= usual
                    else f" and {len(real)} held-out samples"
                )
                numbers = f"evaluation_samples={self.config.evaluation_samples}{held_out}"
                raise UsageError(
                    f"The problem {self.problem.name} cannot be evaluated with {numbers}: {error}"
                ) from error

    def measures(
        self,
        samples: int | None = None,
        seed: int | None = None,
        *,
        progress: Callable[[int, int], None] = lambda done, total: None,
        number: int = 0,
        of: int = 1,
    ) -> dict[str, dict[str, Measure]]:
        """Return the same with what each was measured on: prefix → metric → Measure.

        With ``number`` and ``of``, those of every ``of``-th kind of weights from that number on.
        """
        n = self.config.evaluation_samples if samples is None else samples
        seed = self.config.evaluation_seed if seed is None else seed
        drawn = {}
        for position, (prefix, context) in enumerate(self._weights().items()):
            with context, self._two_modes.measured():
                found = self._drawn(prefix, n, seed)
            if position % of == number:
                drawn[prefix] = found
        names, measured = len(self.problem.metric_names), dict[str, dict[str, Measure]]()
        for prefix, found in drawn.items():
            done, measured[prefix] = len(measured) * names, {}
            progress(done, len(drawn) * names)
            for name, measure in self.problem.measures(found):
                measured[prefix][name] = measure
                progress(done + len(measured[prefix]), len(drawn) * names)
        return measured

    def measured(self, names: Collection[str]) -> dict[str, float]:
        """Return the named metrics, prefixes included, and those of the same weights that are computed on the way to them.

        Raises:
            UsageError: a name is no metric of the problem, or one of an average that is not kept.
        """
        missing, found = set(names), dict[str, float]()
        for prefix, context in self._weights().items():
            wanted = {name for name in missing if weights_of(name) == prefix}
            with context, self._two_modes.measured():
                samples = (
                    self._drawn(prefix, self.config.evaluation_samples, self.config.evaluation_seed)
                    if wanted
                    else None
                )
            for name, measure in self.problem.measures(samples) if samples is not None else ():
                found[prefix + name] = measure.value
                wanted.discard(prefix + name)
                missing.discard(prefix + name)
                if not wanted:
                    break
        if missing:
            known = [
                prefix + name for prefix in self._weights() for name in self.problem.metric_names
            ]
            name = min(missing)
            raise UsageError(
                f'"{name}" is no metric of {self.problem.name} in this run.'
                + did_you_mean(name, known)
            )
        return found

    def score(self, metrics: Mapping[str, float], by: str | None = None) -> float:
        """Return what the best evaluation has least of: by a metric, by ``best_by``, or else the problem's score of the averaged generator.

        Raises:
            UsageError: the metric was not measured, or is none by which one is better.
        """
        by = self.config.best_by if by is None else by
        if by is None:
            return self.problem.score(
                {
                    name.removeprefix("ema/"): value
                    for name, value in metrics.items()
                    if name.startswith("ema/")
                }
            )
        directed = {
            name: better
            for name in metrics
            if (better := self.problem.metric_names[bare(name)].better)
        }
        if by not in directed:
            raise UsageError(
                f'"{by}" is no metric of this run by which one is better.'
                + did_you_mean(by, directed)
            )
        return metrics[by] if directed[by] == "smaller" else -metrics[by]

    def picture(
        self, n: int | None = None, seed: int | None = None, *, ema: bool = True
    ) -> Image.Image:
        """Return a picture of n samples, by default the problem's number, from noise that is the same at every step."""
        network = self.ema.module if ema else self.networks[GENERATOR]
        n = self.problem.picture_samples if n is None else n
        with self._two_modes.measured():
            samples = self.problem.generate(
                network, n, self.config.seed if seed is None else seed, "samples"
            )
        return self.problem.picture(samples)

    def probe(self) -> Probe:
        """Measure gradients, saturation, rotation and diversity at the present point; nothing changes by it."""
        return take_probe(self)

    def locate(self, error: DivergenceError) -> NonFiniteOrigin:
        """Return where the NaN or infinity arose that ended the latest turn."""
        batch = self.batch(self._extra())
        data = {"the real samples": batch.real, "the generator's noise": batch.noise}
        with self.own_randomness():
            return find_nonfinite(self.networks, self._closure(), data, player=error.player)

    def batch(self, ahead: int = 0) -> Batch:
        """Return the next mini-batch, or the one ``ahead`` of it; the whole of it, whatever this process's share is."""
        number = self.step * self.config.discriminator_steps + ahead
        return self.problem.batch(number, self.config.batch_size, self.config.seed).to(self.device)

    def own_randomness(self) -> AbstractContextManager[None]:
        """Draw from the run's own global random state inside."""
        return self._random.installed()

    def finite(self) -> bool:
        """Say whether every parameter is finite."""
        return all(
            bool(p.isfinite().all())
            for network in self.networks.values()
            for p in network.parameters()
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on, in plain containers that load with ``weights_only=True``.

        Where an optimizer trains at one point and is measured at another, ``networks`` has the
        latter, ``iterates`` the former.
        """
        if self._two_modes:
            with self._two_modes.measured():
                networks = {
                    player: _copied(network.state_dict())
                    for player, network in self.networks.items()
                }
            return {**self._state(), "networks": networks, "iterates": self._two_modes.iterates()}
        return self._state()

    def _state(self) -> dict[str, Any]:
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
        if self._two_modes:
            self._two_modes.load_iterates(state["iterates"])
        self.ema.load_state_dict(state["ema"])
        with blamed_on_state():
            self.optimizer.load_state_dict(state["optimizer"])
        self._random.load_state_dict(state["random"])
        self.metrics, self.best = dict(state["metrics"]), state["best"]
        self.rollbacks, self.rate_factor, self.checkpointed = (
            state["rollbacks"],
            state["rate_factor"],
            state["checkpointed"],
        )
        self.trace.load_state_dict(state["trace"])
        self.updates.load_state_dict(state["updates"])

    def _weights(self) -> dict[str, AbstractContextManager[None]]:
        """Return the prefix of each kind of weights that is kept, with what puts them into the generator."""
        held: dict[str, AbstractContextManager[None]] = {"": nullcontext(), "ema/": nullcontext()}
        if self.step and self.optimizer.keeps_average:
            held["average/"] = self.optimizer.averaged()
        return held

    def _drawn(self, prefix: str, n: int, seed: int) -> Tensor:
        """Return n generated samples that are to be measured; of several processes each generates every so many-th piece."""
        network = self.ema.module if prefix == "ema/" else self.networks[GENERATOR]
        chunks, world = (
            self.problem.noise_chunks(n, seed, "evaluation"),
            self.distributed.world_size,
        )
        own = [
            self.problem.sample(network, noise) for noise in chunks[self.distributed.rank :: world]
        ]
        every = self.distributed.all_gather(own)
        return torch.cat([every[k % world][k // world] for k in range(len(chunks))])

    def _closure(self) -> Closure:
        """Return the losses of the present turn, of several processes those of this one's share of the batch."""
        closure = partial(
            self.problem.losses,
            self.networks,
            self.batch(self._extra()).part(self._share),
            self._turns[self._turn],
        )
        return (
            closure
            if self.config.model.precision == "float32"
            else partial(_in_bfloat16, closure, self.device.type)
        )

    def _extra(self) -> int:
        """Return which batch of the step the turn sees: the players' turns share one, further discriminator turns have their own."""
        return min(self._turn, self.config.discriminator_steps - 1)

    def _set_learning_rates(self) -> None:
        factor = self.rate_factor * (1 - self.progress if self.config.schedule == "linear" else 1.0)
        for player, inner in self.optimizer.optimizers.items():
            for group, rate in zip(inner.param_groups, self._rates[player], strict=True):
                group["lr"] = rate * factor


def _values(measured: Mapping[str, Mapping[str, Measure]]) -> dict[str, dict[str, float]]:
    return {
        prefix: {name: measure.value for name, measure in measures.items()}
        for prefix, measures in measured.items()
    }


def _copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


def _in_bfloat16(closure: Closure, device: str) -> Losses:
    with torch.autocast(device, torch.bfloat16):
        return closure()


def _refuse_batch_norm(networks: Mapping[str, nn.Module], situation: str, why: str) -> None:
    for player, network in networks.items():
        name = next(
            (
                name
                for name, module in network.named_modules()
                if isinstance(module, nn.modules.batchnorm._BatchNorm)
            ),
            None,
        )
        if name is not None:
            raise UsageError(
                f'Player "{player}", layer {name}: batch normalisation cannot be {situation},'
                f" because {why}. Use a problem without it, for example with --set"
                " problem.batch_norm=false."
            )


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
    return {
        player: sum(p.numel() for p in network.parameters()) for player, network in networks.items()
    }
