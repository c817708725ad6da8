"""Handwritten digits in black and white, for generators with quantised output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from saddlepoint.data import LabelledImages, generator_for
from saddlepoint.errors import UsageError, did_you_mean
from saddlepoint.games.estimators import bernoulli, gumbel, straight_through, threshold
from saddlepoint.models import MLP, BicubicUpsample, BinaryOutput
from saddlepoint.problems.base import DISCRIMINATOR, GENERATOR
from saddlepoint.problems.digits import Digits

SAMPLED_OUTPUTS = ("sampled", "gumbel")
"""Outputs that need uniform noise for every pixel."""


@dataclass(frozen=True, kw_only=True)
class DigitsBinary(Digits):
    """Generate digits with pixels −1 and 1: z → 32 → 32 → 7 × 7 logits, upsampled and quantised.

    The logits are upsampled to 28 × 28. The generator is far smaller than that of ``digits``,
    because the number of steps that rules of order 0 need grows with the number of parameters: a
    difference of losses gives one number for all of them.

    Real images, including the held-out ones of the metrics, are thresholded at 0. The generator's
    gradient depends on ``output``: exactly zero with "threshold" and "sampled", so that ``--rule
    gradient`` does not change the generator; that of a surrogate with "straight_through" and
    "gumbel". Rules of order 0 train all four: ``saddlepoint train digits-binary --rule
    per-player``.

    Args:
        latent: dimension of the generator's normal noise.
        hidden: width of the two hidden layers of the discriminator.
        generator_hidden: width of the two hidden layers of the generator.
        grid: rows and columns of the generator's logits, from 1 to 28 (no upsampling).
        output: "threshold" of the logits; "sampled" with probability sigmoid(logits);
            "straight_through", the threshold with the derivative of tanh; "gumbel", sampled with
            the derivative of the binary concrete distribution.
        temperature: temperature of "gumbel".

    Raises:
        UsageError: an unknown ``output``, a temperature that is not positive, or a size out of
            range.

    >>> problem = DigitsBinary(output="sampled")
    >>> generator = problem.networks(seed=0)["generator"]
    >>> images = problem.generate(generator, 2, seed=0, stream="samples")
    >>> images.shape, images.unique().tolist()
    (torch.Size([2, 1, 28, 28]), [-1.0, 1.0])
    """

    latent: int = 16
    generator_hidden: int = 32
    grid: int = 7
    output: str = "threshold"
    temperature: float = 1.0

    name: ClassVar[str] = "digits-binary"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output not in self._estimators:
            raise UsageError(
                f'Problem {self.name}: output "{self.output}" is unknown.'
                + did_you_mean(self.output, self._estimators)
            )
        if not self.temperature > 0:
            raise UsageError(
                f"Problem {self.name}: temperature={self.temperature} must be positive."
            )
        if self.generator_hidden < 1 or not 1 <= self.grid <= 28:
            raise UsageError(
                f"Problem {self.name}: needs generator_hidden ≥ 1 and grid from 1 to 28, not"
                f" {self.generator_hidden} and {self.grid}."
            )

    def networks(self, seed: int) -> dict[str, nn.Module]:
        generator = generator_for(seed, "networks")
        discriminator = MLP(
            (784, self.hidden, self.hidden, 1), activation=self.activation, generator=generator
        )
        sizes = (self.latent, self.generator_hidden, self.generator_hidden, self.grid**2)
        coarse = MLP(
            sizes, activation=self.activation, shape=(1, self.grid, self.grid), generator=generator
        )
        logits = nn.Sequential(coarse, BicubicUpsample(self.grid, 28))
        return {
            DISCRIMINATOR: discriminator,
            GENERATOR: BinaryOutput(logits, self.latent, self._estimators[self.output]),
        }

    def noise(self, n: int, generator: torch.Generator) -> Tensor:
        """Return normal noise, shape (n, latent); sampled outputs add 784 uniform columns."""
        normal = super().noise(n, generator)
        if self.output not in SAMPLED_OUTPUTS:
            return normal
        return torch.cat([normal, torch.rand(n, 784, generator=generator)], dim=1)

    def read_images(self) -> tuple[LabelledImages, LabelledImages]:
        train, test = super().read_images()
        train = replace(train, images=threshold(train.images))
        return train, replace(test, images=threshold(test.images))

    @property
    def _estimators(self) -> Mapping[str, Callable[..., Tensor]]:
        return {
            "threshold": threshold,
            "sampled": bernoulli,
            "straight_through": straight_through,
            "gumbel": partial(gumbel, temperature=self.temperature, hard=True),
        }
