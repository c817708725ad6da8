"""Handwritten digits: the embedded part of MNIST, and MNIST files of the user."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from saddlepoint.data.idx import read_idx
from saddlepoint.errors import UsageError

EMBEDDED = Path(__file__).parent / "digits"


@dataclass(frozen=True)
class LabelledImages:
    """Images in [-1, 1], shape (N, C, H, W), float32, with integer labels of shape (N,)."""

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise UsageError(
                f"{len(self.images)} images come with {len(self.labels)} labels; the files do not"
                " belong together."
            )

    def __len__(self) -> int:
        return len(self.images)


def load_digits() -> tuple[LabelledImages, LabelledImages]:
    """Return the embedded digits, 10,000 training and 2,000 test images of MNIST.

    Both are balanced over the ten classes. Source: Y. LeCun, C. Cortes and C. Burges, the MNIST
    database, CC BY-SA 3.0.

    >>> train, test = load_digits()
    >>> train.images.shape, len(test)
    (torch.Size([10000, 1, 28, 28]), 2000)
    """
    return load_mnist(EMBEDDED)


def load_mnist(directory: Path) -> tuple[LabelledImages, LabelledImages]:
    """Return the training and the test images of MNIST's four IDX files, plain or ``.gz``.

    Raises:
        UsageError: a file is missing or damaged, or images and labels differ in number.
    """
    return _load_split(directory, "train"), _load_split(directory, "t10k")


def mnist_files(directory: Path) -> list[Path]:
    """Return the files that ``load_mnist`` reads: training images, labels, test images, labels.

    Raises:
        UsageError: a file is missing.
    """
    return [*_split_files(directory, "train"), *_split_files(directory, "t10k")]


def _split_files(directory: Path, prefix: str) -> tuple[Path, Path]:
    """Return the files of images and labels of a split."""
    found = []
    for name in (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"):
        packed, plain = directory / f"{name}.gz", directory / name
        if not packed.is_file() and not plain.is_file():
            raise UsageError(
                f"{directory} has neither {name}.gz nor {name}. Give the directory that holds"
                " MNIST's four IDX files with --data-dir."
            )
        found.append(packed if packed.is_file() else plain)
    return found[0], found[1]


def _load_split(directory: Path, prefix: str) -> LabelledImages:
    images, names = _split_files(directory, prefix)
    pixels, labels = read_idx(images), read_idx(names)
    if pixels.ndim != 3 or pixels.shape[1:] != (28, 28) or labels.ndim != 1:
        raise UsageError(
            f"{directory}: expected images of 28 x 28 and one label each, found shapes"
            f" {pixels.shape} and {labels.shape}."
        )
    if not len(pixels):
        raise UsageError(
            f"{directory}: the file {prefix}-images-idx3-ubyte holds no images. Fetch the four"
            " files again."
        )
    scaled = torch.from_numpy(pixels.astype(np.float32)).div_(127.5).sub_(1).unsqueeze_(1)
    return LabelledImages(scaled, torch.from_numpy(labels.astype(np.int64)))
