"""A metric's value with its bootstrap replicates and what it was measured on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import NotRequired, TypedDict, Unpack

import torch
from torch import Tensor

from saddlepoint.errors import UsageError

Replicate = Callable[[torch.Generator], float]


class Origin(TypedDict):
    """Origin of samples and features: ``split``, ``extractor`` and optionally ``resize``."""

    split: str
    extractor: str
    resize: NotRequired[str]


@dataclass(frozen=True)
class Measure:
    """A metric's value, a function that draws bootstrap replicates, and what it was measured on.

    Args:
        value: the metric of the samples.
        replicate: a function of a generator that returns the metric of samples redrawn with
            replacement; None without one.
        generated: number of generated samples.
        real: number of real samples; 0 if the density is known.
        split: the part of the data that it is compared with: "test", "train", "train and test" or
            "known density".
        extractor: the feature extractor, "none" for raw samples.
        resize: how images were resized before they were measured.
        lower: the smallest possible value, None without a bound.
        upper: the largest possible value, None without a bound.

    >>> Measure(0.75, generated=4, real=0, split="known density", extractor="none").value
    0.75
    """

    value: float
    replicate: Replicate | None = field(default=None, repr=False, compare=False)
    _: KW_ONLY
    generated: int
    real: int
    split: str
    extractor: str
    resize: str = "none"
    lower: float | None = None
    upper: float | None = None

    def interval(
        self, replicates: int, generator: torch.Generator, *, level: float = 0.95
    ) -> tuple[float, float]:
        """Return the percentile interval of bootstrap replicates, shifted to be around the value.

        ``[value − m + Q((1 − level)/2), value − m + Q((1 + level)/2)]`` with the mean m and the
        quantiles Q of the replicates, clipped to the metric's range. The shift is needed because a
        resampled set has fewer distinct samples (about 63 % of them), which makes Fréchet distances
        larger and counts of modes smaller than those of the original samples. It removes that
        bias, but not the bias of the value itself, which comes from the finite number of samples.

        Args:
            replicates: number of replicates, at least 20; 200 or more for an interval of 95 %.
            generator: source of the resampled indices; the interval is a function of its state.
            level: the share of replicates inside the interval.

        Raises:
            UsageError: the measure has no replicates, ``replicates`` is below 20, the level is not
                between 0 and 1, or a replicate is not finite.

        Reference: Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 13.

        >>> origin = {"split": "test", "extractor": "none"}
        >>> mean = mean_measure(torch.arange(100.0), generated=100, real=0, **origin)
        >>> low, high = mean.interval(200, torch.Generator().manual_seed(0))
        >>> 40 < low < mean.value < high < 60
        True
        """
        if self.replicate is None:
            raise UsageError(
                "This measure has no bootstrap replicates, so there is no interval. Report its"
                " value alone."
            )
        if replicates < 20 or not 0 < level < 1:
            raise UsageError(
                "An interval needs at least 20 replicates and a level between 0 and 1, got"
                f" {replicates} and {level}. 200 at 0.95 are usual."
            )
        drawn = torch.tensor(
            [self.replicate(generator) for _ in range(replicates)], dtype=torch.float64
        )
        if not bool(drawn.isfinite().all()):
            raise UsageError(
                "A bootstrap replicate is not finite: the metric is undefined on some resampled"
                " sets. Evaluate with more samples."
            )
        tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
        low, high = (torch.quantile(drawn, tails) - drawn.mean() + self.value).tolist()
        lowest = -math.inf if self.lower is None else self.lower
        highest = math.inf if self.upper is None else self.upper
        return min(max(low, lowest), highest), min(max(high, lowest), highest)


def redraw(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Return len(rows) rows drawn with replacement.

    >>> redraw(torch.arange(5), torch.Generator().manual_seed(0)).shape
    torch.Size([5])
    """
    return rows[torch.randint(len(rows), (len(rows),), generator=generator)]


def multiplicities(n: int, generator: torch.Generator) -> Tensor:
    """Return the counts of n rows in n draws with replacement, shape (n,), float64.

    >>> multiplicities(5, torch.Generator().manual_seed(0)).sum().item()
    5.0
    """
    return torch.bincount(torch.randint(n, (n,), generator=generator), minlength=n).double()


def resampled(metric: Callable[..., float], *samples: Tensor) -> Replicate:
    """Return the replicate of ``metric(*samples)``; each set of rows is resampled on its own.

    >>> metric = lambda a, b: float(a.mean() - b.mean())
    >>> replicate = resampled(metric, torch.ones(3), torch.zeros(4))
    >>> replicate(torch.Generator().manual_seed(0))
    1.0
    """
    return lambda generator: metric(*(redraw(rows, generator) for rows in samples))


def mean_measure(
    contributions: Tensor,
    *,
    generated: int,
    real: int,
    lower: float | None = None,
    upper: float | None = None,
    **origin: Unpack[Origin],
) -> Measure:
    """Return the measure that is the mean of one contribution per sample.

    Args:
        contributions: shape (N,).
        generated: number of generated samples.
        real: number of real samples.
        lower: the smallest possible value, None without a bound.
        upper: the largest possible value, None without a bound.
        **origin: ``split``, ``extractor`` and ``resize`` of the measure.

    Raises:
        UsageError: no contribution, or one that is not finite.

    >>> terms = torch.tensor([1.0, 3.0])
    >>> mean_measure(terms, generated=2, real=0, split="test", extractor="none").value
    2.0
    """
    terms = contributions.double()
    if len(terms) == 0 or not bool(terms.isfinite().all()):
        raise UsageError(
            "A mean over samples needs finite contributions of at least one sample, got"
            f" {len(terms)}. Check the features."
        )

    def mean(rows: Tensor) -> float:
        return float(rows.mean())

    return Measure(
        mean(terms),
        resampled(mean, terms),
        generated=generated,
        real=real,
        lower=lower,
        upper=upper,
        **origin,
    )
