import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import saddlepoint as sp
from saddlepoint.data import ring
from saddlepoint.metrics import (
    class_coverage,
    class_entropy,
    class_measures,
    gaussian_share,
    mode_counts,
    mode_coverage,
    mode_distance,
    mode_measures,
    nearest_modes,
    reverse_kl,
    stacked_modes,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def uniform(modes):
    return torch.full((modes,), 1 / modes, dtype=torch.float64)


class TestEntropy:
    @pytest.mark.parametrize("classes", [1, 3, 10])
    def test_of_equally_frequent_classes(self, classes):
        assert class_entropy(torch.eye(10)[torch.arange(30 * classes) % classes]) == pytest.approx(
            math.log(classes)
        )

    def test_of_unequal_classes(self):
        expected = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
        assert class_entropy(torch.eye(4)[[2, 2, 2, 0]]) == pytest.approx(expected)

    @pytest.mark.parametrize("logits", [torch.zeros(0, 10), torch.full((5, 10), math.nan)])
    def test_refusals(self, logits):
        with pytest.raises(
            sp.UsageError, match="Class entropy: there are no samples, or a logit is not finite"
        ):
            class_entropy(logits)


class TestReverseKl:
    @pytest.mark.parametrize("covered", [1, 2, 5, 8])
    def test_of_some_of_equally_likely_modes(self, covered):
        counts = (torch.arange(8) < covered) * 20
        assert reverse_kl(counts, uniform(8)) == pytest.approx(math.log(8 / covered))

    def test_of_unequal_modes(self):
        expected = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.3)
        assert reverse_kl(torch.tensor([1, 3, 0]), torch.tensor([0.5, 0.3, 0.2])) == pytest.approx(
            expected
        )

    def test_zero_where_the_histogram_is_the_data_s(self):
        assert reverse_kl(torch.tensor([5, 3, 2]), torch.tensor([0.5, 0.3, 0.2])) == pytest.approx(
            0, abs=1e-7
        )

    def test_it_is_what_torch_calls_kl_div_the_other_way(self):
        p, q = torch.rand(2, 9, generator=seeded(), dtype=torch.float64)
        q = q / q.sum()
        expected = torch.nn.functional.kl_div(q.log(), p / p.sum(), reduction="sum")
        assert reverse_kl(p, q) == pytest.approx(float(expected))

    def test_bias_of_a_finite_histogram(self):
        """2N · KL of N samples of the data is chi-squared with modes − 1 degrees of freedom: its
        mean is (modes − 1)/(2N)."""
        g, n, modes = seeded(), 5000, 50
        values = [
            reverse_kl(
                torch.bincount(torch.randint(modes, (n,), generator=g), minlength=modes),
                uniform(modes),
            )
            for _ in range(100)
        ]
        mean, deviation = (modes - 1) / (2 * n), math.sqrt(2 * (modes - 1)) / (2 * n)
        assert sum(values) / 100 == pytest.approx(mean, abs=4 * deviation / 10)

    def test_of_no_samples_it_is_the_largest_value(self):
        q = torch.tensor([0.5, 0.3, 0.2])
        assert reverse_kl(torch.zeros(3), q) == pytest.approx(math.log(5))
        assert max(reverse_kl(row, q) for row in torch.eye(3)) == pytest.approx(math.log(5))

    def test_refusals(self):
        with pytest.raises(
            sp.UsageError, match="must have the same shape, and counts must be at least 0"
        ):
            reverse_kl(torch.ones(3), uniform(4))
        with pytest.raises(
            sp.UsageError, match="must have the same shape, and counts must be at least 0"
        ):
            reverse_kl(torch.tensor([2, -1]), uniform(2))
        for wrong in ([1.0, 0.0], [0.5, 0.6]):
            with pytest.raises(sp.UsageError, match="positive and sum to 1"):
                reverse_kl(torch.ones(2), torch.tensor(wrong))
            with pytest.raises(sp.UsageError, match="positive and sum to 1"):
                mode_measures(
                    torch.zeros(5, dtype=torch.long),
                    torch.tensor(wrong),
                    split="test",
                    extractor="none",
                )

    @given(st.lists(st.integers(0, 50), min_size=2, max_size=12))
    def test_never_negative_and_never_above_its_limit(self, counts):
        value = reverse_kl(torch.tensor(counts), uniform(len(counts)))
        assert 0 <= value <= math.log(len(counts)) + 1e-12


class TestModes:
    @given(st.lists(st.integers(-1, 6), max_size=60))
    def test_counts_are_conserved(self, assignments):
        found = torch.tensor(assignments, dtype=torch.long)
        counts = mode_counts(found, 7)
        assert counts.shape == (7,)
        assert int(counts.sum()) == sum(a >= 0 for a in assignments)
        assert counts.tolist() == [assignments.count(mode) for mode in range(7)]

    @pytest.mark.parametrize("outside", [-2, 3])
    def test_an_index_outside(self, outside):
        with pytest.raises(
            sp.UsageError, match=r"Counts of 3 modes: an assignment is outside -1 … 2"
        ):
            mode_counts(torch.tensor([0, outside]), 3)

    def test_measures_agree_with_mode_coverage(self):
        mixture = ring()
        samples = mixture.sample(2000, seeded()) + 0.03 * torch.randn(2000, 2, generator=seeded(1))
        measures = mode_measures(
            nearest_modes(samples, mixture.centres, mixture.sigma),
            uniform(8),
            split="known density",
            extractor="none",
        )
        assert (measures["modes"].value, measures["quality"].value) == mode_coverage(
            samples, mixture.centres, mixture.sigma
        )
        assert 0 < measures["quality"].value < 1

    def test_a_generator_without_any_good_sample(self):
        measures = mode_measures(
            torch.full((50,), -1), uniform(4), split="known density", extractor="none"
        )
        assert {name: measure.value for name, measure in measures.items()} == pytest.approx(
            {
                "modes": 0,
                "quality": 0,
                "reverse_kl": math.log(4),
                "effective_modes": 0,
                "mode_distance": 1,
            }
        )
        for measure in measures.values():
            assert measure.interval(20, seeded()) == pytest.approx((measure.value, measure.value))

    def test_the_interval_of_a_count_stays_within_the_modes(self):
        assignments = torch.cat([torch.arange(100) % 24, torch.tensor([24])])
        low, high = mode_measures(assignments, uniform(25), split="test", extractor="none")[
            "modes"
        ].interval(200, seeded())
        assert 20 < low < 25
        assert high == 25

    def test_no_samples(self):
        with pytest.raises(sp.UsageError, match="at least one sample"):
            mode_measures(
                torch.zeros(0, dtype=torch.long), uniform(4), split="test", extractor="none"
            )


class TestModeDistance:
    @pytest.mark.parametrize("covered", [1, 3, 8])
    def test_of_some_of_the_modes_alone(self, covered):
        """Every sample is in one of m of M modes: the M − m others and "no mode" are missing."""
        found = torch.arange(covered).repeat(50)
        assert mode_distance(found, uniform(8)) == pytest.approx(1 - covered / 8)
        assert mode_distance(found, uniform(8), inside=0.9) == pytest.approx(1 - 0.9 * covered / 8)

    def test_of_samples_nowhere_near(self):
        assert mode_distance(torch.full((50,), -1), uniform(8), inside=0.9) == pytest.approx(0.9)
        assert mode_distance(torch.full((50,), -1), uniform(8), inside=0.0) == pytest.approx(0)

    def test_of_unequal_modes(self):
        # 0.4, 0.3, none 0.3, against 0.4, 0.4, none 0.2
        found = torch.tensor([0] * 4 + [1] * 3 + [-1] * 3)
        assert mode_distance(found, torch.tensor([0.5, 0.5]), inside=0.8) == pytest.approx(0.1)

    def test_zero_where_the_shares_are_the_data_s(self):
        found = torch.tensor([0] * 5 + [1] * 3 + [-1] * 2)
        assert mode_distance(
            found, torch.tensor([5 / 8, 3 / 8], dtype=torch.float64), inside=0.8
        ) == pytest.approx(0, abs=1e-15)

    def test_of_finitely_many_samples_of_the_data(self):
        g, n, q = seeded(), 2500, 0.9 / 8
        drawn = [
            torch.where(torch.rand(n, generator=g) < 0.9, torch.randint(8, (n,), generator=g), -1)
            for _ in range(100)
        ]
        values = [mode_distance(found, uniform(8), inside=0.9) for found in drawn]
        expected = 0.5 * (
            8 * math.sqrt(2 * q * (1 - q) / (math.pi * n)) + math.sqrt(2 * 0.09 / (math.pi * n))
        )
        assert sum(values) / 100 == pytest.approx(expected, rel=0.1)

    @given(
        st.lists(st.integers(-1, 4), min_size=1, max_size=60),
        st.permutations(range(5)),
        st.floats(0, 1),
    )
    def test_its_range_and_that_the_order_of_equally_likely_modes_does_not_matter(
        self, assignments, order, inside
    ):
        found = torch.tensor(assignments)
        renamed = torch.tensor([a if a < 0 else order[a] for a in assignments])
        value = mode_distance(found, uniform(5), inside=inside)
        assert 0 <= value <= 1
        assert mode_distance(renamed, uniform(5), inside=inside) == pytest.approx(value, abs=1e-12)
        assert mode_distance(found.flip(0), uniform(5), inside=inside) == value

    @given(st.lists(st.integers(-1, 4), min_size=1, max_size=60), st.floats(0, 1))
    def test_what_is_missing_somewhere_is_too_much_elsewhere(self, assignments, inside):
        """The shares sum to 1, so that the distance is also the sum of what is missing."""
        q = [1 - inside] + [inside / 5] * 5
        missing = sum(
            max(0.0, q[k + 1] - assignments.count(k) / len(assignments)) for k in range(-1, 5)
        )
        assert mode_distance(torch.tensor(assignments), uniform(5), inside=inside) == pytest.approx(
            missing, abs=1e-12
        )

    def test_the_interval(self):
        found = torch.tensor([0] * 50 + [1] * 30 + [2] * 10 + [-1] * 10)
        measure = mode_measures(found, uniform(4), inside=0.9, split="test", extractor="none")[
            "mode_distance"
        ]
        low, high = measure.interval(200, seeded())
        assert 0 < low < measure.value < high < 1

    def test_refusals(self):
        with pytest.raises(sp.UsageError, match="at least one sample"):
            mode_distance(torch.zeros(0, dtype=torch.long), uniform(4))
        with pytest.raises(
            sp.UsageError, match=r"inside=1\.1, the share of the data that lies in a mode"
        ):
            mode_distance(torch.zeros(4, dtype=torch.long), uniform(4), inside=1.1)
        with pytest.raises(sp.UsageError, match="positive and sum to 1"):
            mode_distance(torch.zeros(4, dtype=torch.long), torch.ones(4))
        with pytest.raises(sp.UsageError, match=r"an assignment is outside -1 … 3"):
            mode_distance(torch.full((4,), 4), uniform(4))


class TestGaussianShare:
    def test_closed_forms(self):
        assert gaussian_share(1) == pytest.approx(math.erf(3 / math.sqrt(2)), abs=1e-14)
        assert gaussian_share(2) == pytest.approx(1 - math.exp(-4.5), abs=1e-14)
        assert gaussian_share(4, 2) == pytest.approx(1 - 3 * math.exp(-2), abs=1e-14)
        assert gaussian_share(3, 0) == 0

    def test_it_is_the_quality_of_a_mixture_s_own_samples(self):
        mixture, n = ring(), 40_000
        quality = mode_coverage(mixture.sample(n, seeded()), mixture.centres, mixture.sigma)[1]
        share = gaussian_share(2)
        assert quality == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / n))

    @pytest.mark.parametrize(("dimension", "sigmas"), [(0, 3.0), (2, -1.0), (2, math.nan)])
    def test_refusals(self, dimension, sigmas):
        with pytest.raises(sp.UsageError, match="needs dimension ≥ 1 and sigmas ≥ 0"):
            gaussian_share(dimension, sigmas)


class TestStackedDigits:
    def test_every_mode_has_its_own_index(self):
        digits = torch.cartesian_prod(*[torch.arange(10)] * 3)
        found = stacked_modes(torch.eye(10)[digits])
        assert found.tolist() == list(range(1000))
        assert reverse_kl(mode_counts(found, 1000), uniform(1000)) == pytest.approx(0, abs=1e-12)

    def test_channels_in_order(self):
        logits = torch.randn(20, 3, 10, generator=seeded())
        a, b, c = logits.argmax(2).T
        assert torch.equal(stacked_modes(logits), 100 * a + 10 * b + c)

    def test_another_shape(self):
        with pytest.raises(sp.UsageError, match=r"logits of shape \(N, 3, 10\), got \(5, 10\)"):
            stacked_modes(torch.zeros(5, 10))


class TestClassMeasures:
    def test_they_are_the_functions_values(self):
        logits = torch.randn(500, 10, generator=seeded())
        measures = class_measures(logits, split="test", extractor="digit-cnn")
        assert measures["class_coverage"].value == class_coverage(logits)
        assert measures["class_entropy"].value == class_entropy(logits)
        low, high = measures["class_entropy"].interval(100, seeded())
        assert low < measures["class_entropy"].value <= high <= math.log(10)


class TestEffective:
    @pytest.mark.parametrize("m", [1, 3, 8])
    def test_equally_frequent_modes_are_counted(self, m):
        measures = mode_measures(
            torch.arange(m).repeat(40), uniform(8), split="known density", extractor="none"
        )
        assert measures["effective_modes"].value == pytest.approx(m)

    def test_with_equally_likely_modes_it_is_the_reverse_kl_in_other_words(self):
        found = torch.tensor([0] * 70 + [1] * 20 + [5] * 10 + [-1] * 30)
        measures = mode_measures(found, uniform(8), split="known density", extractor="none")
        assert measures["effective_modes"].value == pytest.approx(
            8 * math.exp(-measures["reverse_kl"].value)
        )

    def test_stray_samples_hardly_raise_it(self):
        found = torch.tensor([0] * 1000 + list(range(8)))
        measures = mode_measures(found, uniform(8), split="known density", extractor="none")
        assert (measures["modes"].value, measures["effective_modes"].value < 1.1) == (8, True)

    def test_classes(self):
        measures = class_measures(
            torch.eye(10)[[0, 1, 2, 3] * 50], split="known classes", extractor="none"
        )
        assert measures["effective_classes"].value == pytest.approx(4)
