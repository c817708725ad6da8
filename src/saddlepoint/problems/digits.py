"""Handwritten digits: the embedded 12,000 and the full MNIST."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from saddlepoint.data import BatchOrder, LabelledImages, generator_for, load_digits, load_mnist
from saddlepoint.errors import UsageError
from saddlepoint.metrics import class_coverage, digit_cnn_hash, frechet_distance, kernel_distance, load_digit_cnn
from saddlepoint.models import MLP
from saddlepoint.problems.base import DISCRIMINATOR, GENERATOR, GanProblem
from saddlepoint.problems.pictures import image_grid


@dataclass(frozen=True, kw_only=True)
class Digits(GanProblem):
    """Generate 28 × 28 digits with multilayer perceptrons, z → 128 → 128 → 784 and 784 → 128 → 128 → 1.

    Data: 10,000 real training images of MNIST and 2,000 held-out test images, shipped with the package. Metrics compare generated
    samples with the held-out images in the feature space of the shipped classifier, so they are not the published FID or KID.

    >>> problem = Digits()
    >>> losses = problem.losses(problem.networks(seed=0), problem.batch(step=0, size=8, seed=0), {"discriminator", "generator"})
    >>> {player: sorted(terms) for player, terms in losses.items()}
    {'discriminator': ['fake', 'real'], 'generator': ['fake']}
    """

    name: ClassVar[str] = "digits"
    evaluation_samples: ClassVar[int] = 2000
    metric_names: ClassVar[Mapping[str, str]] = {
        "frechet[digit-cnn]": "Fréchet distance to the held-out digits in the classifier's features; smaller is better",
        "kernel[digit-cnn]": "unbiased kernel distance (MMD², cubic kernel) in the same features; smaller is better",
        "classes": "share of the ten digits that make up at least 1 % of the samples; 1 is best",
    }

    def networks(self, seed: int) -> dict[str, nn.Module]:
        generator = generator_for(seed, "networks")
        hidden = (self.hidden, self.hidden)
        return {
            DISCRIMINATOR: MLP((784, *hidden, 1), activation=self.activation, generator=generator),
            GENERATOR: MLP(
                (self.latent, *hidden, 784), activation=self.activation, output=nn.Tanh(), shape=(1, 28, 28), generator=generator
            ),
        }

    def real(self, step: int, size: int, seed: int) -> Tensor:
        train = self._data[0]
        return train.images[self._order(size, seed).indices(step)]

    def metrics(self, samples: Tensor) -> dict[str, float]:
        features, logits = _features(samples)
        return {
            "frechet[digit-cnn]": frechet_distance(self._held_out, features),
            "kernel[digit-cnn]": kernel_distance(self._held_out, features),
            "classes": class_coverage(logits),
        }

    def score(self, metrics: Mapping[str, float]) -> float:
        return metrics["frechet[digit-cnn]"]

    def picture(self, samples: Tensor) -> Image.Image:
        return image_grid(samples)

    def extractors(self) -> dict[str, str]:
        return {"digit-cnn": digit_cnn_hash()}

    def _read(self) -> tuple[LabelledImages, LabelledImages]:
        return load_digits()

    @cached_property
    def _data(self) -> tuple[LabelledImages, LabelledImages]:
        return self._read()

    @cached_property
    def _held_out(self) -> Tensor:
        return _features(self._data[1].images)[0]

    @cached_property
    def _orders(self) -> dict[tuple[int, int], BatchOrder]:
        return {}

    def _order(self, size: int, seed: int) -> BatchOrder:
        return self._orders.setdefault((size, seed), BatchOrder(len(self._data[0]), size, seed))


@dataclass(frozen=True, kw_only=True)
class Mnist(Digits):
    """The same problem on the full MNIST, 60,000 + 10,000 images, from a directory of the user's.

    Args:
        data_dir: the directory with the four IDX files, plain or gzipped.
    """

    name: ClassVar[str] = "mnist"
    data_dir: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data_dir is None:
            raise UsageError("Problem mnist: give the directory that holds MNIST's four IDX files with --data-dir.")

    def _read(self) -> tuple[LabelledImages, LabelledImages]:
        return load_mnist(Path(str(self.data_dir)))


@torch.no_grad()
def _features(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return features and logits of the shipped classifier."""
    network = load_digit_cnn()
    features = torch.cat([network.features(part) for part in torch.split(images, 500)])
    return features, network.head(features)
