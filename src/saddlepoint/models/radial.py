"""A Gaussian mixture as a generator and a linear judge of radial features: the smallest pair whose equilibrium is known."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from saddlepoint.errors import UsageError


class GaussianComponents(nn.Module):
    """x = μ_k + exp(s_k) z on the line, from noise z and the component k it goes to.

    Args:
        means: the initial μ, shape (components,).
        log_deviations: the initial s, shape (components,).

    Raises:
        UsageError: means and log deviations that are no vectors of one length.

    >>> network = GaussianComponents(torch.tensor([-1.0, 1.0]), torch.zeros(2))
    >>> network(torch.tensor([[0.5, 1.0, 0.0], [0.5, 0.0, 1.0]])).tolist()
    [[-0.5], [1.5]]
    """

    def __init__(self, means: Tensor, log_deviations: Tensor) -> None:
        super().__init__()
        if means.ndim != 1 or means.shape != log_deviations.shape:
            raise UsageError(
                f"Components need means and log deviations of one length, got {tuple(means.shape)}"
                f" and {tuple(log_deviations.shape)}."
            )
        self.means, self.log_deviations = (
            nn.Parameter(means.clone()),
            nn.Parameter(log_deviations.clone()),
        )

    def forward(self, noise: Tensor) -> Tensor:
        """Map z beside the indicators of k, shape (N, 1 + components), to (N, 1)."""
        z, component = noise[:, :1], noise[:, 1:]
        return (
            component @ self.means + component @ self.log_deviations.exp() * z.squeeze(1)
        ).unsqueeze(1)


class RadialFeatures(nn.Module):
    """⟨w, φ(x)⟩ with φ_j(x) = exp(−(x − c_j)² / 2h²) on the line: linear in its weights, so that a convex loss is convex in them.

    Args:
        centres: the c_j, shape (features,).
        width: h.
        weights: the initial w, shape (features,).

    Raises:
        UsageError: a width that is not positive, or weights that do not fit the centres.

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
        return (
            torch.exp(-0.5 * ((inputs - self.centres) / self.width) ** 2) @ self.weights
        ).unsqueeze(1)
