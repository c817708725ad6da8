"""What the documentation shows must run, and its links must lead somewhere."""

import doctest
import importlib
import inspect
import pkgutil
import re
import runpy
import shlex
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import typer

import saddlepoint
from saddlepoint import registry
from saddlepoint.cli import app
from saddlepoint.compare import method_from_name
from saddlepoint.errors import UsageError

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
MODULES = sorted(
    m.name
    for m in pkgutil.walk_packages(saddlepoint.__path__, "saddlepoint.")
    if not m.name.endswith("__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    failures, _ = doctest.testmod(importlib.import_module(name))
    assert failures == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    assert (
        sum(
            bool(test.examples)
            for name in MODULES
            for test in finder.find(importlib.import_module(name))
        )
        >= 25
    )


BLOCKS = [
    pytest.param(page, block, id=f"{page.name} {number}")
    for page in PAGES
    for number, block in enumerate(
        re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL), 1
    )
]


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_a_python_block_runs_on_its_own(page, block):
    """Each in a namespace of its own, as a reader would copy it."""
    with torch.random.fork_rng():
        exec(compile(block, str(page), "exec"), {})


COMMANDS = [
    pytest.param(line, id=f"{page.name} {line}"[:80])
    for page in PAGES
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    for line in block.splitlines()
    if line.startswith("saddlepoint ") and "--version" not in line
]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_that_is_shown_exists_with_its_options(line):
    """The arguments are read as the command would read them; nothing runs."""
    _, name, *arguments = shlex.split(line, comments=True)
    typer.main.get_command(app).commands[name].make_context(name, arguments)


def test_there_are_commands():
    assert len(COMMANDS) >= 40


def test_a_docstring_written_for_help_becomes_fields_and_formulas_of_the_site():
    pytest.importorskip("sphinx", reason="pip install -c constraints.txt '.[docs]'")
    site = runpy.run_path(str(ROOT / "docs" / "conf.py"))
    lines = [
        "Return |θ*|, as ``a | b``.",
        "",
        "Cost for n players: n gradients,",
        "and memory.",
        "Guarantee: none.",
        "",
        ">>> 2 * 3 | 1",
        "7",
    ]
    site["as_restructured_text"](None, "class", "Rule", None, None, lines)
    assert lines[0] == r"Return \|θ\*\|, as ``a | b``."
    assert lines[2:5] == [
        ":Cost for n players: n gradients,",
        "    and memory.",
        ":Guarantee: none.",
    ]
    assert lines[6:] == [">>> 2 * 3 | 1", "7"]
    assert (
        site["escaped"]("arXiv:1705.10461")
        == "`arXiv:1705.10461 <https://arxiv.org/abs/1705.10461>`__"
    )


def test_a_public_name_without_a_page_is_named():
    pytest.importorskip("sphinx", reason="pip install -c constraints.txt '.[docs]'")
    site = runpy.run_path(str(ROOT / "docs" / "conf.py"))
    everything = {
        f"{module.__name__}.{name}" for module in site["packages"]() for name in module.__all__
    }
    assert len(everything) > 200
    assert site["missing_names"](everything) == []
    missing = site["missing_names"](everything - {"saddlepoint.Game", "saddlepoint.Newton"})
    assert missing == ["saddlepoint.Game"]  # Newton is also saddlepoint.rules.Newton


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_public_definition_has_a_docstring():
    for name in MODULES:
        module = importlib.import_module(name)
        for label, thing in vars(module).items():
            if (
                not label.startswith("_")
                and getattr(thing, "__module__", None) == name
                and callable(thing)
            ):
                assert thing.__doc__, f"{name}.{label}"


def test_the_package_exports_what_it_lists():
    for name in saddlepoint.__all__:
        assert getattr(saddlepoint, name) is not None
    assert set(saddlepoint.__all__) <= set(dir(saddlepoint))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = saddlepoint.nothing


def test_every_rule_optimizer_loss_and_penalty_is_at_the_top():
    kinds = {
        "rules": (saddlepoint.rules, saddlepoint.Rule),
        "optim": (saddlepoint.optim, torch.optim.Optimizer),
    }
    for module, kind in kinds.values():
        for name in module.__all__:
            thing = getattr(module, name)
            if (
                isinstance(thing, type)
                and issubclass(thing, kind)
                and not inspect.isabstract(thing)
            ):
                assert getattr(saddlepoint, name) is thing
    for losses in saddlepoint.games.GAN_LOSSES.values():
        for loss in losses:
            assert getattr(saddlepoint, loss.__name__) is loss
    assert saddlepoint.gradient_penalty is saddlepoint.games.gradient_penalty


@pytest.mark.parametrize(
    "script",
    [
        "scripts/write_rule_tables.py",
        "scripts/write_kink_table.py",
        "studies/write_evidence.py",
        "benchmarks/page.py",
    ],
)
def test_generated_pages_are_what_the_code_says(script):
    """Run the script when this fails."""
    pages = runpy.run_path(str(ROOT / script))["PAGES"]
    for name, text in pages.items():
        assert (ROOT / "docs" / name).read_text() == text(), name


@pytest.mark.parametrize("name", registry.RULES)
def test_a_rule_s_docstring_says_what_it_costs_promises_and_cites(name):
    text = registry.load(registry.RULES[name].path).__doc__
    assert "Cost" in text
    assert "Guarantee" in text
    assert "Reference" in text


def test_a_row_of_the_evidence_is_named_by_what_gets_its_method():
    """A name that the command line knows stands for the same rule and optimizer in the tables."""
    finished = runpy.run_path(str(ROOT / "studies/write_evidence.py"))["finished"]
    for method in [method for problem in finished()["problems"] for method in problem["methods"]]:
        with suppress(UsageError):  # "newton on all" is no name that could be typed
            typed = method_from_name(method["name"])
            config = method["config"]
            assert typed.rule.name == config["rule"]["name"]
            assert typed.optimizer is None or typed.optimizer.name == config["optimizer"]["name"]
