"""Running commands in a process and an empty directory."""

import pytest

from saddlepoint.cli import main


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
