"""The pair under examination: two networks, an example of their inputs, and the game that they play."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from saddlepoint.curvature.replay import Replay
from saddlepoint.errors import UsageError, did_you_mean
from saddlepoint.game import Losses, Players
from saddlepoint.games.gan_losses import GAN_LOSSES
from saddlepoint.games.penalties import gradient_penalty

DISCRIMINATOR, GENERATOR = "discriminator", "generator"

TINY = 4
"""Derivatives are checked on this many samples."""


@dataclass(frozen=True)
class Pair:
    """A generator and a discriminator with example inputs and a loss.

    Args:
        generator: takes ``noise``.
        discriminator: takes ``real``, and what the generator gives.
        noise: an example batch of the generator's input.
        real: an example batch of data.
        loss: a key of ``GAN_LOSSES``.
        r1: weight γ of ½ γ E‖∇ₓD(x)‖² on real data.

    Raises:
        UsageError: something that is no network or no batch, an unknown loss, or a negative or
            infinite r1.
    """

    generator: nn.Module
    discriminator: nn.Module
    noise: Tensor
    real: Tensor
    loss: str = "non-saturating"
    r1: float = 0.0

    def __post_init__(self) -> None:
        for player, network in self.networks.items():
            if not isinstance(network, nn.Module):
                raise UsageError(
                    f"The {player} must be a torch.nn.Module, not {type(network).__name__}."
                )
        for name, batch in (("noise", self.noise), ("real", self.real)):
            if not isinstance(batch, Tensor) or batch.dim() == 0 or len(batch) == 0:
                what = (
                    f"a tensor of shape {tuple(batch.shape)}"
                    if isinstance(batch, Tensor)
                    else type(batch).__name__
                )
                raise UsageError(
                    f'The example "{name}" must be a tensor with samples along its first dimension,'
                    f" not {what}."
                )
        if self.loss not in GAN_LOSSES:
            raise UsageError(
                f'The loss "{self.loss}" is unknown.' + did_you_mean(self.loss, GAN_LOSSES)
            )
        if not 0 <= self.r1 < float("inf"):
            raise UsageError(
                f"r1={self.r1} must be at least 0 and finite. 0 leaves the gradient penalty out."
            )

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """player → network."""
        return {DISCRIMINATOR: self.discriminator, GENERATOR: self.generator}

    @property
    def players(self) -> Players:
        """player → the parameters that it moves."""
        return {
            player: tuple(p for p in network.parameters() if p.requires_grad)
            for player, network in self.networks.items()
        }

    def losses(self) -> Losses:
        """Return both players' losses; the networks get copies of the examples, which they may overwrite."""
        judge, fool = GAN_LOSSES[self.loss]
        judged = self.discriminator(self.generator(self.noise.clone()))
        terms = judge(self.discriminator(self.real.clone()), judged)
        if self.r1 > 0:
            terms["r1"] = 0.5 * self.r1 * gradient_penalty(self.discriminator, self.real.clone())
        return {DISCRIMINATOR: terms, GENERATOR: fool(judged)}

    def replay(self) -> Replay:
        """Return a replay of the random state and both networks' buffers as they are now."""
        return Replay(self.networks.values(), cuda=self.on_cuda)

    @property
    def on_cuda(self) -> bool:
        """Whether an example or a parameter is on a CUDA device."""
        return any(
            t.is_cuda
            for t in (
                self.noise,
                self.real,
                *self.generator.parameters(),
                *self.discriminator.parameters(),
            )
        )

    def copied(self) -> Pair:
        """Return the same pair with networks of its own: what they share stays shared, and none is compiled any more."""
        memo: dict[int, object] = {}
        for network in self.networks.values():
            _prepare(network, memo)
        generator, discriminator = copy.deepcopy([self.generator, self.discriminator], memo)
        return replace(self, generator=generator, discriminator=discriminator)

    def in_double(self) -> Pair:
        """Return a copy in float64 with the first few samples."""
        own = self.copied()
        return replace(
            own,
            generator=own.generator.double(),
            discriminator=own.discriminator.double(),
            noise=_in_double(own.noise[:TINY]),
            real=_in_double(own.real[:TINY]),
        )


def compiled_layers(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield dotted name and module of everything that torch.compile wraps; nothing is compiled or run."""
    for name, module in network.named_modules():
        if _wrapped(module) is not None or getattr(module, "_compiled_call_impl", None) is not None:
            yield name.replace("_orig_mod.", "").removesuffix("._orig_mod"), module


def _wrapped(module: nn.Module) -> nn.Module | None:
    """Return what an OptimizedModule wraps. A compiled module means that torch._dynamo is loaded; it is not loaded for the question."""
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    return (
        module._orig_mod
        if dynamo is not None and isinstance(module, dynamo.OptimizedModule)
        else None
    )


def _prepare(network: nn.Module, memo: dict[int, object]) -> None:
    """Say how to copy what deepcopy refuses (tensors with a history, as old-style weight_norm leaves) or should not copy (wrappers)."""
    for module in network.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and value.grad_fn is not None:
                memo[id(value)] = value.detach().clone()
    # inner wrappers before the outer ones that hold them
    for module in reversed(list(network.modules())):
        inner = _wrapped(module)
        if inner is not None and id(module) not in memo:
            memo[id(module)] = copy.deepcopy(inner, memo)


def _in_double(batch: Tensor) -> Tensor:
    return batch.detach().double() if batch.is_floating_point() else batch.detach()
