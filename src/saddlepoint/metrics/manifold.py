"""Precision, recall, density and coverage: balls around samples stand for the set they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from saddlepoint.errors import UsageError
from saddlepoint.metrics.distances import check_features
from saddlepoint.metrics.measure import Measure, Origin, mean_measure
from saddlepoint.metrics.neighbours import ROWS, distance_rows

EDGE = 1e-9
"""Relative width of the edge of a ball: distances that agree so far are ties, which rounding must not decide."""


@dataclass(frozen=True, eq=False)
class Manifold:
    """What each sample contributes to the four metrics, which are the means.

    Args:
        precision: 1 for a generated sample within the ball of a real one, else 0; shape (M,).
        recall: 1 for a real sample within the ball of a generated one, else 0; shape (N,).
        density: number of real balls around a generated sample, over k; shape (M,).
        coverage: 1 for a real sample with a generated one in its ball, else 0; shape (N,).
    """

    precision: Tensor
    recall: Tensor
    density: Tensor
    coverage: Tensor


def manifold(real: Tensor, fake: Tensor, *, k: int = 5, rows: int = ROWS) -> Manifold:
    """Return the contributions to precision, recall, density and coverage, from distances in float64.

    The ball of a sample reaches to its k-th nearest neighbour in its own set, itself left out.
    Precision, recall and coverage count samples on the edge as inside, so a generator that repeats
    training samples is precise and covers what it repeats, although its own balls have radius 0;
    density counts the interior, as its authors' code does, so that it is exactly 1 for a set and
    itself.

    Args:
        real: features of real samples, shape (N, d).
        fake: features of generated samples, shape (M, d).
        k: which neighbour the balls reach to.
        rows: how many samples at a time; memory is rows · N, and the result does not depend on it.

    Raises:
        UsageError: k below 1, fewer than k + 1 samples on a side, features that do not fit, or one
            that is not finite.

    Reference: Kynkäänniemi et al. (2019), Improved Precision and Recall Metric for Assessing
    Generative Models, arXiv:1904.06991 (precision, recall); Naeem et al. (2020), Reliable Fidelity
    and Diversity Metrics for Generative Models, arXiv:2002.09797 (density, coverage; k = 5).

    >>> x = torch.tensor([[0.0], [1.0], [3.0]])
    >>> found = manifold(x, torch.tensor([[0.5], [0.5], [9.0]]), k=1)
    >>> found.precision.tolist(), found.recall.tolist(), found.density.tolist(), found.coverage.tolist()
    ([1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [2.0, 2.0, 0.0], [1.0, 1.0, 0.0])
    """
    if k < 1:
        raise UsageError(
            f"Precision and recall: k={k} must be at least 1, the nearest neighbour. 5 is usual."
        )
    check_features("Precision and recall", least=k + 1, real=real, generated=fake)
    reach, reach_fake = _radii(real, k, rows), _radii(fake, k, rows)
    precision, density = [], []
    recalled, nearest = torch.zeros_like(reach, dtype=torch.bool), torch.full_like(reach, torch.inf)
    for part, radii in zip(
        distance_rows(fake, real, rows=rows), torch.split(reach_fake, rows), strict=True
    ):
        precision.append((part <= reach * (1 + EDGE)).any(1))
        density.append((part < reach * (1 - EDGE)).double().sum(1) / k)
        recalled |= (part <= radii[:, None] * (1 + EDGE)).any(0)
        nearest = torch.minimum(nearest, part.amin(0))
    return Manifold(
        torch.cat(precision).double(),
        recalled.double(),
        torch.cat(density),
        (nearest <= reach * (1 + EDGE)).double(),
    )


def manifold_measures(
    real: Tensor, fake: Tensor, *, k: int = 5, rows: int = ROWS, **origin: Unpack[Origin]
) -> dict[str, Measure]:
    """Return ``precision``, ``recall``, ``density`` and ``coverage`` of ``manifold``.

    Replicates redraw the samples that a metric is a mean over (generated for precision and density,
    real for recall and coverage) and leave the balls as they are: the intervals say nothing of how
    the balls vary.

    Args:
        real: features of real samples, shape (N, d).
        fake: features of generated samples, shape (M, d).
        k: which neighbour the balls reach to.
        rows: how many samples at a time.
        **origin: ``split``, ``extractor`` and ``resize`` of the measures.

    Raises:
        UsageError: as ``manifold``.

    >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    >>> {name: round(measure.value, 6) for name, measure in manifold_measures(x, x, split="test", extractor="none").items()}
    {'precision': 1.0, 'recall': 1.0, 'density': 1.0, 'coverage': 1.0}
    """
    found = manifold(real, fake, k=k, rows=rows)
    contributions = {
        "precision": found.precision,
        "recall": found.recall,
        "density": found.density,
        "coverage": found.coverage,
    }
    return {
        name: mean_measure(
            terms,
            generated=len(fake),
            real=len(real),
            lower=0,
            upper=len(real) / k if name == "density" else 1,
            **origin,
        )
        for name, terms in contributions.items()
    }


def _radii(features: Tensor, k: int, rows: int) -> Tensor:
    """Return each sample's distance to its k-th nearest other; the smallest of a row is the one to itself."""
    return torch.cat(
        [
            part.kthvalue(k + 1, dim=1).values
            for part in distance_rows(features, features, rows=rows)
        ]
    )
