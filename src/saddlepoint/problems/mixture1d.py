"""A deterministic 1-D mixture of Gaussians with a known equilibrium."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from saddlepoint.data import generator_for
from saddlepoint.errors import UsageError
from saddlepoint.games.gan_losses import Terms
from saddlepoint.metrics import Measure, Origin, mode_measures, nearest_modes, wasserstein_1d
from saddlepoint.models import GaussianComponents, RadialFeatures
from saddlepoint.problems.base import DISCRIMINATOR, GENERATOR, GanProblem, Metric
from saddlepoint.problems.pictures import histogram

SPACING, SIGMA = 6.0, 1.0
"""Distance of neighbouring means and standard deviation of every component."""


@dataclass(frozen=True, kw_only=True)
class Mixture1d(GanProblem):
    """Learn means and deviations of 1-D Gaussians, x = μ_k + exp(s_k) z, deterministic, in float64.

    The batch is the full data: the mid-point quantiles of every component, the same at every step.
    The real samples are these quantiles for the true means, 6 apart, and the true deviation 1. The
    discriminator ⟨w, φ(x)⟩ is linear in fixed radial basis functions, and its loss has the
    additional term "ridge", ½ λ ‖w‖², which does not change the generator's gradient. Hence the
    true parameters with w = 0 are an exact equilibrium, and for the minimax loss a strict local
    minimax point: the discriminator's Hessian H = ½ E[φ φᵀ] + λ I is positive definite, as is the
    Schur complement ¼ Bᵀ H⁻¹ B, where B is the derivative of E φ with respect to μ and s; the
    generator's own Hessian is 0. There, Newton on the whole Jacobian converges quadratically,
    complete Newton within two steps (its linear map is nilpotent), gradient-Newton linearly at a
    rate that hardly depends on λ, and gradient methods with the factor of about 1 − hλ per step.

    Runs start near the equilibrium, displaced by normal numbers that depend on the seed. The
    defaults of the rules (damping, small learning rates, few iterations) are chosen for networks
    and are not needed here: ``saddlepoint train mixture1d --rule complete-newton --lr 1 --steps 10
    --set rule.damping=0 --set rule.budget=30``.

    Args:
        modes: number of components; the batch size and the number of evaluation samples must be
            divisible by it.
        displacement: standard deviation of the initial displacement of μ and s; a tenth of it for
            w. At 0.2 complete Newton finds the equilibrium for 19 of the first 20 seeds, at 0.3 for
            15, at 0.4 for 7; otherwise it converges elsewhere or diverges.
        ridge: the weight λ.
        features: number of radial basis functions, evenly spaced from three deviations below the
            lowest mean to three above the highest, as wide as their spacing.
        latent: must be 1, the quantile of a component.

    Raises:
        UsageError: a number out of range, or a batch size that is not divisible by ``modes``.

    Reference: Zhang et al. (2020), Newton-type methods for minimax optimization, arXiv:2006.14592,
    which learns mixtures in the same way.

    >>> problem = Mixture1d(displacement=0.0)
    >>> generator = problem.networks(seed=0)["generator"]
    >>> samples = problem.generate(generator, 100, seed=0, stream="evaluation")
    >>> problem.metrics(samples)["wasserstein"]
    0.0
    """

    latent: int = 1
    loss: str = "minimax"
    modes: int = 2
    displacement: float = 0.2
    ridge: float = 0.001
    features: int = 14

    name: ClassVar[str] = "mixture1d"
    # divisible by any number of components up to 10
    evaluation_samples: ClassVar[int] = 2520
    picture_samples: ClassVar[int] = 2520
    metric_names: ClassVar[Mapping[str, Metric]] = {
        "wasserstein": Metric(
            "Wasserstein-1 distance of generated and real quantiles; 0 at the equilibrium",
            "smaller",
        ),
        "quality": Metric("share of samples within 3σ of a mean; 0.998 for the data", "larger"),
        "effective_modes": Metric(
            "number of equally frequent components with the entropy of the generated ones", "larger"
        ),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latent != 1:
            raise UsageError(
                f"Problem {self.name}: latent={self.latent} must be 1: the noise is a quantile and"
                " the index of its component."
            )
        if self.modes < 1 or self.features < 2:
            raise UsageError(
                f"Problem {self.name}: needs modes ≥ 1 and features ≥ 2, not {self.modes} and"
                f" {self.features}."
            )
        if not (0 <= self.displacement < math.inf and 0 <= self.ridge < math.inf):
            raise UsageError(
                f"Problem {self.name}: displacement={self.displacement} and ridge={self.ridge} must"
                " be at least 0 and finite."
            )

    @property
    def coverage_metric(self) -> tuple[str, float]:
        return "effective_modes", self.modes

    def networks(self, seed: int) -> dict[str, nn.Module]:
        generator = generator_for(seed, "networks")
        means, log_deviations, weights = (
            self.displacement * torch.randn(n, generator=generator, dtype=torch.float64)
            for n in (self.modes, self.modes, self.features)
        )
        low, high = self._support
        centres = torch.linspace(low, high, self.features, dtype=torch.float64)
        return {
            DISCRIMINATOR: RadialFeatures(
                centres, (high - low) / (self.features - 1), 0.1 * weights
            ),
            GENERATOR: GaussianComponents(
                self._means + SIGMA * means, math.log(SIGMA) + log_deviations
            ),
        }

    @torch.no_grad()
    def real(self, step: int, size: int, seed: int) -> Tensor:
        log_deviations = torch.full_like(self._means, math.log(SIGMA))
        samples: Tensor = GaussianComponents(self._means, log_deviations)(self._quantiles(size))
        return samples

    def noise(self, n: int, generator: torch.Generator) -> Tensor:
        """Return n mid-point quantiles and one-hot components, shape (n, 1 + modes), no noise."""
        return self._quantiles(n)

    def load(self) -> None:
        """Do nothing: the data is a formula."""

    def penalties(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Terms:
        (weights,) = discriminator.parameters()
        ridge = 0.5 * self.ridge * weights.square().sum()
        return {**super().penalties(discriminator, real, fake), "ridge": ridge}

    def measures(self, samples: Tensor) -> Iterator[tuple[str, Measure]]:
        n = len(samples)
        origin: Origin = {"split": "known density", "extractor": "none"}
        distance = wasserstein_1d(self.real(0, n, 0), samples)
        yield "wasserstein", Measure(distance, generated=n, real=0, lower=0, **origin)
        assignments = nearest_modes(samples, self._means.unsqueeze(1), SIGMA)
        found = mode_measures(assignments, torch.full((self.modes,), 1 / self.modes), **origin)
        for name in ("quality", "effective_modes"):
            # no replicates: the samples are quantiles, not random
            yield name, replace(found[name], replicate=None)

    def score(self, metrics: Mapping[str, float]) -> float:
        return metrics["wasserstein"]

    def picture(self, samples: Tensor) -> Image.Image:
        low, high = self._support
        x = torch.linspace(low - 3 * SIGMA, high + 3 * SIGMA, 641, dtype=torch.float64)
        standard = (x.unsqueeze(1) - self._means) / SIGMA
        return histogram(
            samples.squeeze(1),
            x,
            torch.exp(-0.5 * standard**2).mean(1) / (SIGMA * math.sqrt(2 * math.pi)),
        )

    def _quantiles(self, n: int) -> Tensor:
        each, over = divmod(n, self.modes)
        if over or not each:
            near = " or ".join(str(k * self.modes) for k in (each, each + 1) if k)
            raise UsageError(
                f"Problem {self.name}: {n} samples are not divisible by {self.modes} components."
                f" Use {near}, or another multiple."
            )
        z = torch.special.ndtri((torch.arange(each, dtype=torch.float64) + 0.5) / each)
        return torch.cat(
            [
                z.repeat_interleave(self.modes).unsqueeze(1),
                torch.eye(self.modes, dtype=torch.float64).repeat(each, 1),
            ],
            dim=1,
        )

    @cached_property
    def _means(self) -> Tensor:
        return SPACING * (torch.arange(self.modes, dtype=torch.float64) - (self.modes - 1) / 2)

    @cached_property
    def _support(self) -> tuple[float, float]:
        """The interval from three deviations below the lowest to three above the highest mean."""
        return float(self._means[0]) - 3 * SIGMA, float(self._means[-1]) + 3 * SIGMA
