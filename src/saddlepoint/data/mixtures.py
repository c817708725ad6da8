"""2-D mixtures of Gaussians, the usual test for mode collapse."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from saddlepoint.errors import UsageError


@dataclass(frozen=True)
class Mixture:
    """Equally likely 2-D Gaussians N(centre, σ² I).

    Attributes:
        centres: shape (modes, 2).
        sigma: the standard deviation σ of every mode.
    """

    centres: Tensor
    sigma: float

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise UsageError(f"A mixture needs sigma > 0, not {self.sigma}.")

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Return n samples, shape (n, 2)."""
        modes = torch.randint(len(self.centres), (n,), generator=generator)
        return self.centres[modes] + self.sigma * torch.randn(n, 2, generator=generator)


def ring(modes: int = 8, radius: float = 2.0, sigma: float = 0.02) -> Mixture:
    """Return modes at the angles 2πk / modes, k = 0 … modes − 1, on a circle.

    Radius 2 and σ = 0.02 as in Metz et al. (2017), Unrolled GANs, arXiv:1611.02163.

    >>> ring().centres.unique(dim=0).shape
    torch.Size([8, 2])
    """
    angles = 2 * math.pi * torch.arange(modes) / modes
    return Mixture(radius * torch.stack([angles.cos(), angles.sin()], dim=1), sigma)


def grid(side: int = 5, spacing: float = 2.0, sigma: float = 0.05) -> Mixture:
    """Return side × side modes around the origin.

    Spacing 2 and σ = 0.05 as in Srivastava et al. (2017), VEEGAN, arXiv:1705.07761.

    >>> grid().centres.shape, grid().centres.mean().item()
    (torch.Size([25, 2]), 0.0)
    """
    axis = spacing * (torch.arange(side) - (side - 1) / 2)
    return Mixture(torch.cartesian_prod(axis, axis), sigma)
