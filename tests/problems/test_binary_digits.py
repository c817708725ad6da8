import copy

import pytest
import torch

import saddlepoint as sp
from saddlepoint import rules
from saddlepoint.problems import Digits, DigitsBinary

BOTH = ("discriminator", "generator")


def flat(network):
    return torch.cat([p.detach().reshape(-1) for p in network.parameters()])


def one_step(problem, rule, lr=0.1):
    networks, batch = problem.networks(0), problem.batch(0, 16, 0)
    before = {player: flat(network) for player, network in networks.items()}
    inner = {
        player: torch.optim.SGD(network.parameters(), lr=lr) for player, network in networks.items()
    }
    sp.GameOptimizer(inner, rule, modules=networks.values()).step(
        lambda: problem.losses(networks, batch, BOTH)
    )
    return {
        player: not torch.equal(before[player], flat(network))
        for player, network in networks.items()
    }


def test_the_data_is_that_of_digits_in_black_and_white():
    grey, binary = Digits().real(3, 8, 1), DigitsBinary().real(3, 8, 1)
    assert binary.unique().tolist() == [-1.0, 1.0]
    assert torch.equal(binary == 1, grey >= 0)
    problem = DigitsBinary()
    real = problem.metrics(problem.real(0, 1000, 0))["frechet[digit-cnn]"]
    untrained = problem.metrics(
        problem.generate(problem.networks(0)["generator"], 1000, 0, "evaluation")
    )["frechet[digit-cnn]"]
    assert real < 0.1 * untrained


@pytest.mark.parametrize("output", ["threshold", "sampled", "straight_through", "gumbel"])
class TestEveryOutput:
    def test_is_binary_and_a_function_of_the_noise(self, output):
        problem = DigitsBinary(output=output)
        generator, noise = problem.networks(0)["generator"], problem.batch(0, 32, 0).noise
        images = generator(noise)
        assert images.shape == (32, 1, 28, 28)
        assert images.unique().tolist() == [-1.0, 1.0]
        assert torch.equal(images, generator(noise))
        assert torch.equal(images, copy.deepcopy(generator)(noise))

    def test_what_the_gradient_says(self, output):
        """Nothing at a threshold, sampled or not; a surrogate's slope otherwise."""
        moved = one_step(DigitsBinary(output=output), sp.GradientDescent())
        assert moved == {
            "discriminator": True,
            "generator": output in ("straight_through", "gumbel"),
        }

    def test_rules_of_order_0_move_it(self, output):
        for batched in (False, True):
            smoothing = rules.RandomizedSmoothing(0.1, samples=2, batched=batched)
            assert one_step(
                DigitsBinary(output=output), rules.PerPlayer(smoothing, ("generator",))
            ) == {
                "discriminator": True,
                "generator": True,
            }


def test_sampled_pixels_have_the_probability_of_their_logits():
    problem = DigitsBinary(output="sampled")
    generator = problem.networks(0)["generator"]
    noise = problem.noise(4000, torch.Generator().manual_seed(0))
    noise[:, : problem.latent] = noise[0, : problem.latent]
    share = (generator(noise).mean(0) + 1) / 2
    torch.testing.assert_close(
        share, torch.sigmoid(generator.logits(noise[:1, : problem.latent])[0]), rtol=0, atol=0.05
    )


def test_the_noise_of_the_outputs_that_are_not_sampled_is_the_latent_alone():
    shapes = {
        output: tuple(DigitsBinary(output=output).batch(0, 4, 0).noise.shape)
        for output in ("threshold", "sampled", "straight_through", "gumbel")
    }
    assert shapes == {
        "threshold": (4, 16),
        "sampled": (4, 800),
        "straight_through": (4, 16),
        "gumbel": (4, 800),
    }


def test_the_generator_is_small():
    networks = DigitsBinary().networks(0)
    assert sum(p.numel() for p in networks["generator"].parameters()) == 3217
    whole = DigitsBinary(grid=28).networks(0)["generator"]
    assert whole(torch.zeros(2, 16)).shape == (2, 1, 28, 28)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"output": "treshold"},
            r'Problem digits-binary: output "treshold" is unknown\. Did you mean "threshold"\?',
        ),
        ({"temperature": 0.0}, r"temperature=0\.0 must be positive"),
        ({"grid": 29}, "needs generator_hidden ≥ 1 and grid from 1 to 28, not 32 and 29"),
        ({"generator_hidden": 0}, "not 0 and 7"),
    ],
)
def test_mistakes(options, text):
    with pytest.raises(sp.UsageError, match=text):
        DigitsBinary(**options)


def test_smoothing_trains_a_generator_without_gradients():
    """A few hundred steps, in seconds: the distance to the held-out digits falls clearly below that
    of the untrained generator."""
    problem = DigitsBinary(hidden=32)
    networks = problem.networks(0)
    inner = {
        player: torch.optim.Adam(network.parameters(), lr=5e-3, betas=(0.0, 0.999))
        for player, network in networks.items()
    }
    rule = rules.PerPlayer(rules.RandomizedSmoothing(0.1, samples=8, batched=True), ("generator",))
    optimizer = sp.GameOptimizer(inner, rule, modules=networks.values())

    def distance():
        return problem.metrics(problem.generate(networks["generator"], 1000, 0, "evaluation"))[
            "frechet[digit-cnn]"
        ]

    before = distance()
    for step in range(150):
        batch = problem.batch(step, 32, 0)
        for player in BOTH:
            optimizer.step(
                lambda player=player, batch=batch: problem.losses(networks, batch, (player,))
            )
    assert distance() < 0.85 * before
