"""What runs over several seeds say: medians with intervals, shares, pairwise probabilities, time to a target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from math import comb

import numpy as np

REPLICATES = 10_000
_EXACT = 20_000
"""Most ways to deal the runs to two methods that are all tried; beyond, as many are drawn at random."""


def median_interval(
    values: Sequence[float], *, level: float = 0.95, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Return the median and its bootstrap percentile interval, from 10,000 resamples of the seeds.

    An infinite value, a run that never came to an end, is worse than every other and takes part; an
    interval may end at infinity.

    Args:
        values: one per seed, at least one.
        level: of the interval.
        seed: of the resampling.

    Reference: Efron (1979), Bootstrap methods: another look at the jackknife, Annals of Statistics
    7.

    >>> median_interval([1.0, 2.0, 3.0])
    (2.0, (1.0, 3.0))
    """
    sample = np.asarray(values, dtype=float)
    draws = np.random.default_rng(seed).integers(len(sample), size=(REPLICATES, len(sample)))
    medians = _median(sample[draws])
    tails = [(1 - level) / 2, (1 + level) / 2]
    # interpolation between infinities is not a number
    low, high = np.quantile(medians, tails, method="inverted_cdf")
    return float(_median(sample)), (float(low), float(high))


def _median(values: np.ndarray) -> np.ndarray:
    ordered = np.sort(values, axis=-1)
    n = ordered.shape[-1]
    middle: np.ndarray = (ordered[..., (n - 1) // 2] + ordered[..., n // 2]) / 2
    return middle


def share_interval(successes: int, n: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share, which stays in [0, 1] and is not empty at 0 of n or n of n.

    Reference: Wilson (1927), Probable inference, the law of succession, and statistical inference,
    JASA 22.

    >>> tuple(round(end, 3) for end in share_interval(5, 5))
    (0.566, 1.0)
    """
    z = 1.959964
    share = successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def probability_better(first: Sequence[float], second: Sequence[float]) -> float:
    """Return P(a < b) + ½ P(a = b) for runs a of the first and b of the second method; smaller values are better.

    Reference: Vargha and Delaney (2000), A critique and improvement of the CL common language
    effect size statistics.

    >>> probability_better([1.0, 2.0], [2.0, 3.0])
    0.875
    """
    a, b = np.asarray(first, dtype=float)[:, None], np.asarray(second, dtype=float)[None, :]
    return float(((a < b) + 0.5 * (a == b)).mean())


def exchange_test(first: Sequence[float], second: Sequence[float], *, seed: int = 0) -> float:
    """Return the two-sided p-value of "both methods' runs are alike": the share of all ways to deal the runs that are as one-sided.

    The statistic is ``probability_better``, so it is the Mann–Whitney test, exact also with ties.
    With n and m runs the least possible value is 2 / C(n + m, n): 0.008 for five against five.

    Reference: Mann and Whitney (1947), On a test of whether one of two random variables is
    stochastically larger than the other.

    >>> round(exchange_test([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]), 3)  # 2 of 20
    0.1
    """
    pooled = np.concatenate([np.asarray(first, dtype=float), np.asarray(second, dtype=float)])
    n, total = len(first), len(pooled)
    ranks = np.array(
        [(pooled < value).sum() + ((pooled == value).sum() + 1) / 2 for value in pooled]
    )
    expected = n * (total + 1) / 2
    observed = abs(ranks[:n].sum() - expected)
    if comb(total, n) <= _EXACT:
        sums = np.array([ranks[list(chosen)].sum() for chosen in combinations(range(total), n)])
        return float((np.abs(sums - expected) >= observed - 1e-9).mean())
    generator = np.random.default_rng(seed)
    sums = np.array([generator.permutation(ranks)[:n].sum() for _ in range(_EXACT)])
    return float((1 + (np.abs(sums - expected) >= observed - 1e-9).sum()) / (1 + _EXACT))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number: the k-th smallest of m times m − k + 1, never falling, at most 1.

    Reference: Holm (1979), A simple sequentially rejective multiple test procedure, Scandinavian
    Journal of Statistics 6.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def median_time(times: Sequence[float | None], ends: Sequence[float]) -> float | None:
    """Return the Kaplan–Meier median of the time to a target; None where fewer than half of the runs are sure to reach it.

    Args:
        times: when each run reached the target; None where it did not until its end, so that all
            that is known is a lower bound.
        ends: when each run ended.

    Reference: Kaplan and Meier (1958), Nonparametric estimation from incomplete observations, JASA
    53.

    >>> median_time([3.0, 1.0, None], [9.0, 9.0, 9.0]), median_time([3.0, None, None], [9.0, 9.0, 9.0])
    (3.0, None)
    """
    remaining = 1.0
    for moment in sorted({time for time in times if time is not None}):
        at_risk = sum(
            (end if time is None else time) >= moment for time, end in zip(times, ends, strict=True)
        )
        reached = sum(time == moment for time in times)
        remaining *= 1 - reached / at_risk
        if remaining <= 0.5 + 1e-12:
            return moment
    return None
