"""What part of the data a generator covers: classes of digits, modes of a mixture."""

from __future__ import annotations

import torch
from torch import Tensor

from saddlepoint.errors import UsageError


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
        raise UsageError(f"Class coverage needs at least {10 * classes} samples, got {n}. Evaluate with more samples.")
    shares = torch.bincount(logits.argmax(1), minlength=classes) / n
    return float((shares >= least).double().mean())


def mode_coverage(samples: Tensor, centres: Tensor, sigma: float) -> tuple[int, float]:
    """Return (modes covered, share of high-quality samples) of samples of a mixture.

    A sample is of high quality when it lies within 3σ of its nearest centre; a mode is covered when it has at least one such
    sample, as in Srivastava et al. (2017), VEEGAN, arXiv:1705.07761.

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
        raise UsageError(f"Mode coverage needs at least {20 * len(centres)} samples, got {len(samples)}. Evaluate with more samples.")
    distance, nearest = torch.cdist(samples, centres.to(samples)).min(dim=1)
    good = distance <= 3 * sigma
    return len(torch.unique(nearest[good])), float(good.double().mean())
