import math

import pytest
import torch

import saddlepoint as sp
from saddlepoint.metrics import Measure, mean_measure, multiplicities, redraw, resampled

HERE = {"split": "test", "extractor": "none"}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def mean_of(values, **bounds):
    return mean_measure(values, generated=len(values), real=0, **HERE, **bounds)


class TestInterval:
    def test_it_covers_the_mean_as_often_as_it_says(self):
        """Of 200 simulated sets about 95 % of the intervals contain the mean; four binomial
        standard deviations are allowed."""
        g, sets, level = seeded(), 200, 0.95
        ends = [
            mean_of(torch.randn(150, generator=g)).interval(200, g, level=level)
            for _ in range(sets)
        ]
        covered = sum(low <= 0 <= high for low, high in ends) / sets
        assert abs(covered - level) <= 4 * math.sqrt(level * (1 - level) / sets)

    def test_its_width_is_that_of_the_normal_law(self):
        values = torch.randn(1000, generator=seeded(1), dtype=torch.float64)
        low, high = mean_of(values).interval(2000, seeded())
        assert high - low == pytest.approx(
            2 * 1.96 * float(values.std()) / math.sqrt(1000), rel=0.1
        )

    def test_replicates_are_shifted_to_the_value(self):
        """The maximum of redrawn samples is smaller: without the shift the value would be the upper
        end or outside."""
        biased = Measure(
            10.0, lambda g: float(torch.rand((), generator=g)), generated=1, real=0, **HERE
        )
        low, high = biased.interval(500, seeded())
        assert low < 10.0 < high
        assert (low + high) / 2 == pytest.approx(10.0, abs=0.05)

    def test_a_constant_replicate_gives_a_point(self):
        constant = Measure(3.0, lambda g: 1.0, generated=1, real=0, **HERE)
        assert constant.interval(20, seeded()) == (3.0, 3.0)

    def test_it_is_cut_off_at_the_range(self):
        low, high = mean_of((torch.arange(100) > 0).double(), lower=0, upper=1).interval(
            200, seeded()
        )
        assert low < 0.99
        assert high == 1.0

    def test_it_is_a_function_of_the_generator(self):
        measure = mean_of(torch.arange(50.0))
        assert measure.interval(50, seeded()) == measure.interval(50, seeded())
        assert measure.interval(50, seeded()) != measure.interval(50, seeded(1))

    def test_higher_levels_are_wider(self):
        measure = mean_of(torch.arange(50.0))
        narrow, wide = (
            measure.interval(200, seeded(), level=0.5),
            measure.interval(200, seeded(), level=0.99),
        )
        assert wide[0] < narrow[0] < narrow[1] < wide[1]

    @pytest.mark.parametrize(("replicates", "level"), [(19, 0.95), (100, 0.0), (100, 1.0)])
    def test_refusals(self, replicates, level):
        with pytest.raises(
            sp.UsageError, match="at least 20 replicates and a level between 0 and 1"
        ):
            mean_of(torch.arange(5.0)).interval(replicates, seeded(), level=level)

    def test_without_replicates(self):
        with pytest.raises(sp.UsageError, match="has no bootstrap replicates"):
            Measure(1.0, generated=1, real=1, **HERE).interval(20, seeded())

    def test_a_replicate_that_is_not_finite(self):
        with pytest.raises(sp.UsageError, match="replicate is not finite"):
            Measure(1.0, lambda g: math.nan, generated=1, real=1, **HERE).interval(20, seeded())


class TestRedrawing:
    def test_rows_and_multiplicities_are_the_same_draw(self):
        rows = redraw(torch.arange(30), seeded())
        assert torch.equal(
            torch.bincount(rows, minlength=30).double(), multiplicities(30, seeded())
        )

    def test_rows_of_pairs_stay_together(self):
        pairs = torch.stack([torch.arange(9), 10 * torch.arange(9)], 1)
        found = redraw(pairs, seeded())
        assert torch.equal(found[:, 1], 10 * found[:, 0])

    def test_sets_are_redrawn_apart(self):
        a = torch.arange(1000.0)
        assert resampled(lambda x, y: float((x - y).abs().sum()), a, a)(seeded()) > 0

    def test_the_value_of_a_mean(self):
        assert mean_of(torch.tensor([1.0, 2.0, 6.0])).value == 3.0

    @pytest.mark.parametrize("values", [torch.zeros(0), torch.tensor([1.0, math.nan])])
    def test_no_mean_of_nothing(self, values):
        with pytest.raises(sp.UsageError, match="finite contributions of at least one sample"):
            mean_of(values)
