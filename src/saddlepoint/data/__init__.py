"""Data: embedded and full MNIST, mixtures of Gaussians, and the order in which training sees them."""

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
