"""Running commands in a process and an empty directory."""

from functools import cached_property

import pytest

from saddlepoint.cli import main
from saddlepoint.problems import Digits

KNOWN = {}
"""Type, training images and files of a problem → what its evaluations need of the real digits."""


@pytest.fixture(scope="package", autouse=True)
def references_of_digits():
    """Compute once what evaluations need of the real digits, not again for every command."""
    compute = Digits._references.func

    def references(problem):
        key = (type(problem), problem.train_images, tuple(problem.data_files()))
        if key not in KNOWN:
            KNOWN[key] = compute(problem)
        return KNOWN[key]

    shared = cached_property(references)
    shared.__set_name__(Digits, "_references")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Digits, "_references", shared)
        yield


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    """Return what runs a command in an empty directory: (exit code, output, errors)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return caught.value.code or 0, out, err

    return run
