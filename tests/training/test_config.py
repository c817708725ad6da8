import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import saddlepoint as sp
from saddlepoint import registry
from saddlepoint.training.config import read_yaml, renamed, resolve, validate, with_settings


@pytest.mark.parametrize("rule", registry.RULES)
def test_a_rule_alone_brings_everything_it_needs(rule):
    config, recipe = resolve({"rule": rule}), registry.RECIPES[rule]
    assert registry.build_rule(rule, config.rule.options) == registry.build_rule(
        rule, recipe.options
    )
    assert config.optimizer.name == recipe.optimizer["name"]
    assert config.optimizer.lr is not None
    assert config.problem.options["loss"] == recipe.loss
    assert config.update_scheme == recipe.update_scheme
    assert config.steps == recipe.steps


@pytest.mark.parametrize("rule", registry.RULES)
def test_the_saved_configuration_reads_back_to_the_same(rule, tmp_path):
    config = resolve({"rule": rule, "problem": "mixture8", "seconds": 3.5})
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    again = validate(read_yaml(path))
    assert again == config
    assert again.digest() == config.digest()
    assert resolve(read_yaml(path)) == config


def test_every_option_is_written_out():
    config = resolve({"problem": {"name": "mixture8", "radius": 1.0}, "rule": "newton"})
    assert config.problem.options["sigma"] == 0.02
    assert config.problem.options["radius"] == 1.0
    assert config.rule.options["solver"] == "saddle_free"


def test_players_may_have_options_of_their_own():
    config = resolve(with_settings({}, ["optimizer.players.discriminator.lr=4e-4"]))
    assert config.optimizer.options_for("discriminator")["lr"] == 4e-4
    assert config.optimizer.options_for("generator")["lr"] == config.optimizer.lr


def test_one_player_s_own_rate_leaves_the_other_s_as_it_was():
    config = resolve(with_settings({}, ["optimizer.players.generator.lr=3e-3"]))
    rates = {
        player: config.optimizer.options_for(player)["lr"]
        for player in ("discriminator", "generator")
    }
    assert rates == {"discriminator": 1e-3, "generator": 3e-3}
    same = resolve(with_settings({}, ["optimizer.lr=5e-4", "optimizer.players.generator.lr=3e-3"]))
    assert same.optimizer.options_for("discriminator")["lr"] == 5e-4


def test_an_optimizer_of_another_name_does_not_inherit_the_rule_s_options():
    assert "betas" not in resolve({"optimizer": "sgd"}).optimizer.options
    assert resolve({"optimizer": {"name": "torch.optim:NAdam", "lr": 1e-3}}).optimizer.options == {}


class TestTheMethodOfAProblem:
    """``mixture8`` stands for the problems that bring one."""

    brought = registry.PROBLEMS["mixture8"].method

    def test_is_there_where_neither_rule_nor_optimizer_is_named(self):
        config = resolve({"problem": "mixture8"})
        assert config.optimizer.lr == self.brought["optimizer"]["lr"]
        assert (config.lr_schedule, config.batch_size) == (
            self.brought["lr_schedule"],
            self.brought["batch_size"],
        )

    @pytest.mark.parametrize(
        "named", [{"rule": "gradient"}, {"optimizer": "adam"}, {"optimizer": {"name": "adam"}}]
    )
    def test_is_gone_where_one_is(self, named):
        config = resolve({"problem": "mixture8", **named})
        assert (config.optimizer.lr, config.lr_schedule, config.batch_size) == (
            2e-3,
            "constant",
            64,
        )

    def test_a_rate_of_the_user_s_is_for_both_players(self):
        config = resolve({"problem": "mixture8", "optimizer": {"lr": 1e-4}})
        assert {
            config.optimizer.options_for(player)["lr"] for player in ("generator", "discriminator")
        } == {1e-4}
        assert config.lr_schedule == self.brought["lr_schedule"]

    def test_settings_win(self):
        config = resolve(
            {"problem": {"name": "mixture8", "radius": 1.0}, "batch_size": 7, "seconds": 2.0}
        )
        assert (config.problem.options["radius"], config.batch_size, config.seconds) == (
            1.0,
            7,
            2.0,
        )

    @pytest.mark.parametrize("name", registry.PROBLEMS)
    def test_of_every_problem_is_complete(self, name):
        if name != "mnist":
            config = resolve({"problem": name})
            assert config.optimizer.lr is not None
            assert (
                sum(
                    bound is not None
                    for bound in (config.steps, config.seconds, config.gradient_equivalents)
                )
                == 1
            )


def test_the_digest_ignores_the_budget_and_nothing_else_that_matters():
    base = resolve({"steps": 600})
    assert base.model_copy(update={"steps": 900}).digest() == base.digest()
    assert base.model_copy(update={"batch_size": 7}).digest() != base.digest()
    assert resolve({"steps": 600, "seed": 1}).digest() != base.digest()
    for merely_recorded in (
        {"trace_every": 7},
        {"best_by": "ema/class_coverage"},
        {"patience": 3},
        {"probe_every": 9},
    ):
        assert resolve({"steps": 600, **merely_recorded}).digest() == base.digest()
    for decisive in ({"on_divergence": "roll_back"}, {"max_rollbacks": 1}, {"checkpoint_every": 7}):
        assert resolve({"steps": 600, **decisive}).digest() != base.digest()


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        ({"stpes": 5}, r'unknown key "stpes"\. Did you mean "steps"\?'),
        ({"problem": "digtis"}, r'Unknown problem "digtis"\. Did you mean "digits"\?'),
        ({"rule": "newtn"}, r'Unknown rule "newtn"\. Did you mean "newton"\?'),
        ({"optimizer": "sgn"}, r'Unknown optimizer "sgn"\. Did you mean "sign"\?'),
        (
            {"optimizer": {"lr": -1.0}},
            r"optimizer\.lr=-1\.0 is not valid: Input should be greater than 0",
        ),
        ({"steps": 0}, "steps=0 is not valid: Input should be greater than or equal to 1"),
        ({"steps": "many"}, "steps='many' is not valid: Input should be a valid integer"),
        ({"seed": -1}, "seed=-1 is not valid"),
        ({"ema": 1.0}, r"ema=1\.0 is not valid"),
        (
            {"update_scheme": "both"},
            "update_scheme='both' is not valid: Input should be 'alternating' or 'simultaneous'",
        ),
        (
            {"rule": "cgd", "update_scheme": "alternating"},
            "Rule cgd needs all players in every step",
        ),
        ({"problem": {"nme": "digits"}}, 'Problem digits has no option "nme"'),
        ({"problem": 3}, "expected a name, or a mapping with a name and options, not 3"),
        ({"optimizer": 3}, "optimizer must be a name or a mapping, not 3"),
        (
            {"optimizer": {"players": {"critic": {}}}},
            r'optimizer\.players: unknown player "critic"',
        ),
        ({"data_dir": "x"}, r'takes no --data-dir\. Did you mean "mnist"'),
        (
            {"device": "gpu"},
            r'Unknown device "gpu"\. Did you mean "cpu"\?|Unknown device "gpu"\. Known',
        ),
    ],
)
def test_mistakes(tree, text):
    with pytest.raises(sp.UsageError, match=text):
        resolve(tree)


class TestSettings:
    def test_paths_and_types(self):
        tree = with_settings(
            {"rule": "acgd", "steps": 5},
            ["rule.beta=0.9", "optimizer.betas=[0, 0.9]", "steps=7", "a.b.c=x"],
        )
        assert tree == {
            "rule": {"name": "acgd", "beta": 0.9},
            "steps": 7,
            "optimizer": {"betas": [0, 0.9]},
            "a": {"b": {"c": "x"}},
        }

    @pytest.mark.parametrize("text", ["1e-3", "1E-3", "+2e5", "-1.5e+2", ".5e1", "1.e2"])
    def test_numbers_with_exponents_are_numbers(self, text):
        assert with_settings({}, [f"x={text}"]) == {"x": float(text)}

    @pytest.mark.parametrize("text", ["no-equals", "=1", ".a=1", "a..b=1"])
    def test_malformed(self, text):
        with pytest.raises(sp.UsageError, match=r"is not of the form key\.path=value"):
            with_settings({}, [text])

    def test_a_name_given_again_replaces_options_of_another(self):
        component = {"name": "newton", "damping": 0.1}
        assert renamed(component, "newton") == component
        assert renamed(component, "cgd") == "cgd"
        assert renamed({"lr": 0.1}, "sgd") == {"lr": 0.1, "name": "sgd"}
        assert renamed(None, "cgd") == "cgd"


class TestFiles:
    @pytest.mark.parametrize(
        ("content", "text"),
        [
            ("a: [", "is not YAML"),
            ("- 1", "must be a mapping"),
            ("!!python/object:os.system {}", "is not YAML"),
        ],
    )
    def test_damaged(self, tmp_path, content, text):
        path = tmp_path / "c.yaml"
        path.write_text(content)
        with pytest.raises(sp.UsageError, match=text):
            read_yaml(path)

    def test_missing(self, tmp_path):
        with pytest.raises(sp.UsageError, match="Cannot read the configuration"):
            read_yaml(tmp_path / "none.yaml")


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
keys = st.sampled_from(
    [
        "problem",
        "rule",
        "optimizer",
        "steps",
        "seconds",
        "batch_size",
        "seed",
        "lr_schedule",
        "ema",
        "update_scheme",
    ]
)


@given(st.dictionaries(keys, json_like, max_size=4))
def test_any_tree_gives_a_configuration_or_a_sentence(tree):
    try:
        config = resolve(yaml.safe_load(yaml.safe_dump(tree)))
    except sp.UsageError:
        pass
    else:
        assert validate(yaml.safe_load(config.to_yaml())) == config


@pytest.mark.parametrize("options", [{"serial": 10**30}, {"words": "x" * 300_000}])
def test_what_could_not_be_read_back_is_refused(options):
    tree = {
        "problem": "mixture8",
        "optimizer": {"name": "adam", "players": {"generator": {"lr": 1e-3, **options}}},
    }
    with pytest.raises(
        sp.UsageError, match=r"could not be read again: .*19 digits|would be larger than 256 KiB"
    ):
        resolve(tree)


def test_a_problem_may_bring_the_loss_that_it_needs():
    assert resolve({"problem": "stacked-digits"}).problem.options["loss"] == "non-saturating"
    assert (
        resolve({"problem": {"name": "stacked-digits", "loss": "hinge"}}).problem.options["loss"]
        == "hinge"
    )
    assert resolve({"problem": "digits"}).problem.options["loss"] == "minimax"  # the rule's
