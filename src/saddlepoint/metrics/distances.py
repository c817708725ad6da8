"""Distances between two sets of samples in a feature space."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Unpack

import torch
from torch import Tensor, nn

from saddlepoint.errors import UsageError
from saddlepoint.extras import needs
from saddlepoint.metrics.measure import Measure, Origin, multiplicities, resampled

if TYPE_CHECKING:
    from torchmetrics.image.fid import FrechetInceptionDistance

Features = Tensor | Iterable[Tensor]


def frechet_distance(real: Features, fake: Features) -> float:
    """Return ‖μ_r − μ_f‖² + tr(Σ_r + Σ_f − 2 (Σ_r Σ_f)^½) of two sets of features, in float64.

    The trace of the root is the sum of the roots of the eigenvalues of Σ_r Σ_f, which exists for
    singular covariances too; a result that rounding leaves below zero is zero.

    Args:
        real: features of real samples, shape (N, d), or an iterable of parts of them, of which none
            is kept.
        fake: features of generated samples, shape (M, d), or an iterable of parts of them.

    Raises:
        UsageError: fewer than d + 1 samples on a side, which leaves a covariance without full rank;
            features that do not fit; or a feature that is not finite.

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

    first, parts = _first(real)
    metric = FrechetInceptionDistance(feature=_Features(first.shape[1]))
    # the distance does not change when both sets are moved; sums of squares around a far origin
    # would lose all digits
    origin = first.double().mean(0)
    _update(metric, parts, origin, real=True)
    _update(metric, [fake] if isinstance(fake, Tensor) else fake, origin, real=False)
    value = float(metric.compute())
    if not math.isfinite(value):
        raise UsageError(
            "Fréchet distance: the features are too large for float64; the network has diverged."
        )
    return max(0.0, value)


def frechet_measure(real: Tensor, fake: Tensor, **origin: Unpack[Origin]) -> Measure:
    """Return ``frechet_distance`` with replicates that redraw both sets.

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
    """Return the Fréchet distance to the test set minus that to an equally large part of the training set.

    Around zero for a generator that is as far from both; above zero for one that is nearer to what
    it was trained on. The part is evenly spaced over the training set, so that data in the order of
    their classes do not matter. Equally large, because the distance of finitely many samples is
    biased by their number.

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
            f"The gap needs as many training as test samples, got {total} and {n}. Give more"
            " training features."
        )
    part = train_features[torch.arange(n) * total // max(n, 1)]
    replicate = resampled(_gap, part, test_features, fake)
    return Measure(
        _gap(part, test_features, fake), replicate, generated=len(fake), real=2 * n, **origin
    )


def kernel_distance(real: Tensor, fake: Tensor) -> float:
    """Return the unbiased squared MMD with the kernel (⟨a, b⟩/d + 1)³ over all samples (of the larger side, the first ones).

    Unbiased: around zero for equal distributions, and it may be slightly negative. One subset as
    large as the smaller side is used, so the number does not depend on a random choice.

    Raises:
        UsageError: fewer than 100 samples on a side, or a feature is not finite.

    Reference: Bińkowski et al. (2018), Demystifying MMD GANs, arXiv:1801.01401; computed by
    torchmetrics.

    >>> g = torch.Generator().manual_seed(0)
    >>> a, b = torch.randn(2, 500, 4, generator=g)
    >>> abs(kernel_distance(a, b)) < 0.05 < kernel_distance(a, b + 1)
    True
    """
    with needs("train", "The kernel distance"):
        from torchmetrics.image.kid import KernelInceptionDistance

    check_features("Kernel distance", least=100, real=real, generated=fake)
    n = min(len(real), len(fake))
    # torchmetrics warns of memory and shuffles with the global generator
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore", UserWarning)
        torch.manual_seed(0)
        metric = KernelInceptionDistance(feature=_Features(real.shape[1]), subsets=1, subset_size=n)
        metric.update(real[:n].double(), real=True)
        metric.update(fake[:n].double(), real=False)
        return float(metric.compute()[0])


def kernel_measure(real: Tensor, fake: Tensor, **origin: Unpack[Origin]) -> Measure:
    """Return ``kernel_distance`` with replicates that redraw both sets.

    A replicate with multiplicities a, b of the samples is (aᵀKa − aᵀdiag K)/(n(n − 1)), the same of
    the generated ones, minus 2 aᵀK'b/n²: the kernels are computed with the first one and kept, 3 n²
    numbers. Pairs of a sample with its own copy count as pairs.

    Args:
        real: features of real samples, shape (N, d).
        fake: features of generated samples, shape (M, d).
        **origin: ``split``, ``extractor`` and ``resize`` of the measure.

    Raises:
        UsageError: as ``kernel_distance``.

    >>> a, b = torch.randn(2, 500, 4, generator=torch.Generator().manual_seed(0))
    >>> measure = kernel_measure(a, b + 1, split="test", extractor="none")
    >>> low, high = measure.interval(50, torch.Generator().manual_seed(0))
    >>> 0 < low < measure.value < high
    True
    """
    n = min(len(real), len(fake))
    value = kernel_distance(real, fake)

    @cache
    def kernels() -> tuple[Tensor, Tensor, Tensor]:
        x, y = real[:n].double(), fake[:n].double()
        return _kernel(x, x), _kernel(y, y), _kernel(x, y)

    return Measure(
        value,
        lambda generator: _kernel_replicate(generator, kernels=kernels()),
        generated=n,
        real=n,
        **origin,
    )


def wasserstein_line(real: Tensor, fake: Tensor) -> float:
    """Return the mean of |x_(i) − y_(i)| over sorted samples: how far mass must move on the line, the distance W₁.

    Args:
        real: real samples, shape (N,) or (N, 1).
        fake: equally many generated samples.

    Raises:
        UsageError: no samples, other shapes, or different numbers of them.

    >>> wasserstein_line(torch.tensor([0.0, 1.0]), torch.tensor([2.0, 0.0]))
    0.5
    """
    if not len(real) or any(
        sample.shape not in ((len(real),), (len(real), 1)) for sample in (real, fake)
    ):
        raise UsageError(
            "The Wasserstein distance on the line needs equally many numbers on both sides, got"
            f" shapes {tuple(real.shape)} and {tuple(fake.shape)}."
        )
    x, y = (sample.double().flatten().sort().values for sample in (real, fake))
    return float((x - y).abs().mean())


def check_features(name: str, *, least: int, **sets: Tensor) -> None:
    """Refuse sets of features with too few rows, of different widths or with entries that are not finite.

    Args:
        name: the metric that says so.
        least: the smallest number of rows.
        **sets: kind of samples → features, shape (N, d).

    Raises:
        UsageError: a set is refused.

    >>> check_features("Diversity", least=2, real=torch.zeros(1, 3))
    Traceback (most recent call last):
    saddlepoint.errors.UsageError: Diversity needs at least 2 real samples, got 1. Evaluate with
    more samples.
    """
    for kind, features in sets.items():
        kind = kind.replace("_", "-")
        _check_count(name, kind, len(features), least)
        _check_part(name, kind, features, next(iter(sets.values())).shape[1:])


def _check_count(name: str, kind: str, count: int, least: int) -> None:
    if count < least:
        raise UsageError(
            f"{name} needs at least {least} {kind} samples, got {count}. Evaluate with more"
            " samples."
        )


def _check_part(name: str, kind: str, features: Tensor, width: torch.Size) -> None:
    if features.ndim != 2 or features.shape[1:] != width:
        raise UsageError(
            f"{name}: {kind} features of shape {tuple(features.shape)} do not fit; all must be (N,"
            " d) with the same d."
        )
    if not bool(features.isfinite().all()):
        raise UsageError(
            f"{name}: a feature of the {kind} samples is not finite; the network has diverged."
        )


def _first(features: Features) -> tuple[Tensor, Iterator[Tensor]]:
    """Return the first part and an iterator over all of them."""
    parts = (
        part for part in ([features] if isinstance(features, Tensor) else features) if len(part)
    )
    first = next(parts, None)
    if first is None:
        raise UsageError(
            "Fréchet distance: the real samples are empty. Give at least one more than there are"
            " features."
        )
    _check_part("Fréchet distance", "real", first, first.shape[1:])
    return first, chain([first], parts)


def _update(
    metric: FrechetInceptionDistance, parts: Iterable[Tensor], origin: Tensor, *, real: bool
) -> None:
    kind, count = "real" if real else "generated", 0
    for part in parts:
        _check_part("Fréchet distance", kind, part, origin.shape)
        metric.update(part.double() - origin, real=real)
        count += len(part)
    _check_count("Fréchet distance", kind, count, len(origin) + 1)


def _gap(train: Tensor, test: Tensor, fake: Tensor) -> float:
    return frechet_distance(test, fake) - frechet_distance(train, fake)


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _kernel_replicate(
    generator: torch.Generator, *, kernels: tuple[Tensor, Tensor, Tensor]
) -> float:
    n = len(kernels[0])
    a, b = multiplicities(n, generator), multiplicities(n, generator)
    return _weighted_mmd(kernels, a, b)


def _weighted_mmd(kernels: tuple[Tensor, Tensor, Tensor], a: Tensor, b: Tensor) -> float:
    (real, fake, cross), n = kernels, len(a)
    within = a @ real @ a - a @ real.diagonal() + b @ fake @ b - b @ fake.diagonal()
    return float(within / (n * (n - 1)) - 2 * (a @ cross @ b) / n**2)


class _Features(nn.Module):
    """Stands where torchmetrics expects an extractor: its inputs are features already."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.num_features = dimension

    def forward(self, features: Tensor) -> Tensor:
        return features
