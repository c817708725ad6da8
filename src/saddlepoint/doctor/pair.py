"""The pair of networks to examine, with example inputs and losses, and loading it by name."""

from __future__ import annotations

import copy
import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from saddlepoint.curvature.replay import Replay
from saddlepoint.doctor.findings import first_line
from saddlepoint.errors import UsageError, did_you_mean
from saddlepoint.game import Losses, Players
from saddlepoint.games.gan_losses import GAN_LOSSES
from saddlepoint.games.penalties import gradient_penalty
from saddlepoint.io.imports import current_directory_importable

DISCRIMINATOR, GENERATOR = "discriminator", "generator"

DERIVATIVE_SAMPLES = 4
"""Number of samples on which derivatives are checked."""

Example = tuple[nn.Module, nn.Module, Tensor, Tensor]
"""Generator, discriminator, example noise, example of real data."""

_FORM = "package.module:factory"
_RETURNS = "(generator, discriminator, example_noise, example_real)"


@dataclass(frozen=True)
class Pair:
    """A generator and a discriminator with example inputs and a loss.

    Args:
        generator: maps ``noise`` to samples.
        discriminator: maps ``real`` and the generator's samples to logits.
        noise: an example batch of the generator's input.
        real: an example batch of data.
        loss: a key of ``GAN_LOSSES``.
        r1: weight γ of ½ γ E‖∇ₓD(x)‖² on real data.

    Raises:
        UsageError: a network is not an ``nn.Module``, an example is not a non-empty batch, the loss
            is unknown, or r1 is negative or infinite.
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
                given = type(batch).__name__
                if isinstance(batch, Tensor):
                    given = f"a tensor of shape {tuple(batch.shape)}"
                raise UsageError(
                    f'The example "{name}" must be a tensor with samples along its first dimension,'
                    f" not {given}."
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
        """player → its trainable parameters."""
        players: dict[str, tuple[Tensor, ...]] = {}
        for player, network in self.networks.items():
            players[player] = tuple(p for p in network.parameters() if p.requires_grad)
        return players

    def losses(self) -> Losses:
        """Return the losses of both players; the networks get copies, which they may overwrite."""
        discriminator_loss, generator_loss = GAN_LOSSES[self.loss]
        fake = self.discriminator(self.generator(self.noise.clone()))
        terms = discriminator_loss(self.discriminator(self.real.clone()), fake)
        if self.r1 > 0:
            terms["r1"] = 0.5 * self.r1 * gradient_penalty(self.discriminator, self.real.clone())
        return {DISCRIMINATOR: terms, GENERATOR: generator_loss(fake)}

    def replay(self) -> Replay:
        """Return a replay of the present random state and of both networks' buffers."""
        return Replay(self.networks.values(), cuda=self.on_cuda)

    @property
    def on_cuda(self) -> bool:
        """Whether an example or a parameter is on a CUDA device."""
        parameters = (*self.generator.parameters(), *self.discriminator.parameters())
        return any(t.is_cuda for t in (self.noise, self.real, *parameters))

    def copied(self) -> Pair:
        """Return a pair with copies of the networks: sharing is kept, torch.compile is removed."""
        memo: dict[int, object] = {}
        for network in self.networks.values():
            # deepcopy refuses tensors with a history, such as those of old-style weight_norm
            for module in network.modules():
                for value in vars(module).values():
                    if isinstance(value, Tensor) and value.grad_fn is not None:
                        memo[id(value)] = value.detach().clone()
            # inner compiled modules before the outer ones that contain them
            for module in reversed(list(network.modules())):
                inner = _uncompiled(module)
                if inner is not None and id(module) not in memo:
                    memo[id(module)] = copy.deepcopy(inner, memo)
        generator, discriminator = copy.deepcopy([self.generator, self.discriminator], memo)
        return replace(self, generator=generator, discriminator=discriminator)

    def in_double(self) -> Pair:
        """Return a copy in float64 with the first few samples."""
        pair = self.copied()
        examples = [batch[:DERIVATIVE_SAMPLES].detach() for batch in (pair.noise, pair.real)]
        noise, real = (t.double() if t.is_floating_point() else t for t in examples)
        return replace(
            pair,
            generator=pair.generator.double(),
            discriminator=pair.discriminator.double(),
            noise=noise,
            real=real,
        )


def compiled_layers(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield name and module of every layer that torch.compile wraps, without running any."""
    for name, module in network.named_modules():
        if (
            _uncompiled(module) is not None
            or getattr(module, "_compiled_call_impl", None) is not None
        ):
            yield name.replace("_orig_mod.", "").removesuffix("._orig_mod"), module


def _uncompiled(module: nn.Module) -> nn.Module | None:
    """Return the module inside an OptimizedModule, None for any other module."""
    # where a module is compiled torch._dynamo is loaded already; it is slow to import otherwise
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    if dynamo is None or not isinstance(module, dynamo.OptimizedModule):
        return None
    inner: nn.Module = module._orig_mod
    return inner


def load_factory(path: str) -> Example:
    """Call a factory function by name; return its generator, discriminator, noise and real data.

    Modules in the current directory are found, after those of Python and of installed packages.

    Args:
        path: "package.module:factory"; the factory takes no arguments.

    Raises:
        UsageError: the path has no colon, the module does not exist or fails to import, it has no
            such attribute, the attribute is not callable, the factory raises, or it does not return
            two modules and two tensors.

    >>> load_factory("torch.nn")  # doctest: +NORMALIZE_WHITESPACE
    Traceback (most recent call last):
    ...
    saddlepoint.errors.UsageError: "torch.nn" names no function: write package.module:factory, with
    a colon.
    """
    module_name, colon, name = path.partition(":")
    if not (module_name and colon and name):
        raise UsageError(f'"{path}" names no function: write {_FORM}, with a colon.')
    with current_directory_importable():
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if module_name == missing or module_name.startswith(f"{missing}."):
                raise UsageError(
                    f'There is no module "{missing}" in {os.getcwd()} or among the installed'
                    " packages. Check the name and the directory."
                ) from error
            raise UsageError(
                f'Module "{module_name}" imports "{missing}", which is not installed. Install it or'
                " correct the import."
            ) from error
        except Exception as error:
            raise UsageError(
                f'Importing "{module_name}" raised {type(error).__name__}: {first_line(error)}'
                " Correct the module."
            ) from error
        if not hasattr(module, name):
            public = [key for key in vars(module) if not key.startswith("_")]
            functions = [key for key in public if callable(vars(module)[key])]
            raise UsageError(
                f'Module "{module_name}" has no "{name}".' + did_you_mean(name, functions)
            )
        factory = getattr(module, name)
        if not callable(factory):
            raise UsageError(
                f'"{path}" is a {type(factory).__name__}, not a function. Name a function that'
                f" returns {_RETURNS}."
            )
        try:
            returned = factory()
        except Exception as error:
            raise UsageError(
                f'"{path}" raised {type(error).__name__}: {first_line(error)} It is called without'
                f" arguments and returns {_RETURNS}."
            ) from error

    if not isinstance(returned, tuple | list):
        raise UsageError(
            f'"{path}" returned a {type(returned).__name__}, not the four values {_RETURNS}.'
        )
    if len(returned) != 4:
        raise UsageError(
            f'"{path}" returned {len(returned)} values, not the four values {_RETURNS}.'
        )
    kinds = (nn.Module, nn.Module, Tensor, Tensor)
    roles = ("generator", "discriminator", "example_noise", "example_real")
    for value, role, kind in zip(returned, roles, kinds, strict=True):
        if not isinstance(value, kind):
            expected = "torch.nn.Module" if kind is nn.Module else "torch.Tensor"
            raise UsageError(
                f'"{path}" returned a {type(value).__name__} as {role}, which must be a {expected}.'
                f" It returns {_RETURNS}."
            )
    generator, discriminator, noise, real = returned
    return generator, discriminator, noise, real
