"""The format of a line of the log, as docs/diagnostics.md has it, is what runs write and readers
know."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

import saddlepoint as sp
from saddlepoint.curvature import SolveInfo
from saddlepoint.diagnostics import GradientHealth, NonFiniteOrigin, Probe
from saddlepoint.training import RunDirectory, Trainer, resolve, train
from saddlepoint.training.log_line import _Line

PAGE = Path(__file__).parents[2] / "docs" / "diagnostics.md"


def documented():
    """Return key → the keys that its row names in it."""
    section = PAGE.read_text().partition("## A line of the log")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+`) \| (.+) \|$", section, re.MULTILINE)
    return {
        key: set(re.findall(r"`([\w-]+)`", what))
        for keys, what in rows
        for key in re.findall(r"`(\w+)`", keys)
    }


def test_the_page_names_what_readers_check():
    assert documented().keys() == _Line.model_fields.keys() | {"solves"}


def test_the_page_names_what_probes_and_solves_and_divergences_hold():
    found = documented()
    assert found["probe"] == {f.name for kind in (Probe, GradientHealth) for f in fields(kind)}
    assert found["solves"] == {f.name for f in fields(SolveInfo)}
    assert found["divergence"] == {f.name for f in fields(NonFiniteOrigin)} | {
        "step",
        "message",
        "description",
    }


@pytest.mark.filterwarnings("ignore::saddlepoint.errors.SolverWarning")
@pytest.mark.parametrize(
    "options",
    [{"rule": "acgd"}, {"optimizer": {"name": "sgd", "lr": 1e30}, "on_divergence": "roll_back"}],
)
def test_a_run_writes_what_the_page_names(tmp_path, options):
    config = resolve(
        {
            "problem": {"name": "mixture8", "hidden": 8},
            "steps": 6,
            "evaluation_samples": 160,
            "max_rollbacks": 1,
            **options,
        }
    )
    run = RunDirectory.create(config, tmp_path / "run")
    try:
        train(Trainer(config), run)
    except sp.DivergenceError:
        assert "optimizer" in options
    found = documented()
    lines = run.read_log()
    assert set().union(*lines) <= found.keys()
    for line in lines:
        for key in line.keys() & {"probe", "trace", "divergence", "rollback"}:
            assert line[key].keys() <= found[key]
