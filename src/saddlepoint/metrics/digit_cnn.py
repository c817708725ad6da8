"""The feature extractor of the digit metrics: a small classifier with shipped weights."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).parent / "digit_cnn.safetensors"


class DigitCNN(nn.Module):
    """A classifier of 28 x 28 digits; its 64 penultimate activations are the features of metrics.

    Two convolutions (3 x 3, 24 and 48 channels, ReLU, max-pooling), one hidden layer of 64, ten
    logits; 88,170 parameters. Inputs are images in [-1, 1] of shape (N, 1, 28, 28).

    >>> network = load_digit_cnn()
    >>> network.features(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 64])
    """

    num_features = 64

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 24, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(24, 48, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(48 * 5 * 5, self.num_features), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(self.num_features, 10)

    def features(self, images: Tensor) -> Tensor:
        """Return the penultimate activations, shape (N, 64)."""
        return torch.as_tensor(self.body(images))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of the ten classes, shape (N, 10)."""
        return torch.as_tensor(self.head(self.body(images)))


@cache
def load_digit_cnn() -> DigitCNN:
    """Return the shipped classifier on the CPU, frozen and in evaluation mode."""
    with torch.device("meta"):  # no initial weights, and none drawn from the global generator
        network = DigitCNN()
    network.load_state_dict(load_file(WEIGHTS), assign=True)
    return network.eval().requires_grad_(False)


@cache
def digit_cnn_hash() -> str:
    """Return the SHA-256 of the shipped weights, a condition of every result that uses them."""
    return hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
