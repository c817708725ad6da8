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
    Origin,
    ball_radii,
    class_measures,
    digit_cnn_hash,
    diversity_share,
    frechet_measure,
    generalisation_gap,
    load_digit_cnn,
    manifold_measures,
    mean_distances,
    memorisation_measures,
    mmd2_measure,
    nearest_distances,
)
from saddlepoint.models import MLP
from saddlepoint.problems.base import DISCRIMINATOR, GENERATOR, Metric, MlpProblem
from saddlepoint.problems.pictures import image_grid

MAX_REFERENCES = 10_000
"""Number of training images for nearest neighbours: all embedded, a sixth of the full MNIST."""


@dataclass(frozen=True)
class References:
    """What every evaluation needs of the real images, computed once.

    Attributes:
        train: features of training images, shape (N, d).
        test: features of the held-out images, shape (M, d).
        test_to_train: distance of each held-out image to the nearest training image, shape (M,).
        test_radii: distance of each held-out image to its fifth neighbour among them, shape (M,).
        test_mean_distances: mean distance of each held-out image to the others, shape (M,).
    """

    train: Tensor
    test: Tensor
    test_to_train: Tensor
    test_radii: Tensor
    test_mean_distances: Tensor


@dataclass(frozen=True, kw_only=True)
class Digits(MlpProblem):
    """Generate 28 × 28 digits with MLPs, z → 128 → 128 → 784 and 784 → 128 → 128 → 1.

    The data, 10,000 training images and 2,000 held-out test images of MNIST, is part of the
    package. Metrics compare generated samples with the held-out images in the feature space of the
    classifier of the package, so they are not the published FID or KID.

    Args:
        train_images: number of training images, the first ones, at least 100; all by default. With
            few images the discriminator memorises them.

    Raises:
        UsageError: ``train_images`` below 100.

    >>> problem = Digits()
    >>> networks, batch = problem.networks(seed=0), problem.batch(step=0, size=8, seed=0)
    >>> losses = problem.losses(networks, batch, {"discriminator", "generator"})
    >>> {player: sorted(terms) for player, terms in losses.items()}
    {'discriminator': ['fake', 'real'], 'generator': ['fake']}
    """

    name: ClassVar[str] = "digits"
    evaluation_samples: ClassVar[int] = 2000
    min_evaluate_every: ClassVar[int] = 100
    coverage_metric: ClassVar[tuple[str, float]] = ("effective_classes", 10)
    metric_names: ClassVar[Mapping[str, Metric]] = {
        "frechet[digit-cnn]": Metric(
            "Fréchet distance to the held-out digits in the classifier's features", "smaller"
        ),
        "mmd2[digit-cnn]": Metric(
            "unbiased squared MMD (cubic kernel) in the same features", "smaller"
        ),
        "precision[digit-cnn]": Metric(
            "share of samples within the 5-nearest-neighbour balls of held-out digits", "larger"
        ),
        "recall[digit-cnn]": Metric(
            "share of held-out digits within the balls of samples", "larger"
        ),
        "density[digit-cnn]": Metric(
            "number of balls of held-out digits that a sample lies in, divided by 5", "larger"
        ),
        "coverage[digit-cnn]": Metric(
            "share of held-out digits whose ball contains a sample", "larger"
        ),
        "class_coverage": Metric(
            "share of the ten digits with at least 1 % of the samples each", "larger"
        ),
        "class_entropy": Metric(
            "entropy of the predicted digits, in nats; at most log 10 = 2.30",
            "larger",
        ),
        "effective_classes": Metric(
            "number of equally frequent digits with the same entropy", "larger"
        ),
        "diversity[digit-cnn]": Metric(
            "mean distance between samples, relative to held-out digits", None
        ),
        "neighbour_ratio[digit-cnn]": Metric(
            "distance to the nearest training digit, relative to held-out digits; copies: near 0",
            None,
        ),
        "copying[digit-cnn]": Metric(
            "P(a sample is nearer to the training set than a held-out digit); copies: 1",
            None,
        ),
        "gap[digit-cnn]": Metric(
            "Fréchet distance to held-out minus that to training digits; overfitting: above 0", None
        ),
    }
    train_images: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_images is not None and self.train_images < 100:
            raise UsageError(
                f"Problem {self.name}: train_images={self.train_images} must be at least 100."
                " The default is all images."
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
        if (size, seed) not in self._orders:
            self._orders[size, seed] = BatchOrder(len(train), size, seed)
        return train.images[self._orders[size, seed].indices(step)]

    def held_out(self, n: int, seed: int) -> Tensor:
        test = self._data[1].images
        return test[torch.randperm(len(test), generator=generator_for(seed, "held-out"))[:n]]

    def measures(self, samples: Tensor) -> Iterator[tuple[str, Measure]]:
        features, logits = digit_features(samples)
        references = self._references
        train, test = references.train, references.test
        held_out: Origin = {"split": "test", "extractor": "digit-cnn"}
        both: Origin = {"split": "train and test", "extractor": "digit-cnn"}

        yield "frechet[digit-cnn]", frechet_measure(test, features, **held_out)
        yield "mmd2[digit-cnn]", mmd2_measure(test, features, **held_out)
        balls = manifold_measures(test, features, real_radii=references.test_radii, **held_out)
        for name, measure in balls.items():
            yield f"{name}[digit-cnn]", measure
        yield from class_measures(logits, split="known classes", extractor="digit-cnn").items()
        yield (
            "diversity[digit-cnn]",
            diversity_share(
                test, features, real_distances=references.test_mean_distances, **held_out
            ),
        )

        near = Memorisation(nearest_distances(features, train), references.test_to_train)
        copies = memorisation_measures(near, train=len(train), **both)
        yield "neighbour_ratio[digit-cnn]", copies["ratio"]
        yield "copying[digit-cnn]", copies["copying"]

        unseen = test[:: max(1, -(-len(test) // len(train)))]  # the gap compares sets of equal size
        yield "gap[digit-cnn]", generalisation_gap(train, unseen, features, **both)

    def score(self, metrics: Mapping[str, float]) -> float:
        return metrics["frechet[digit-cnn]"]

    def picture(self, samples: Tensor) -> Image.Image:
        return image_grid(samples)

    def extractors(self) -> dict[str, str]:
        return {"digit-cnn": digit_cnn_hash()}

    def read_images(self) -> tuple[LabelledImages, LabelledImages]:
        """Return the training and the test images."""
        return load_digits()

    @cached_property
    def _data(self) -> tuple[LabelledImages, LabelledImages]:
        train, test = self.read_images()
        kept = slice(self.train_images)
        return LabelledImages(train.images[kept], train.labels[kept]), test

    @cached_property
    def _references(self) -> References:
        train, _ = digit_features(self._data[0].images[:MAX_REFERENCES])
        test, _ = digit_features(self._data[1].images)
        return References(
            train,
            test,
            test_to_train=nearest_distances(test, train),
            test_radii=ball_radii(test),
            test_mean_distances=mean_distances(test),
        )

    @cached_property
    def _orders(self) -> dict[tuple[int, int], BatchOrder]:
        """(batch size, seed) → order of the training images."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Mnist(Digits):
    """The same problem on the full MNIST, 60,000 training and 10,000 test images.

    Args:
        data_dir: directory with the four IDX files, plain or gzipped.
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

    def read_images(self) -> tuple[LabelledImages, LabelledImages]:
        return load_mnist(Path(str(self.data_dir)))

    def data_files(self) -> list[Path]:
        return mnist_files(Path(str(self.data_dir)))


@torch.no_grad()
def digit_features(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return features, shape (N, 64), and logits, shape (N, 10), of the classifier."""
    network = load_digit_cnn()
    # batches of 100 fit into the CPU cache
    features = torch.cat([network.features(part) for part in torch.split(images, 100)])
    return features, network.head(features)
