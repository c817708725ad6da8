"""W processes on shares of a batch take the steps of one process on the whole batch, and tell each other no more than they must."""

import json

import pytest

from saddlepoint import registry
from tests.distributed.equality import OTHERS, SIGN_LIKE, STEPS
from tests.distributed.group import ended, started

ACROSS = {"lola", "sos", "total-gradient", "complete-newton", "unrolled"}
"""Rules that also use what a player's loss does along the others' parameters."""


@pytest.fixture(scope="module", params=[2, 4])
def found(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("group")
    out = directory / "found.json"
    results = ended(started("tests.distributed.equality", request.param, directory, out))
    assert [code for code, _ in results] == [0] * request.param, results[0][1][-2000:]
    return json.loads(out.read_text())


def test_every_rule_was_run(found):
    assert {name.split(",")[0] for name in found} >= set(registry.RULES)
    assert {f"gradient, {name}, float64" for name in OTHERS} <= set(found)


def test_all_processes_have_the_same_parameters_to_the_last_bit(found):
    assert [name for name, row in found.items() if not row["same everywhere"]] == []


def test_parameters_agree_with_one_process_in_double_precision(found):
    rows = {name: row for name, row in found.items() if name.endswith("float64") and not any(s in name for s in SIGN_LIKE)}
    assert {name: row["gap"] for name, row in rows.items() if not row["gap"] <= 1e-10} == {}
    assert all(row["moved"] > 1e-3 for row in rows.values())


def test_parameters_agree_with_one_process_in_single_precision(found):
    rows = {name: row for name, row in found.items() if name.endswith("float32")}
    assert {name: row["relative"] for name, row in rows.items() if not row["relative"] <= 1e-4} == {}


@pytest.mark.parametrize("name", SIGN_LIKE)
def test_few_coordinates_of_a_sign_step_differ(found, name):
    """The sign jumps at zero, so rounding may turn a coordinate round."""
    assert found[f"gradient, {name}, float64"]["differing a step"] <= 1e-4


def test_bytes_are_those_of_the_derivatives_that_were_taken(found):
    """A derivative that was taken is reduced once; blocks of the Jacobian give vectors of one player only."""
    for name, row in found.items():
        across = row["gradients"] if name.split(",")[0] in ACROSS else 0
        assert row["vectors"] <= row["gradients"] + row["products"] + across + 1e-9, name
    for name, products in (("gradient, sgd", 0), ("gradient, adam", 0), ("consensus, adam", 1), ("hamiltonian, sgd", 1)):
        for dtype in ("float64", "float32"):
            assert found[f"{name}, {dtype}"]["vectors"] == pytest.approx(STEPS * (1 + products))
