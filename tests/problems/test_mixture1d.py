import dataclasses
import json
import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch

import saddlepoint as sp
from saddlepoint import registry
from saddlepoint.problems import Mixture1d
from saddlepoint.problems.pictures import histogram
from saddlepoint.training import RunDirectory, SilentWatcher, Trainer, resolve, train

BOTH = ("discriminator", "generator")
EXACT = {"damping": 0.0, "max_iter": 30, "tol": 1e-10}
ORDERED = {"leader": "generator", "follower": "discriminator"}


def point(problem, seed=0, size=64):
    networks = problem.networks(seed)
    return sp.linearize(
        sp.Game(networks, partial(problem.losses, networks, problem.batch(0, size, seed), BOTH))
    )


def norms(problem, rule, steps, rate=1.0, seed=0):
    return trained(problem, rule, steps, rate, seed)[0]


def trained(problem, rule, steps, rate=1.0, seed=0):
    """‖ξ‖ before each step, until rounding, 1e-13, is reached; and the generator."""
    networks, batch = problem.networks(seed), problem.batch(0, 64, seed)
    inner = {
        player: torch.optim.SGD(network.parameters(), lr=rate)
        for player, network in networks.items()
    }
    optimizer = sp.GameOptimizer(inner, rule)
    found = []
    while len(found) < steps and (not found or found[-1] > 1e-13):
        optimizer.step(partial(problem.losses, networks, batch, BOTH))
        found.append(math.hypot(*optimizer.last.gradient_norms.values()))
    return found, networks["generator"]


@pytest.mark.parametrize("modes", [1, 2, 3])
class TestEquilibrium:
    def test_the_gradient_is_zero_at_the_true_parameters(self, modes):
        for loss in ("minimax", "non-saturating"):
            xi = point(Mixture1d(modes=modes, displacement=0.0, loss=loss), size=60).gradient
            assert float(xi.norm()) < 1e-15

    def test_it_is_a_strict_local_minimax_point(self, modes):
        """H_ww = ½ E[φ φᵀ] + λ I and J_wθ = ½ ∂E φ / ∂θ, in closed form; the generator's own
        Hessian is zero."""
        problem = Mixture1d(modes=modes, displacement=0.0)
        J, d = point(problem, size=60).jacobian.dense(), problem.features
        H, B = _closed_form(problem, 60)
        torch.testing.assert_close(J[:d, :d], H, rtol=0, atol=1e-14)
        torch.testing.assert_close(J[:d, d:], 0.5 * B, rtol=0, atol=1e-14)
        torch.testing.assert_close(J[d:, :d], -0.5 * B.T, rtol=0, atol=1e-14)
        assert float(J[d:, d:].abs().max()) < 1e-15
        schur = J[d:, d:] - J[d:, :d] @ torch.linalg.solve(J[:d, :d], J[:d, d:])
        assert float(torch.linalg.eigvalsh(J[:d, :d]).min()) >= problem.ridge
        assert float(torch.linalg.eigvalsh(schur).min()) > 0.05

    def test_the_metrics_there(self, modes):
        problem = Mixture1d(modes=modes, displacement=0.0)
        metrics = problem.metrics(
            problem.generate(problem.networks(0)["generator"], 2520, 0, "evaluation")
        )
        assert list(metrics) == list(problem.metric_names)
        assert metrics["wasserstein"] == pytest.approx(0, abs=1e-15)
        assert metrics["effective_modes"] == pytest.approx(modes)
        assert metrics["quality"] > 0.997
        assert problem.coverage_metric == ("effective_modes", modes)
        assert problem.score(metrics) == metrics["wasserstein"]


def _closed_form(problem, size):
    """H and ∂E φ / ∂(μ, s) by hand."""
    x = problem.real(0, size, 0)
    z, components = problem.batch(0, size, 0).noise[:, :1], problem.batch(0, size, 0).noise[:, 1:]
    judge = problem.networks(0)["discriminator"]
    phi = torch.exp(-0.5 * ((x - judge.centres) / judge.width) ** 2)
    slope = -phi * (x - judge.centres) / judge.width**2
    H = 0.5 * phi.T @ phi / size + problem.ridge * torch.eye(problem.features, dtype=torch.float64)
    # σ = 1, so that ∂x/∂s = z
    return H, torch.cat([slope.T @ components, slope.T @ (components * z)], dim=1) / size


class TestConvergence:
    """From a small displacement: who converges at which order. ‖ξ_{t+k}‖ ≤ C ‖ξ_t‖² over k steps,
    with one C down to rounding."""

    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_newton_on_the_whole_jacobian_is_quadratic(self, seed):
        found = norms(
            Mixture1d(displacement=0.1), sp.Newton(part="full", adapt=False, **EXACT), 10, seed=seed
        )
        assert found[-1] < 1e-12
        assert max(after / before**2 for before, after in pairwise(found) if after > 1e-14) < 100
        orders = [
            math.log(after) / math.log(before) for before, after in pairwise(found) if after > 1e-14
        ]
        assert max(orders) > 1.75

    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_complete_newton_is_quadratic_within_two_steps(self, seed):
        """The leader's step ends at the solution of a quadratic game only where the follower
        answered before: M² = 0, but not M."""
        found = norms(
            Mixture1d(displacement=0.1), sp.rules.CompleteNewton(**ORDERED, **EXACT), 12, seed=seed
        )
        assert found[-1] < 1e-12
        pairs = list(zip(found, found[2:], strict=False))
        assert max(after / before**2 for before, after in pairs) < 15
        assert (
            max(math.log(after) / math.log(before) for before, after in pairs if after > 1e-14)
            > 2.2
        )

    def test_gradient_newton_is_linear(self):
        found = norms(Mixture1d(displacement=0.1), sp.rules.GradientNewton(**ORDERED, **EXACT), 16)
        ratios = [after / before for before, after in pairwise(found[6:])]
        assert 0.5 < min(ratios) <= max(ratios) < 0.9
        assert 1e-13 < found[-1] < 1e-3

    def test_simultaneous_gradient_descent_is_slow(self):
        """Weights that the generator cannot see decay by 1 − hλ; a rate of 5 is beyond the stable
        range."""
        for rate in (1.0, 3.0, 5.0):
            assert min(norms(Mixture1d(displacement=0.1), sp.GradientDescent(), 12, rate)) > 1e-6

    @pytest.mark.parametrize("seed", range(5))
    def test_the_default_starts_lead_complete_newton_to_the_equilibrium(self, seed):
        problem = Mixture1d()
        found, generator = trained(
            problem, sp.rules.CompleteNewton(**ORDERED, **EXACT), 12, seed=seed
        )
        assert found[-1] < 1e-12
        assert (
            problem.metrics(problem.generate(generator, 100, 0, "evaluation"))["wasserstein"]
            < 1e-10
        )


class TestBatches:
    def test_nothing_is_drawn(self):
        problem = Mixture1d()
        first, other = problem.batch(0, 64, 0), problem.batch(7, 64, 3)
        assert torch.equal(first.real, other.real)
        assert torch.equal(first.noise, other.noise)
        assert first.real.dtype == first.noise.dtype == torch.float64

    def test_the_samples_are_midpoint_quantiles_of_every_component(self):
        real = Mixture1d(modes=3).real(0, 12, 0).squeeze(1)
        cdf = torch.special.ndtr(
            torch.stack([real[k::3] - mean for k, mean in enumerate((-6.0, 0.0, 6.0))])
        )
        torch.testing.assert_close(
            cdf, torch.tensor([[0.125, 0.375, 0.625, 0.875]] * 3, dtype=torch.float64)
        )

    @pytest.mark.parametrize(
        ("size", "modes", "near"), [(64, 3, "63 or 66"), (1, 2, "2"), (7, 4, "4 or 8")]
    )
    def test_sizes_that_do_not_divide(self, size, modes, near):
        problem = Mixture1d(modes=modes)
        with pytest.raises(
            sp.UsageError,
            match=(
                f"{size} samples are not divisible by {modes} components. Use {near}, or another"
            ),
        ):
            problem.batch(0, size, 0)

    def test_the_pair_is_a_function_of_the_seed(self):
        problem = Mixture1d()
        first, again, other = (problem.networks(seed) for seed in (1, 1, 2))
        for player in BOTH:
            for a, b, c in zip(
                first[player].parameters(),
                again[player].parameters(),
                other[player].parameters(),
                strict=True,
            ):
                assert a.dtype == torch.float64
                assert torch.equal(a, b)
                assert not torch.equal(a, c)

    def test_displacements_scale(self):
        near, far = (
            Mixture1d(displacement=d).networks(0)["generator"].means - Mixture1d()._means
            for d in (0.1, 0.3)
        )
        torch.testing.assert_close(3 * near, far)


class TestLosses:
    def test_the_ridge_is_the_discriminator_s_alone(self):
        problem = Mixture1d(ridge=0.5)
        networks, batch = problem.networks(0), problem.batch(0, 64, 0)
        losses = problem.losses(networks, batch, BOTH)
        assert losses["discriminator"]["ridge"].item() == pytest.approx(
            0.25 * float(networks["discriminator"].weights.detach().norm()) ** 2
        )
        assert list(losses["generator"]) == ["fake"]
        assert set(
            dataclasses.replace(problem, r1=1.0).losses(networks, batch, BOTH)["discriminator"]
        ) == {"real", "fake", "r1", "ridge"}

    def test_convex_in_the_weights_wherever_the_generator_stands(self):
        problem = Mixture1d(displacement=1.0)
        H = point(problem).jacobian["discriminator", "discriminator"].dense()
        assert float(torch.linalg.eigvalsh(H).min()) >= problem.ridge - 1e-12


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"latent": 2}, "latent=2 must be 1"),
        ({"modes": 0}, "needs modes ≥ 1 and features ≥ 2, not 0 and 14"),
        ({"features": 1}, "not 2 and 1"),
        (
            {"displacement": -0.1},
            r"displacement=-0\.1 and ridge=0\.001 must be at least 0 and finite",
        ),
        ({"ridge": math.inf}, "ridge=inf must be at least 0 and finite"),
        ({"loss": "minmax"}, 'loss "minmax" is unknown'),
    ],
)
def test_mistakes(options, text):
    with pytest.raises(sp.UsageError, match=f"Problem mixture1d: .*{text}"):
        Mixture1d(**options)


class TestRuns:
    @pytest.mark.parametrize(
        ("rule", "steps"),
        [
            ("complete-newton", 6),
            ("gradient-newton", 6),
            ("follow-the-ridge", 6),
            ("gradient", 6),
            ("newton", 6),
        ],
    )
    def test_the_whole_pipeline(self, rule, steps, tmp_path):
        options = {} if rule == "gradient" else {"max_iter": 20}
        config = resolve(
            {
                "problem": "mixture1d",
                "rule": {"name": rule, **options},
                "steps": steps,
                "log_every": 1,
                "probe_every": 2,
            }
        )
        training, run = Trainer(config), RunDirectory.create(config, tmp_path / "run")
        train(training, run, SilentWatcher())
        assert (run.path / "samples.png").is_file()
        assert set(training.metrics) == {
            prefix + name for prefix in ("", "ema/") for name in training.problem.metric_names
        }
        lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
        assert any("probe" in line for line in lines)

    def test_complete_newton_ends_at_rounding(self, tmp_path):
        rule = {"name": "complete-newton", "damping": 0.0, "max_iter": 20}
        config = resolve(
            {"problem": "mixture1d", "rule": rule, "optimizer": {"lr": 1.0}, "steps": 12}
        )
        training = Trainer(config)
        train(training, RunDirectory.create(config, tmp_path / "run"), SilentWatcher())
        assert training.metrics["wasserstein"] < 1e-14

    def test_every_rule_plays_the_same_game(self):
        for rule in ("cgd", "gradient"):  # cgd brings the non-saturating loss
            config = resolve({"problem": "mixture1d", "rule": rule})
            assert (
                registry.build_problem(config.problem.name, config.problem.options) == Mixture1d()
            )


class TestPicture:
    def test_bars_stand_where_the_samples_are(self):
        x = torch.linspace(-8, 8, 101)
        pixels = np.asarray(histogram(torch.full((50,), 4.1), x, torch.ones(101)))
        blue = (pixels == (120, 150, 205)).all(axis=2).any(axis=0)
        assert abs(np.nonzero(blue)[0].mean() - (4.1 + 8) / 16 * 640) < 6
        assert (pixels == (200, 60, 40)).all(axis=2).any()

    def test_of_a_problem_with_many_components(self):
        problem = Mixture1d(modes=9)
        samples = problem.generate(
            problem.networks(0)["generator"], problem.picture_samples, 0, "samples"
        )
        assert problem.picture(samples).size == (640, 320)
