"""What part of the data a generator covers: classes of digits, modes of a mixture."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Unpack

import torch
from torch import Tensor

from saddlepoint.errors import UsageError
from saddlepoint.metrics.measure import Measure, Origin, resampled


def class_coverage(logits: Tensor, *, least: float = 0.01) -> float:
    """Return the share of classes that at least the share ``least`` of the samples is assigned to.

    Args:
        logits: a classifier's logits of generated samples, shape (N, classes).
        least: the smallest share that counts as generated; 0.01 is a tenth of a balanced digit.

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
    return float((shares >= least).double().mean())


def mode_coverage(samples: Tensor, centres: Tensor, sigma: float) -> tuple[int, float]:
    """Return (modes covered, share of high-quality samples) of samples of a mixture.

    A sample is of high quality when it lies within 3σ of its nearest centre; a mode is covered when
    it has at least one such sample, as in Srivastava et al. (2017), VEEGAN, arXiv:1705.07761.

    Args:
        samples: shape (N, 2).
        centres: shape (modes, 2).
        sigma: standard deviation of the modes.

    Raises:
        UsageError: fewer than 20 samples per mode.

    >>> mode_coverage(torch.tensor([[0.0, 0.1], [9.0, 9.0]] * 20), torch.tensor([[0.0, 0.0], [5.0, 0.0]]), sigma=0.1)
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
    """Return −Σ p log p in nats of the histogram p of predicted classes; log(classes) where all are generated equally often.

    Args:
        logits: a classifier's logits of generated samples, shape (N, classes).

    Raises:
        UsageError: no samples, or a logit that is not finite.

    >>> round(class_entropy(torch.eye(4)[[0, 1] * 20]), 6)  # log 2
    0.693147
    """
    return _entropy(mode_counts(_classes("Class entropy", logits), logits.shape[1]))


def nearest_modes(samples: Tensor, centres: Tensor, sigma: float) -> Tensor:
    """Return the index of each sample's nearest centre, −1 for samples farther than 3σ from it; shape (N,).

    Args:
        samples: shape (N, d).
        centres: shape (modes, d).
        sigma: standard deviation of the modes.

    Reference: Srivastava et al. (2017), VEEGAN, arXiv:1705.07761.

    >>> nearest_modes(torch.tensor([[0.1, 0.0], [2.0, 0.0], [5.0, 0.1]]), torch.tensor([[0.0, 0.0], [5.0, 0.0]]), sigma=0.1).tolist()
    [0, -1, 1]
    """
    distance, nearest = torch.cdist(samples, centres.to(samples)).min(dim=1)
    return torch.where(distance <= 3 * sigma, nearest, -1)


def stacked_modes(logits: Tensor) -> Tensor:
    """Return 100a + 10b + c for images of three stacked digits that are classified as a, b and c; shape (N,).

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
            f"Stacked digits need logits of shape (N, 3, 10), got {tuple(logits.shape)}: one row of"
            " ten for each channel."
        )
    return _classes("Stacked digits", logits) @ torch.tensor([100, 10, 1])


def mode_counts(assignments: Tensor, modes: int) -> Tensor:
    """Return how many samples each mode has, shape (modes,); samples that belong to none (index −1) are left out.

    Args:
        assignments: mode of each sample, shape (N,), as ``nearest_modes`` and ``stacked_modes``
            return them.
        modes: number of modes.

    Raises:
        UsageError: an index outside −1 … modes − 1.

    >>> mode_counts(torch.tensor([0, 2, 2, -1]), 3).tolist()
    [1, 0, 2]
    """
    if len(assignments) and not -1 <= int(assignments.min()) <= int(assignments.max()) < modes:
        raise UsageError(
            f"Counts of {modes} modes: an assignment lies outside -1 … {modes - 1}. Give as many"
            " modes as the data have."
        )
    return torch.bincount(assignments + 1, minlength=modes + 1)[1:]


def reverse_kl(counts: Tensor, probabilities: Tensor) -> float:
    """Return Σ p log(p/q) over modes in nats, p the histogram of generated samples, q that of the data.

    "Reverse", because the generated distribution comes first: a mode that is never generated adds
    nothing by itself, and m equally frequent of M equally likely modes give log(M/m). Of no samples
    at all there is no histogram; the result is then log(1/min q), the largest value that it can
    take. A histogram of N samples is above zero even without any fault, by about (modes − 1)/(2N).

    Args:
        counts: number of generated samples in each mode, shape (modes,).
        probabilities: probability of each mode in the data, shape (modes,).

    Raises:
        UsageError: probabilities that are not positive or do not sum to 1, negative counts, or
            lengths that differ.

    Reference: Lin et al. (2018), PacGAN, arXiv:1712.04086, after Srivastava et al. (2017), VEEGAN,
    arXiv:1705.07761; with 1,000 equally likely modes for stacked digits.

    >>> round(reverse_kl(torch.tensor([7, 7, 0, 0]), torch.full((4,), 0.25)), 6)  # log(4/2)
    0.693147
    """
    q = _checked(probabilities)
    if counts.shape != q.shape or bool((counts < 0).any()):
        raise UsageError(
            f"Reverse KL: counts {tuple(counts.shape)} and probabilities {tuple(q.shape)} must fit,"
            " and counts be at least 0."
        )
    if int(counts.sum()) == 0:
        return -math.log(float(q.min()))
    p = counts.double() / counts.sum()
    return max(0.0, float(torch.special.xlogy(p, p / q).sum()))  # rounding may leave it below zero


def gaussian_share(dimension: int, sigmas: float = 3.0) -> float:
    """Return the probability that N(0, I) lies within ``sigmas`` of 0: the chi-square distribution function at sigmas².

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
            f"Share of a Gaussian: needs dimension ≥ 1 and sigmas ≥ 0, not {dimension} and"
            f" {sigmas}."
        )
    half, square = torch.tensor([dimension / 2, sigmas**2 / 2], dtype=torch.float64)
    return float(torch.special.gammainc(half, square))


def mode_distance(assignments: Tensor, probabilities: Tensor, *, inside: float = 1.0) -> float:
    """Return ½ Σ |p − q| over the modes and "no mode", p the shares of generated samples, q those of the data: their total variation.

    So large a share of the samples would have to lie elsewhere for the shares to be the data's:
    coverage and quality in one number, 0 for the data, 1 − q where all samples are in one mode or
    in none of that share q. N samples of the data itself have about ½ Σ √(2q(1 − q)/(πN)).

    Args:
        assignments: mode of each generated sample, −1 for none, shape (N,).
        probabilities: probability of each mode among those of the data's samples that lie in one,
            shape (modes,).
        inside: share of the data's samples that lie in a mode; ``gaussian_share`` where modes are
            balls around Gaussians far apart.

    Raises:
        UsageError: no samples, an index outside −1 … modes − 1, an ``inside`` outside [0, 1], or
            probabilities as in ``reverse_kl``.

    >>> quarter = torch.full((4,), 0.25)
    >>> mode_distance(torch.tensor([0, 1, 2, 3]), quarter), mode_distance(torch.tensor([0, 0, 1, -1]), quarter)
    (0.0, 0.5)
    """
    if len(assignments) == 0:
        raise UsageError(
            "Counts of modes need at least one sample, got none. Evaluate with more samples."
        )
    if not 0 <= inside <= 1:
        raise UsageError(
            f"Mode distance: inside={inside} is the share of the data that lies in a mode; it must"
            " be from 0 to 1."
        )
    q = inside * _checked(probabilities)
    p = mode_counts(assignments, len(q)).double() / len(assignments)
    # rounding may leave it above one
    return min(1.0, 0.5 * float((p - q).abs().sum() + (q.sum() - p.sum()).abs()))


def class_measures(
    logits: Tensor, *, real: int = 0, **origin: Unpack[Origin]
) -> dict[str, Measure]:
    """Return ``classes`` (``class_coverage``), ``entropy`` (``class_entropy``) and ``effective-classes``, exp(entropy).

    So many equally frequent classes have that entropy. Replicates redraw the samples.

    Args:
        logits: a classifier's logits of generated samples, shape (N, classes).
        real: number of real samples that they are compared with; none are.
        **origin: ``split``, ``extractor`` and ``resize`` of the measures.

    Raises:
        UsageError: as ``class_coverage`` and ``class_entropy``.

    >>> found = class_measures(torch.eye(4)[[0, 1, 2] * 20], split="test", extractor="digit-cnn")
    >>> found["classes"].value, round(found["entropy"].value, 6)  # log 3
    (0.75, 1.098612)
    """
    n = len(logits)
    top = math.log(logits.shape[1])
    return {
        "classes": Measure(
            class_coverage(logits),
            resampled(class_coverage, logits),
            generated=n,
            real=real,
            lower=0,
            upper=1,
            **origin,
        ),
        "entropy": Measure(
            class_entropy(logits),
            resampled(class_entropy, logits),
            generated=n,
            real=real,
            lower=0,
            upper=top,
            **origin,
        ),
        "effective-classes": Measure(
            math.exp(class_entropy(logits)),
            resampled(lambda rows: math.exp(class_entropy(rows)), logits),
            generated=n,
            real=real,
            lower=1,
            upper=logits.shape[1],
            **origin,
        ),
    }


def mode_measures(
    assignments: Tensor,
    probabilities: Tensor,
    *,
    inside: float = 1.0,
    real: int = 0,
    **origin: Unpack[Origin],
) -> dict[str, Measure]:
    """Return ``modes`` with a sample, ``quality`` (share in a mode), ``reverse-kl``, ``effective-modes`` and ``mode-distance``.

    ``effective-modes`` is exp(−Σ p log p) of the modes' shares p: so many equally frequent modes
    have the same entropy, 0 without a sample in any. A few stray samples make a mode count, but
    hardly raise it.

    Args:
        assignments: mode of each generated sample, −1 for none, shape (N,).
        probabilities: probability of each mode in the data, shape (modes,).
        inside: share of the data's samples that lie in a mode at all, for ``mode_distance``.
        real: number of real samples that the probabilities come from; 0 where they are known.
        **origin: ``split``, ``extractor`` and ``resize`` of the measures.

    Raises:
        UsageError: fewer than one sample; otherwise as ``mode_counts``, ``reverse_kl`` and
            ``mode_distance``.

    >>> found = mode_measures(torch.tensor([0, 0, 1, -1]), torch.full((4,), 0.25), split="known density", extractor="none")
    >>> {name: round(measure.value, 6) for name, measure in found.items()}
    {'modes': 2.0, 'quality': 0.75, 'reverse-kl': 0.74978, 'effective-modes': 1.889882,
    'mode-distance': 0.5}
    """
    n, modes = len(assignments), len(probabilities)
    if n == 0:
        raise UsageError(
            "Counts of modes need at least one sample, got none. Evaluate with more samples."
        )
    tops = {
        "modes": float(modes),
        "quality": 1.0,
        "reverse-kl": -math.log(float(_checked(probabilities).min())),
        "effective-modes": float(modes),
        "mode-distance": 1.0,
    }
    metrics: dict[str, Callable[[Tensor], float]] = {
        "modes": lambda found: float((mode_counts(found, modes) > 0).sum()),
        "quality": lambda found: float((found >= 0).double().mean()),
        "reverse-kl": lambda found: reverse_kl(mode_counts(found, modes), probabilities),
        "effective-modes": lambda found: _effective(mode_counts(found, modes)),
        "mode-distance": lambda found: mode_distance(found, probabilities, inside=inside),
    }
    return {
        name: Measure(
            metric(assignments),
            resampled(metric, assignments),
            generated=n,
            real=real,
            lower=0,
            upper=tops[name],
            **origin,
        )
        for name, metric in metrics.items()
    }


def _classes(name: str, logits: Tensor) -> Tensor:
    if len(logits) == 0 or not bool(logits.isfinite().all()):
        raise UsageError(
            f"{name}: there are no logits, or one is not finite; the network has diverged or there"
            " are no samples."
        )
    return logits.argmax(-1)


def _effective(counts: Tensor) -> float:
    return math.exp(_entropy(counts)) if int(counts.sum()) else 0.0


def _entropy(counts: Tensor) -> float:
    p = counts.double() / counts.sum()
    return float(torch.special.entr(p).sum())


def _checked(probabilities: Tensor) -> Tensor:
    q = probabilities.double()
    if not bool((q > 0).all()) or abs(float(q.sum()) - 1) > 1e-6:
        raise UsageError(
            "The probabilities of the modes must be positive and sum to 1. Leave out modes that the"
            " data lack."
        )
    return q
