"""Coverage of classes (digits) and modes (mixtures) by a generator."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Unpack

import torch
from torch import Tensor

from saddlepoint.errors import UsageError
from saddlepoint.metrics.measure import Measure, Origin, resampled


def class_coverage(logits: Tensor, *, min_share: float = 0.01) -> float:
    """Return the share of classes that at least ``min_share`` of the samples are classified as.

    Args:
        logits: a classifier's logits of generated samples, shape (N, classes).
        min_share: the smallest share of samples with which a class counts as covered.

    Raises:
        UsageError: fewer than 10 samples per class.

    >>> class_coverage(torch.eye(4)[[0, 1, 2] * 20])
    0.75
    """
    n, classes = logits.shape
    if n < 10 * classes:
        raise UsageError(
            f"Class coverage needs at least {10 * classes} samples, got {n}. Evaluate with more"
            " samples."
        )
    shares = torch.bincount(logits.argmax(1), minlength=classes) / n
    return float((shares >= min_share).double().mean())


def mode_coverage(samples: Tensor, centres: Tensor, sigma: float) -> tuple[int, float]:
    """Return (modes covered, share of high-quality samples) of samples of a mixture.

    A sample is of high quality if it lies within 3σ of its nearest centre; a mode is covered if it
    has at least one such sample, as in Srivastava et al. (2017), VEEGAN, arXiv:1705.07761.

    Args:
        samples: shape (N, 2).
        centres: shape (modes, 2).
        sigma: standard deviation of the modes.

    Raises:
        UsageError: fewer than 20 samples per mode.

    >>> samples = torch.tensor([[0.0, 0.1], [9.0, 9.0]] * 20)
    >>> mode_coverage(samples, torch.tensor([[0.0, 0.0], [5.0, 0.0]]), sigma=0.1)
    (1, 0.5)
    """
    if len(samples) < 20 * len(centres):
        raise UsageError(
            f"Mode coverage needs at least {20 * len(centres)} samples, got {len(samples)}."
            " Evaluate with more samples."
        )
    distance, nearest = torch.cdist(samples, centres.to(samples)).min(dim=1)
    good = distance <= 3 * sigma
    return len(torch.unique(nearest[good])), float(good.double().mean())


def class_entropy(logits: Tensor) -> float:
    """Return the entropy −Σ p log p in nats of the histogram p of predicted classes.

    It is log(classes) if all classes are equally frequent.

    Args:
        logits: a classifier's logits of generated samples, shape (N, classes).

    Raises:
        UsageError: no samples, or a logit that is not finite.

    >>> round(class_entropy(torch.eye(4)[[0, 1] * 20]), 6)  # log 2
    0.693147
    """
    return _entropy(mode_counts(_predictions("Class entropy", logits), logits.shape[1]))


def nearest_modes(samples: Tensor, centres: Tensor, sigma: float) -> Tensor:
    """Return the index of each sample's nearest centre, −1 if it is farther than 3σ; shape (N,).

    Args:
        samples: shape (N, d).
        centres: shape (modes, d).
        sigma: standard deviation of the modes.

    Reference: Srivastava et al. (2017), VEEGAN, arXiv:1705.07761.

    >>> samples = torch.tensor([[0.1, 0.0], [2.0, 0.0], [5.0, 0.1]])
    >>> nearest_modes(samples, torch.tensor([[0.0, 0.0], [5.0, 0.0]]), sigma=0.1).tolist()
    [0, -1, 1]
    """
    distance, nearest = torch.cdist(samples, centres.to(samples)).min(dim=1)
    return torch.where(distance <= 3 * sigma, nearest, -1)


def stacked_modes(logits: Tensor) -> Tensor:
    """Return 100a + 10b + c for images whose channels are classified as a, b and c; shape (N,).

    Args:
        logits: a classifier's logits of the three channels, shape (N, 3, 10).

    Raises:
        UsageError: another shape, or a logit that is not finite.

    Reference: Lin et al. (2018), PacGAN: The Power of Two Samples in Generative Adversarial
    Networks, arXiv:1712.04086.

    >>> stacked_modes(torch.eye(10)[torch.tensor([[1, 2, 3], [0, 0, 7]])]).tolist()
    [123, 7]
    """
    if logits.ndim != 3 or logits.shape[1:] != (3, 10):
        raise UsageError(
            f"Stacked digits need logits of shape (N, 3, 10), got {tuple(logits.shape)}: ten logits"
            " for each of three channels."
        )
    return _predictions("Stacked digits", logits) @ torch.tensor([100, 10, 1])


def mode_counts(assignments: Tensor, modes: int) -> Tensor:
    """Return the number of samples in each mode, shape (modes,), without those of index −1.

    Args:
        assignments: mode of each sample, −1 for none, shape (N,), from ``nearest_modes`` or
            ``stacked_modes``.
        modes: number of modes.

    Raises:
        UsageError: an index outside −1 … modes − 1.

    >>> mode_counts(torch.tensor([0, 2, 2, -1]), 3).tolist()
    [1, 0, 2]
    """
    if len(assignments) and not -1 <= int(assignments.min()) <= int(assignments.max()) < modes:
        raise UsageError(
            f"Counts of {modes} modes: an assignment is outside -1 … {modes - 1}. Pass the number"
            " of modes of the data."
        )
    return torch.bincount(assignments + 1, minlength=modes + 1)[1:]


def reverse_kl(counts: Tensor, probabilities: Tensor) -> float:
    """Return KL(p‖q) = Σ p log(p/q) in nats over modes, p of the samples, q of the data.

    Reverse, because the generated distribution comes first: a mode that is never generated adds
    nothing, and m equally frequent of M equally likely modes give log(M/m). Without any samples
    the result is log(1/min q), the largest possible value. N samples of the data itself give about
    (modes − 1)/(2N).

    Args:
        counts: number of generated samples in each mode, shape (modes,).
        probabilities: probability of each mode in the data, shape (modes,).

    Raises:
        UsageError: probabilities are not positive or do not sum to 1, counts are negative, or the
            shapes differ.

    Reference: Lin et al. (2018), PacGAN, arXiv:1712.04086, after Srivastava et al. (2017), VEEGAN,
    arXiv:1705.07761; with 1,000 equally likely modes for stacked digits.

    >>> round(reverse_kl(torch.tensor([7, 7, 0, 0]), torch.full((4,), 0.25)), 6)  # log(4/2)
    0.693147
    """
    q = _check_probabilities(probabilities)
    if counts.shape != q.shape or bool((counts < 0).any()):
        raise UsageError(
            f"Reverse KL: counts {tuple(counts.shape)} and probabilities {tuple(q.shape)} must have"
            " the same shape, and counts must be at least 0."
        )
    if int(counts.sum()) == 0:
        return -math.log(float(q.min()))
    p = counts.double() / counts.sum()
    return max(0.0, float(torch.special.xlogy(p, p / q).sum()))  # rounding may make it negative


def gaussian_share(dimension: int, sigmas: float = 3.0) -> float:
    """Return P(‖z‖ ≤ sigmas) for z ~ N(0, I), the chi-square distribution function at sigmas².

    Args:
        dimension: number of coordinates, at least 1.
        sigmas: the radius, at least 0.

    Raises:
        UsageError: a dimension below 1 or a negative radius.

    >>> round(gaussian_share(1), 6), round(gaussian_share(2), 6)  # erf(3/√2), 1 − exp(−9/2)
    (0.9973, 0.988891)
    """
    if dimension < 1 or not sigmas >= 0:
        raise UsageError(
            f"The share of a Gaussian needs dimension ≥ 1 and sigmas ≥ 0, got {dimension} and"
            f" {sigmas}."
        )
    half, square = torch.tensor([dimension / 2, sigmas**2 / 2], dtype=torch.float64)
    return float(torch.special.gammainc(half, square))


def mode_distance(assignments: Tensor, probabilities: Tensor, *, inside: float = 1.0) -> float:
    """Return the total variation ½ Σ |p − q| over all modes and "no mode".

    p are the shares of generated samples, q those of the data. This share of the samples would have
    to move for p to equal q: coverage and quality in one number. It is 0 for p = q and 1 − q if all
    samples are in one mode of probability q. N samples of the data itself have about
    ½ Σ √(2q(1 − q)/(πN)).

    Args:
        assignments: mode of each generated sample, −1 for none, shape (N,).
        probabilities: probability of each mode among the data's samples that lie in a mode, shape
            (modes,).
        inside: share of the data's samples that lie in a mode; ``gaussian_share`` if the modes are
            balls around distant Gaussians.

    Raises:
        UsageError: there are no samples, an index is outside −1 … modes − 1, ``inside`` is outside
            [0, 1], or as in ``reverse_kl``.

    >>> quarter = torch.full((4,), 0.25)
    >>> mode_distance(torch.tensor([0, 1, 2, 3]), quarter)
    0.0
    >>> mode_distance(torch.tensor([0, 0, 1, -1]), quarter)
    0.5
    """
    if len(assignments) == 0:
        raise UsageError(
            "Counts of modes need at least one sample, got none. Evaluate with more samples."
        )
    if not 0 <= inside <= 1:
        raise UsageError(
            f"Mode distance: inside={inside}, the share of the data that lies in a mode, must be"
            " from 0 to 1."
        )
    q = inside * _check_probabilities(probabilities)
    p = mode_counts(assignments, len(q)).double() / len(assignments)
    # rounding may make it larger than one
    return min(1.0, 0.5 * float((p - q).abs().sum() + (q.sum() - p.sum()).abs()))


def class_measures(
    logits: Tensor, *, real: int = 0, **origin: Unpack[Origin]
) -> dict[str, Measure]:
    """Return ``class_coverage``, ``class_entropy`` and ``effective_classes``.

    ``effective_classes`` is exp(class_entropy), the number of equally frequent classes with the
    same entropy. Replicates resample the samples.

    Args:
        logits: a classifier's logits of generated samples, shape (N, classes).
        real: number of real samples that they are compared with.
        **origin: ``split``, ``extractor`` and ``resize`` of the measures.

    Raises:
        UsageError: as ``class_coverage`` and ``class_entropy``.

    >>> logits = torch.eye(4)[[0, 1, 2] * 20]
    >>> found = class_measures(logits, split="known classes", extractor="digit-cnn")
    >>> found["class_coverage"].value, round(found["class_entropy"].value, 6)  # log 3
    (0.75, 1.098612)
    """
    classes = logits.shape[1]

    def effective_classes(rows: Tensor) -> float:
        return math.exp(class_entropy(rows))

    metrics: dict[str, tuple[Callable[[Tensor], float], float, float]] = {
        "class_coverage": (class_coverage, 0, 1),
        "class_entropy": (class_entropy, 0, math.log(classes)),
        "effective_classes": (effective_classes, 1, classes),
    }
    return {
        name: Measure(
            metric(logits),
            resampled(metric, logits),
            generated=len(logits),
            real=real,
            lower=lower,
            upper=upper,
            **origin,
        )
        for name, (metric, lower, upper) in metrics.items()
    }


def mode_measures(
    assignments: Tensor,
    probabilities: Tensor,
    *,
    inside: float = 1.0,
    real: int = 0,
    **origin: Unpack[Origin],
) -> dict[str, Measure]:
    """Return ``modes``, ``quality``, ``reverse_kl``, ``effective_modes`` and ``mode_distance``.

    ``modes`` is the number of modes with a sample, ``quality`` the share of samples in a mode,
    ``effective_modes`` the number of equally frequent modes with the same entropy, exp(−Σ p log p)
    for the modes' shares p, 0 without a sample in a mode. A few stray samples raise ``modes`` by
    one, ``effective_modes`` hardly.

    Args:
        assignments: mode of each generated sample, −1 for none, shape (N,).
        probabilities: probability of each mode in the data, shape (modes,).
        inside: share of the data's samples that lie in a mode, for ``mode_distance``.
        real: number of real samples that the probabilities come from; 0 if they are known.
        **origin: ``split``, ``extractor`` and ``resize`` of the measures.

    Raises:
        UsageError: no samples; otherwise as ``mode_counts``, ``reverse_kl`` and ``mode_distance``.

    >>> origin = {"split": "known density", "extractor": "none"}
    >>> found = mode_measures(torch.tensor([0, 0, 1, -1]), torch.full((4,), 0.25), **origin)
    >>> [round(found[name].value, 6) for name in ("modes", "quality", "mode_distance")]
    [2.0, 0.75, 0.5]
    >>> [round(found[name].value, 6) for name in ("reverse_kl", "effective_modes")]
    [0.74978, 1.889882]
    """
    n, modes = len(assignments), len(probabilities)
    if n == 0:
        raise UsageError(
            "Counts of modes need at least one sample, got none. Evaluate with more samples."
        )

    def effective_modes(found: Tensor) -> float:
        counts = mode_counts(found, modes)
        return math.exp(_entropy(counts)) if int(counts.sum()) else 0.0

    upper = {
        "modes": float(modes),
        "quality": 1.0,
        "reverse_kl": -math.log(float(_check_probabilities(probabilities).min())),
        "effective_modes": float(modes),
        "mode_distance": 1.0,
    }
    metrics: dict[str, Callable[[Tensor], float]] = {
        "modes": lambda found: float((mode_counts(found, modes) > 0).sum()),
        "quality": lambda found: float((found >= 0).double().mean()),
        "reverse_kl": lambda found: reverse_kl(mode_counts(found, modes), probabilities),
        "effective_modes": effective_modes,
        "mode_distance": lambda found: mode_distance(found, probabilities, inside=inside),
    }
    return {
        name: Measure(
            metric(assignments),
            resampled(metric, assignments),
            generated=n,
            real=real,
            lower=0,
            upper=upper[name],
            **origin,
        )
        for name, metric in metrics.items()
    }


def _predictions(name: str, logits: Tensor) -> Tensor:
    if len(logits) == 0 or not bool(logits.isfinite().all()):
        raise UsageError(
            f"{name}: there are no samples, or a logit is not finite because the network has"
            " diverged."
        )
    return logits.argmax(-1)


def _entropy(counts: Tensor) -> float:
    p = counts.double() / counts.sum()
    return float(torch.special.entr(p).sum())


def _check_probabilities(probabilities: Tensor) -> Tensor:
    q = probabilities.double()
    if not bool((q > 0).all()) or abs(float(q.sum()) - 1) > 1e-6:
        raise UsageError(
            "The probabilities of the modes must be positive and sum to 1. Leave out modes that do"
            " not occur in the data."
        )
    return q
