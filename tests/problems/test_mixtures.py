import pytest
import torch

import saddlepoint as sp
from saddlepoint import registry
from saddlepoint.problems import Mixture8, Mixture8Saturated, Mixture25
from saddlepoint.training import resolve


@pytest.mark.parametrize(
    ("problem", "modes"), [(Mixture8(), 8), (Mixture25(), 25)], ids=["ring", "grid"]
)
class TestModeDistance:
    inside = 0.988891

    def test_of_the_data(self, problem, modes):
        assert problem.metrics(problem.real(0, 2500, 0))["mode_distance"] < 0.06

    def test_of_one_mode_exactly_hit(self, problem, modes):
        one = problem.mixture.centres[:1].expand(2500, 2)
        assert problem.metrics(one)["mode_distance"] == pytest.approx(
            1 - self.inside / modes, abs=1e-6
        )

    def test_of_samples_nowhere_near(self, problem, modes):
        assert problem.metrics(torch.full((2500, 2), 99.0))["mode_distance"] == pytest.approx(
            self.inside, abs=1e-6
        )


class TestSaturated:
    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_the_discriminator_has_won(self, seed):
        problem = Mixture8Saturated()
        # samples that it has not seen
        real, fake = problem.logits(problem.networks(seed), problem.batch(1000, 2500, seed))
        assert float(real.min()) > 0 > float(fake.max())
        # E |∂ loss / ∂ logit| of the generator under the minimax loss
        assert float(torch.sigmoid(fake).mean()) < 1e-6

    def test_the_pair_is_a_function_of_the_seed(self):
        problem, state = Mixture8Saturated(head_start=20), torch.get_rng_state()
        first, again, other = (problem.networks(seed) for seed in (1, 1, 2))
        assert torch.equal(torch.get_rng_state(), state)
        for player in first:
            pairs = zip(
                first[player].parameters(),
                again[player].parameters(),
                other[player].parameters(),
                strict=True,
            )
            for a, b, c in pairs:
                assert torch.equal(a, b)
                assert not torch.equal(a, c)
                assert a.grad is None

    def test_the_generator_is_the_untrained_one(self):
        plain, saturated = Mixture8().networks(0), Mixture8Saturated(head_start=5).networks(0)
        same = {
            player: all(
                torch.equal(a, b)
                for a, b in zip(
                    plain[player].parameters(), saturated[player].parameters(), strict=True
                )
            )
            for player in plain
        }
        assert same == {"discriminator": False, "generator": True}

    def test_without_a_head_start_it_is_the_ring(self):
        plain, saturated = Mixture8().networks(0), Mixture8Saturated(head_start=0).networks(0)
        for player in plain:
            for a, b in zip(
                plain[player].parameters(), saturated[player].parameters(), strict=True
            ):
                assert torch.equal(a, b)

    def test_a_configuration_writes_its_options_out_and_keeps_the_minimax_loss(self):
        for rule in ("gradient", "cgd"):  # cgd brings the non-saturating loss
            config = resolve({"problem": "mixture8-saturated", "rule": rule})
            assert (config.problem.options["head_start"], config.problem.options["loss"]) == (
                500,
                "minimax",
            )
            assert (
                registry.build_problem(config.problem.name, config.problem.options)
                == Mixture8Saturated()
            )
        assert (
            resolve({"problem": {"name": "mixture8-saturated", "loss": "hinge"}}).problem.options[
                "loss"
            ]
            == "hinge"
        )

    def test_mistakes(self):
        with pytest.raises(
            sp.UsageError, match="Problem mixture8-saturated: head_start=-1 must be at least 0"
        ):
            Mixture8Saturated(head_start=-1)
