"""A thousand modes: that they are equally likely, that metrics see them all in data, and that the
networks train."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import saddlepoint as sp
from saddlepoint import rules
from saddlepoint.data import load_digits
from saddlepoint.problems import Digits, StackedDigits

BOTH = ("discriminator", "generator")


@pytest.fixture(scope="module")
def digits():
    return load_digits()


@pytest.fixture(scope="module")
def labels_of(digits):
    """Return the labels of all channels, found by comparing whole images with those of the training
    set; −1 where there is none."""
    known = {
        image.numpy().tobytes(): int(label)
        for image, label in zip(digits[0].images, digits[0].labels, strict=True)
    }

    def look_up(images):
        flat = images.reshape(-1, 28, 28).contiguous().numpy()
        return np.array([known.get(image.tobytes(), -1) for image in flat]).reshape(len(images), 3)

    return look_up


@pytest.fixture(scope="module")
def triples(labels_of):
    """The labels of 10,000 stacks."""
    problem = StackedDigits()
    return np.concatenate([labels_of(problem.real(step, 1000, seed=5)) for step in range(10)])


def chi_squared(counts, expected):
    return float(((counts - expected) ** 2 / expected).sum())


class TestData:
    def test_channels_are_training_digits(self, triples):
        assert triples.min() == 0
        assert triples.max() == 9

    def test_a_thousand_modes_are_equally_likely(self, triples):
        counts = np.bincount(triples @ [100, 10, 1], minlength=1000)
        assert len(counts) == 1000
        mean, deviation = 10.0, math.sqrt(10_000 * 1e-3 * (1 - 1e-3))
        assert counts.max() < mean + 7 * deviation
        assert (counts == 0).sum() < 5
        statistic = chi_squared(counts, mean)
        assert abs(statistic - 999) < 5 * math.sqrt(2 * 999)

    @pytest.mark.parametrize(("one", "two"), [(0, 1), (0, 2), (1, 2)])
    def test_channels_are_independent(self, triples, one, two):
        table = np.bincount(10 * triples[:, one] + triples[:, two], minlength=100)
        assert abs(chi_squared(table, len(triples) / 100) - 99) < 5 * math.sqrt(2 * 99)

    def test_they_are_functions_of_seed_and_step(self):
        a, b = StackedDigits().real(3, 8, 1), StackedDigits(size=0.5).real(3, 8, 1)
        assert torch.equal(a, b)
        assert a.shape == (8, 3, 28, 28)
        assert not torch.equal(a, StackedDigits().real(4, 8, 1))
        assert not torch.equal(a, StackedDigits().real(3, 8, 2))

    def test_held_out_stacks_are_of_test_images_only(self, digits, labels_of):
        problem = StackedDigits()
        stacks = problem.held_out(200, 0)
        assert stacks.shape == (200, 3, 28, 28)
        test = {image.numpy().tobytes() for image in digits[1].images}
        assert all(
            channel.contiguous().numpy().tobytes() in test for stack in stacks for channel in stack
        )
        assert (labels_of(stacks) == -1).mean() > 0.99, "and none of them is in the training set"
        assert torch.equal(stacks, problem.held_out(200, 0))
        assert not torch.equal(stacks, problem.held_out(200, 1))


@pytest.fixture(scope="module")
def real():
    """The metrics of 2,000 stacks of data."""
    problem = StackedDigits()
    return problem.metrics(problem.real(0, 2000, seed=3))


class TestMetrics:
    def test_real_data_covers_what_two_thousand_samples_can(self, real):
        """The number of distinct modes among N uniform draws of M: mean M(1 − (1 − 1/M)^N), and its
        exact variance."""
        m, n = 1000, 2000
        one, two = (1 - 1 / m) ** n, (1 - 2 / m) ** n
        mean, deviation = m * (1 - one), math.sqrt(m * (m - 1) * two + m * one - (m * one) ** 2)
        assert abs(real["modes"] - mean) < 5 * deviation
        assert mean == pytest.approx(864.8, abs=0.1)

    def test_its_reverse_kl_is_that_of_uniform_draws(self, real):
        generator = np.random.default_rng(0)
        shares = [generator.multinomial(2000, [1e-3] * 1000) / 2000 for _ in range(50)]
        drawn = [float((p[p > 0] * np.log(1000 * p[p > 0])).sum()) for p in shares]
        assert abs(real["reverse_kl"] - np.mean(drawn)) < 6 * np.std(drawn) + 0.01

    def test_an_untrained_generator_is_far_from_it(self, real):
        problem = StackedDigits()
        found = problem.metrics(
            problem.generate(problem.networks(0)["generator"], 300, 0, "evaluation")
        )
        assert list(found) == list(problem.metric_names)
        assert found["modes"] < 30
        assert found["reverse_kl"] > 3
        assert found["frechet[digit-cnn]"] > 10 * real["frechet[digit-cnn]"]
        assert problem.score(found) > problem.score(real)

    def test_one_mode_alone(self):
        """The same stack again and again: one mode, and log 1000."""
        problem = StackedDigits()
        stack = problem.real(0, 1, 0).expand(300, 3, 28, 28)
        found = dict(problem.measures(stack))
        assert found["modes"].value == 1
        assert found["reverse_kl"].value == pytest.approx(math.log(1000))


class TestNetworks:
    def test_sizes(self):
        count = {
            player: sum(p.numel() for p in network.parameters())
            for player, network in StackedDigits().networks(0).items()
        }
        assert count == {"discriminator": 585, "generator": 287_875}
        larger = StackedDigits(size=0.5).networks(0)["discriminator"]
        assert [m.out_channels for m in larger.modules() if isinstance(m, nn.Conv2d)] == [4, 8, 16]

    def test_without_normalisation(self):
        networks = StackedDigits(batch_norm=False, latent=4, r1=1.0).networks(0)
        assert not any(
            isinstance(module, nn.BatchNorm2d)
            for network in networks.values()
            for module in network.modules()
        )

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            (
                {"r1": 1.0},
                (
                    "Problem stacked-digits: r1=1.0 cannot be used with batch_norm, which"
                    " mixes the gradients of the samples. Use batch_norm=false."
                ),
            ),
            (
                {"r2": 1.0},
                (
                    "Problem stacked-digits: r2=1.0 cannot be used with batch_norm, which"
                    " mixes the gradients of the samples. Use batch_norm=false."
                ),
            ),
            (
                {"size": 0.0},
                (
                    "Problem stacked-digits: size=0.0 must be positive; 0.25 means a quarter of"
                    " the generator's channels."
                ),
            ),
            (
                {"size": math.inf},
                (
                    "Problem stacked-digits: size=inf must be positive; 0.25 means a quarter of"
                    " the generator's channels."
                ),
            ),
            ({"latent": 0}, "Problem stacked-digits: latent must be at least 1, not 0."),
        ],
    )
    def test_mistakes(self, options, text):
        with pytest.raises(sp.UsageError) as caught:
            StackedDigits(**options)
        assert str(caught.value) == text

    def test_the_picture_is_in_colour(self):
        problem = StackedDigits()
        picture = problem.picture(problem.real(0, 9, 0))
        assert picture.mode == "RGB"
        red, green, blue = picture.split()
        assert red.tobytes() != green.tobytes() != blue.tobytes()

    @pytest.mark.parametrize(
        ("rule", "lr"),
        [
            (sp.GradientDescent(), 0.01),
            (rules.Extragradient(), 0.01),
            (rules.AdaptiveCompetitiveGradient(), 1e-4),
        ],
        ids=lambda value: type(value).__name__,
    )
    @pytest.mark.filterwarnings("ignore::saddlepoint.errors.SolverWarning")
    def test_they_train_and_the_buffers_move_once_a_step(self, rule, lr):
        problem = StackedDigits(latent=4, size=0.125)
        networks = problem.networks(0)
        inner = {
            player: torch.optim.SGD(network.parameters(), lr=lr)
            for player, network in networks.items()
        }
        optimizer = sp.GameOptimizer(inner, rule, modules=networks.values())
        for step in range(3):
            before = {
                player: [p.detach().clone() for p in network.parameters()]
                for player, network in networks.items()
            }
            batch = problem.batch(step, 4, 0)
            optimizer.step(lambda batch=batch: problem.losses(networks, batch, BOTH))
            for player, network in networks.items():
                assert not all(
                    torch.equal(p, q)
                    for p, q in zip(network.parameters(), before[player], strict=True)
                )
                assert all(bool(p.isfinite().all()) for p in network.parameters())
            counts = {
                player: {
                    int(m.num_batches_tracked)
                    for m in network.modules()
                    if isinstance(m, nn.BatchNorm2d)
                }
                for player, network in networks.items()
            }
            # the discriminator judges generated and real samples, one pass each
            assert counts == {"discriminator": {2 * (step + 1)}, "generator": {step + 1}}


class TestFewTrainingImages:
    def test_only_those_are_used(self, digits):
        problem = Digits(train_images=150)
        known = {image.numpy().tobytes(): index for index, image in enumerate(digits[0].images)}
        seen = [
            known[image.contiguous().numpy().tobytes()]
            for step in range(5)
            for image in problem.real(step, 60, 0)
        ]
        assert sorted(seen) == sorted([*range(150)] * 2), (
            "each of the first 150 once in each of the two epochs"
        )

    def test_copies_and_overfitting_are_still_measured(self):
        problem = Digits(train_images=150)
        copies = problem.metrics(problem.real(0, 150, 0))
        new = problem.metrics(problem.held_out(300, 0))
        assert all(math.isfinite(value) for value in (*copies.values(), *new.values()))
        assert copies["neighbour_ratio[digit-cnn]"] < 0.05
        assert copies["copying[digit-cnn]"] > 0.95
        assert copies["gap[digit-cnn]"] > 0 > new["gap[digit-cnn]"]
        assert new["copying[digit-cnn]"] == pytest.approx(0.5, abs=0.1)

    @pytest.mark.parametrize("n", [99, 0, -5])
    def test_too_few(self, n):
        with pytest.raises(sp.UsageError) as caught:
            Digits(train_images=n)
        assert (
            str(caught.value)
            == f"Problem digits: train_images={n} must be at least 100. The default is all images."
        )

    def test_the_least(self):
        assert len(Digits(train_images=100).real(0, 100, 0)) == 100
