"""Handwritten digits: the embedded 12,000 and the full MNIST."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from saddlepoint.data import (
    BatchOrder,
    LabelledImages,
    generator_for,
    load_digits,
    load_mnist,
    mnist_files,
)
from saddlepoint.errors import UsageError
from saddlepoint.metrics import (
    Measure,
    Memorisation,
    class_measures,
    digit_cnn_hash,
    diversity_share,
    frechet_measure,
    generalisation_gap,
    mmd2_measure,
    load_digit_cnn,
    manifold_measures,
    memorisation_measures,
    nearest_distances,
)
from saddlepoint.models import MLP
from saddlepoint.problems.base import DISCRIMINATOR, GENERATOR, Metric, MlpProblem
from saddlepoint.problems.pictures import image_grid

MOST_TRAINING_IMAGES = 10_000
"""How many training images neighbours are sought among: the embedded ones are all seen, of the full MNIST the first sixth."""


@dataclass(frozen=True, kw_only=True)
class Digits(MlpProblem):
    """Generate 28 × 28 digits with multilayer perceptrons, z → 128 → 128 → 784 and 784 → 128 → 128 → 1.

    Data: 10,000 real training images of MNIST and 2,000 held-out test images, shipped with the
    package. Metrics compare generated samples with the held-out images in the feature space of the
    shipped classifier, so they are not the published FID or KID.

    Args:
        train_images: train on the first so many images only, at least 100; all by default. Few
            images make the discriminator learn them by heart.

    Raises:
        UsageError: ``train_images`` below 100.

    >>> problem = Digits()
    >>> losses = problem.losses(problem.networks(seed=0), problem.batch(step=0, size=8, seed=0), {"discriminator", "generator"})
    >>> {player: sorted(terms) for player, terms in losses.items()}
    {'discriminator': ['fake', 'real'], 'generator': ['fake']}
    """

    name: ClassVar[str] = "digits"
    evaluation_samples: ClassVar[int] = 2000
    evaluation_pause: ClassVar[int] = 100
    coverage: ClassVar[tuple[str, float]] = ("effective_classes", 10)
    metric_names: ClassVar[Mapping[str, Metric]] = {
        "frechet[digit-cnn]": Metric(
            "Fréchet distance to the held-out digits in the classifier's features", "smaller"
        ),
        "mmd2[digit-cnn]": Metric(
            "unbiased kernel distance (MMD², cubic kernel) in the same features", "smaller"
        ),
        "precision[digit-cnn]": Metric(
            "share of samples within the 5-nearest-neighbour balls of held-out digits", "larger"
        ),
        "recall[digit-cnn]": Metric(
            "share of held-out digits within the balls of samples", "larger"
        ),
        "density[digit-cnn]": Metric(
            "balls of held-out digits that a sample lies in, as a share of 5", "larger"
        ),
        "coverage[digit-cnn]": Metric(
            "share of held-out digits whose ball holds a sample", "larger"
        ),
        "class_coverage": Metric(
            "share of the ten digits that make up at least 1 % of the samples", "larger"
        ),
        "class_entropy": Metric(
            "entropy of the digits that samples are classified as, in nats; log 10 = 2.30 at most",
            "larger",
        ),
        "effective_classes": Metric("equally frequent digits of the same entropy", "larger"),
        "diversity[digit-cnn]": Metric(
            "mean distance between samples, as a share of that between held-out digits", None
        ),
        "neighbour_ratio[digit-cnn]": Metric(
            "distance to the nearest training digit, by that of held-out digits; copies: near 0",
            None,
        ),
        "copying[digit-cnn]": Metric(
            "pairs where a sample lies nearer to the training set than a held-out digit; copies: 1",
            None,
        ),
        "gap[digit-cnn]": Metric(
            "Fréchet distance to held-out less that to training digits; overfitting: above 0", None
        ),
    }
    train_images: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_images is not None and self.train_images < 100:
            raise UsageError(
                f"Problem {self.name}: train_images={self.train_images} must be at least 100, or"
                " left out for all images."
            )

    def networks(self, seed: int) -> dict[str, nn.Module]:
        generator = generator_for(seed, "networks")
        hidden = (self.hidden, self.hidden)
        return {
            DISCRIMINATOR: MLP((784, *hidden, 1), activation=self.activation, generator=generator),
            GENERATOR: MLP(
                (self.latent, *hidden, 784),
                activation=self.activation,
                output=nn.Tanh(),
                shape=(1, 28, 28),
                generator=generator,
            ),
        }

    def real(self, step: int, size: int, seed: int) -> Tensor:
        train = self._data[0]
        return train.images[self._order(size, seed).indices(step)]

    def held_out(self, n: int, seed: int) -> Tensor:
        test = self._data[1].images
        return test[torch.randperm(len(test), generator=generator_for(seed, "held-out"))[:n]]

    def measures(self, samples: Tensor) -> Iterator[tuple[str, Measure]]:
        features, logits = digit_features(samples)
        test, train = self._held_out, self._trained_on
        space = "[digit-cnn]"
        yield (
            f"frechet{space}",
            frechet_measure(test, features, split="test", extractor="digit-cnn"),
        )
        yield f"mmd2{space}", mmd2_measure(test, features, split="test", extractor="digit-cnn")
        for name, measure in manifold_measures(
            test, features, split="test", extractor="digit-cnn"
        ).items():
            yield name + space, measure
        yield from class_measures(logits, split="known classes", extractor="digit-cnn").items()
        yield (
            f"diversity{space}",
            diversity_share(test, features, split="test", extractor="digit-cnn"),
        )
        near = Memorisation(nearest_distances(features, train), self._held_out_distances)
        copies = memorisation_measures(
            near, train=len(train), split="train and test", extractor="digit-cnn"
        )
        yield f"neighbour_ratio{space}", copies["ratio"]
        yield f"copying{space}", copies["copying"]
        unseen = test[:: max(1, -(-len(test) // len(train)))]  # the gap compares equally large sets
        yield (
            f"gap{space}",
            generalisation_gap(
                train, unseen, features, split="train and test", extractor="digit-cnn"
            ),
        )

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
        train, test = self._read()
        return (
            LabelledImages(train.images[: self.train_images], train.labels[: self.train_images]),
            test,
        )

    @cached_property
    def _held_out(self) -> Tensor:
        return digit_features(self._data[1].images)[0]

    @cached_property
    def _held_out_distances(self) -> Tensor:
        return nearest_distances(self._held_out, self._trained_on)

    @cached_property
    def _trained_on(self) -> Tensor:
        return digit_features(self._data[0].images[:MOST_TRAINING_IMAGES])[0]

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
            raise UsageError(
                "Problem mnist: give the directory that holds MNIST's four IDX files with"
                " --data-dir."
            )

    def _read(self) -> tuple[LabelledImages, LabelledImages]:
        return load_mnist(Path(str(self.data_dir)))

    def data_files(self) -> list[Path]:
        return mnist_files(Path(str(self.data_dir)))


@torch.no_grad()
def digit_features(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return features, shape (N, 64), and logits, shape (N, 10), of the shipped classifier."""
    network = load_digit_cnn()
    # larger parts leave the cache
    features = torch.cat([network.features(part) for part in torch.split(images, 100)])
    return features, network.head(features)
