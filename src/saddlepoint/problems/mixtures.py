"""2-D mixtures of Gaussians: eight modes on a ring, twenty-five on a grid."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from saddlepoint.data import Mixture, generator_for, grid, ring
from saddlepoint.errors import UsageError
from saddlepoint.game_optimizer import GameOptimizer
from saddlepoint.metrics import Measure, gaussian_share, mode_measures, nearest_modes
from saddlepoint.models import MLP
from saddlepoint.problems.base import DISCRIMINATOR, GENERATOR, Metric, MlpProblem
from saddlepoint.problems.pictures import scatter


@dataclass(frozen=True, kw_only=True)
class MixtureProblem(MlpProblem):
    """Generate points of a 2-D mixture with MLPs, z → 128 → 128 → 2 and 2 → 128 → 128 → 1.

    The default activation is tanh: it matters more than the method here; with LeakyReLU or SiLU
    Adam covers few modes.
    """

    activation: str = "tanh"
    latent: int = 16
    evaluation_samples: ClassVar[int] = 2500
    picture_samples: ClassVar[int] = 1000
    metric_names: ClassVar[Mapping[str, Metric]] = {
        "modes": Metric("modes with at least one sample within 3σ", "larger"),
        "quality": Metric("share of samples within 3σ of a mode; 0.989 for the data", "larger"),
        "reverse_kl": Metric(
            "Σ p log(p/q) of the modes' shares, generated against real, in nats", "smaller"
        ),
        "effective_modes": Metric(
            "number of equally frequent modes with the entropy of the generated ones", "larger"
        ),
        "mode_distance": Metric(
            "½ Σ |p − q| of the shares of the modes and of no mode; 0 for the data, at most 1",
            "smaller",
        ),
    }

    @property
    @abstractmethod
    def mixture(self) -> Mixture:
        """The mixture to learn."""

    def networks(self, seed: int) -> dict[str, nn.Module]:
        generator = generator_for(seed, "networks")
        hidden = (self.hidden, self.hidden)
        return {
            DISCRIMINATOR: MLP((2, *hidden, 1), activation=self.activation, generator=generator),
            GENERATOR: MLP(
                (self.latent, *hidden, 2), activation=self.activation, generator=generator
            ),
        }

    def real(self, step: int, size: int, seed: int) -> Tensor:
        return self.mixture.sample(size, generator_for(seed, "data", step))

    def measures(self, samples: Tensor) -> Iterator[tuple[str, Measure]]:
        mixture = self.mixture
        modes, dimension = mixture.centres.shape
        if len(samples) < 20 * modes:
            raise UsageError(
                f"Mode coverage needs at least {20 * modes} samples, got {len(samples)}. Evaluate"
                " with more samples."
            )
        yield from mode_measures(
            nearest_modes(samples, mixture.centres, mixture.sigma),
            torch.full((modes,), 1 / modes),
            inside=gaussian_share(dimension),
            split="known density",
            extractor="none",
        ).items()

    def score(self, metrics: Mapping[str, float]) -> float:
        return -(metrics["modes"] + metrics["quality"])

    def picture(self, samples: Tensor) -> Image.Image:
        return scatter(samples, self.mixture.centres, 3 * self.mixture.sigma)


@dataclass(frozen=True, kw_only=True)
class Mixture8(MixtureProblem):
    """Eight modes at the angles 2πk/8 on a ring.

    Args:
        radius: the ring's radius.
        sigma: standard deviation of a mode.

    >>> Mixture8().real(step=0, size=4, seed=0).shape
    torch.Size([4, 2])
    """

    name: ClassVar[str] = "mixture8"
    coverage_metric: ClassVar[tuple[str, float]] = ("effective_modes", 8)
    radius: float = 2.0
    sigma: float = 0.02

    @cached_property
    def mixture(self) -> Mixture:
        return ring(8, self.radius, self.sigma)


@dataclass(frozen=True, kw_only=True)
class Mixture8Saturated(Mixture8):
    """``mixture8`` with a pre-trained discriminator, for which minimax gradients vanish.

    The initial discriminator is trained alone for ``head_start`` steps of Adam with learning rate
    1e-2 and betas (0.9, 0.9) against the untrained generator. Then the derivative of the minimax
    loss at generated samples, the sigmoid of the logit, is about 1e-11. Every method starts from
    the same pair, a function of the seed. The pre-training uses the batches 0 … head_start − 1 of
    64 samples; training with batches of 64 uses them again.

    Args:
        head_start: number of pre-training steps; 0 gives ``mixture8`` with the minimax loss.

    Raises:
        UsageError: a negative ``head_start``.

    >>> problem = Mixture8Saturated()
    >>> batch = problem.batch(step=0, size=64, seed=0)
    >>> real, fake = problem.logits(problem.networks(seed=0), batch)
    >>> bool(real.min() > 10), bool(fake.max() < -10)
    (True, True)
    """

    name: ClassVar[str] = "mixture8-saturated"
    loss: str = "minimax"
    head_start: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head_start < 0:
            raise UsageError(
                f"Problem {self.name}: head_start={self.head_start} must be at least 0; after 500"
                " steps the discriminator is saturated."
            )

    def networks(self, seed: int) -> dict[str, nn.Module]:
        networks = super().networks(seed)
        adam = torch.optim.Adam(networks[DISCRIMINATOR].parameters(), lr=1e-2, betas=(0.9, 0.9))
        optimizer = GameOptimizer({DISCRIMINATOR: adam})
        for step in range(self.head_start):
            optimizer.step(
                partial(self.losses, networks, self.batch(step, 64, seed), {DISCRIMINATOR})
            )
        return networks


@dataclass(frozen=True, kw_only=True)
class Mixture25(MixtureProblem):
    """Twenty-five modes on a 5 × 5 grid.

    Args:
        spacing: distance of neighbouring modes.
        sigma: standard deviation of a mode.
    """

    name: ClassVar[str] = "mixture25"
    coverage_metric: ClassVar[tuple[str, float]] = ("effective_modes", 25)
    spacing: float = 2.0
    sigma: float = 0.05

    @cached_property
    def mixture(self) -> Mixture:
        return grid(5, self.spacing, self.sigma)
