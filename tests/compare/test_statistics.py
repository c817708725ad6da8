"""Statistics against closed forms, scipy and brute force."""

import math
from itertools import combinations, pairwise

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from saddlepoint.compare.statistics import (
    holm,
    kaplan_meier_median,
    mann_whitney_test,
    median_interval,
    probability_better,
    wilson_interval,
)

values = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=6)


class TestMedianInterval:
    def test_of_equal_values_is_a_point(self):
        assert median_interval([3.0] * 7) == (3.0, (3.0, 3.0))

    def test_is_the_percentile_interval_of_scipy(self):
        sample = np.random.default_rng(1).normal(size=21)
        middle, interval = median_interval(sample)
        reference = scipy.stats.bootstrap(
            (sample,),
            np.median,
            method="percentile",
            n_resamples=20_000,
            rng=np.random.default_rng(2),
        )
        assert middle == np.median(sample)
        assert interval == pytest.approx(tuple(reference.confidence_interval), abs=0.15)

    def test_covers_the_true_median_about_as_often_as_it_says(self):
        generator = np.random.default_rng(0)
        covered = [
            low <= 0 <= high
            for _, (low, high) in (median_interval(generator.normal(size=15)) for _ in range(200))
        ]
        assert 0.88 <= np.mean(covered) <= 0.99

    def test_a_run_without_an_end_is_worse_than_all_and_not_dropped(self):
        middle, (low, high) = median_interval([1.0, 2.0, math.inf])
        assert (middle, low, high) == (2.0, 1.0, math.inf)
        assert median_interval([1.0, math.inf, math.inf])[0] == math.inf

    def test_of_an_even_number_is_the_mean_of_the_middle_two(self):
        assert median_interval([1.0, 2.0, 4.0, 8.0])[0] == 3.0

    @given(values)
    def test_holds_the_median_and_stays_within_the_values(self, sample):
        middle, (low, high) = median_interval(sample)
        assert min(sample) <= low <= middle <= high <= max(sample)

    def test_is_reproducible(self):
        assert median_interval([1.0, 5.0, 2.0]) == median_interval([1.0, 5.0, 2.0])


class TestShareInterval:
    @pytest.mark.parametrize(("k", "n"), [(0, 5), (3, 5), (5, 5), (7, 20)])
    def test_is_wilsons(self, k, n):
        reference = scipy.stats.binomtest(k, n).proportion_ci(method="wilson")
        assert wilson_interval(k, n) == pytest.approx((reference.low, reference.high), abs=1e-6)


class TestProbabilityBetter:
    @given(values, values)
    def test_is_complementary(self, first, second):
        assert probability_better(first, second) + probability_better(
            second, first
        ) == pytest.approx(1)

    def test_infinite_values_tie(self):
        assert probability_better([math.inf], [math.inf, 1.0]) == 0.25


class TestExchangeTest:
    def test_is_the_exact_test_of_mann_and_whitney_without_ties(self):
        generator = np.random.default_rng(3)
        first, second = generator.normal(size=5), generator.normal(0.8, size=6)
        assert mann_whitney_test(first, second) == pytest.approx(
            scipy.stats.mannwhitneyu(first, second, method="exact").pvalue
        )

    def test_has_the_least_value_for_separated_samples(self):
        assert mann_whitney_test([1.0] * 5, [2.0] * 5) == pytest.approx(2 / math.comb(10, 5))

    @given(values, values)
    def test_with_ties_is_what_dealing_all_ways_gives(self, first, second):
        pooled, n = np.array(first + second), len(first)
        observed = abs(probability_better(first, second) - 0.5)
        dealt = []
        for chosen in combinations(range(len(pooled)), n):
            rest = np.delete(pooled, list(chosen))
            dealt.append(
                abs(probability_better(pooled[list(chosen)], rest) - 0.5) >= observed - 1e-12
            )
        assert mann_whitney_test(first, second) == pytest.approx(np.mean(dealt))

    def test_of_many_runs_draws_at_random(self):
        generator = np.random.default_rng(4)
        first, second = generator.normal(size=30), generator.normal(1.0, size=30)
        reference = scipy.stats.mannwhitneyu(first, second, method="asymptotic").pvalue
        assert mann_whitney_test(first, second) < 0.01
        assert reference < 0.01


class TestHolm:
    @given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
    def test_lies_between_the_p_values_and_bonferroni(self, p_values):
        adjusted = holm(p_values)
        assert all(
            p <= a <= min(1.0, len(p_values) * p) + 1e-12
            for p, a in zip(p_values, adjusted, strict=True)
        )

    @given(st.lists(st.floats(0, 1), min_size=2, max_size=8))
    def test_keeps_the_order(self, p_values):
        adjusted = holm(p_values)
        order = np.argsort(p_values, kind="stable")
        assert all(adjusted[a] <= adjusted[b] for a, b in pairwise(order))


class TestMedianTime:
    def test_without_censoring_is_the_lower_median(self):
        assert kaplan_meier_median([4.0, 1.0, 3.0, 2.0], [9.0] * 4) == 2.0

    def test_is_the_kaplan_meier_median_of_scipy(self):
        times, ends = [1.0, None, 2.0, 5.0, None, 6.0], [9.0, 1.5, 9.0, 9.0, 4.0, 9.0]
        sample = scipy.stats.CensoredData.right_censored(
            [end if time is None else time for time, end in zip(times, ends, strict=True)],
            [time is None for time in times],
        )
        survival = scipy.stats.ecdf(sample).sf
        reference = survival.quantiles[np.flatnonzero(survival.probabilities <= 0.5)[0]]
        assert kaplan_meier_median(times, ends) == reference

    def test_is_unknown_where_most_never_reach_it(self):
        assert kaplan_meier_median([1.0, None, None], [2.0, 2.0, 2.0]) is None
        assert kaplan_meier_median([None], [2.0]) is None
