import math

import pytest
import torch
from torch import nn

import saddlepoint as sp
from saddlepoint.diagnostics import GradientHealth, gradient_health, saturation, vanishing_gradients
from saddlepoint.games import GAN_LOSSES
from saddlepoint.models import MLP
from saddlepoint.problems import Mixture8


def line(*weights):
    """A module whose only parameter is a vector of weights."""
    module = nn.Module()
    module.weight = nn.Parameter(torch.tensor(weights, dtype=torch.float64))
    return module


def along(module, gradient):
    return lambda: {"line": (module.weight * torch.tensor(gradient, dtype=torch.float64)).sum()}


class TestGradientHealth:
    def test_norms_layers_and_zeros_by_hand(self):
        module = line(1.0, 2.0, 3.0)
        health = gradient_health(
            {"line": module}, [along(module, [3.0, 0.0, 0.0]), along(module, [0.0, 0.0, 4.0])]
        )
        assert health.norms["line"] == pytest.approx(3.5)
        assert health.layers["line"] == {"weight": pytest.approx(3.5)}
        assert health.zeros["line"] == pytest.approx(1 / 3)

    def test_the_signal_to_noise_ratio_is_estimated_without_bias(self):
        """Gradients m + noise with ‖m‖ = 2 and E‖noise‖² = 5: (2²/5)^½. The mean of squares over
        many probes of four comes near."""
        generator = torch.Generator().manual_seed(0)
        module, found = line(*[0.0] * 5), []
        m = torch.zeros(5, dtype=torch.float64)
        m[0] = 2.0
        for _ in range(300):
            draws = [
                (m + torch.randn(5, generator=generator, dtype=torch.float64)).tolist()
                for _ in range(16)
            ]
            found.append(
                gradient_health(
                    {"line": module}, [along(module, draw) for draw in draws]
                ).signal_to_noise["line"]
            )
        assert math.sqrt(sum(value**2 for value in found) / len(found)) == pytest.approx(
            math.sqrt(4 / 5), rel=0.05
        )

    @pytest.mark.parametrize(
        ("gradients", "expected"),
        [
            ([[1.0]], math.nan),
            ([[2.0], [2.0]], math.inf),
            ([[0.0], [0.0]], math.nan),
            ([[1.0], [-1.0]], 0.0),
        ],
    )
    def test_limits(self, gradients, expected):
        module = line(1.0)
        found = gradient_health(
            {"line": module}, [along(module, g) for g in gradients]
        ).signal_to_noise["line"]
        assert found == expected or (math.isnan(found) and math.isnan(expected))

    def test_nothing_changes_by_it(self):
        networks = {
            "discriminator": MLP((2, 8, 1), generator=torch.Generator().manual_seed(0)),
            "generator": nn.Sequential(
                MLP((4, 8, 2), generator=torch.Generator().manual_seed(1)),
                nn.BatchNorm1d(2),
                nn.Dropout(0.5),
            ),
        }
        before = {
            player: {name: t.clone() for name, t in network.state_dict().items()}
            for player, network in networks.items()
        }
        problem = Mixture8(latent=4)
        with torch.random.fork_rng():
            state = torch.get_rng_state()
            closures = [
                lambda step=step: problem.losses(networks, problem.batch(step, 16, 0), networks)
                for step in range(3)
            ]
            first, second = gradient_health(networks, closures), gradient_health(networks, closures)
            assert torch.equal(torch.get_rng_state(), state)
        assert first == second
        for player, network in networks.items():
            assert all(
                torch.equal(t, before[player][name]) for name, t in network.state_dict().items()
            )
            assert all(p.grad is None for p in network.parameters())

    def test_mistakes(self):
        module = line(1.0)
        with pytest.raises(sp.UsageError, match="needs at least one closure"):
            gradient_health({"line": module}, [])
        with pytest.raises(sp.UsageError, match='left out the loss of player "line"'):
            gradient_health(
                {"line": module, "other": line(1.0)}, [lambda: {"other": module.weight.sum()}]
            )


class TestSaturation:
    @pytest.mark.parametrize(
        ("loss", "logit", "discriminator", "generator"),
        [
            ("minimax", 0.0, 0.0, 0.0),
            ("minimax", -4.5, 0.0, 0.0),  # σ(−4.5) = 0.011
            ("minimax", -4.7, 1.0, 1.0),  # σ(−4.7) = 0.009
            ("minimax", -200.0, 1.0, 1.0),
            ("non-saturating", -9.0, 1.0, 0.0),
            ("non-saturating", 9.0, 0.0, 1.0),
            ("hinge", -1.5, 1.0, 0.0),  # beyond the margin
            ("hinge", -0.5, 0.0, 0.0),
            ("wasserstein", -50.0, 0.0, 0.0),
        ],
    )
    def test_where_the_losses_are_flat(self, loss, logit, discriminator, generator):
        fake = torch.full((7, 1), logit)
        found = saturation(GAN_LOSSES[loss], -fake, fake)
        assert found == {"discriminator": discriminator, "generator": generator}

    def test_shares(self):
        fake = torch.tensor([-9.0, -9.0, 0.0, 1.0])
        assert saturation(GAN_LOSSES["minimax"], torch.zeros(4), fake) == {
            "discriminator": 0.25,
            "generator": 0.5,
        }


def health(norm, zeros=0.0):
    return GradientHealth(
        norms={"generator": norm}, layers={}, zeros={"generator": zeros}, signal_to_noise={}
    )


class TestFindings:
    def test_the_message_has_its_numbers_its_reason_and_what_to_try(self):
        (found,) = vanishing_gradients(health(0.5), health(5e-10), {"generator": 1.0})
        assert (
            found.message
            == "The generator's gradient is 1e-09 of its initial size (5e-10, at first 0.5): the"
            " discriminator has saturated, 100% of its outputs lie where the generator's loss is"
            " flat. Try a smaller discriminator learning rate, R1 (problem.r1), the non-saturating"
            " loss, or --optimizer sign."
        )
        assert found.numbers == {"norm": 5e-10, "initial_norm": 0.5, "saturated": 1.0}

    def test_without_saturation_it_says_so(self):
        (found,) = vanishing_gradients(health(0.5), health(1e-6), {"generator": 0.2})
        assert "though only 20% of the discriminator's outputs" in found.message
        (found,) = vanishing_gradients(health(0.5), health(1e-6))
        assert found.message.startswith(
            "The generator's gradient is 2e-06 of its initial size (1e-06, at first 0.5). Try"
        )

    def test_exactly_zero_is_another_matter(self):
        (found,) = vanishing_gradients(health(0.0, zeros=1.0), health(0.0, zeros=1.0))
        assert (found.name, found.player) == ("zero-gradient", "generator")
        assert "exactly zero in every entry" in found.message

    @pytest.mark.parametrize("now", [0.5, 50.0, 6e-4])
    def test_no_alarm_above_a_thousandth(self, now):
        assert vanishing_gradients(health(0.5), health(now), {"generator": 1.0}) == []
