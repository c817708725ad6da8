"""A mixture of Gaussians on the line whose equilibrium is known exactly: what curvature is worth near a solution."""

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
from saddlepoint.metrics import Measure, mode_measures, nearest_modes, wasserstein_1d
from saddlepoint.models import GaussianComponents, RadialFeatures
from saddlepoint.problems.base import DISCRIMINATOR, GENERATOR, GanProblem, Metric
from saddlepoint.problems.pictures import histogram

SPACING, SIGMA = 6.0, 1.0
"""Distance of neighbouring means and standard deviation of every component."""


@dataclass(frozen=True, kw_only=True)
class Mixture1d(GanProblem):
    """Learn the means and deviations of Gaussians on the line, full batch, without chance, in float64: x = μ_k + exp(s_k) z.

    A batch is the mid-point quantiles of every component, the same at every step; the real samples
    are those quantiles under the true means, 6 apart, and the true deviation 1. The discriminator
    ⟨w, φ(x)⟩ is linear in fixed radial features, and its loss has the further term "ridge", ½ λ
    ‖w‖², which leaves the generator's gradient alone. So the true parameters with w = 0 are an
    equilibrium exactly, and under the minimax loss a strict local minimax point: the
    discriminator's Hessian H = ½ E[φ φᵀ] + λ I is positive definite, and so is the Schur complement
    ¼ Bᵀ H⁻¹ B, with B the derivative of E φ by μ and s; the generator's own Hessian is 0. Newton on
    the whole Jacobian converges quadratically there, complete Newton within two steps, whose linear
    map is nilpotent, gradient-Newton linearly at a rate that λ hardly enters, and gradient methods
    at about 1 − hλ a step.

    Runs start beside it, displaced by normal numbers that depend on the seed. The rules bring the
    damping, the small rates and the few iterations that networks want; here there is no need of
    them: ``saddlepoint train mixture1d --rule complete-newton --lr 1 --steps 10 --set
    rule.damping=0 --set rule.budget=30``.

    Args:
        modes: number of components; batches and evaluations must divide evenly among them.
        displacement: standard deviation of the initial displacement of μ and s; that of w has a
            tenth of it. At 0.2 complete Newton finds the equilibrium from 19 of the first 20 seeds,
            at 0.3 from 15, at 0.4 from 7; from elsewhere it leaves for other points.
        ridge: the weight λ.
        features: number of radial features, evenly spaced from three deviations below the lowest
            mean to three above the highest, as wide as their spacing.
        latent: 1, the quantile of a component; nothing else is possible.

    Raises:
        UsageError: a number out of range; a batch that does not divide evenly.

    Reference: Zhang et al. (2020), Newton-type methods for minimax optimization, arXiv:2006.14592,
    which learns mixtures in the same way.

    >>> problem = Mixture1d(displacement=0.0)
    >>> problem.metrics(problem.generate(problem.networks(seed=0)["generator"], 100, seed=0, stream="evaluation"))["wasserstein"]
    0.0
    """

    latent: int = 1
    loss: str = "minimax"
    modes: int = 2
    displacement: float = 0.2
    ridge: float = 0.001
    features: int = 14

    name: ClassVar[str] = "mixture1d"
    # divides evenly among any number of components up to 10
    evaluation_samples: ClassVar[int] = 2520
    picture_samples: ClassVar[int] = 2520
    metric_names: ClassVar[Mapping[str, Metric]] = {
        "wasserstein": Metric(
            "distance by which mass must move from the generated to the data's quantiles; 0 at the"
            " equilibrium",
            "smaller",
        ),
        "quality": Metric(
            "share of samples within 3σ of a mean; the data itself has 0.998", "larger"
        ),
        "effective_modes": Metric(
            "equally frequent components of the same entropy as those generated", "larger"
        ),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latent != 1:
            raise UsageError(
                f"Problem {self.name}: latent={self.latent} must be 1: the noise is a quantile,"
                " beside the component it goes to."
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
    def coverage(self) -> tuple[str, float]:
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
                self._means + SIGMA * means, self._log_deviations + log_deviations
            ),
        }

    @torch.no_grad()
    def real(self, step: int, size: int, seed: int) -> Tensor:
        truth: Tensor = GaussianComponents(self._means, self._log_deviations)(self._quantiles(size))
        return truth

    def noise(self, n: int, generator: torch.Generator) -> Tensor:
        """Return the n mid-point quantiles beside the indicators of the components in turn, shape (n, 1 + modes); nothing is drawn."""
        return self._quantiles(n)

    def load(self) -> None:
        """Nothing is read: the data is a formula."""

    def penalties(self, judge: nn.Module, real: Tensor, fake: Tensor) -> Terms:
        (weights,) = judge.parameters()
        return {
            **super().penalties(judge, real, fake),
            "ridge": 0.5 * self.ridge * weights.square().sum(),
        }

    def measures(self, samples: Tensor) -> Iterator[tuple[str, Measure]]:
        n = len(samples)
        distance = wasserstein_1d(self.real(0, n, 0), samples)
        yield (
            "wasserstein",
            Measure(
                distance, generated=n, real=0, split="known density", extractor="none", lower=0
            ),
        )
        assignments = nearest_modes(samples, self._means.unsqueeze(1), SIGMA)
        found = mode_measures(
            assignments,
            torch.full((self.modes,), 1 / self.modes),
            split="known density",
            extractor="none",
        )
        for name in ("quality", "effective_modes"):
            # the samples are quantiles: none would vary if drawn again
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
                f"Problem {self.name}: {n} samples do not divide evenly among {self.modes}"
                f" components. Use {near}, or another multiple."
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
    def _log_deviations(self) -> Tensor:
        return torch.full((self.modes,), math.log(SIGMA), dtype=torch.float64)

    @cached_property
    def _support(self) -> tuple[float, float]:
        """Return the interval of three deviations around the means."""
        return float(self._means[0]) - 3 * SIGMA, float(self._means[-1]) + 3 * SIGMA
