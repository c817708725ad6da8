"""Settings whose order does not matter, and settings that are refused before a run exists."""

from pathlib import Path

import pytest

from saddlepoint.errors import UsageError
from saddlepoint.io.limits import parse_yaml
from saddlepoint.training import resolve
from saddlepoint.training.config import with_settings

TINY = ["train", "mixture8", "--steps", "5", "--set", "problem.hidden=8", "--batch-size", "16"]


def settled(*settings):
    return resolve(with_settings({"problem": "mixture8"}, settings))


def test_a_name_keeps_the_options_given_before_it():
    assert settled("optimizer.lr=0.5", "optimizer=sgd").optimizer.lr == 0.5
    assert settled("rule.damping=5", "rule=newton").rule.options["damping"] == 5


@pytest.mark.parametrize("key", ["rule.preconditioner", "rule.preconditioner.name"])
@pytest.mark.parametrize(
    ("rule", "name", "option", "value"),
    [("kronecker-cgd", "kronecker", "max_dimension", 512), ("newton", "rms", "beta", 0.999)],
)
def test_a_name_alone_is_the_same_as_its_name(key, rule, name, option, value):
    assert settled(f"rule={rule}", f"{key}={name}").rule.options["preconditioner"][option] == value


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["rule=cgd", "rule.preconditioner.name=[1]"], "is unknown"),
        (["rule=cgd", "rule.preconditioner.name={}"], "is unknown"),
        (["rule={name: newton, name: acgd}"], 'the key "name" is given twice, in lines 1 and 1'),
        (["batch_size=1:30"], "not valid"),
        (["optimizer.eps=.inf"], "must be finite"),
        (["optimizer.weight_decay=1e400"], "must be finite"),
        (["optimizer.betas=[0.1, .nan]"], "must be finite"),
        (["rule=newton", "rule.damping=.inf"], "must be finite"),
        (["rule=cgd", "rule.preconditioner={name: rms, epsilon: .inf}"], "must be finite"),
        (["optimizer.fused=x"], "must be true or false"),
        (["optimizer.amsgrad=1"], "must be true or false"),
        (["problem="], "the value is empty"),
        (["rule=null"], "has no value"),
    ],
)
def test_settings_that_are_refused(cli, settings, said):
    code, _, err = cli(*TINY, *[part for setting in settings for part in ("--set", setting)])
    assert (code, said in err) == (2, True), err
    assert not list(Path().iterdir())


def test_numbers_to_other_bases_are_text():
    assert parse_yaml("[1:30, 010, 1:30.5, 0x10, 1_000, 0, -5, 1.5, 1e-3]") == [
        "1:30",
        "010",
        "1:30.5",
        16,
        1000,
        0,
        -5,
        1.5,
        0.001,
    ]


def test_a_key_twice_in_a_file(cli):
    Path("c.yaml").write_text("rule: newton\nsteps: 5\nrule: acgd\n")
    code, _, err = cli("train", "--config", "c.yaml")
    assert (code, 'the key "rule" is given twice, in lines 1 and 3' in err) == (2, True)
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, x: 2}") == {"a": {"x": 1}, "b": {"x": 2}}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*TINY, "--out", ""], "The path is empty"),
        (["resume", ""], "The path is empty"),
        (["report", ""], "The path is empty"),
        (["sample", "r", "--seed", str(1 << 63)], "the maximum"),
        ([*TINY, "--timeout", "nan"], "must be positive"),
        ([*TINY, "--timeout", "1e9"], "at most 2592000 seconds"),
        ([*TINY, "--nproc", "2000"], "the maximum"),
        ([*TINY, "--nproc", "3"], "cannot be split over 3 processes"),
        (
            ["compare", "mixture8", "--methods", "adam", "--storage", "sqlite:///a.db"],
            "Give --trials too",
        ),
        (
            [
                "compare",
                "mixture8",
                "--methods",
                "adam",
                "--trials",
                "2",
                "--storage",
                "sqlite:///:memory:",
            ],
            "is in memory",
        ),
        (["tune", "mixture8", "--method", "adam", "--storage", "x"], "Cannot open the storage"),
        (["tune", "mixture8", "--method", "adam", "--storage", ""], "Cannot open the storage"),
        (["compare", "mixture8", "--budget", "steps=1.5"], "is not a whole number"),
        (["compare", "mixture8", "--methods", "adam,adam"], "given twice"),
        (["compare", "mixture8", "--methods", "gradient+gradient"], "is not an optimizer"),
    ],
)
def test_options_that_are_refused(cli, arguments, said):
    code, _, err = cli(*arguments)
    assert (code, said in " ".join(err.split())) == (2, True), err
    assert not list(Path().iterdir())


def test_a_method_of_two_rules_is_not_suggested_again():
    from saddlepoint.compare.study import method_from_name

    with pytest.raises(UsageError) as caught:
        method_from_name("gradient+gradient")
    assert 'Did you mean "gradient"' not in str(caught.value)
