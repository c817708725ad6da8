"""One training step, and the complete state of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import nn

from saddlepoint import registry
from saddlepoint.diagnostics import NonFiniteOrigin, Trace, find_nonfinite
from saddlepoint.distributed import SingleProcess
from saddlepoint.errors import DivergenceError, UsageError
from saddlepoint.game import Closure, Losses
from saddlepoint.game_optimizer import GameOptimizer
from saddlepoint.models import moving_average, recompute_activations
from saddlepoint.problems.base import DISCRIMINATOR, GENERATOR, Batch
from saddlepoint.step_result import StepResult
from saddlepoint.training.config import RunConfig
from saddlepoint.training.inner_optimizers import EvalModeOptimizers, try_optimizer
from saddlepoint.training.probes import LastUpdates
from saddlepoint.training.rng import RngState
from saddlepoint.training.state_check import as_checkpoint_error, validate_state


class Trainer:
    """The networks of a run, their game optimizer and the generator's moving average.

    The batch of a step is a function of (seed, step), so ``step`` is also the position in the data.

    Args:
        config: the configuration; it decides everything except the clock.
        clock: returns the time in seconds from which training time is measured; the wall clock by
            default, ``time.process_time`` where other load on the machine must not count.
        distributed: the processes that train together, each on its share of every batch; a single
            process by default.

    Attributes:
        step: number of finished steps.
        seconds: training time so far.
        metrics: the latest metrics.
        best: score and step of the best evaluation, or None.
        rollbacks: number of roll-backs after divergence.
        lr_factor: factor on all learning rates, halved by every roll-back.
        checkpointed: step of the checkpoint to roll back to.

    Raises:
        UsageError: the networks do not fit the processes or ``config.model``, or ``best_by`` names
            an average that is not kept.
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
        optimizers = {}
        for player, network in self.networks.items():
            name, options = config.optimizer.name, config.optimizer.options_for(player)
            shapes = [(label, p.shape) for label, p in network.named_parameters()]
            try_optimizer(player, name, options, shapes)
            optimizers[player] = registry.build_optimizer(name, network.named_parameters(), options)
        rule = config.built_rule
        self.optimizer = GameOptimizer(
            optimizers, rule, modules=self.networks.values(), distributed=self.distributed
        )
        self.eval_mode_optimizers = EvalModeOptimizers(optimizers, rule)
        if self.distributed.world_size > 1:
            _refuse_batch_norm(
                self.networks,
                "split over several processes",
                "each process would use the statistics of its own share",
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
                "used with activation checkpointing",
                "its running statistics would be updated twice",
            )
            for network in self.networks.values():
                recompute_activations(network)
        self.step = 0
        self.seconds = 0.0
        self.metrics: dict[str, float] = {}
        self.best: dict[str, float] | None = None
        self.rollbacks = 0
        self.lr_factor = 1.0
        self.checkpointed = 0
        self.trace = Trace(self.networks, seed=config.seed)
        self.updates = LastUpdates(self.networks)
        self.rng = RngState(config.seed, self.device)
        alone: list[tuple[str, ...]] = [(DISCRIMINATOR,)] * config.discriminator_steps
        if config.update_scheme == "simultaneous":
            self._turns = [*alone[1:], (DISCRIMINATOR, GENERATOR)]
        else:
            self._turns = [*alone, (GENERATOR,)]
        self._turn = 0
        self._unverified_state = False  # whether no step followed the loading of a state
        self._lrs = {
            player: [group["lr"] for group in inner.param_groups]
            for player, inner in self.optimizer.optimizers.items()
        }

    def train_step(self) -> list[StepResult]:
        """Take one training step: every turn of the update scheme, then the moving average.

        Returns:
            the result of each turn.

        Raises:
            DivergenceError: a loss or an update is not finite.
        """
        started = self._clock()
        decay = 1 - self.progress if self.config.lr_schedule == "linear" else 1.0
        for player, inner in self.optimizer.optimizers.items():
            for group, lr in zip(inner.param_groups, self._lrs[player], strict=True):
                group["lr"] = lr * self.lr_factor * decay
        results = []
        with as_checkpoint_error() if self._unverified_state else nullcontext(), self.rng.scope():
            for turn, players in enumerate(self._turns):
                self._turn = turn
                results.append(self.optimizer.step(self._closure(), only=players))
        with self.eval_mode_optimizers.eval_mode():
            self.ema.update_parameters(self.networks[GENERATOR])
        self._unverified_state = False
        self.step += 1
        seconds = self._clock() - started
        if self.config.seconds:  # the slowest process decides when training ends
            seconds = self.distributed.all_reduce_max(seconds)
        self.seconds += seconds
        return results

    @property
    def progress(self) -> float:
        """The used share of the budget, from 0 to 1; of several bounds the largest share."""
        return min(max(self.bounds().values()), 1.0)

    def bounds(self) -> dict[str, float]:
        """Return bound → used share: of "steps", "seconds" and "gradient_equivalents" if set."""
        config = self.config
        bounds = {
            "steps": (self.step, config.steps),
            "seconds": (self.seconds, config.seconds),
            "gradient_equivalents": (self.gradient_equivalents, config.gradient_equivalents),
        }
        return {name: used / bound for name, (used, bound) in bounds.items() if bound}

    @property
    def gradient_equivalents(self) -> float:
        """Cost of the derivatives of all steps so far; see ``Cost.equivalents``."""
        return self.optimizer.cost.equivalents

    def locate_divergence(self, error: DivergenceError) -> NonFiniteOrigin:
        """Return where the NaN or infinity arose that ended the latest turn."""
        batch = self.batch(self._batch_of_turn)
        data = {"the real samples": batch.real, "the generator's noise": batch.noise}
        with self.rng.scope():
            return find_nonfinite(self.networks, self._closure(), data, player=error.player)

    def batch(self, ahead: int = 0) -> Batch:
        """Return the next mini-batch of all processes together, or the one ``ahead`` of it."""
        number = self.step * self.config.discriminator_steps + ahead
        return self.problem.batch(number, self.config.batch_size, self.config.seed).to(self.device)

    def is_finite(self) -> bool:
        """Return whether every parameter is finite."""
        for network in self.networks.values():
            if not all(bool(p.isfinite().all()) for p in network.parameters()):
                return False
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on, loadable with ``weights_only=True``.

        For optimizers with an evaluation mode, ``networks`` holds the parameters in that mode and
        ``iterates`` the parameters in training mode.
        """
        state = {
            "config": self.config.digest(),
            "step": self.step,
            "seconds": self.seconds,
            "networks": {player: network.state_dict() for player, network in self.networks.items()},
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": self.rng.state_dict(),
            "metrics": dict(self.metrics),
            "best": self.best,
            "rollbacks": self.rollbacks,
            "lr_factor": self.lr_factor,
            "checkpointed": self.checkpointed,
            "trace": self.trace.state_dict(),
            "updates": self.updates.state_dict(),
        }
        if self.eval_mode_optimizers:
            networks = {}
            with self.eval_mode_optimizers.eval_mode():
                for player, network in self.networks.items():
                    tensors = network.state_dict()
                    networks[player] = {name: tensor.clone() for name, tensor in tensors.items()}
            state["networks"] = networks
            state["iterates"] = self.eval_mode_optimizers.iterates()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned.

        Raises:
            UsageError: the state does not belong to this configuration.
        """
        validate_state(self, state)
        self._unverified_state = True
        self.step, self.seconds = state["step"], state["seconds"]
        for player, network in self.networks.items():
            network.load_state_dict(state["networks"][player])
        if self.eval_mode_optimizers:
            self.eval_mode_optimizers.load_iterates(state["iterates"])
        self.ema.load_state_dict(state["ema"])
        with as_checkpoint_error():
            self.optimizer.load_state_dict(state["optimizer"])
        self.rng.load_state_dict(state["random"])
        self.metrics, self.best = dict(state["metrics"]), state["best"]
        self.rollbacks, self.lr_factor = state["rollbacks"], state["lr_factor"]
        self.checkpointed = state["checkpointed"]
        self.trace.load_state_dict(state["trace"])
        self.updates.load_state_dict(state["updates"])

    @property
    def _batch_of_turn(self) -> int:
        """Which batch of the step the current turn uses.

        Extra discriminator turns have batches of their own; the last one shares with the generator.
        """
        return min(self._turn, self.config.discriminator_steps - 1)

    def _closure(self) -> Closure:
        """Return the losses of the current turn's players on this process's share of the batch."""
        batch = self.batch(self._batch_of_turn).part(self._share)
        closure = partial(self.problem.losses, self.networks, batch, self._turns[self._turn])
        if self.config.model.precision == "float32":
            return closure

        def in_bf16() -> Losses:
            with torch.autocast(self.device.type, torch.bfloat16):
                return closure()

        return in_bf16


def _refuse_batch_norm(networks: Mapping[str, nn.Module], situation: str, why: str) -> None:
    for player, network in networks.items():
        for name, module in network.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                raise UsageError(
                    f'Player "{player}", layer {name}: batch normalisation cannot be {situation},'
                    f" because {why}. Use a problem without it, for example with --set"
                    " problem.batch_norm=false."
                )


def network_sizes(networks: Mapping[str, nn.Module]) -> dict[str, int]:
    """Return player → number of parameters."""
    return {
        player: sum(p.numel() for p in network.parameters()) for player, network in networks.items()
    }
