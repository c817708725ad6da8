"""What training needs to know about a problem."""

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
    """Everything random about one step: real samples and the generator's noise, drawn before any loss is computed."""

    real: Tensor
    noise: Tensor

    def to(self, device: torch.device) -> Batch:
        """Return the batch on ``device``."""
        return Batch(self.real.to(device), self.noise.to(device))

    def part(self, samples: slice) -> Batch:
        """Return some of its samples."""
        return Batch(self.real[samples], self.noise[samples])


@dataclass(frozen=True)
class Metric:
    """What a metric of a problem means, and which way is better; None where it tells of the data, not of quality."""

    meaning: str
    better: Literal["smaller", "larger"] | None


LATER = {"later": True}
"""Marks an option that earlier versions did not have: at its default it stays out of configurations, and what was made before fits."""


@dataclass(frozen=True, kw_only=True)
class GanProblem(ABC):
    """A generative adversarial problem: a discriminator and a generator with the losses of ``GAN_LOSSES``.

    Every random choice is a function of a seed and a step; a problem has no state.

    Args:
        loss: "minimax", "non-saturating", "hinge" or "wasserstein"; the last wants the
            discriminator's weights clipped.
        latent: dimension of the generator's normal noise.
        r1: weight γ of ½ γ E‖∇ₓD(x)‖² on real data, the term "r1" of the discriminator's loss
            (Mescheder et al. 2018, arXiv:1801.04406); 0 leaves it out.
        r2: the same weight on generated data, the term "r2".

    Raises:
        UsageError: an unknown loss, a size below 1, or a negative or infinite r1 or r2.
    """

    loss: str = "non-saturating"
    latent: int = 64
    r1: float = 0.0
    r2: float = field(default=0.0, metadata=LATER)

    name: ClassVar[str]
    evaluation_samples: ClassVar[int]
    evaluation_pause: ClassVar[int] = 1
    """The fewest steps between two evaluations of a run that does not say how many: as many as take as long as one evaluation."""
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
                    f"Problem {self.name}: {name}={weight} must be at least 0 and finite. 0 leaves"
                    " the penalty out."
                )

    @property
    @abstractmethod
    def coverage(self) -> tuple[str, float]:
        """Return the metric that counts modes or classes by their shares, and its value when all are equally frequent."""

    @abstractmethod
    def networks(self, seed: int) -> dict[str, nn.Module]:
        """Return freshly initialised networks, player → module."""

    @abstractmethod
    def real(self, step: int, size: int, seed: int) -> Tensor:
        """Return the real samples of the batch of ``step``."""

    @abstractmethod
    def measures(self, samples: Tensor) -> Iterator[tuple[str, Measure]]:
        """Yield the metrics of generated samples, in the order of ``metric_names``, each when it is computed."""

    @abstractmethod
    def score(self, metrics: Mapping[str, float]) -> float:
        """Return one number to choose the best checkpoint by; smaller is better."""

    @abstractmethod
    def picture(self, samples: Tensor) -> Image.Image:
        """Return a picture of generated samples."""

    def metrics(self, samples: Tensor) -> dict[str, float]:
        """Return the values of ``measures``."""
        return {name: measure.value for name, measure in self.measures(samples)}

    def held_out(self, n: int, seed: int) -> Tensor | None:
        """Return n real samples that training never sees; None where the data is a distribution, so that no sample is seen twice."""
        return None

    def load(self) -> None:
        """Read the data now, so that a missing or damaged file is reported before anything starts."""
        self.real(0, 1, 0)

    def data_files(self) -> list[Path]:
        """Return the files of the user's that the data is read from; none where the library has it or draws it."""
        return []

    def extractors(self) -> dict[str, str]:
        """Return feature extractor → SHA-256 of its weights, for the metrics that use one."""
        return {}

    def batch(self, step: int, size: int, seed: int) -> Batch:
        """Return the batch of ``step``: a function of its arguments alone."""
        return Batch(
            self.real(step, size, seed), self.noise(size, generator_for(seed, "noise", step))
        )

    def noise(self, n: int, generator: torch.Generator) -> Tensor:
        """Return n inputs of the generator, shape (n, latent)."""
        return torch.randn(n, self.latent, generator=generator)

    def losses(
        self, networks: Mapping[str, nn.Module], batch: Batch, active: Collection[str]
    ) -> Losses:
        """Return the losses of the players in ``active``, from one pass of the generator that they share."""
        discriminator_loss, generator_loss = GAN_LOSSES[self.loss]
        with torch.set_grad_enabled(torch.is_grad_enabled() and GENERATOR in active):
            fake = networks[GENERATOR](batch.noise)
        judged = at_least_single(networks[DISCRIMINATOR](fake))
        losses = {}
        if DISCRIMINATOR in active:
            losses[DISCRIMINATOR] = discriminator_loss(
                at_least_single(networks[DISCRIMINATOR](batch.real)), judged
            )
            losses[DISCRIMINATOR] |= self.penalties(networks[DISCRIMINATOR], batch.real, fake)
        if GENERATOR in active:
            losses[GENERATOR] = generator_loss(judged)
        return losses

    def penalties(self, judge: nn.Module, real: Tensor, fake: Tensor) -> Terms:
        """Return the further terms of the discriminator's loss."""
        weights = {"r1": (self.r1, real), "r2": (self.r2, fake)}
        return {
            name: 0.5 * weight * gradient_penalty(judge, samples)
            for name, (weight, samples) in weights.items()
            if weight > 0
        }

    @torch.no_grad()
    def logits(self, networks: Mapping[str, nn.Module], batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the discriminator's outputs on the real and on the generated samples of a batch."""
        judge = networks[DISCRIMINATOR]
        return judge(batch.real), judge(networks[GENERATOR](batch.noise))

    @torch.no_grad()
    def generate(self, generator: nn.Module, n: int, seed: int, stream: str) -> Tensor:
        """Return n samples on the CPU from noise that depends on (seed, stream) alone; the network's mode is restored."""
        return torch.cat([self.generated(generator, z) for z in self.pieces(n, seed, stream)])

    def pieces(self, n: int, seed: int, stream: str) -> tuple[Tensor, ...]:
        """Return the noise of ``generate`` in the pieces that pass through the network one after the other."""
        return torch.split(self.noise(n, generator_for(seed, stream)), 1000)

    @torch.no_grad()
    def generated(self, generator: nn.Module, noise: Tensor) -> Tensor:
        """Return the samples of a piece of noise on the CPU; the network's mode is restored."""
        device, training = next(generator.parameters()).device, generator.training
        samples = generator.eval()(noise.to(device)).cpu()
        generator.train(training)
        return torch.as_tensor(samples)


def at_least_single(outputs: Tensor) -> Tensor:
    """Return a network's outputs in single precision where they are narrower: a loss is a mean of many."""
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))


@dataclass(frozen=True, kw_only=True)
class MlpProblem(GanProblem):
    """A problem whose networks are multilayer perceptrons.

    Args:
        activation: the networks' activation, a key of ``ACTIVATIONS``.
        hidden: width of the two hidden layers of both networks.

    Raises:
        UsageError: an unknown activation, or a size below 1.
    """

    activation: str = "leaky-relu"
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
