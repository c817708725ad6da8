import math

import pytest
import torch

import saddlepoint as sp
from saddlepoint.metrics import (
    Memorisation,
    diversity,
    diversity_share,
    memorisation,
    memorisation_measures,
    nearest_distances,
)

HERE = {"split": "train and test", "extractor": "none"}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(n, d, seed):
    return torch.randn(n, d, generator=seeded(seed), dtype=torch.float64)


class TestNearest:
    def test_brute_force_and_chunks(self):
        a, b = normal(37, 3, 0), normal(41, 3, 1)
        expected = [min(math.dist(x, y) for y in b.tolist()) for x in a.tolist()]
        whole = nearest_distances(a, b)
        assert whole.tolist() == pytest.approx(expected)
        assert all(
            torch.allclose(nearest_distances(a, b, rows=rows), whole, rtol=1e-12)
            for rows in (1, 10, 37)
        )

    def test_copies_are_at_distance_zero_exactly(self):
        x = normal(100, 64, 0).float() + 1000
        assert nearest_distances(x[:50], x).tolist() == [0.0] * 50

    def test_refusals(self):
        with pytest.raises(sp.UsageError, match="at least 1 reference samples, got 0"):
            nearest_distances(torch.zeros(3, 2), torch.zeros(0, 2))
        with pytest.raises(sp.UsageError, match="a feature of the query samples is not finite"):
            nearest_distances(torch.full((3, 2), math.nan), torch.zeros(3, 2))


class TestMemorisation:
    def test_copies(self):
        train, test = normal(300, 5, 0), normal(200, 5, 1)
        found = memorisation(train[:150], test, train)
        assert found.copying == 1.0
        assert found.ratio == 0.0

    def test_nearly_copies(self):
        train, test = normal(300, 5, 0), normal(200, 5, 1)
        found = memorisation(train[:150] + 1e-3 * normal(150, 5, 2), test, train)
        assert found.copying == 1.0
        assert found.ratio < 0.01

    def test_unseen_data(self):
        """Mann-Whitney statistic of equal distributions: mean ½, variance (N + M + 1)/(12 N M)."""
        n = 1000
        found = memorisation(normal(n, 5, 0), normal(n, 5, 1), normal(2000, 5, 2))
        assert found.copying == pytest.approx(0.5, abs=4 * math.sqrt((2 * n + 1) / (12 * n * n)))
        assert found.ratio == pytest.approx(1.0, abs=0.1)

    def test_the_same_held_out_samples_are_one_half_exactly(self):
        test, train = normal(50, 3, 0), normal(80, 3, 1)
        assert memorisation(test, test, train).copying == 0.5
        assert memorisation(test, test, train).ratio == 1.0

    def test_farther_than_unseen_data(self):
        train, test = normal(300, 5, 0), normal(200, 5, 1)
        assert memorisation(test + 100, test, train).copying == 0.0

    def test_ties_by_hand(self):
        """Pairs (1, 1) tie, (1, 2) and (1, 2) win, (2, 1) loses, (2, 2) and (2, 2) tie."""
        assert Memorisation(
            torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0, 2.0])
        ).copying == pytest.approx((2 + 3 / 2) / 6)

    def test_pairs_one_by_one(self):
        g, h = (torch.randint(6, (30,), generator=seeded(seed)).double() for seed in (0, 1))
        expected = ((g[:, None] < h).double() + 0.5 * (g[:, None] == h)).mean()
        assert Memorisation(g, h).copying == pytest.approx(float(expected))

    def test_measures(self):
        train, test = normal(300, 5, 0), normal(200, 5, 1)
        measures = memorisation_measures(
            memorisation(normal(100, 5, 2), test, train), train=300, **HERE
        )
        assert (measures["copying"].generated, measures["copying"].real) == (100, 500)
        for measure in measures.values():
            low, high = measure.interval(100, seeded())
            assert low < measure.value < high
            assert (low, high) == measure.interval(100, seeded())

    def test_held_out_samples_that_training_saw(self):
        train = normal(100, 3, 0)
        with pytest.raises(
            sp.UsageError, match="half of the held-out samples are in the training data"
        ):
            _ = memorisation(normal(50, 3, 1), train[:50], train).ratio


class TestDiversity:
    def test_by_hand_and_by_pdist(self):
        assert diversity(torch.tensor([[0.0], [1.0], [3.0]])) == 2.0
        x = normal(60, 4, 0)
        assert diversity(x) == pytest.approx(float(torch.pdist(x).mean()))
        assert diversity(x, rows=7) == pytest.approx(diversity(x))

    def test_of_a_collapsed_generator(self):
        x = normal(60, 4, 0)
        share = diversity_share(x, torch.full((60, 4), 0.1), **HERE)
        assert share.value == 0.0
        assert share.interval(20, seeded()) == (0.0, 0.0)

    def test_of_gaussians(self):
        """Two samples of N(0, 1) are 2/√π apart in the mean."""
        assert diversity(normal(4000, 1, 0)) == pytest.approx(2 / math.sqrt(math.pi), rel=0.03)
        assert diversity_share(
            normal(3000, 1, 0), 3 * normal(3000, 1, 1), **HERE
        ).value == pytest.approx(3, rel=0.05)

    def test_replicates_vary_as_the_share_does_from_set_to_set(self):
        shares = torch.tensor(
            [
                diversity_share(normal(100, 2, 2 * i), normal(100, 2, 2 * i + 1), **HERE).value
                for i in range(100)
            ]
        )
        measure, g = diversity_share(normal(100, 2, 900), normal(100, 2, 901), **HERE), seeded()
        replicates = torch.tensor([measure.replicate(g) for _ in range(300)])
        assert float(replicates.std()) == pytest.approx(float(shares.std()), rel=0.3)

    def test_refusals(self):
        with pytest.raises(sp.UsageError, match="at least 2 given samples, got 1"):
            diversity(torch.zeros(1, 3))
        with pytest.raises(sp.UsageError, match="all real samples have the same features"):
            diversity_share(torch.ones(10, 3), normal(10, 3, 0), **HERE)
