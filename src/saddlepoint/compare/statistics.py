"""Statistics of runs over several seeds: medians, proportions, pairwise tests, time to a target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from math import comb

import numpy as np

REPLICATES = 10_000
_PERMUTATIONS = 20_000
"""Up to so many permutations the test enumerates all of them; beyond, it draws as many."""


def median_interval(
    values: Sequence[float], *, level: float = 0.95, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Return the median and its bootstrap percentile interval, from 10,000 resamples of the seeds.

    An infinite value, of a run that diverged or failed, is worse than every other one and is
    included; the interval may reach infinity.

    Args:
        values: one per seed, at least one.
        level: confidence level of the interval.
        seed: seed of the resampling.

    Reference: Efron (1979), Bootstrap methods: another look at the jackknife, Annals of Statistics
    7.

    >>> median_interval([1.0, 2.0, 3.0])
    (2.0, (1.0, 3.0))
    """
    sample = np.asarray(values, dtype=float)
    draws = np.random.default_rng(seed).integers(len(sample), size=(REPLICATES, len(sample)))
    medians = np.median(sample[draws], axis=-1)
    tails = [(1 - level) / 2, (1 + level) / 2]
    # interpolation between infinities is not a number
    low, high = np.quantile(medians, tails, method="inverted_cdf")
    return float(np.median(sample)), (float(low), float(high))


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % score interval of a proportion.

    It stays in [0, 1] and is not empty at 0 of n or n of n.

    Reference: Wilson (1927), Probable inference, the law of succession, and statistical inference,
    JASA 22.

    >>> tuple(round(end, 3) for end in wilson_interval(5, 5))
    (0.566, 1.0)
    """
    z = 1.959964
    rate = successes / n
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def probability_better(first: Sequence[float], second: Sequence[float]) -> float:
    """Return P(a < b) + ½ P(a = b) for values a of the first and b of the second method.

    Smaller values are better.

    Reference: Vargha and Delaney (2000), A critique and improvement of the CL common language
    effect size statistics.

    >>> probability_better([1.0, 2.0], [2.0, 3.0])
    0.875
    """
    a, b = np.asarray(first, dtype=float)[:, None], np.asarray(second, dtype=float)[None, :]
    return float(((a < b) + 0.5 * (a == b)).mean())


def mann_whitney_test(first: Sequence[float], second: Sequence[float], *, seed: int = 0) -> float:
    """Return the two-sided p-value of the Mann–Whitney test, exact also with ties.

    The proportion of all assignments of the runs to two methods whose statistic,
    ``probability_better``, is at least as far from ½. With n and m runs the least possible value is
    2 / C(n + m, n): 0.008 for five against five.

    Reference: Mann and Whitney (1947), On a test of whether one of two random variables is
    stochastically larger than the other.

    >>> round(mann_whitney_test([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]), 3)  # 2 of 20
    0.1
    """
    pooled = np.concatenate([np.asarray(first, dtype=float), np.asarray(second, dtype=float)])
    n, total = len(first), len(pooled)
    ranks = np.array(
        [(pooled < value).sum() + ((pooled == value).sum() + 1) / 2 for value in pooled]
    )
    expected = n * (total + 1) / 2
    observed = abs(ranks[:n].sum() - expected)
    if comb(total, n) <= _PERMUTATIONS:
        sums = np.array([ranks[list(chosen)].sum() for chosen in combinations(range(total), n)])
        return float((np.abs(sums - expected) >= observed - 1e-9).mean())
    generator = np.random.default_rng(seed)
    sums = np.array([generator.permutation(ranks)[:n].sum() for _ in range(_PERMUTATIONS)])
    return float((1 + (np.abs(sums - expected) >= observed - 1e-9).sum()) / (1 + _PERMUTATIONS))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected by Holm's method for their number.

    The k-th smallest of m is multiplied by m − k + 1; the results never fall and are at most 1.

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


def kaplan_meier_median(times: Sequence[float | None], ends: Sequence[float]) -> float | None:
    """Return the Kaplan–Meier median of the time to a target.

    None where the estimated probability of reaching the target stays below ½.

    Args:
        times: when each run reached the target; None where it did not until its end (censored).
        ends: when each run ended.

    Reference: Kaplan and Meier (1958), Nonparametric estimation from incomplete observations, JASA
    53.

    >>> kaplan_meier_median([3.0, 1.0, None], [9.0, 9.0, 9.0])
    3.0
    >>> kaplan_meier_median([3.0, None, None], [9.0, 9.0, 9.0]) is None
    True
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
