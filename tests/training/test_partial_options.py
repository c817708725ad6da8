"""A partial option never changes which component is used, and a truth value is no number."""

import pytest

import saddlepoint as sp
from saddlepoint import registry
from saddlepoint.compare.study import study_from_dict
from saddlepoint.training import Trainer
from saddlepoint.training.config import resolve, validate, with_settings


def settled(*settings, **tree):
    return resolve(with_settings(tree, settings))


class TestOptionsInPart:
    def test_a_scaling_stays_the_named_rule_s(self):
        scaling = settled("rule.preconditioner.beta=0.9", rule="kronecker-cgd").rule.options[
            "preconditioner"
        ]
        assert (scaling["name"], scaling["beta"], scaling["max_dimension"]) == (
            "kronecker",
            0.9,
            512,
        )
        assert settled("rule.preconditioner.epsilon=1e-3", rule="newton").rule.options[
            "preconditioner"
        ] == {
            "name": "rms",
            "beta": 0.999,
            "epsilon": 1e-3,
        }

    def test_another_name_brings_its_own_options(self):
        scaling = settled("rule.preconditioner.name=rms", rule="kronecker-cgd").rule.options[
            "preconditioner"
        ]
        assert scaling == {"name": "rms", "beta": 0.99, "epsilon": 1e-5}
        assert (
            settled("rule.preconditioner=kronecker", rule="newton").rule.options["preconditioner"][
                "name"
            ]
            == "kronecker"
        )

    @pytest.mark.parametrize("rule", ["cgd", "proximal-point"])
    def test_where_there_is_none_its_name_is_needed(self, rule):
        with pytest.raises(
            sp.UsageError,
            match=(
                r"preconditioner=\{'beta': 0.9\} has no name\. Add the name: rms or"
                r" kronecker"
            ),
        ):
            settled("rule.preconditioner.beta=0.9", rule=rule)
        assert (
            settled(
                "rule.preconditioner.beta=0.9", "rule.preconditioner.name=rms", rule=rule
            ).rule.options["preconditioner"]["name"]
            == "rms"
        )

    def test_a_misspelt_option_or_name_inside_is_refused(self):
        with pytest.raises(
            sp.UsageError,
            match=r'preconditioner kronecker has no option "betta". Did you mean "beta"',
        ):
            settled("rule.preconditioner.betta=0.9", rule="kronecker-cgd")
        with pytest.raises(
            sp.UsageError, match=r'preconditioner "kroneker" is unknown. Did you mean "kronecker"'
        ):
            settled("rule.preconditioner.name=kroneker", rule="kronecker-cgd")

    def test_a_rule_inside_stays_the_same(self):
        inside = settled("rule.rule.sigma=0.2", rule="per-player").rule.options["rule"]
        assert (inside["name"], inside["sigma"], inside["samples"]) == (
            "randomized-smoothing",
            0.2,
            8,
        )
        assert (
            settled("rule.fallback.name=optimistic", rule="every").rule.options["fallback"]["name"]
            == "optimistic"
        )
        with pytest.raises(sp.UsageError, match='Rule gradient has no option "gamma"'):
            settled("rule.fallback.gamma=1", rule="every")

    def test_options_of_options_of_an_optimizer_stay(self):
        config = settled(
            "optimizer.options.eps=1e-6",
            "optimizer.players.generator.options.eps=1e-5",
            optimizer="grafted",
        )
        assert config.optimizer.options_for("discriminator")["options"] == {
            "betas": [0.0, 0.999],
            "eps": 1e-6,
        }
        assert config.optimizer.options_for("generator")["options"] == {
            "betas": [0.0, 0.999],
            "eps": 1e-5,
        }

    def test_a_value_with_no_keys_in_it(self):
        with pytest.raises(
            sp.UsageError, match=r'The key "rule.beta" is inside rule, which is 5 and has no keys'
        ):
            settled("rule=5", "rule.beta=1")

    def test_every_rule_keeps_its_components_when_one_of_their_options_is_given(self):
        """Whatever a rule brings, each option of a component in it may be given alone."""
        tried = 0
        for name in registry.RULES:
            options = resolve({"rule": name}).rule.options
            for key, component in options.items():
                if isinstance(component, dict):
                    for option in component.keys() - {"name"}:
                        again = resolve({"rule": {"name": name, key: {option: component[option]}}})
                        assert again.rule.options == options
                        tried += 1
        assert tried > 10


class TestStudies:
    @pytest.mark.parametrize(
        ("name", "own", "rule", "optimizer"),
        [
            ("acgd", {"rule": {"beta": 0.9}}, "acgd", None),
            ("acgd", {"optimizer": {"lr": 0.1}}, "acgd", "sgd"),
            ("extragradient+sgd", {"rule": {"keep_state": False}}, "extragradient", "sgd"),
            ("extragradient+sgd", {"optimizer": "adam"}, "extragradient", "adam"),
            ("mine", {"optimizer": {"lr": 0.1}}, "gradient", "adam"),
        ],
    )
    def test_a_method_is_what_its_name_says_but_for_what_is_given(self, name, own, rule, optimizer):
        problems = [{"problem": "mixture8", "budget": {"steps": 5}}]
        method = study_from_dict(
            {"name": "s", "methods": {name: own}, "problems": problems}, "s"
        ).methods[name]
        assert method.rule.name == rule
        assert (method.optimizer and method.optimizer.name) == optimizer

    @pytest.mark.parametrize(
        ("key", "change"),
        [
            ("seeds", {"seeds": True}),
            (
                "problems.budget.steps",
                {"problems": [{"problem": "mixture8", "budget": {"steps": True}}]},
            ),
            ("tuning.trials", {"tuning": {"trials": True}}),
        ],
    )
    def test_truth_values(self, key, change):
        tree = {
            "name": "s",
            "methods": ["adam"],
            "problems": [{"problem": "mixture8", "budget": {"steps": 5}}],
        }
        with pytest.raises(sp.UsageError, match=f"s: {key}: YAML reads yes"):
            study_from_dict(tree | change, "s")


class TestTruthValues:
    @pytest.mark.parametrize(
        "setting",
        [
            *("batch_size=on", "steps=yes", "seconds=yes", "ema=no", "seed=on", "optimizer.lr=yes"),
            *(
                "optimizer.players.generator.lr=yes",
                "optimizer.betas=[yes, 0.9]",
                "optimizer.eps=on",
            ),
            *("rule.k=on", "rule.alpha=yes", "problem.hidden=on", "problem.r1=yes"),
        ],
    )
    def test_are_no_numbers(self, setting):
        with pytest.raises(sp.UsageError, match="truth values, and a number is needed"):
            Trainer(settled(setting, rule="lookahead", problem="mixture8"))

    def test_are_what_they_are_where_one_is_meant(self):
        config = settled(
            "optimizer.nesterov=no", "rule.adapt=no", "model.checkpoint=on", rule="newton"
        )
        assert (config.model.checkpoint, config.optimizer.options["nesterov"]) == (True, False)
        assert config.rule.options["adapt"] is False
        assert validate(config.model_dump()) == config


class TestHints:
    @pytest.mark.parametrize(
        ("key", "path"),
        [
            ("lr", "optimizer.lr"),
            ("damping", "rule.damping"),
            ("hidden", "problem.hidden"),
            ("precision", "model.precision"),
        ],
    )
    def test_a_key_that_lies_deeper(self, key, path):
        with pytest.raises(sp.UsageError, match=f'unknown key "{key}". Did you mean "{path}"'):
            settled(f"{key}=0.1", rule="newton", problem="mixture8")

    def test_another_is_the_nearest(self):
        with pytest.raises(sp.UsageError, match=r'unknown key "stepz". Did you mean "steps"'):
            settled("stepz=3")
