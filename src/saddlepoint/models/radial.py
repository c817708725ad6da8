"""A 1-D Gaussian mixture as generator and a linear discriminator of radial basis functions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from saddlepoint.errors import UsageError


class GaussianComponents(nn.Module):
    """The 1-D generator x = μ_k + exp(s_k) z of noise z and its component k.

    Args:
        means: the initial μ, shape (components,).
        log_deviations: the initial s, shape (components,).

    Raises:
        UsageError: means and log deviations are not vectors of equal length.

    >>> network = GaussianComponents(torch.tensor([-1.0, 1.0]), torch.zeros(2))
    >>> network(torch.tensor([[0.5, 1.0, 0.0], [0.5, 0.0, 1.0]])).tolist()
    [[-0.5], [1.5]]
    """

    def __init__(self, means: Tensor, log_deviations: Tensor) -> None:
        super().__init__()
        if means.ndim != 1 or means.shape != log_deviations.shape:
            raise UsageError(
                "Components need means and log deviations of equal length, got"
                f" {tuple(means.shape)} and {tuple(log_deviations.shape)}."
            )
        self.means = nn.Parameter(means.clone())
        self.log_deviations = nn.Parameter(log_deviations.clone())

    def forward(self, noise: Tensor) -> Tensor:
        """Map z and the one-hot component, shape (N, 1 + components), to (N, 1)."""
        z, component = noise[:, 0], noise[:, 1:]
        samples = component @ self.means + component @ self.log_deviations.exp() * z
        return samples.unsqueeze(1)


class RadialFeatures(nn.Module):
    """The 1-D discriminator ⟨w, φ(x)⟩ with radial basis functions φ_j(x) = exp(−(x − c_j)² / 2h²).

    It is linear in its weights, so that a convex loss is convex in them.

    Args:
        centres: the c_j, shape (features,).
        width: h.
        weights: the initial w, shape (features,).

    Raises:
        UsageError: a width that is not positive, or weights and centres of different shape.

    >>> network = RadialFeatures(torch.tensor([0.0, 1.0]), 1.0, torch.tensor([1.0, 0.0]))
    >>> round(network(torch.tensor([[2.0]])).item(), 4)  # exp(−2)
    0.1353
    """

    centres: Tensor

    def __init__(self, centres: Tensor, width: float, weights: Tensor) -> None:
        super().__init__()
        if not width > 0 or centres.ndim != 1 or weights.shape != centres.shape:
            raise UsageError(
                "Radial features need a positive width and a weight for each centre, got width"
                f" {width}, centres {tuple(centres.shape)} and weights {tuple(weights.shape)}."
            )
        self.register_buffer("centres", centres.clone())
        self.width = width
        self.weights = nn.Parameter(weights.clone())

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (N, 1) to (N, 1)."""
        features = torch.exp(-0.5 * ((inputs - self.centres) / self.width) ** 2)
        return (features @ self.weights).unsqueeze(1)
