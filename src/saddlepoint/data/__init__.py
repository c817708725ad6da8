"""Data: MNIST (a part of it embedded), mixtures of Gaussians, and the order of batches."""

from saddlepoint.data.images import LabelledImages, load_digits, load_mnist, mnist_files
from saddlepoint.data.mixtures import Mixture, grid, ring
from saddlepoint.data.stream import BatchOrder, generator_for

__all__ = [
    "BatchOrder",
    "LabelledImages",
    "Mixture",
    "generator_for",
    "grid",
    "load_digits",
    "load_mnist",
    "mnist_files",
    "ring",
]
