import dataclasses

import numpy as np
import pytest
import torch

import saddlepoint as sp
from saddlepoint import registry
from saddlepoint.problems import Digits, DigitsBinary, Mixture8, Mixture8Saturated, Mixture25, Mnist
from saddlepoint.problems.pictures import image_grid, scatter

BOTH = ("discriminator", "generator")
PROBLEMS = [Digits(), DigitsBinary(), Mixture8(), Mixture8Saturated(head_start=3), Mixture25()]


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)
class TestEveryProblem:
    def test_losses_of_one_mover_equal_its_joint_loss(self, problem):
        networks, batch = problem.networks(0), problem.batch(3, 16, 0)
        joint = problem.losses(networks, batch, BOTH)
        for player in BOTH:
            alone = problem.losses(networks, batch, (player,))
            assert list(alone) == [player]
            assert {t: v.item() for t, v in alone[player].items()} == {
                t: v.item() for t, v in joint[player].items()
            }

    def test_the_discriminator_s_turn_builds_no_graph_in_the_generator(self, problem):
        networks, batch = problem.networks(0), problem.batch(0, 8, 0)
        (loss,) = problem.losses(networks, batch, ("discriminator",)).values()
        with pytest.raises(RuntimeError, match="not have been used in the graph"):
            torch.autograd.grad(sum(loss.values()), list(networks["generator"].parameters()))

    def test_batches_are_functions_of_seed_and_step(self, problem):
        again = dataclasses.replace(problem)
        for step in (7, 0, 7):
            a, b = problem.batch(step, 8, 1), again.batch(step, 8, 1)
            assert torch.equal(a.real, b.real)
            assert torch.equal(a.noise, b.noise)
        assert not torch.equal(problem.batch(0, 8, 1).noise, problem.batch(1, 8, 1).noise)
        assert not torch.equal(problem.batch(0, 8, 1).real, problem.batch(0, 8, 2).real)

    def test_metrics_of_an_untrained_generator_are_named_and_deterministic(self, problem):
        generator = problem.networks(0)["generator"]
        first, second = (
            problem.metrics(problem.generate(generator, 1000, 0, "evaluation")) for _ in range(2)
        )
        assert first == second
        assert list(first) == list(problem.metric_names)
        assert problem.score(first) == problem.score(second)

    def test_generating_restores_the_mode(self, problem):
        generator = problem.networks(0)["generator"].train()
        problem.generate(generator, 4, 0, "samples")
        assert generator.training

    def test_pictures(self, problem):
        picture = problem.picture(
            problem.generate(problem.networks(0)["generator"], 10, 0, "samples")
        )
        assert min(picture.size) > 200

    @pytest.mark.parametrize("option", ["loss", "activation"])
    def test_unknown_choices(self, problem, option):
        with pytest.raises(sp.UsageError, match=f'Problem {problem.name}: {option} "x" is unknown'):
            dataclasses.replace(problem, **{option: "x"})

    def test_sizes(self, problem):
        with pytest.raises(sp.UsageError, match="latent must be at least 1, not 0"):
            dataclasses.replace(problem, latent=0)


def test_real_data_scores_better_than_noise():
    digits = Digits()
    real, noise = (
        digits.real(0, 1000, 0),
        torch.rand(1000, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1,
    )
    good, bad = digits.metrics(real), digits.metrics(noise)
    assert good["frechet[digit-cnn]"] < 0.05 * bad["frechet[digit-cnn]"]
    assert good["mmd2[digit-cnn]"] < 0.05 * bad["mmd2[digit-cnn]"]
    assert good["class_coverage"] == 1.0
    assert digits.score(good) < digits.score(bad)
    ring = Mixture8()
    assert ring.score(ring.metrics(ring.real(0, 1000, 0))) < ring.score(
        ring.metrics(torch.zeros(1000, 2))
    )


def test_the_networks_of_the_mission():
    sizes = {
        p: [tuple(w.shape) for w in n.parameters() if w.dim() == 2]
        for p, n in Digits(latent=100).networks(0).items()
    }
    assert sizes == {
        "discriminator": [(128, 784), (128, 128), (1, 128)],
        "generator": [(128, 100), (128, 128), (784, 128)],
    }


def test_extractor_hash():
    assert len(Digits().extractors()["digit-cnn"]) == 64
    assert Mixture8().extractors() == {}


class TestMnist:
    def test_needs_a_directory(self):
        with pytest.raises(
            sp.UsageError,
            match="give the directory that holds MNIST's four IDX files with --data-dir",
        ):
            Mnist()

    @pytest.mark.slow
    def test_full_set(self, mnist_directory):
        problem = Mnist(data_dir=str(mnist_directory))
        assert problem.real(0, 16, 0).shape == (16, 1, 28, 28)
        assert set(problem.metrics(problem.real(0, 500, 0))) == set(Digits.metric_names)


class TestPictures:
    def test_the_grid_holds_every_image_in_order(self):
        images = torch.linspace(-1, 1, 5).view(5, 1, 1, 1).expand(5, 1, 4, 4)
        pixels = np.asarray(image_grid(images))
        assert pixels.shape == ((2 * 4 + 2) * 3, (3 * 4 + 4) * 3)
        centres = [pixels[row * 18 + 6, column * 18 + 6] for row in range(2) for column in range(3)]
        assert centres == [0, 64, 128, 191, 255, 96]

    def test_the_scatter_puts_up_up(self):
        pixels = np.asarray(
            scatter(torch.tensor([[0.0, 1.5]]), torch.tensor([[2.0, 0.0], [-2.0, 0.0]]), 0.06)
        )
        blue = (pixels == (30, 70, 150)).all(axis=2)
        row, column = (axis.mean() for axis in np.nonzero(blue))
        assert row < 320
        assert abs(column - 320) <= 1


class TestRegistry:
    @pytest.mark.parametrize("name", registry.PROBLEMS)
    def test_names_agree(self, name):
        assert registry.load(registry.PROBLEMS[name].path).name == name

    def test_options_are_checked_and_converted(self):
        assert registry.build_rule("acgd", {"beta": "0.5"}).beta == 0.5
        with pytest.raises(
            sp.UsageError, match=r'Rule acgd has no option "bta"\. Did you mean "beta"\?'
        ):
            registry.build_rule("acgd", {"bta": 1})
        with pytest.raises(
            sp.UsageError,
            match=r"Rule newton: max_iter='many' is not valid: Input should be a valid integer",
        ):
            registry.build_rule("newton", {"max_iter": "many"})
        with pytest.raises(
            sp.UsageError, match=r'Unknown problem "digit"\. Did you mean "digits"\?'
        ):
            registry.build_problem("digit", {})

    @pytest.mark.parametrize("name", registry.RULES)
    def test_every_rule_has_a_recipe(self, name):
        rule = registry.build_recipe_rule(name)
        assert type(rule) is registry.load(registry.RULES[name].path)
        assert registry.build_rule(name, registry.RECIPES[name].options) == rule

    def test_every_public_rule_has_a_name(self):
        public = {getattr(sp.rules, label) for label in sp.rules.__all__}
        rules = {
            thing
            for thing in public
            if isinstance(thing, type) and issubclass(thing, sp.Rule) and thing is not sp.Rule
        }
        assert rules == {registry.load(entry.path) for entry in registry.RULES.values()}

    def test_rules_within_rules(self):
        rule = registry.build_rule(
            "every",
            {
                "rule": {"name": "lookahead", "rule": "extragradient", "k": 3},
                "fallback": "optimistic",
            },
        )
        assert rule == sp.rules.Every(
            sp.rules.Lookahead(sp.rules.Extragradient(), k=3), fallback=sp.rules.Optimistic()
        )
        assert registry.build_rule("every", registry.options_of(rule)) == rule
        with pytest.raises(
            sp.UsageError,
            match=r"A rule inside a rule is a name, or a mapping with a name and options, not 3",
        ):
            registry.build_rule("lookahead", {"rule": 3})
        with pytest.raises(
            sp.UsageError, match="Rule follow-the-ridge needs a value for leader, follower"
        ):
            registry.build_rule("lookahead", {"rule": "follow-the-ridge"})

    def test_a_metric_is_a_mapping_with_a_name(self):
        kronecker = registry.build_rule(
            "cgd", {"preconditioner": {"name": "kronecker", "max_dimension": 64}}
        )
        assert kronecker == sp.CompetitiveGradient(
            preconditioner=sp.KroneckerPreconditioner(max_dimension=64)
        )
        assert registry.build_rule("cgd", registry.options_of(kronecker)) == kronecker
        with pytest.raises(sp.UsageError, match="has no name"):
            registry.build_rule("cgd", {"preconditioner": {"beta": 0.9}})
        with pytest.raises(sp.UsageError, match='Rule cgd: preconditioner "shampoo" is unknown'):
            registry.build_rule("cgd", {"preconditioner": {"name": "shampoo"}})

    def test_optimizers(self):
        layer = Mixture8().networks(0)["generator"]
        soap = registry.build_optimizer(
            "pytorch_optimizer:SOAP", layer.named_parameters(), {"lr": 1e-3}
        )
        assert type(soap).__name__ == "SOAP"
        sign = registry.build_optimizer(
            "sign", layer.named_parameters(), {"lr": 1e-3, "epsilon": 2}
        )
        assert isinstance(sign, sp.optim.SignSubgradient)

    @pytest.mark.parametrize(
        ("name", "options", "text"),
        [
            ("adm", {}, r'Unknown optimizer "adm"\. Did you mean "adam"\?'),
            ("adam", {"beta": 1}, r'Optimizer adam has no option "beta"\. Did you mean "betas"\?'),
            ("adam", {"betas": [2.0, 0.9]}, "Optimizer adam refuses its options"),
            ("nothing.here:SOAP", {}, 'Cannot load "nothing.here:SOAP"'),
            ("torch.optim:Nothing", {}, 'Cannot load "torch.optim:Nothing"'),
            (
                "torch.nn:Linear",
                {},
                'Optimizer "torch.nn:Linear" is not a subclass of torch.optim.Optimizer',
            ),
        ],
    )
    def test_optimizer_mistakes(self, name, options, text):
        layer = Mixture8().networks(0)["generator"]
        with pytest.raises(sp.UsageError, match=text):
            registry.build_optimizer(name, layer.named_parameters(), options)
