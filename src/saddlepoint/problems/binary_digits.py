"""Handwritten digits in black and white, from generators whose output is quantised."""

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
from saddlepoint.models import MLP, Binary, Interpolated
from saddlepoint.problems.base import DISCRIMINATOR, GENERATOR
from saddlepoint.problems.digits import Digits

OUTPUTS: Mapping[str, bool] = {
    "threshold": False,
    "sampled": True,
    "straight-through": False,
    "gumbel": True,
}
"""output → whether it is sampled, with noise for every pixel."""


@dataclass(frozen=True, kw_only=True)
class DigitsBinary(Digits):
    """Generate digits of black and white pixels, −1 and 1: z → 32 → 32 → 7 × 7 logits, interpolated to 28 × 28 and quantised.

    The generator is far smaller than that of ``digits``: a difference of losses tells one number
    about all parameters at once, so the steps that rules of order 0 need grow with the number of
    parameters. ``grid=28`` leaves the interpolation out.

    Real images are thresholded at 0, the held-out ones of the metrics too. What the generator's
    gradient says depends on ``output``: nothing with "threshold" and "sampled", where autograd
    returns exactly zero and ``--rule gradient`` leaves the generator where it was; a surrogate's
    slope with "straight-through" and "gumbel". Rules of order 0 train all four: ``saddlepoint train
    digits-binary --rule per-player``.

    Args:
        latent: dimension of the generator's normal noise.
        hidden: width of the two hidden layers of the discriminator.
        generator_hidden: width of the two hidden layers of the generator.
        grid: rows and columns of the generator's logits, from 1 to 28.
        output: "threshold" of the logits; "sampled" with probability sigmoid(logits);
            "straight-through", the threshold with the slope of tanh; "gumbel", sampled with the
            slope of the binary concrete distribution.
        temperature: of "gumbel".

    Raises:
        UsageError: an unknown output, a temperature that is not positive, or a size out of range.

    >>> problem = DigitsBinary(output="sampled")
    >>> images = problem.generate(problem.networks(seed=0)["generator"], 2, seed=0, stream="samples")
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
        if self.output not in OUTPUTS:
            raise UsageError(
                f'Problem {self.name}: output "{self.output}" is unknown.'
                + did_you_mean(self.output, OUTPUTS)
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
        logits = nn.Sequential(coarse, Interpolated(self.grid, 28))  # the identity at grid=28
        return {
            DISCRIMINATOR: discriminator,
            GENERATOR: Binary(logits, self.latent, self._estimator()),
        }

    def noise(self, n: int, generator: torch.Generator) -> Tensor:
        """Return n inputs of the generator: normal ones, and uniform ones for every pixel where the output is sampled."""
        normal = super().noise(n, generator)
        return (
            torch.cat([normal, torch.rand(n, 784, generator=generator)], dim=1)
            if OUTPUTS[self.output]
            else normal
        )

    def _estimator(self) -> Callable[..., Tensor]:
        known: dict[str, Callable[..., Tensor]] = {
            "threshold": threshold,
            "sampled": bernoulli,
            "straight-through": straight_through,
            "gumbel": partial(gumbel, temperature=self.temperature, hard=True),
        }
        return known[self.output]

    def _read(self) -> tuple[LabelledImages, LabelledImages]:
        train, test = super()._read()
        return replace(train, images=threshold(train.images)), replace(
            test, images=threshold(test.images)
        )
