import dataclasses
import math

import pytest
import torch

import saddlepoint as sp
from saddlepoint import registry
from saddlepoint.curvature import Linearization
from saddlepoint.games import GAN_LOSSES, dirac_gan, gradient_penalty
from saddlepoint.models import MLP
from saddlepoint.problems import Mixture8

BOTH = ("discriminator", "generator")
SMALL = {"hidden": 8, "latent": 2}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


@pytest.fixture
def net():
    return MLP((3, 5, 4, 1), activation="tanh", generator=seeded()).double()


def by_differences(judge, inputs, h=1e-5):
    """E‖∇D‖² from central differences in every entry of every sample."""
    total = 0.0
    with torch.no_grad():
        for sample in inputs:
            for index in range(sample.numel()):
                step = torch.zeros(sample.numel(), dtype=torch.float64)
                step[index] = h
                step = step.view_as(sample)
                slope = (judge((sample + step)[None]) - judge((sample - step)[None])) / (2 * h)
                total += slope.item() ** 2
    return total / len(inputs)


def test_a_quadratic_in_closed_form():
    """D(x) = a·x + ½ xᵀAx has ∇D = a + Ax."""
    a, A, x = normal(4), normal(4, 4, seed=1), normal(7, 4, seed=2)
    A = A + A.T
    found = gradient_penalty(lambda x: x @ a + 0.5 * ((x @ A) * x).sum(1), x)
    torch.testing.assert_close(found, (a + x @ A).square().sum(1).mean())


@pytest.mark.parametrize("shape", [(6, 3), (2, 3, 1, 1)])
def test_a_network_against_differences(net, shape):
    x = normal(*shape, seed=3)
    assert gradient_penalty(net, x).item() == pytest.approx(by_differences(net, x), rel=1e-8)


def test_the_gradient_in_the_parameters_against_differences(net):
    x, h = normal(6, 3, seed=3), 1e-6
    parameters = list(net.parameters())
    found = torch.autograd.grad(gradient_penalty(net, x), parameters, allow_unused=True)
    assert found[-1] is None  # the last bias shifts D and leaves its slope
    with torch.no_grad():
        for parameter, gradient in zip(parameters[:-1], found, strict=False):
            direction = normal(*parameter.shape, seed=4)
            values = []
            for sign in (1, -1):
                parameter += sign * h * direction
                values.append(gradient_penalty(net, x).item())
                parameter -= sign * h * direction
            assert (values[0] - values[1]) / (2 * h) == pytest.approx(
                (gradient * direction).sum().item(), rel=1e-6
            )


def test_second_derivatives_against_the_closed_form():
    """½ γ E‖∇D‖² of D(x) = ½ w·x² is ½ γ Σ w_i² E x_i²."""
    w, x, gamma = normal(3).requires_grad_(), normal(10, 3, seed=1), 0.7
    game = sp.Game(
        {"D": [w]}, lambda: {"D": 0.5 * gamma * gradient_penalty(lambda x: 0.5 * (x**2 @ w), x)}
    )
    point = sp.linearize(game)
    second = gamma * x.square().mean(0)
    torch.testing.assert_close(point.gradient["D"][0], second * w.detach())
    torch.testing.assert_close(point.jacobian.dense(), torch.diag(second))


@pytest.mark.parametrize("gamma", [0.0, 0.3, 2.0])
def test_the_dirac_gan_with_the_penalty_computed_is_the_one_with_it_written_down(gamma):
    """The discriminator ψ x on data at 0 and a sample at θ."""
    written = dirac_gan("non-saturating", r1=gamma, start=(0.8, -1.3))
    psi, place = (
        torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (0.8, -1.3)
    )
    softplus, data = torch.nn.functional.softplus, torch.zeros(4, 1, dtype=torch.float64)

    def losses():
        penalty = gradient_penalty(lambda x: x @ psi, data)
        return {
            "discriminator": softplus(psi @ place) + 0.5 * gamma * penalty,
            "generator": softplus(-psi @ place),
        }

    computed = sp.linearize(sp.Game({"discriminator": [psi], "generator": [place]}, losses))
    torch.testing.assert_close(
        computed.gradient.flatten(), sp.linearize(written).gradient.flatten()
    )
    torch.testing.assert_close(computed.jacobian.dense(), sp.linearize(written).jacobian.dense())


def test_a_linear_wasserstein_critic_has_a_minimum_with_it():
    """−E w·real + E w·fake + ½ γ ‖w‖² is least at w = (E real − E fake) / γ; without the penalty w
    grows for ever."""
    real, fake, gamma = normal(8, 2), normal(8, 2, seed=1) + 3, 0.5
    w = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = sp.GameOptimizer({"D": torch.optim.SGD([w], lr=1.0)})
    critic, terms = lambda x: x @ w, GAN_LOSSES["wasserstein"][0]
    for _ in range(60):
        optimizer.step(
            lambda: {
                "D": (
                    terms(critic(real), critic(fake))
                    | {"r1": 0.5 * gamma * gradient_penalty(critic, real)}
                )
            }
        )
    torch.testing.assert_close(w.detach(), (real.mean(0) - fake.mean(0)) / gamma)


def test_there_is_no_nan_where_the_discriminator_is_flat():
    w = torch.ones(3, dtype=torch.float64, requires_grad=True)
    penalty = gradient_penalty(lambda x: x**2 @ w, torch.zeros(5, 3, dtype=torch.float64))
    assert penalty.item() == 0
    assert torch.autograd.grad(penalty, w)[0].tolist() == [0.0, 0.0, 0.0]


def test_it_is_a_mean_over_samples(net):
    x = normal(6, 3)
    torch.testing.assert_close(gradient_penalty(net, torch.cat([x, x])), gradient_penalty(net, x))
    torch.testing.assert_close(
        gradient_penalty(net, x),
        torch.stack([gradient_penalty(net, sample[None]) for sample in x]).mean(),
    )


def test_without_gradients_it_is_the_same_number_without_a_graph(net):
    x = normal(6, 3)
    expected = gradient_penalty(net, x)
    assert expected.requires_grad
    with torch.no_grad():
        found = gradient_penalty(net, x)
    assert torch.equal(found, expected)
    assert not found.requires_grad
    players = {"D": tuple(net.parameters())}
    assert (
        Linearization(players, lambda: {"D": gradient_penalty(net, x)}, order=0).losses["D"]
        == expected.item()
    )
    assert x.grad is None
    assert not x.requires_grad


def test_on_generated_samples_the_generator_sees_it():
    """x = θ z and D(x) = ½ w x²: E‖∇D‖² = w² θ² E z², which is no constant to θ."""
    w, theta = (
        torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (0.7, -1.5)
    )
    z = normal(9, 1)
    penalty = gradient_penalty(lambda x: 0.5 * w * x**2, theta * z)
    found = torch.autograd.grad(penalty, [w, theta])
    second = z.square().mean()
    torch.testing.assert_close(found[0], 2 * w.detach() * theta.detach() ** 2 * second)
    torch.testing.assert_close(found[1], 2 * theta.detach() * w.detach() ** 2 * second)


@pytest.mark.parametrize(
    "judge",
    [
        lambda x: x.detach().sum(1),
        lambda x: torch.ones(len(x), requires_grad=True),
        torch.no_grad()(torch.sum),
    ],
)
def test_logits_cut_off_from_the_inputs_are_refused(judge):
    with pytest.raises(
        sp.UsageError, match="gradient_penalty: the logits do not depend on the inputs"
    ):
        gradient_penalty(judge, torch.ones(4, 2))


class TestGanProblem:
    def test_the_term_is_the_weighted_penalty_on_real_data_and_the_others_stay_bit_for_bit(self):
        plain = Mixture8(**SMALL)
        networks, batch = plain.networks(0), plain.batch(0, 16, 0)
        without = plain.losses(networks, batch, BOTH)
        with_r1 = dataclasses.replace(plain, r1=3.0).losses(networks, batch, BOTH)
        assert list(without["discriminator"]) == ["real", "fake"]
        assert list(with_r1["discriminator"]) == ["real", "fake", "r1"]
        for player, term in (
            ("discriminator", "real"),
            ("discriminator", "fake"),
            ("generator", "fake"),
        ):
            assert torch.equal(without[player][term], with_r1[player][term])
        found = with_r1["discriminator"]["r1"].item()
        assert found == pytest.approx(
            1.5 * by_differences(networks["discriminator"].double(), batch.real.double()), rel=1e-4
        )

    def test_only_the_discriminator_pays_it(self):
        problem = Mixture8(**SMALL, r1=1.0)
        networks, batch = problem.networks(0), problem.batch(0, 16, 0)
        assert list(problem.losses(networks, batch, ("generator",))["generator"]) == ["fake"]
        penalty = problem.losses(networks, batch, BOTH)["discriminator"]["r1"]
        assert not any(
            g is not None
            for g in torch.autograd.grad(
                penalty, list(networks["generator"].parameters()), allow_unused=True
            )
        )

    def test_r2_is_the_same_on_generated_data_in_every_turn(self):
        problem = Mixture8(**SMALL, r2=3.0)
        networks, batch = problem.networks(0), problem.batch(0, 16, 0)
        joint, alone = (
            problem.losses(networks, batch, active)["discriminator"]
            for active in (BOTH, ("discriminator",))
        )
        assert list(joint) == ["real", "fake", "r2"]
        assert alone["r2"].item() == joint["r2"].item()
        with torch.no_grad():
            fake = networks["generator"](batch.noise)
        found = 1.5 * by_differences(networks["discriminator"].double(), fake.double())
        assert joint["r2"].item() == pytest.approx(found, rel=1e-4)

    def test_r2_couples_the_discriminator_to_the_generator(self):
        """Unlike R1 it moves with the samples, so that it belongs into the game's Jacobian."""
        problem = Mixture8(**SMALL, r2=1.0)
        networks, batch = problem.networks(0), problem.batch(0, 16, 0)
        penalty = problem.losses(networks, batch, BOTH)["discriminator"]["r2"]
        assert any(
            bool(g.any())
            for g in torch.autograd.grad(penalty, list(networks["generator"].parameters()))
        )

    def test_losses_alone_have_it_too(self):
        problem = Mixture8(**SMALL, r1=1.0, r2=1.0)
        networks, batch = problem.networks(0), problem.batch(0, 16, 0)
        players = {player: tuple(network.parameters()) for player, network in networks.items()}
        found = [
            Linearization(
                players, lambda: problem.losses(networks, batch, BOTH), order=order
            ).losses
            for order in (0, 1, 2)
        ]
        assert found[0] == found[1] == found[2]

    @pytest.mark.parametrize(
        "rule",
        [
            sp.GradientDescent(),
            sp.AdaptiveCompetitiveGradient(),
            sp.Newton(),
            sp.rules.Extragradient(),
        ],
    )
    @pytest.mark.parametrize("loss", ["hinge", "wasserstein"])
    @pytest.mark.filterwarnings("ignore::saddlepoint.errors.SolverWarning")
    def test_rules_train_with_it(self, rule, loss):
        problem = Mixture8(**SMALL, loss=loss, r1=1.0, r2=0.5)
        networks = problem.networks(0)
        optimizer = sp.GameOptimizer(
            {p: torch.optim.SGD(n.parameters(), lr=0.01) for p, n in networks.items()}, rule
        )
        for step in range(4):
            values = optimizer.step(
                lambda step=step: problem.losses(networks, problem.batch(step, 16, 0), BOTH)
            )
        assert all(math.isfinite(value) for value in values.losses.values())

    @pytest.mark.parametrize("r1", [-0.1, math.nan, math.inf])
    def test_weights_that_are_no_weights(self, r1):
        for name in ("r1", "r2"):
            with pytest.raises(
                sp.UsageError, match=f"Problem mixture8: {name}={r1} must be at least 0 and finite"
            ):
                Mixture8(**{name: r1})

    def test_it_is_an_option_of_the_registry(self):
        assert registry.build_problem("digits", {"r1": "0.5", "loss": "hinge"}).r1 == 0.5
        assert registry.options_of(Mixture8())["r1"] == 0.0

    def test_an_option_of_a_later_version_changes_no_configuration_until_it_is_used(self):
        assert "r2" not in registry.options_of(Mixture8())
        assert registry.options_of(Mixture8(r2=0.5))["r2"] == 0.5
        assert registry.build_problem(
            "mixture8", registry.options_of(Mixture8(r2=0.5))
        ) == Mixture8(r2=0.5)
