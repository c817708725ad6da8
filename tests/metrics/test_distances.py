import math
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.image.fid import FrechetInceptionDistance

import saddlepoint as sp
from saddlepoint.metrics import (
    frechet_distance,
    frechet_measure,
    generalisation_gap,
    mmd2,
    mmd2_measure,
    redraw,
    wasserstein_1d,
)
from saddlepoint.metrics.distances import _Features, _kernel, _weighted_mmd2

HERE = {"split": "test", "extractor": "none"}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(n, d, seed, scale=1.0, shift=0.0):
    return shift + scale * torch.randn(n, d, generator=seeded(seed), dtype=torch.float64)


def torchmetrics_frechet(real, fake):
    metric = FrechetInceptionDistance(feature=_Features(real.shape[1]))
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return float(metric.compute())


class TestFrechet:
    def test_torchmetrics(self):
        a, b = normal(300, 6, 0), normal(200, 6, 1, scale=0.6, shift=0.2)
        assert frechet_distance(a, b) == pytest.approx(torchmetrics_frechet(a, b), rel=1e-10)

    def test_it_converges_to_that_of_the_gaussians(self):
        """N(0, A) and N(m, B) with commuting A and B: ‖m‖² + Σ(√a − √b)²; the error at N samples is
        of order 1/√N."""
        a, b, m = (
            torch.tensor([4.0, 1.0, 0.25]),
            torch.tensor([1.0, 1.0, 2.25]),
            torch.tensor([1.0, 0.0, -2.0]),
        )
        exact = float(m.square().sum() + (a.sqrt() - b.sqrt()).square().sum())
        for n in (100, 10_000, 1_000_000):
            found = frechet_distance(normal(n, 3, 0) * a.sqrt(), normal(n, 3, 1) * b.sqrt() + m)
            assert abs(found - exact) / exact < 4 / math.sqrt(n)

    @pytest.mark.parametrize("rows", [1, 7, 100, 1000])
    def test_parts_do_not_matter(self, rows):
        a, b = normal(300, 5, 0), normal(250, 5, 1, shift=0.5)
        found = frechet_distance((part for part in a.split(rows)), iter(b.split(rows)))
        assert found == pytest.approx(frechet_distance(a, b), rel=1e-10)

    def test_empty_parts_do_not_matter(self):
        a, b = normal(300, 5, 0), normal(250, 5, 1, shift=0.5)
        assert frechet_distance([a[:0], a], [b, b[:0]]) == frechet_distance(a, b)

    def test_parts_are_not_kept(self):
        """What is summed up has the size of one covariance, whatever the number of parts."""
        alive = []

        def parts(seed):
            for i in range(20):
                part = normal(50, 3, seed + i)
                alive.append(weakref.ref(part))
                yield part
                del part
                # the one in use, and the first, which gives the origin
                assert sum(reference() is not None for reference in alive) <= 2

        assert math.isfinite(frechet_distance(parts(0), parts(100)))

    @settings(max_examples=25)
    @given(st.integers(0, 1000), st.floats(-1e5, 1e5), st.floats(0.1, 10))
    def test_moved_and_scaled(self, seed, shift, scale):
        a, b = normal(60, 3, seed), normal(50, 3, seed + 1, scale=0.5)
        expected = frechet_distance(a, b)
        assert frechet_distance(a + shift, b + shift) == pytest.approx(expected, rel=1e-6)
        assert frechet_distance(scale * a, scale * b) == pytest.approx(
            scale**2 * expected, rel=1e-6
        )
        assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-6)

    def test_a_constant_generator(self):
        """Without covariance the distance is ‖μ − c‖² + tr Σ."""
        a = normal(500, 8, 0)
        expected = (a.mean(0) - 0.1).square().sum() + a.var(0).sum()
        # the roots of eigenvalues that are zero but for rounding leave an error of 1e-8
        assert frechet_distance(a, torch.full((300, 8), 0.1, dtype=torch.float64)) == pytest.approx(
            float(expected), rel=1e-6
        )

    def test_degenerate_sets_give_numbers_that_are_not_negative(self):
        low_rank = normal(200, 2, 0) @ normal(2, 16, 1)
        dead = normal(200, 16, 2) * (torch.arange(16) < 5)
        constant = torch.full((200, 16), 0.1)
        for a in (low_rank, dead, constant, low_rank + 1e6):
            for b in (low_rank, dead, constant, low_rank + 1e6):
                assert 0 <= frechet_distance(a, b) < math.inf
            assert frechet_distance(a, a) == pytest.approx(0, abs=1e-3)

    def test_far_from_the_origin(self):
        """Sums of squares around zero would lose every digit here."""
        a, b = normal(200, 4, 0), normal(200, 4, 1, scale=0.5)
        assert frechet_distance(a + 1e8, b + 1e8) == pytest.approx(frechet_distance(a, b), rel=1e-5)

    def test_refusals(self):
        with pytest.raises(sp.UsageError, match="the real samples are empty"):
            frechet_distance(iter([]), normal(20, 3, 0))
        with pytest.raises(sp.UsageError, match="at least 4 generated samples, got 0"):
            frechet_distance(normal(20, 3, 0), iter([]))
        with pytest.raises(sp.UsageError, match=r"generated features have the shape \(20, 4\)"):
            frechet_distance(normal(20, 3, 0), normal(20, 4, 0))
        with pytest.raises(sp.UsageError, match=r"real features have the shape \(20,\)"):
            frechet_distance(torch.zeros(20), normal(20, 3, 0))
        with pytest.raises(sp.UsageError, match="too large for float64"):
            frechet_distance(normal(20, 3, 0), normal(20, 3, 1) * 1e200)


class TestFrechetMeasure:
    def test_a_replicate_is_the_distance_of_redrawn_rows(self):
        a, b, g = normal(80, 3, 0), normal(60, 3, 1), seeded()
        measure = frechet_measure(a, b, **HERE)
        assert measure.value == frechet_distance(a, b)
        assert measure.replicate(seeded()) == frechet_distance(redraw(a, g), redraw(b, g))

    def test_the_interval_is_shifted_down_to_the_value(self):
        measure = frechet_measure(normal(300, 10, 0), normal(300, 10, 1), **HERE)
        g = seeded()
        replicates = torch.tensor([measure.replicate(g) for _ in range(50)])
        # redrawn sets have fewer distinct samples
        assert float(replicates.mean()) > 1.5 * measure.value
        low, high = measure.interval(50, seeded())
        assert 0 <= low < measure.value < high


class TestMmd2Measure:
    def kernels(self, a, b):
        return _kernel(a, a), _kernel(b, b), _kernel(a, b)

    def test_with_every_sample_once_it_is_torchmetrics(self):
        a, b = normal(200, 5, 0), normal(200, 5, 1, shift=0.5)
        once = torch.ones(200, dtype=torch.float64)
        assert _weighted_mmd2(self.kernels(a, b), once, once) == pytest.approx(mmd2(a, b), rel=1e-9)

    def test_a_replicate_is_the_distance_of_redrawn_rows(self):
        a, b, g = normal(150, 5, 0), normal(150, 5, 1, shift=0.5), seeded()
        expected = mmd2(redraw(a, g), redraw(b, g))
        assert mmd2_measure(a, b, **HERE).replicate(seeded()) == pytest.approx(expected, rel=1e-9)

    def test_sizes_that_differ(self):
        a, b = normal(150, 5, 0), normal(200, 5, 1)
        measure = mmd2_measure(a, b, **HERE)
        assert measure.value == mmd2(a, b)
        assert (measure.generated, measure.real) == (150, 150)  # those that were used

    def test_a_collapsed_generator(self):
        measure = mmd2_measure(normal(150, 5, 0), torch.full((150, 5), 0.1), **HERE)
        low, high = measure.interval(50, seeded())
        assert low < measure.value < high


class TestGap:
    def test_it_is_the_difference_of_two_distances(self):
        train, test, fake = normal(400, 4, 0), normal(200, 4, 1), normal(300, 4, 2)
        measure = generalisation_gap(train, test, fake, **HERE)
        assert measure.value == frechet_distance(test, fake) - frechet_distance(train[::2], fake)
        assert (measure.generated, measure.real) == (300, 400)

    def test_the_part_is_spread_over_the_training_set(self):
        """Data in the order of their classes: the first rows alone would be one class."""
        train = torch.cat([normal(200, 3, 0), normal(200, 3, 1, shift=5.0)])
        test = torch.cat([normal(100, 3, 2), normal(100, 3, 3, shift=5.0)])
        gap = generalisation_gap(train, test, test + 0.1 * normal(200, 3, 4), **HERE)
        assert abs(gap.value) < 1

    def test_copies_have_a_gap_and_unseen_samples_have_none(self):
        train, test, unseen = normal(500, 10, 0), normal(500, 10, 1), normal(500, 10, 2)
        copied = generalisation_gap(train, test, train, **HERE)
        assert copied.interval(50, seeded())[0] > 0
        low, high = generalisation_gap(train, test, unseen, **HERE).interval(50, seeded())
        assert low < 0 < high

    def test_more_test_than_training_samples(self):
        with pytest.raises(sp.UsageError, match="as many training as test samples, got 50 and 60"):
            generalisation_gap(normal(50, 3, 0), normal(60, 3, 1), normal(60, 3, 2), **HERE)


class TestWasserstein1d:
    def test_of_a_shift_and_of_a_scale(self):
        x = normal(50, 1, 0)
        assert wasserstein_1d(x, x[torch.randperm(50, generator=seeded())] + 3) == pytest.approx(3)
        assert wasserstein_1d(x, 1.5 * x) == pytest.approx(0.5 * float(x.abs().mean()))

    @given(st.lists(st.integers(-20, 20), min_size=1, max_size=20), st.integers(0, 5))
    def test_it_is_the_area_between_the_distribution_functions(self, values, seed):
        x = torch.tensor(values, dtype=torch.float64)
        y = x[torch.randperm(len(x), generator=seeded(seed))] + torch.randint(
            -3, 4, x.shape, generator=seeded(seed)
        )
        line = torch.arange(-24.0, 25.0, dtype=torch.float64).unsqueeze(1)
        area = float(((x <= line).double().mean(1) - (y <= line).double().mean(1)).abs().sum())
        assert wasserstein_1d(x, y) == pytest.approx(area, abs=1e-12)

    @pytest.mark.parametrize(
        ("real", "fake"), [((0,), (0,)), ((3,), (4,)), ((3, 2), (3, 2)), ((3,), (3, 2))]
    )
    def test_refusals(self, real, fake):
        with pytest.raises(sp.UsageError, match="needs two sets of equally many numbers"):
            wasserstein_1d(torch.zeros(real), torch.zeros(fake))
