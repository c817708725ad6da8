"""W processes on shares of a batch take the steps of one process on the whole batch, and tell each
other no more than they must."""

import json

import pytest

from saddlepoint import registry
from tests.distributed.equality import OTHERS, SIGN_LIKE, STEPS
from tests.distributed.group import ended, started

pytestmark = pytest.mark.slow

ACROSS = {
    "lola",
    "sos",
    "total-gradient",
    "complete-newton",
    "unrolled",
    "follow-the-ridge",
    "gradient-newton",
}
"""Rules that also use what a player's loss does along the others' parameters."""


@pytest.mark.parametrize("world", [2, 4])
def test_several_processes_take_the_steps_of_one(world, tmp_path):
    """One test for all of it, because all of it comes from one start of the processes."""
    out = tmp_path / "found.json"
    results = ended(started("tests.distributed.equality", world, tmp_path, out))
    assert [code for code, _ in results] == [0] * world, results[0][1][-2000:]
    found = json.loads(out.read_text())
    every_rule_was_run(found)
    all_processes_have_the_same_parameters_to_the_last_bit(found)
    parameters_agree_in_double_precision(found)
    few_coordinates_of_a_sign_step_differ(found)
    bytes_are_those_of_the_derivatives_that_were_taken(found)
    if world == 2:
        parameters_agree_in_single_precision(found)


def every_rule_was_run(found):
    assert {name.split(",")[0] for name in found} >= set(registry.RULES)
    assert {f"gradient, {name}, float64" for name in OTHERS} <= set(found)


def all_processes_have_the_same_parameters_to_the_last_bit(found):
    assert [name for name, row in found.items() if not row["same everywhere"]] == []


def parameters_agree_in_double_precision(found):
    rows = {
        name: row
        for name, row in found.items()
        if name.endswith("float64") and not any(s in name for s in SIGN_LIKE)
    }
    assert {name: row["gap"] for name, row in rows.items() if not row["gap"] <= 1e-10} == {}
    assert all(row["moved"] > 1e-3 for row in rows.values())


def parameters_agree_in_single_precision(found):
    rows = {name: row for name, row in found.items() if name.endswith("float32")}
    assert len(rows) > 30
    assert {
        name: row["relative"] for name, row in rows.items() if not row["relative"] <= 1e-4
    } == {}


def few_coordinates_of_a_sign_step_differ(found):
    """The sign jumps at zero, so rounding may turn a coordinate round."""
    for name in SIGN_LIKE:
        assert found[f"gradient, {name}, float64"]["differing a step"] <= 1e-4


def bytes_are_those_of_the_derivatives_that_were_taken(found):
    """A derivative that was taken is reduced once; blocks of the Jacobian give vectors of one
    player only."""
    for name, row in found.items():
        across = row["gradients"] if name.split(",")[0] in ACROSS else 0
        assert row["vectors"] <= row["gradients"] + row["products"] + across + 1e-9, name
    for name, products in (("gradient, sgd", 0), ("consensus, sgd", 1), ("hamiltonian, sgd", 1)):
        assert found[f"{name}, float64"]["vectors"] == pytest.approx(STEPS * (1 + products))
