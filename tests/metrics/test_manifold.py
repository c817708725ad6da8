import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import saddlepoint as sp
from saddlepoint.metrics import manifold, manifold_measures

HERE = {"split": "test", "extractor": "none"}
NAMES = ("precision", "recall", "density", "coverage")


def normal(n, d, seed, scale=1.0, shift=0.0):
    return shift + scale * torch.randn(
        n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def means(real, fake, **options):
    found = manifold(real, fake, **options)
    return tuple(float(getattr(found, name).mean()) for name in NAMES)


def brute_force(real, fake, k):
    """Every definition written out, one pair at a time."""
    gap = lambda a, b: math.dist(a.tolist(), b.tolist())  # noqa: E731

    def reach(X):
        return [
            sorted(gap(x, y) for j, y in enumerate(X) if j != i)[k - 1] for i, x in enumerate(X)
        ]

    r, s = reach(real), reach(fake)
    precision = [any(gap(y, x) <= r[i] for i, x in enumerate(real)) for y in fake]
    recall = [any(gap(x, y) <= s[j] for j, y in enumerate(fake)) for x in real]
    density = [sum(gap(y, x) < r[i] for i, x in enumerate(real)) / k for y in fake]
    coverage = [any(gap(x, y) <= r[i] for y in fake) for i, x in enumerate(real)]
    return tuple(sum(terms) / len(terms) for terms in (precision, recall, density, coverage))


class TestClosedCases:
    def test_a_set_and_itself(self):
        x = normal(80, 4, 0)
        assert means(x, x) == (1.0, 1.0, 1.0, 1.0)

    def test_sets_far_apart(self):
        assert means(normal(50, 4, 0), normal(60, 4, 1, shift=1e3)) == (0.0, 0.0, 0.0, 0.0)

    def test_equal_distributions_have_density_one_in_the_mean(self):
        """Each generated sample is among the k nearest of a real one with probability k/N; coverage
        is 1 − 2⁻ᵏ and a little more."""
        _, _, density, coverage = means(normal(2000, 3, 0), normal(2000, 3, 1))
        assert density == pytest.approx(1.0, abs=0.05)
        assert coverage == pytest.approx(1 - 2**-5, abs=0.015)

    def test_counted_by_hand(self):
        """Real 0, 1, 3, 7 with k = 1: radii 1, 1, 2, 4. Generated 2, 4, 20: radii 2, 2, 16."""
        real, fake = (
            torch.tensor(points)[:, None] for points in ([0.0, 1.0, 3.0, 7.0], [2.0, 4.0, 20.0])
        )
        found = manifold(real, fake, k=1)
        assert found.precision.tolist() == [1, 1, 0]
        # 0 lies on the edge of the ball around 2, 7 in that around 20
        assert found.recall.tolist() == [1, 1, 1, 1]
        # 2 lies in the ball of 3 and on the edge of that of 1
        assert found.density.tolist() == [1, 2, 0]
        assert found.coverage.tolist() == [0, 1, 1, 1]

    @pytest.mark.parametrize("k", [1, 3, 5])
    def test_brute_force(self, k):
        real, fake = normal(40, 3, 0), normal(30, 3, 1, scale=0.7, shift=0.3)
        assert means(real, fake, k=k) == pytest.approx(brute_force(real, fake, k))

    def test_chunks_do_not_matter(self):
        real, fake = normal(53, 3, 0), normal(47, 3, 1)
        whole = manifold(real, fake, rows=1000)
        for rows in (1, 10, 47):
            parts = manifold(real, fake, rows=rows)
            assert all(torch.equal(getattr(parts, name), getattr(whole, name)) for name in NAMES)


class TestTies:
    def test_a_collapsed_generator_on_a_real_sample(self):
        real = normal(60, 4, 0)
        precision, recall, density, coverage = means(real, real[:1].repeat(60, 1))
        assert precision == 1.0
        assert recall == pytest.approx(1 / 60)  # its balls have radius 0 and hold that sample alone
        assert density > 0
        assert 0 < coverage < 0.5

    def test_a_collapsed_generator_far_away(self):
        assert means(normal(60, 4, 0), torch.full((60, 4), 50.0, dtype=torch.float64)) == (
            0,
            0,
            0,
            0,
        )

    def test_both_constant(self):
        x = torch.full((10, 3), 0.1)
        assert means(x, x) == (1.0, 1.0, 0.0, 1.0)

    def test_float32_copies_are_found_exactly(self):
        x = normal(40, 16, 0).float() + 100
        assert means(x, x)[:2] == (1.0, 1.0)

    @given(
        st.lists(st.tuples(*[st.integers(-2, 2)] * 2), min_size=4, max_size=25),
        st.lists(st.tuples(*[st.integers(-2, 2)] * 2), min_size=4, max_size=25),
        st.integers(1, 3),
    )
    def test_shares_are_shares_on_grids_full_of_ties(self, real, fake, k):
        real, fake = (torch.tensor(points, dtype=torch.float64) for points in (real, fake))
        found = manifold(real, fake, k=k)
        for name in ("precision", "recall", "coverage"):
            assert set(getattr(found, name).tolist()) <= {0.0, 1.0}
        assert 0 <= float(found.density.max()) <= len(real) / k
        assert means(real, fake, k=k) == pytest.approx(brute_force(real, fake, k))


class TestMeasures:
    def test_they_are_the_means_with_intervals_around_them(self):
        real, fake = normal(200, 3, 0), normal(150, 3, 1, scale=0.8)
        measures = manifold_measures(real, fake, **HERE)
        assert tuple(measure.value for measure in measures.values()) == means(real, fake)
        for measure in measures.values():
            low, high = measure.interval(100, torch.Generator().manual_seed(0))
            assert low < measure.value < high
            assert (measure.generated, measure.real, measure.split) == (150, 200, "test")


class TestRefusals:
    def test_too_few_samples(self):
        with pytest.raises(
            sp.UsageError, match="Precision and recall needs at least 6 generated samples, got 5"
        ):
            manifold(normal(20, 2, 0), normal(5, 2, 1))

    def test_k(self):
        with pytest.raises(sp.UsageError, match="k=0 must be at least 1"):
            manifold(normal(20, 2, 0), normal(20, 2, 1), k=0)

    def test_not_finite(self):
        with pytest.raises(sp.UsageError, match="a feature of the generated samples is not finite"):
            manifold(normal(20, 2, 0), torch.full((20, 2), math.inf))

    def test_widths_that_differ(self):
        with pytest.raises(
            sp.UsageError,
            match=r"generated features have the shape \(20, 3\); all must be \(N, d\)",
        ):
            manifold(normal(20, 2, 0), normal(20, 3, 1))
