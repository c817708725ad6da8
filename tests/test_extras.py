"""The core needs torch and numpy alone; whatever needs more says how to install it."""

import json
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import get_args

import pytest
import torch

import saddlepoint as sp
from saddlepoint.compare.storage import open_storage
from saddlepoint.extras import Extra, needs
from saddlepoint.metrics import frechet_distance, mmd2
from saddlepoint.report.render import plotly_script
from saddlepoint.training import environment

ROOT = Path(__file__).parents[1]
TRAIN = "pip install 'saddlepoint[train]'"
TUNE = "pip install 'saddlepoint[tune]'"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def found():
    """Return what the core did in a process in which torch and numpy alone can be imported."""
    program = [
        sys.executable,
        str(Path(__file__).with_name("without_extras.py")),
        str(ROOT / "README.md"),
    ]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class TestTorchAndNumpyAlone:
    def test_are_all_that_is_required(self):
        assert [requirement.partition(">=")[0] for requirement in PROJECT["dependencies"]] == [
            "torch",
            "numpy",
        ]

    def test_are_joined_by_extras_that_exist(self):
        assert {*get_args(Extra), "all", "test"} <= set(PROJECT["optional-dependencies"])

    def test_suffice_for_the_examples_of_the_readme(self, found):
        assert found["blocks"] == 1

    def test_suffice_for_a_step_of_every_rule(self, found):
        exported = {name: getattr(sp.rules, name) for name in sp.rules.__all__}
        rules = [
            name
            for name, kind in exported.items()
            if isinstance(kind, type) and issubclass(kind, sp.Rule) and kind is not sp.Rule
        ]
        assert found["rules"] == rules
        assert len(rules) >= 29

    def test_suffice_for_a_step_of_every_optimizer(self, found):
        expected = {
            "Adam",
            "SOAP",
            "Grafted",
            "MomentumSGD",
            "NormalizedSubgradient",
            "RandomCoordinate",
            "SignSubgradient",
            "Subgradient",
        }
        assert set(found["optimizers"]) == expected

    def test_do_not_suffice_for_eigenvalues_of_a_large_operator(self, found):
        assert (
            found["eigenvalues"]
            == "eigenvalues: an operator of dimension 60, which is more than 30, needs scipy,"
            f" which is not installed. Run: {TRAIN}"
        )

    def test_modules_that_need_more_say_what(self, found):
        for name, said in found["modules"].items():
            what = {"cli": "The command line"}.get(name, f"saddlepoint.{name}")
            assert said.startswith(f"MissingExtraError: {what} needs ")
            assert said.endswith(
                f", which is not installed. Run: {TUNE if name == 'compare' else TRAIN}"
            )

    def test_a_command_says_what_to_install(self, found):
        for command, (code, out, err) in found["commands"].items():
            extra = TUNE if command in ("compare", "tune") else TRAIN
            assert (code, out) == (2, "")
            assert (
                err
                == f"Error: The command line needs typer, which is not installed. Run: {extra}\n"
            )


def test_comparing_without_optuna_says_what_to_install():
    """With the rest installed: the commands are known, and those that need no Optuna work."""
    program = (
        "import sys; sys.modules['optuna'] = None; from saddlepoint.__main__ import main; main()"
    )
    for words in (["compare", "mixture8"], ["tune", "mixture8", "--method", "adam"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert (
            done.stderr
            == f"Error: saddlepoint.compare needs optuna, which is not installed. Run: {TUNE}\n"
        )
    done = subprocess.run(
        [sys.executable, "-c", program, "list", "rules"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "extragradient" in done.stdout


class TestNeeds:
    def test_the_error_is_an_import_error_and_a_user_s(self):
        with pytest.raises(sp.MissingExtraError) as raised, needs("train", "This"):
            import no_such_package.module  # noqa: F401
        assert isinstance(raised.value, ImportError)
        assert isinstance(raised.value, sp.UsageError)
        assert raised.value.name == "no_such_package"
        assert (
            str(raised.value) == f"This needs no_such_package, which is not installed. Run: {TRAIN}"
        )

    def test_the_outer_part_is_named(self):
        outer = pytest.raises(
            sp.MissingExtraError, match=r"^Outer needs no_such_package, .*\[tune\]'$"
        )
        with outer, needs("tune", "Outer"), needs("train", "Inner"):
            import no_such_package  # noqa: F401

    @pytest.mark.parametrize("package", ["saddlepoint", "torch", "numpy", "json"])
    def test_a_fault_that_no_extra_mends_stays_what_it_is(self, package):
        with pytest.raises(ModuleNotFoundError) as raised, needs("train", "This"):
            __import__(f"{package}.no_such_module")
        assert not isinstance(raised.value, sp.MissingExtraError)

    def test_an_error_without_a_module_stays_what_it_is(self):
        with pytest.raises(ModuleNotFoundError, match=r"^some words$"), needs("train", "This"):
            raise ModuleNotFoundError("some words")


class TestPackagesThatAreLoadedWhenTheyAreNeeded:
    """Each of an extra that is installed in part."""

    @pytest.mark.parametrize(("distance", "module"), [(frechet_distance, "fid"), (mmd2, "kid")])
    def test_distances(self, monkeypatch, distance, module):
        monkeypatch.setitem(sys.modules, f"torchmetrics.image.{module}", None)
        samples = torch.zeros(100, 2)
        with pytest.raises(
            sp.MissingExtraError, match=r"(distance|MMD²) needs torchmetrics, .*\[train\]'$"
        ):
            distance(samples, samples)

    def test_a_report(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "plotly.offline", None)
        with pytest.raises(sp.MissingExtraError, match=r"^A report needs plotly, .*\[train\]'$"):
            plotly_script.__wrapped__()

    def test_the_record_of_a_run(self, monkeypatch):
        def version(name):
            raise PackageNotFoundError(name)

        monkeypatch.setattr(environment, "version", version)
        with pytest.raises(
            sp.MissingExtraError, match=r"^The record of a run needs torchmetrics, .*\[train\]'$"
        ):
            environment.environment("cpu")

    def test_the_driver_of_a_database(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "psycopg", None)
        refused = pytest.raises(
            sp.UsageError, match=r"psycopg.*pip install 'saddlepoint\[postgresql\]'$"
        )
        with refused as raised, open_storage("postgresql+psycopg://me:secret@host/base"):
            pass
        assert "secret" not in str(raised.value)
