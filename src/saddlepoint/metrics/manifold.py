"""Precision, recall, density and coverage, with the manifold of a set as balls around samples."""

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
"""Relative tolerance of distances to the edge of a ball, so that rounding does not decide ties."""


@dataclass(frozen=True, eq=False)
class Manifold:
    """Each sample's contribution to four metrics; the metrics are their means.

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


def manifold(
    real: Tensor,
    fake: Tensor,
    *,
    k: int = 5,
    rows: int = ROWS,
    real_radii: Tensor | None = None,
) -> Manifold:
    """Return each sample's contribution to precision, recall, density and coverage, in float64.

    The ball of a sample reaches to its k-th nearest neighbour in its own set, not counting itself.
    Precision, recall and coverage count samples on the edge as inside, so that a generator that
    repeats training samples is precise and covers them, although its own balls have radius 0.
    Density counts the interior only, as in its authors' code, so that it is exactly 1 for two equal
    sets.

    Args:
        real: features of real samples, shape (N, d).
        fake: features of generated samples, shape (M, d).
        k: index of the nearest neighbour that sets the radius.
        rows: samples per chunk; memory is rows · N; does not change the result.
        real_radii: ``ball_radii(real, k=k)``, where it is known from an earlier evaluation, shape
            (N,).

    Raises:
        UsageError: k is below 1, a set has fewer than k + 1 samples, shapes do not match, or a
            feature is not finite.

    Reference: Kynkäänniemi et al. (2019), Improved Precision and Recall Metric for Assessing
    Generative Models, arXiv:1904.06991 (precision, recall); Naeem et al. (2020), Reliable Fidelity
    and Diversity Metrics for Generative Models, arXiv:2002.09797 (density, coverage; k = 5).

    >>> x = torch.tensor([[0.0], [1.0], [3.0]])
    >>> found = manifold(x, torch.tensor([[0.5], [0.5], [9.0]]), k=1)
    >>> found.precision.tolist(), found.recall.tolist()
    ([1.0, 1.0, 0.0], [0.0, 1.0, 1.0])
    >>> found.density.tolist(), found.coverage.tolist()
    ([2.0, 2.0, 0.0], [1.0, 1.0, 0.0])
    """
    if k < 1:
        raise UsageError(f"Precision and recall: k={k} must be at least 1. 5 is usual.")
    check_features("Precision and recall", min_samples=k + 1, real=real, generated=fake)
    reach = ball_radii(real, k=k, rows=rows) if real_radii is None else real_radii
    reach_fake = ball_radii(fake, k=k, rows=rows)
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
    real: Tensor,
    fake: Tensor,
    *,
    k: int = 5,
    rows: int = ROWS,
    real_radii: Tensor | None = None,
    **origin: Unpack[Origin],
) -> dict[str, Measure]:
    """Return ``precision``, ``recall``, ``density`` and ``coverage`` of ``manifold``.

    Replicates resample the samples that a metric is a mean over (generated for precision and
    density, real for recall and coverage) with fixed balls: the intervals do not include the
    variation of the balls.

    Args:
        real: features of real samples, shape (N, d).
        fake: features of generated samples, shape (M, d).
        k: index of the nearest neighbour that sets the radius.
        rows: samples per chunk.
        real_radii: as for ``manifold``.
        **origin: ``split``, ``extractor`` and ``resize`` of the measures.

    Raises:
        UsageError: as ``manifold``.

    >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    >>> found = manifold_measures(x, x, split="test", extractor="none")
    >>> {name: round(measure.value, 6) for name, measure in found.items()}
    {'precision': 1.0, 'recall': 1.0, 'density': 1.0, 'coverage': 1.0}
    """
    found = manifold(real, fake, k=k, rows=rows, real_radii=real_radii)
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


def ball_radii(features: Tensor, *, k: int = 5, rows: int = ROWS) -> Tensor:
    """Return each sample's distance to its k-th nearest neighbour, not counting itself.

    Args:
        features: of N samples, shape (N, d).
        k: which neighbour.
        rows: samples per chunk.
    """
    chunks = distance_rows(features, features, rows=rows)
    # the nearest is the sample itself
    return torch.cat([chunk.kthvalue(k + 1, dim=1).values for chunk in chunks])
