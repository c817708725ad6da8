"""Distances between samples: copying of training data, and diversity."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from saddlepoint.errors import UsageError
from saddlepoint.metrics.distances import check_features
from saddlepoint.metrics.measure import Measure, Origin, redraw, resampled

ROWS = 500  # 500 rows × 10,000 distances are 40 MB

SAME = 1e-12
"""Squared distances below this share of 2‖a‖² are set to 0.

It is below the resolution of float32 features and above the rounding of the sum.
"""


def distance_rows(a: Tensor, b: Tensor, *, rows: int = ROWS) -> Iterator[Tensor]:
    """Yield ‖a_i − b_j‖ in float64, in chunks of ``rows`` rows of a, shapes (≤ rows, len(b)).

    Computed as ‖a‖² − 2⟨a, b⟩ + ‖b‖², about ten times as fast as from the differences, relative to
    the mean of b, so that little cancels. Equal samples, and samples that differ by less than 1e-6
    of their norm, have distance 0 exactly.

    >>> [part.shape[0] for part in distance_rows(torch.zeros(5, 2), torch.zeros(3, 2), rows=2)]
    [2, 2, 1]
    """
    for own, rest in _squared_rows(a, b, rows):
        squares = rest.add_(own[:, None])
        yield squares.masked_fill_(squares <= 2 * SAME * own[:, None], 0).sqrt_()


def _squared_rows(a: Tensor, b: Tensor, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (‖a_i‖², ‖b_j‖² − 2⟨a_i, b_j⟩), whose sum is the squared distance, in chunks."""
    origin = b.double().mean(dim=0)
    targets = b.double() - origin
    squares = targets.square().sum(dim=1)
    for part in torch.split(a, rows):
        centred = part.double() - origin
        yield (
            centred.square().sum(dim=1),
            torch.addmm(squares.expand(len(part), -1), centred, targets.T, alpha=-2),
        )


def nearest_distances(queries: Tensor, references: Tensor, *, rows: int = ROWS) -> Tensor:
    """Return the distance of each query to its nearest reference, shape (N,), float64.

    Args:
        queries: shape (N, d).
        references: shape (M, d).
        rows: queries per chunk; memory is rows · M; does not change the result.

    Raises:
        UsageError: a set is empty, shapes do not match, or a feature is not finite.

    >>> nearest_distances(torch.tensor([[0.0], [4.0]]), torch.tensor([[1.0], [9.0]])).tolist()
    [1.0, 3.0]
    """
    check_features("Nearest distance", min_samples=1, query=queries, reference=references)
    found = []
    for own, rest in _squared_rows(queries, references, rows):
        nearest = rest.amin(dim=1) + own  # square root of the smallest only
        found.append(nearest.masked_fill_(nearest <= 2 * SAME * own, 0).sqrt_())
    return torch.cat(found)


@dataclass(frozen=True, eq=False)
class Memorisation:
    """Distances to the nearest training sample, of generated and of held-out samples.

    Args:
        generated: shape (N,).
        held_out: shape (M,).

    >>> copies = Memorisation(torch.zeros(4), torch.tensor([1.0, 2.0, 3.0]))
    >>> copies.ratio, copies.copying
    (0.0, 1.0)
    """

    generated: Tensor
    held_out: Tensor

    @property
    def ratio(self) -> float:
        """Median distance of generated over that of held-out samples; well below 1 for copies.

        Raises:
            UsageError: half of the held-out samples are in the training data.
        """
        return _ratio(self.generated, self.held_out)

    @property
    def copying(self) -> float:
        """P(d(generated) < d(held-out)) + ½ P(d(generated) = d(held-out)).

        0.5 if generated samples are as near to the training data as held-out data, 1 for copies.
        The Mann-Whitney statistic of Meehan, Chaudhuri and Dasgupta (2020), A Non-Parametric Test
        to Detect Data-Copying in Generative Models, arXiv:2004.05675, over the whole space (they
        divide it into cells and compute a z-score in each).
        """
        return _copying(self.generated, self.held_out)


def memorisation(
    generated: Tensor, held_out: Tensor, train: Tensor, *, rows: int = ROWS
) -> Memorisation:
    """Return the distances of generated and of held-out samples to the nearest training sample.

    Args:
        generated: features of generated samples, shape (N, d).
        held_out: features of real samples not used in training, shape (M, d).
        train: features of the training samples, shape (T, d).
        rows: samples per chunk; memory is rows · T.

    Raises:
        UsageError: a set is empty, shapes do not match, or a feature is not finite.

    Reference: Meehan et al. (2020), arXiv:2004.05675.

    >>> train, test = torch.randn(2, 200, 3, generator=torch.Generator().manual_seed(0))
    >>> memorisation(train[:50], test, train).copying
    1.0
    """
    check_features(
        "Memorisation", min_samples=1, generated=generated, held_out=held_out, train=train
    )
    return Memorisation(
        nearest_distances(generated, train, rows=rows),
        nearest_distances(held_out, train, rows=rows),
    )


def memorisation_measures(
    found: Memorisation, *, train: int, **origin: Unpack[Origin]
) -> dict[str, Measure]:
    """Return ``ratio`` and ``copying``; replicates resample generated and held-out samples.

    Args:
        found: the result of ``memorisation``.
        train: number of training samples.
        **origin: ``split``, ``extractor`` and ``resize`` of the measures.

    >>> x = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    >>> found = memorisation(x[:100], x[100:200], x[200:])
    >>> measures = memorisation_measures(found, train=100, split="train and test", extractor="none")
    >>> {name: 0.3 < measure.value < 1.5 for name, measure in measures.items()}
    {'ratio': True, 'copying': True}
    """
    sets = (found.generated, found.held_out)
    generated, real = len(found.generated), len(found.held_out) + train
    return {
        "ratio": Measure(
            found.ratio,
            resampled(_ratio, *sets),
            generated=generated,
            real=real,
            lower=0,
            **origin,
        ),
        "copying": Measure(
            found.copying,
            resampled(_copying, *sets),
            generated=generated,
            real=real,
            lower=0,
            upper=1,
            **origin,
        ),
    }


def diversity(features: Tensor, *, rows: int = ROWS) -> float:
    """Return the mean distance of two distinct samples, 2/(N(N − 1)) Σ_{i<j} ‖x_i − x_j‖.

    Args:
        features: shape (N, d).
        rows: samples per chunk.

    Raises:
        UsageError: fewer than two samples, or a feature is not finite.

    >>> diversity(torch.tensor([[0.0], [1.0], [3.0]]))
    2.0
    """
    return float(mean_distances(features, rows).mean())


def diversity_share(
    real: Tensor,
    fake: Tensor,
    *,
    rows: int = ROWS,
    real_distances: Tensor | None = None,
    **origin: Unpack[Origin],
) -> Measure:
    """Return ``diversity`` of generated samples over that of real ones; 0 for one repeated sample.

    A replicate resamples each sample's mean distance d_i to the others, 2 · mean(d*) − mean(d): the
    first-order bootstrap of a mean over pairs, which needs no matrix of all distances.

    Args:
        real: features of real samples, shape (N, d).
        fake: features of generated samples, shape (M, d).
        rows: samples per chunk.
        real_distances: ``mean_distances(real)``, where it is known from an earlier evaluation,
            shape (N,).
        **origin: ``split``, ``extractor`` and ``resize`` of the measure.

    Raises:
        UsageError: a set has fewer than two samples, a feature is not finite, or all real samples
            are equal.

    Reference: Hoeffding (1948), A Class of Statistics with Asymptotically Normal Distribution.

    >>> x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    >>> round(diversity_share(x, 0.5 * x, split="test", extractor="none").value, 6)
    0.5
    """
    ours = mean_distances(fake, rows)
    theirs = mean_distances(real, rows) if real_distances is None else real_distances
    if not float(theirs.mean()) > 0:
        raise UsageError(
            "Diversity: all real samples have the same features, so that the ratio is undefined."
            " Check the extractor."
        )

    def replicate(generator: torch.Generator) -> float:
        generated, reference = (
            float(2 * redraw(distances, generator).mean() - distances.mean())
            for distances in (ours, theirs)
        )
        return generated / reference

    return Measure(
        float(ours.mean() / theirs.mean()),
        replicate,
        generated=len(fake),
        real=len(real),
        lower=0,
        **origin,
    )


def mean_distances(features: Tensor, rows: int = ROWS) -> Tensor:
    """Return each sample's mean distance to the others, shape (N,)."""
    check_features("Diversity", min_samples=2, given=features)
    sums = torch.cat([part.sum(1) for part in distance_rows(features, features, rows=rows)])
    return sums / (len(features) - 1)


def _ratio(generated: Tensor, held_out: Tensor) -> float:
    median = float(held_out.double().quantile(0.5))
    if median == 0:
        raise UsageError(
            "Memorisation: at least half of the held-out samples are in the training data, so that"
            " the ratio is undefined. Hold out samples that are not used in training."
        )
    return float(generated.double().quantile(0.5)) / median


def _copying(generated: Tensor, held_out: Tensor) -> float:
    order = held_out.sort().values
    below = torch.searchsorted(order, generated)
    up_to = torch.searchsorted(order, generated, right=True)
    return 1 - float((below + up_to).double().mean()) / (2 * len(order))
