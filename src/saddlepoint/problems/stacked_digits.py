"""Three handwritten digits stacked into the channels of a colour image: 1,000 modes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from saddlepoint.data import LabelledImages, generator_for, load_digits
from saddlepoint.errors import UsageError
from saddlepoint.metrics import (
    Measure,
    digit_cnn_hash,
    frechet_measure,
    mode_measures,
    stacked_modes,
)
from saddlepoint.models import SmallConvDiscriminator, SmallConvGenerator
from saddlepoint.problems.base import DISCRIMINATOR, GENERATOR, GanProblem, Metric
from saddlepoint.problems.digits import digit_features
from saddlepoint.problems.pictures import image_grid

MODES = 1000


@dataclass(frozen=True, kw_only=True)
class StackedDigits(GanProblem):
    """Generate 28 × 28 colour images of three independent digits, 1,000 equally likely modes.

    The networks are the convolutional pair of Table 3 of Lin et al. (2018), PacGAN,
    arXiv:1712.04086. Its discriminator has a quarter of the generator's channels, so that a plain
    GAN covers few modes (30.6 of 1,000 there, with 25,600 samples of a GAN trained on the 60,000
    digits). The digits are the 10,000 of ``digits``; the modes of samples are found by its
    classifier, channel by channel. Published tables count the modes of 25,600 or 26,000 samples:
    ``saddlepoint evaluate RUN --samples 25600``.

    Args:
        latent: dimension of the generator's normal noise; 256 as in the paper.
        size: the discriminator's channels relative to the generator's.
        batch_norm: batch normalisation in both networks, as in the paper; it couples the samples of
            a batch, including their curvature.

    Raises:
        UsageError: a size that is not positive, or r1 or r2 with batch normalisation, which mixes
            the gradients of the samples.

    >>> problem = StackedDigits()
    >>> problem.real(step=0, size=4, seed=0).shape
    torch.Size([4, 3, 28, 28])
    """

    latent: int = 256
    size: float = 0.25
    batch_norm: bool = True

    name: ClassVar[str] = "stacked-digits"
    evaluation_samples: ClassVar[int] = 5000
    coverage_metric: ClassVar[tuple[str, float]] = ("effective_modes", MODES)
    metric_names: ClassVar[Mapping[str, Metric]] = {
        "modes": Metric(
            "number of the 1,000 triples of digits with a sample; grows with the number of samples",
            "larger",
        ),
        "reverse_kl": Metric(
            "Σ p log(p/q) of the triples' shares, generated against real, in nats; at most"
            " log 1000 = 6.91",
            "smaller",
        ),
        "effective_modes": Metric(
            "number of equally frequent triples with the entropy of the generated ones", "larger"
        ),
        "frechet[digit-cnn]": Metric(
            "Fréchet distance to held-out stacks in the classifier's features of all channels",
            "smaller",
        ),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.size < math.inf:
            raise UsageError(
                f"Problem {self.name}: size={self.size} must be positive; 0.25 means a quarter of"
                " the generator's channels."
            )
        for name, weight in (("r1", self.r1), ("r2", self.r2)):
            if weight > 0 and self.batch_norm:
                raise UsageError(
                    f"Problem {self.name}: {name}={weight} cannot be used with batch_norm, which"
                    " mixes the gradients of the samples. Use batch_norm=false."
                )

    def networks(self, seed: int) -> dict[str, nn.Module]:
        generator = generator_for(seed, "networks")
        return {
            DISCRIMINATOR: SmallConvDiscriminator(
                self.size, batch_norm=self.batch_norm, generator=generator
            ),
            GENERATOR: SmallConvGenerator(
                self.latent, batch_norm=self.batch_norm, generator=generator
            ),
        }

    def real(self, step: int, size: int, seed: int) -> Tensor:
        return _stacks(self._data[0], size, generator_for(seed, "data", step))

    def held_out(self, n: int, seed: int) -> Tensor:
        return _stacks(self._data[1], n, generator_for(seed, "held-out"))

    def measures(self, samples: Tensor) -> Iterator[tuple[str, Measure]]:
        features, logits = _channelwise(samples)
        found = mode_measures(
            stacked_modes(logits),
            torch.full((MODES,), 1 / MODES),
            split="known density",
            extractor="digit-cnn",
        )
        yield "modes", found["modes"]
        yield "reverse_kl", found["reverse_kl"]
        yield "effective_modes", found["effective_modes"]
        frechet = frechet_measure(self._held_out, features, split="test", extractor="digit-cnn")
        yield "frechet[digit-cnn]", frechet

    def score(self, metrics: Mapping[str, float]) -> float:
        return metrics["reverse_kl"]

    def picture(self, samples: Tensor) -> Image.Image:
        return image_grid(samples)

    def extractors(self) -> dict[str, str]:
        return {"digit-cnn": digit_cnn_hash()}

    @cached_property
    def _data(self) -> tuple[LabelledImages, LabelledImages]:
        return load_digits()

    @cached_property
    def _held_out(self) -> Tensor:
        return _channelwise(self.held_out(2000, 0))[0]


def _stacks(digits: LabelledImages, n: int, generator: torch.Generator) -> Tensor:
    """Return n images of three independent digits; all triples are equally likely."""
    return digits.images[torch.randint(len(digits), (n, 3), generator=generator)].squeeze(2)


def _channelwise(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return features, shape (N, 192), and logits, shape (N, 3, 10), of the three channels."""
    features, logits = digit_features(images.reshape(-1, 1, 28, 28))
    return features.reshape(len(images), -1), logits.reshape(len(images), 3, -1)
