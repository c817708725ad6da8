"""Distances between two sets of samples in a feature space."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from saddlepoint.errors import UsageError


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """Return ‖μ_r − μ_f‖² + tr(Σ_r + Σ_f − 2 (Σ_r Σ_f)^½) of two sets of features, in float64.

    Args:
        real: features of real samples, shape (N, d).
        fake: features of generated samples, shape (M, d).

    Raises:
        UsageError: fewer than d + 1 samples on a side, which leaves a covariance without full rank; or a feature is not finite.

    Reference: Heusel et al. (2017), arXiv:1706.08500; computed by torchmetrics.

    >>> g = torch.Generator().manual_seed(0)
    >>> x = torch.randn(500, 4, generator=g)
    >>> round(frechet_distance(x, x + torch.tensor([2.0, 0, 0, 0])), 6)
    4.0
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    dimension = real.shape[1]
    _check_features("Fréchet distance", real, fake, least=dimension + 1)
    metric = FrechetInceptionDistance(feature=_Features(dimension))
    metric.update(real.double(), real=True)
    metric.update(fake.double(), real=False)
    return float(metric.compute())


def kernel_distance(real: Tensor, fake: Tensor) -> float:
    """Return the unbiased squared MMD with the kernel (⟨a, b⟩/d + 1)³ over all samples (of the larger side, the first ones).

    Unbiased: around zero for equal distributions, and it may be slightly negative. One subset as large as the smaller side is
    used, so the number does not depend on a random choice.

    Raises:
        UsageError: fewer than 100 samples on a side, or a feature is not finite.

    Reference: Bińkowski et al. (2018), Demystifying MMD GANs, arXiv:1801.01401; computed by torchmetrics.

    >>> g = torch.Generator().manual_seed(0)
    >>> a, b = torch.randn(2, 500, 4, generator=g)
    >>> abs(kernel_distance(a, b)) < 0.05 < kernel_distance(a, b + 1)
    True
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    _check_features("Kernel distance", real, fake, least=100)
    n = min(len(real), len(fake))
    with warnings.catch_warnings(), torch.random.fork_rng():  # torchmetrics warns of memory and shuffles with the global generator
        warnings.simplefilter("ignore", UserWarning)
        torch.manual_seed(0)
        metric = KernelInceptionDistance(feature=_Features(real.shape[1]), subsets=1, subset_size=n)
        metric.update(real[:n].double(), real=True)
        metric.update(fake[:n].double(), real=False)
        return float(metric.compute()[0])


class _Features(nn.Module):
    """Stands where torchmetrics expects an extractor: its inputs are features already."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.num_features = dimension

    def forward(self, features: Tensor) -> Tensor:
        return features


def _check_features(name: str, real: Tensor, fake: Tensor, least: int) -> None:
    for kind, features in (("real", real), ("generated", fake)):
        if len(features) < least:
            raise UsageError(f"{name} needs at least {least} {kind} samples, got {len(features)}. Evaluate with more samples.")
        if not bool(features.isfinite().all()):
            raise UsageError(f"{name}: a feature of the {kind} samples is not finite; the network has diverged.")
