"""Distances between two sets of samples in a feature space."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from functools import cache
from itertools import chain
from typing import Unpack

import torch
from torch import Tensor, nn

from saddlepoint.errors import UsageError
from saddlepoint.extras import needs
from saddlepoint.metrics.measure import Measure, Origin, multiplicities, resampled

Features = Tensor | Iterable[Tensor]


def frechet_distance(real: Features, fake: Features) -> float:
    """Return ‖μ_r − μ_f‖² + tr(Σ_r + Σ_f − 2 (Σ_r Σ_f)^½) of two sets of features, in float64.

    tr (Σ_r Σ_f)^½ is the sum of the square roots of the eigenvalues of Σ_r Σ_f, which also exists
    for singular covariances; a result below zero by rounding is set to zero.

    Args:
        real: features of real samples, shape (N, d), or an iterable of such tensors, which is
            consumed part by part.
        fake: features of generated samples, shape (M, d), or an iterable of such tensors.

    Raises:
        UsageError: a set has fewer than d + 1 samples, so that its covariance is singular; the
            shapes do not match; or a feature is not finite.

    Reference: Heusel et al. (2017), GANs Trained by a Two Time-Scale Update Rule, arXiv:1706.08500;
    computed by torchmetrics.

    >>> g = torch.Generator().manual_seed(0)
    >>> x = torch.randn(500, 4, generator=g)
    >>> round(frechet_distance(x, x + torch.tensor([2.0, 0, 0, 0])), 6)
    4.0
    >>> round(frechet_distance(iter(x.split(100)), x), 6)
    0.0
    """
    with needs("train", "The Fréchet distance"):
        from torchmetrics.image.fid import FrechetInceptionDistance

    name = "Fréchet distance"
    real_parts = iter([real] if isinstance(real, Tensor) else real)
    fake_parts = [fake] if isinstance(fake, Tensor) else fake
    first = next((part for part in real_parts if len(part)), None)
    if first is None:
        raise UsageError(
            f"{name}: the real samples are empty. Give at least one sample more than there are"
            " features."
        )
    _check_part(name, "real", first, first.shape[1:])
    metric = FrechetInceptionDistance(feature=_Features(first.shape[1]))
    # shifting both sets does not change the distance; sums of squares around a distant origin
    # would lose all digits
    origin = first.double().mean(0)
    for kind, parts in (("real", chain([first], real_parts)), ("generated", fake_parts)):
        count = 0
        for part in parts:
            _check_part(name, kind, part, origin.shape)
            metric.update(part.double() - origin, real=kind == "real")
            count += len(part)
        _check_count(name, kind, count, len(origin) + 1)
    value = float(metric.compute())
    if not math.isfinite(value):
        raise UsageError(
            f"{name}: the features are too large for float64; the network has diverged."
        )
    return max(0.0, value)


def frechet_measure(real: Tensor, fake: Tensor, **origin: Unpack[Origin]) -> Measure:
    """Return ``frechet_distance`` with replicates that resample both sets.

    Args:
        real: features of real samples, shape (N, d).
        fake: features of generated samples, shape (M, d).
        **origin: ``split``, ``extractor`` and ``resize`` of the measure.

    Raises:
        UsageError: as ``frechet_distance``.

    >>> x = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    >>> round(frechet_measure(x, x + 1, split="test", extractor="none").value, 5)
    4.0
    """
    value = frechet_distance(real, fake)
    return Measure(
        value,
        resampled(frechet_distance, real, fake),
        generated=len(fake),
        real=len(real),
        lower=0,
        **origin,
    )


def generalisation_gap(
    train_features: Tensor, test_features: Tensor, fake: Tensor, **origin: Unpack[Origin]
) -> Measure:
    """Return the Fréchet distance to the test set minus that to a part of the training set.

    About zero for a generator that is equally far from both, above zero if it is nearer to its
    training data. The part has as many samples as the test set, because the bias of the distance
    depends on the number of samples; it is evenly spaced, so that the order of the data by class
    does not matter.

    Args:
        train_features: features of the training samples, shape (T, d).
        test_features: features of held-out samples, shape (N, d), N ≤ T.
        fake: features of generated samples, shape (M, d).
        **origin: ``split``, ``extractor`` and ``resize`` of the measure.

    Raises:
        UsageError: fewer training than test samples; otherwise as ``frechet_distance``.

    >>> train, test = torch.randn(2, 500, 4, generator=torch.Generator().manual_seed(0))
    >>> generalisation_gap(train, test, train, split="train and test", extractor="none").value > 0
    True
    """
    n, total = len(test_features), len(train_features)
    if total < n:
        raise UsageError(
            f"The generalisation gap needs at least as many training as test samples, got {total}"
            f" and {n}. Give more training features."
        )
    part = train_features[torch.arange(n) * total // max(n, 1)]

    def gap(train: Tensor, test: Tensor, fake: Tensor) -> float:
        return frechet_distance(test, fake) - frechet_distance(train, fake)

    return Measure(
        gap(part, test_features, fake),
        resampled(gap, part, test_features, fake),
        generated=len(fake),
        real=2 * n,
        **origin,
    )


def mmd2(real: Tensor, fake: Tensor) -> float:
    """Return the unbiased squared maximum mean discrepancy with the kernel (⟨a, b⟩/d + 1)³.

    Unbiased: the expectation is zero for equal distributions, so the value may be slightly
    negative. All samples of the smaller set and as many of the larger set, its first ones, are
    used, so that the value does not depend on a random subset as KID does.

    Args:
        real: features of real samples, shape (N, d).
        fake: features of generated samples, shape (M, d).

    Raises:
        UsageError: a set has fewer than 100 samples, or a feature is not finite.

    Reference: Bińkowski et al. (2018), Demystifying MMD GANs, arXiv:1801.01401; computed by
    torchmetrics.

    >>> g = torch.Generator().manual_seed(0)
    >>> a, b = torch.randn(2, 500, 4, generator=g)
    >>> abs(mmd2(a, b)) < 0.05 < mmd2(a, b + 1)
    True
    """
    with needs("train", "MMD²"):
        from torchmetrics.image.kid import KernelInceptionDistance

    check_features("MMD²", min_samples=100, real=real, generated=fake)
    n = min(len(real), len(fake))
    # torchmetrics warns about memory and shuffles with the global generator
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore", UserWarning)
        torch.manual_seed(0)
        metric = KernelInceptionDistance(feature=_Features(real.shape[1]), subsets=1, subset_size=n)
        metric.update(real[:n].double(), real=True)
        metric.update(fake[:n].double(), real=False)
        return float(metric.compute()[0])


def mmd2_measure(real: Tensor, fake: Tensor, **origin: Unpack[Origin]) -> Measure:
    """Return ``mmd2`` with replicates that resample both sets.

    A replicate with multiplicities a of the real and b of the generated samples is
    (aᵀKa − aᵀdiag K)/(n(n − 1)) + (bᵀLb − bᵀdiag L)/(n(n − 1)) − 2 aᵀMb/n², with the kernel
    matrices K, L of the sets and M between them. They are computed for the first replicate and
    kept, 3 n² numbers. A sample and its own copy count as a pair.

    Args:
        real: features of real samples, shape (N, d).
        fake: features of generated samples, shape (M, d).
        **origin: ``split``, ``extractor`` and ``resize`` of the measure.

    Raises:
        UsageError: as ``mmd2``.

    >>> a, b = torch.randn(2, 500, 4, generator=torch.Generator().manual_seed(0))
    >>> measure = mmd2_measure(a, b + 1, split="test", extractor="none")
    >>> low, high = measure.interval(50, torch.Generator().manual_seed(0))
    >>> 0 < low < measure.value < high
    True
    """
    n = min(len(real), len(fake))
    value = mmd2(real, fake)

    @cache
    def kernels() -> tuple[Tensor, Tensor, Tensor]:
        x, y = real[:n].double(), fake[:n].double()
        return _kernel(x, x), _kernel(y, y), _kernel(x, y)

    def replicate(generator: torch.Generator) -> float:
        a, b = multiplicities(n, generator), multiplicities(n, generator)
        return _weighted_mmd2(kernels(), a, b)

    return Measure(value, replicate, generated=n, real=n, **origin)


def wasserstein_1d(real: Tensor, fake: Tensor) -> float:
    """Return the Wasserstein-1 distance of two samples of numbers, mean |x_(i) − y_(i)|, sorted.

    Args:
        real: real samples, shape (N,) or (N, 1).
        fake: equally many generated samples.

    Raises:
        UsageError: no samples, other shapes, or sets of different size.

    >>> wasserstein_1d(torch.tensor([0.0, 1.0]), torch.tensor([2.0, 0.0]))
    0.5
    """
    if not len(real) or any(
        sample.shape not in ((len(real),), (len(real), 1)) for sample in (real, fake)
    ):
        raise UsageError(
            "The 1-D Wasserstein distance needs two sets of equally many numbers, got"
            f" shapes {tuple(real.shape)} and {tuple(fake.shape)}."
        )
    x, y = (sample.double().flatten().sort().values for sample in (real, fake))
    return float((x - y).abs().mean())


def check_features(name: str, *, min_samples: int, **sets: Tensor) -> None:
    """Raise an error for sets of features that are too small, of different width or not finite.

    Args:
        name: the metric, for the message.
        min_samples: the smallest number of rows.
        **sets: kind of samples → features, shape (N, d); underscores are shown as hyphens.

    Raises:
        UsageError: as described.

    >>> check_features("Diversity", min_samples=2, real=torch.zeros(1, 3))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    saddlepoint.errors.UsageError: Diversity needs at least 2 real samples, got 1. ...
    """
    for kind, features in sets.items():
        kind = kind.replace("_", "-")
        _check_count(name, kind, len(features), min_samples)
        _check_part(name, kind, features, next(iter(sets.values())).shape[1:])


def _check_count(name: str, kind: str, count: int, min_samples: int) -> None:
    if count < min_samples:
        raise UsageError(
            f"{name} needs at least {min_samples} {kind} samples, got {count}. Evaluate with more"
            " samples."
        )


def _check_part(name: str, kind: str, features: Tensor, width: torch.Size) -> None:
    if features.ndim != 2 or features.shape[1:] != width:
        raise UsageError(
            f"{name}: {kind} features have the shape {tuple(features.shape)}; all must be (N, d)"
            " with the same d."
        )
    if not bool(features.isfinite().all()):
        raise UsageError(
            f"{name}: a feature of the {kind} samples is not finite; the network has diverged."
        )


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _weighted_mmd2(kernels: tuple[Tensor, Tensor, Tensor], a: Tensor, b: Tensor) -> float:
    (real, fake, cross), n = kernels, len(a)
    within = a @ real @ a - a @ real.diagonal() + b @ fake @ b - b @ fake.diagonal()
    return float(within / (n * (n - 1)) - 2 * (a @ cross @ b) / n**2)


class _Features(nn.Module):
    """The identity, where torchmetrics expects a feature extractor."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.num_features = dimension

    def forward(self, features: Tensor) -> Tensor:
        return features
