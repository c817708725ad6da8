"""The interface between problems and training."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from saddlepoint.data.stream import generator_for
from saddlepoint.errors import UsageError, did_you_mean
from saddlepoint.game import Losses
from saddlepoint.games.gan_losses import GAN_LOSSES, Terms
from saddlepoint.games.penalties import gradient_penalty
from saddlepoint.metrics import Measure
from saddlepoint.models import ACTIVATIONS

DISCRIMINATOR, GENERATOR = "discriminator", "generator"


@dataclass(frozen=True)
class Batch:
    """The random inputs of a step: real samples and the generator's noise."""

    real: Tensor
    noise: Tensor

    def to(self, device: torch.device) -> Batch:
        """Return the batch on ``device``."""
        return Batch(self.real.to(device), self.noise.to(device))

    def part(self, samples: slice) -> Batch:
        """Return a slice of the batch."""
        return Batch(self.real[samples], self.noise[samples])


@dataclass(frozen=True)
class Metric:
    """The meaning of a metric, and which direction is better; None if neither is."""

    meaning: str
    better: Literal["smaller", "larger"] | None


OMIT_DEFAULT = {"omit_default": True}
"""Metadata of an option that configurations leave out at its default value.

For options added later: configurations written before are then equal to those written now.
"""


@dataclass(frozen=True, kw_only=True)
class GanProblem(ABC):
    """A GAN problem: a discriminator and a generator with the losses of ``GAN_LOSSES``.

    A problem has no state; everything random is a function of a seed and a step.

    Args:
        loss: "minimax", "non-saturating", "hinge" or "wasserstein"; the last needs weight clipping
            of the discriminator.
        latent: dimension of the generator's normal noise.
        r1: weight γ of the penalty ½ γ E‖∇ₓD(x)‖² on real data, the term "r1" of the
            discriminator's loss (Mescheder et al. 2018, arXiv:1801.04406); 0 disables it.
        r2: weight of the same penalty on generated data, the term "r2".

    Raises:
        UsageError: an unknown ``loss``, ``latent`` below 1, or a negative or infinite ``r1`` or
            ``r2``.
    """

    loss: str = "non-saturating"
    latent: int = 64
    r1: float = 0.0
    r2: float = field(default=0.0, metadata=OMIT_DEFAULT)

    name: ClassVar[str]
    evaluation_samples: ClassVar[int]
    min_evaluate_every: ClassVar[int] = 1
    """Lower bound of the default ``evaluate_every``, about the cost of an evaluation in steps."""
    picture_samples: ClassVar[int] = 64
    metric_names: ClassVar[Mapping[str, Metric]]

    def __post_init__(self) -> None:
        if self.loss not in GAN_LOSSES:
            raise UsageError(
                f'Problem {self.name}: loss "{self.loss}" is unknown.'
                + did_you_mean(self.loss, GAN_LOSSES)
            )
        if self.latent < 1:
            raise UsageError(f"Problem {self.name}: latent must be at least 1, not {self.latent}.")
        for name, weight in (("r1", self.r1), ("r2", self.r2)):
            if not 0 <= weight < math.inf:
                raise UsageError(
                    f"Problem {self.name}: {name}={weight} must be at least 0 and finite. 0"
                    " disables the penalty."
                )

    @property
    @abstractmethod
    def coverage_metric(self) -> tuple[str, float]:
        """The metric of effective modes or classes, and its value if all are equally frequent."""

    @abstractmethod
    def networks(self, seed: int) -> dict[str, nn.Module]:
        """Return newly initialised networks, player → module."""

    @abstractmethod
    def real(self, step: int, size: int, seed: int) -> Tensor:
        """Return the real samples of the batch of ``step``."""

    @abstractmethod
    def measures(self, samples: Tensor) -> Iterator[tuple[str, Measure]]:
        """Yield the metrics of generated samples one by one, in the order of ``metric_names``."""

    @abstractmethod
    def score(self, metrics: Mapping[str, float]) -> float:
        """Return the score that selects the best checkpoint; smaller is better."""

    @abstractmethod
    def picture(self, samples: Tensor) -> Image.Image:
        """Return a picture of generated samples."""

    def metrics(self, samples: Tensor) -> dict[str, float]:
        """Return the values of ``measures``."""
        return {name: measure.value for name, measure in self.measures(samples)}

    def held_out(self, n: int, seed: int) -> Tensor | None:
        """Return n real samples not used in training; None if the data is a distribution."""
        return None

    def load(self) -> None:
        """Read the data, so that a missing or damaged file is reported before training starts."""
        self.real(0, 1, 0)

    def data_files(self) -> list[Path]:
        """Return the user's data files; empty if the data is part of the library or generated."""
        return []

    def extractors(self) -> dict[str, str]:
        """Return feature extractor → SHA-256 of its weights, for the extractors of the metrics."""
        return {}

    def batch(self, step: int, size: int, seed: int) -> Batch:
        """Return the batch of ``step``, a function of the arguments alone."""
        return Batch(
            self.real(step, size, seed), self.noise(size, generator_for(seed, "noise", step))
        )

    def noise(self, n: int, generator: torch.Generator) -> Tensor:
        """Return n inputs of the generator, shape (n, latent)."""
        return torch.randn(n, self.latent, generator=generator)

    def losses(
        self, networks: Mapping[str, nn.Module], batch: Batch, active: Collection[str]
    ) -> Losses:
        """Return the losses of the players in ``active``, from one shared pass of the generator."""
        discriminator_loss, generator_loss = GAN_LOSSES[self.loss]
        with torch.set_grad_enabled(torch.is_grad_enabled() and GENERATOR in active):
            fake = networks[GENERATOR](batch.noise)
        fake_logits = _at_least_float32(networks[DISCRIMINATOR](fake))
        losses = {}
        if DISCRIMINATOR in active:
            real_logits = _at_least_float32(networks[DISCRIMINATOR](batch.real))
            losses[DISCRIMINATOR] = discriminator_loss(real_logits, fake_logits)
            losses[DISCRIMINATOR] |= self.penalties(networks[DISCRIMINATOR], batch.real, fake)
        if GENERATOR in active:
            losses[GENERATOR] = generator_loss(fake_logits)
        return losses

    def penalties(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Terms:
        """Return the penalty terms of the discriminator's loss."""
        weights = {"r1": (self.r1, real), "r2": (self.r2, fake)}
        return {
            name: 0.5 * weight * gradient_penalty(discriminator, samples)
            for name, (weight, samples) in weights.items()
            if weight > 0
        }

    @torch.no_grad()
    def logits(self, networks: Mapping[str, nn.Module], batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the discriminator's outputs on the real and the generated samples of a batch."""
        discriminator = networks[DISCRIMINATOR]
        return discriminator(batch.real), discriminator(networks[GENERATOR](batch.noise))

    @torch.no_grad()
    def generate(self, generator: nn.Module, n: int, seed: int, stream: str) -> Tensor:
        """Return n samples on the CPU, a function of the network, ``seed`` and ``stream``.

        The network is evaluated in evaluation mode; its mode is restored.
        """
        chunks = self.noise_chunks(n, seed, stream)
        return torch.cat([self.sample(generator, noise) for noise in chunks])

    def noise_chunks(self, n: int, seed: int, stream: str) -> tuple[Tensor, ...]:
        """Return the noise of ``generate``, split into the batches in which it is evaluated."""
        return torch.split(self.noise(n, generator_for(seed, stream)), 1000)

    @torch.no_grad()
    def sample(self, generator: nn.Module, noise: Tensor) -> Tensor:
        """Return the generator's samples for ``noise`` on the CPU; its mode is restored."""
        device, training = next(generator.parameters()).device, generator.training
        samples = generator.eval()(noise.to(device)).cpu()
        generator.train(training)
        return torch.as_tensor(samples)


def _at_least_float32(outputs: Tensor) -> Tensor:
    """Return half-precision outputs in float32, because a loss is a mean over many of them."""
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))


@dataclass(frozen=True, kw_only=True)
class MlpProblem(GanProblem):
    """A GAN problem whose networks are multilayer perceptrons.

    Args:
        activation: the networks' activation, a key of ``ACTIVATIONS``.
        hidden: width of the two hidden layers of both networks.

    Raises:
        UsageError: an unknown ``activation``, or ``hidden`` below 1.
    """

    activation: str = "leaky_relu"
    hidden: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.activation not in ACTIVATIONS:
            raise UsageError(
                f'Problem {self.name}: activation "{self.activation}" is unknown.'
                + did_you_mean(self.activation, ACTIVATIONS)
            )
        if self.hidden < 1:
            raise UsageError(f"Problem {self.name}: hidden must be at least 1, not {self.hidden}.")
