"""What can be known before a run directory is made is said before; and what commands accept and
print."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import saddlepoint
from saddlepoint.cli.app import integer, parse_integer
from saddlepoint.cli.streams import make_console
from saddlepoint.cli.tables import print_table
from saddlepoint.data.idx import write_idx
from saddlepoint.errors import UsageError, quoted
from saddlepoint.training.interrupts import deferred_interrupts

TINY = ["--set", "problem.hidden=8", "--set", "evaluation_samples=160"]


def write_mnist(directory, train, test):
    directory.mkdir()
    for prefix, count in (("train", train), ("t10k", test)):
        write_idx(directory / f"{prefix}-images-idx3-ubyte.gz", np.zeros((count, 28, 28), np.uint8))
        write_idx(directory / f"{prefix}-labels-idx1-ubyte.gz", np.zeros(count, np.uint8))


class TestBeforeTheDirectory:
    @pytest.mark.parametrize(
        ("train", "test", "said"),
        [
            (0, 200, "train-images-idx3-ubyte holds no images"),
            (200, 0, "t10k-images-idx3-ubyte holds no images"),
            (200, 20, "with evaluation_samples=2000 and 20 held-out samples"),
        ],
    )
    def test_too_few_images(self, cli, tmp_path, train, test, said):
        write_mnist(tmp_path / "data", train, test)
        code, _, err = cli("train", "mnist", "--data-dir", "data", "--steps", 2)
        assert (code, said in err) == (2, True)
        assert [path.name for path in Path().iterdir()] == ["data"]

    @pytest.mark.parametrize("problem", ["mixture8", "mixture1d", "digits"])
    def test_too_few_samples(self, cli, problem):
        code, _, err = cli(
            "train", problem, "--steps", 2, "--set", "evaluation_samples=1", "--out", "run"
        )
        assert code == 2
        assert f"Cannot evaluate the problem {problem} with evaluation_samples=1: " in err
        assert not list(Path().iterdir())

    @pytest.mark.parametrize("there", [False, True])
    def test_what_fails_before_the_first_step_leaves_a_directory_that_can_be_used(
        self, cli, monkeypatch, there
    ):
        from saddlepoint.training.trainer import Trainer

        def fail(training):
            raise UsageError("Not this one.")

        if there:
            Path("run").mkdir()
        with monkeypatch.context() as patched:
            patched.setattr(Trainer, "train_step", fail)
            assert cli("train", "mixture8", "--steps", 2, *TINY, "--out", "run")[0] == 2
        assert Path("run").exists() == there
        assert cli("train", "mixture8", "--steps", 2, *TINY, "--out", "run")[0] == 0


class TestSeveralProcesses:
    @pytest.mark.parametrize(
        ("variables", "said"),
        [
            ({"WORLD_SIZE": "2"}, "RANK is not set"),
            ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two', not a number"),
            ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK=2 must be below WORLD_SIZE=2"),
            ({"WORLD_SIZE": "2", "RANK": "1"}, "MASTER_PORT is not set"),
            ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_PORT": "1"}, "MASTER_ADDR is not set"),
            (
                {
                    "WORLD_SIZE": "2",
                    "RANK": "0",
                    "MASTER_PORT": "99999",
                    "MASTER_ADDR": "localhost",
                },
                "could not join the others",
            ),
        ],
    )
    def test_half_of_a_launcher_s_variables(self, cli, monkeypatch, variables, said):
        for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        code, _, err = cli("train", "mixture8", "--steps", 2, *TINY)
        assert (code, said in err) == (2, True), err
        assert not Path("runs").exists()

    def test_a_process_stops_when_its_launcher_is_gone(self, monkeypatch):
        from saddlepoint.cli import processes

        monkeypatch.setenv(processes._LAUNCHER, "0")  # of nobody
        with deferred_interrupts() as interrupt:
            processes._end_with_launcher()
            while interrupt() is None:
                time.sleep(0.01)
            assert interrupt.exit_code == 143


def test_files_of_the_current_directory_are_no_modules(tmp_path):
    for name in ("torch", "random", "typer", "yaml"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    found = subprocess.run(
        [sys.executable, "-m", "saddlepoint", "--version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.returncode, found.stdout) == (
        0,
        f"saddlepoint {saddlepoint.__version__}\n",
    ), found.stderr


class TestNumbers:
    def test_whole_numbers_as_people_write_them(self):
        assert [parse_integer(text) for text in ("7", "1e3", "2.0", "1_000")] == [7, 1000, 2, 1000]

    @pytest.mark.parametrize("text", ["1.5", "x", "", "nan", "inf", "9" * 5000])
    def test_others_are_none(self, text):
        with pytest.raises(ValueError, match="is not a whole number"):
            parse_integer(text)

    def test_on_the_command_line(self, cli):
        assert cli("train", "mixture8", "--steps", "1e1", *TINY, "--out", "run")[0] == 0
        assert cli("resume", "run", "--steps", "+1e1")[0] == 0
        assert json.loads(Path("run/summary.json").read_text())["steps"] == 20
        assert cli("train", "mixture8", "--steps", "1.5")[0] == 2
        assert "is less than 1" in " ".join(cli("sample", "run", "-n", 0)[2].split())
        assert integer(1)("3") == 3

    def test_two_bounds_are_both_kept(self, cli):
        code, out, _ = cli(
            "train", "mixture8", "--steps", 4, "--seconds", 1000, *TINY, "--out", "run"
        )
        assert (code, "the bound of steps was reached first" in out) == (0, True)
        code, out, err = cli("resume", "run")
        assert "run has used its budget of 4 steps or 1000 seconds." in err
        code, out, _ = cli("resume", "run", "--steps", "+400000", "--seconds", 0.1)
        assert (code, "the bound of seconds was reached first" in out) == (0, True)


def test_a_short_run_on_digits_does_not_evaluate_more_than_it_trains():
    from saddlepoint.training import resolve

    config = resolve({"problem": "digits", "steps": 30})
    assert (config.evaluate_every, config.probe_every, config.sample_every) == (100, 25, 5)
    assert resolve({"problem": "digits", "steps": 3000}).evaluate_every == 500
    assert resolve({"problem": "mixture8", "steps": 30}).evaluate_every == 5


class TestPictures:
    @pytest.mark.parametrize(
        ("name", "form"),
        [("x.jpg", "JPEG"), ("x.WEBP", "WEBP"), ("x.png", "PNG"), ("x", "PNG"), ("x.bmp", "BMP")],
    )
    def test_are_what_their_names_say(self, cli, name, form):
        cli("train", "mixture8", "--steps", 2, *TINY, "--out", "run")
        assert cli("sample", "run", "-n", 4, "-o", name)[0] == 0
        with Image.open(name) as picture:
            assert picture.format == form

    def test_others_are_refused(self, cli):
        code, _, err = cli("sample", "run", "-o", "x.docx")
        assert (code, "Known suffixes: .png, .jpg" in err) == (2, True)
        code, _, err = cli("report", "run", "-o", "x.pdf")
        assert (code, "Choose a name that ends in .html" in err) == (2, True)


class TestTerminals:
    @pytest.mark.parametrize("width", [0, 1, 7, 20, 40, 60, 80, 140, 1000])
    @pytest.mark.parametrize("what", ["rules", "optimizers", "problems", "metrics"])
    def test_tables_can_be_read(self, cli, monkeypatch, width, what):
        from saddlepoint.cli import list as list_command

        monkeypatch.setattr(
            list_command,
            "make_console",
            lambda: Console(width=width, highlight=False, soft_wrap=False),
        )
        code, out, err = cli("list", what)
        assert (code, err) == (0, "")
        if width == 40:
            assert max(len(line) for line in out.splitlines()) <= 40
        if width == 40 and what == "rules":
            assert "consensus\n  order: 2\n" in "\n".join(
                line.rstrip() for line in out.splitlines()
            )

    def test_a_narrow_table_has_its_title_and_all_cells(self, capsys):
        from rich.table import Table

        table = Table("name", "value of something", "", title="A title", box=None)
        table.add_row("first", r"\[x]", "best")
        print_table(Console(width=10), table)
        assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [
            "A title",
            "first",
            "value of",
            "something:",
            "[x]",
            "best",
        ]

    @pytest.mark.parametrize("width", [0, 1, 10, 26, 40, 59, 69, 70, 80, 120, 1000])
    def test_the_time_left_is_always_shown(self, width):
        from saddlepoint.training.progress import _Progress

        console = Console(width=width, force_terminal=True, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
        progress = _Progress(console)
        progress.add_task(
            "", total=1.0, step=123456, numbers="D 1.372 (‖g‖ 0.14)  G -0.698 (‖g‖ 0.2)"
        )
        console.print(progress.get_renderable())
        said = console.export_text()
        console.file.close()
        assert width < 7 or "-:--:--" in said
        assert width < 26 or "step 123456" in said
        assert width < 70 or "D 1.372" in said


@pytest.mark.parametrize(
    "path",
    ["plain", "with space", "it's", "-dash", "new\nline", "tab\t'", "ü", os.fsdecode(b"b\xff")],
)
def test_a_quoted_path_is_what_a_shell_reads(path):
    found = subprocess.run(
        ["bash", "-c", f"printf %s {quoted(path)}"], capture_output=True, check=True
    ).stdout
    assert found == os.fsencode(f"./{path}" if path.startswith("-") else path)


def test_the_help_of_train_has_defaults(cli):
    code, out, _ = cli("train", "--help")
    assert code == 0
    for default in (
        "digits",
        "the problem's",
        "runs/PROBLEM-RULE-OPTIMIZER-NNN",
        "auto",
        "600.0",
    ):
        assert default in out


def test_a_console_is_made_without_a_terminal():
    assert make_console().width == 140
