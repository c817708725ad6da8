"""Any terminal, any bytes: no encoding, closed stream or path ends a run."""

import io
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from saddlepoint.cli import main
from saddlepoint.cli.streams import failure, surviving_output

TINY = ["--set", "problem.hidden=8", "--set", "evaluation_samples=160"]
NO_TEXT = os.fsdecode(b"r\xff un")


def run(*arguments):
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return caught.value.code or 0


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def printing_to(monkeypatch):
    """Return what makes a file, or None, standard output."""
    opened = []

    def put(stream):
        opened.append(stream)
        monkeypatch.setattr(sys, "stdout", stream)
        return stream

    yield put
    for stream in opened:
        if stream is not None and not stream.closed:
            stream.close()


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_an_encoding_that_lacks_characters(here, printing_to, encoding):
    printing_to(open("said", "w", encoding=encoding))  # noqa: SIM115 -- the fixture closes it
    assert run("train", "mixture8", "--steps", 20, *TINY, "--out", "run") == 0
    said = Path("said").read_text(encoding=encoding)
    assert ("\\u2016g\\u2016" in said) == (encoding != "utf-8")
    assert "20 steps in" in said


@pytest.mark.parametrize("stream", [None, "closed"])
def test_no_standard_output(here, printing_to, stream):
    if stream == "closed":
        stream = open("said", "w")  # noqa: SIM115
        stream.close()
    printing_to(stream)
    assert run("train", "mixture8", "--steps", 4, *TINY, "--out", "run") == 0
    assert run("evaluate", "run", "--replicates", 0) == 0
    assert run("list", "rules") == 0
    assert sys.stdout is stream


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_device_is_told_of_and_training_goes_on(here, printing_to, capfd):
    printing_to(open("/dev/full", "w"))  # noqa: SIM115
    assert run("train", "mixture8", "--steps", 4, *TINY, "--out", "run") == 0
    assert json.loads(Path("run/summary.json").read_text())["status"] == "finished"
    assert (
        "note: Standard output could not be written: No space left on device."
        in capfd.readouterr().err
    )


def test_a_closed_pipe_stops_training_as_sigterm_does(here, printing_to, capfd):
    reading, writing = os.pipe()
    os.close(reading)
    printing_to(open(writing, "w"))  # noqa: SIM115
    assert run("train", "mixture8", "--steps", 4000, *TINY, "--out", "a b") == 143
    summary = json.loads(Path("a b/summary.json").read_text())
    assert summary["status"] == "interrupted"
    assert summary["steps"] < 4000
    assert (
        f"Stopped after step {summary['steps']}; saved. Resume with: saddlepoint resume 'a b'"
        in capfd.readouterr().err
    )


def test_a_closed_pipe_does_not_stop_what_is_short(here, printing_to, capfd):
    reading, writing = os.pipe()
    os.close(reading)
    printing_to(open(writing, "w"))  # noqa: SIM115
    assert run("list", "rules") == 0
    assert capfd.readouterr().err == ""


def test_what_a_stream_could_not_write_is_known_and_its_own_stays(printing_to):
    reading, writing = os.pipe()
    stream = printing_to(open(writing, "w"))  # noqa: SIM115
    with surviving_output():
        print("‖", "\udcff")
        assert os.read(reading, 100).decode() == "‖ \\udcff\n"
        assert failure(sys.stdout) is None
        os.close(reading)
        print("lost")
        assert isinstance(failure(sys.stdout), BrokenPipeError)
    assert sys.stdout is stream


def test_streams_without_a_descriptor_stay(printing_to):
    stream = printing_to(io.StringIO())
    with surviving_output():
        assert sys.stdout is stream


def test_paths_that_are_no_text_in_every_command(here, capsys):
    """Their names are written as escapes, and commands to copy as a shell takes them."""
    assert run("train", "mixture8", "--steps", 4, *TINY, "--out", NO_TEXT) == 0
    assert r"report: saddlepoint report $'r\xff un'" in capsys.readouterr().out
    assert run("train", "mixture8", "--steps", 4, *TINY, "--out", NO_TEXT) == 2
    assert r"`saddlepoint resume $'r\xff un'`" in capsys.readouterr().err
    assert run("resume", NO_TEXT, "--steps", "+1") == 0
    assert run("sample", NO_TEXT, "-n", 4, "-o", os.fsdecode(b"x\xfe.png")) == 0
    assert run("evaluate", NO_TEXT, "--replicates", 0) == 0
    assert (
        run("evaluate", NO_TEXT, "--replicates", 0, "--against", f"{NO_TEXT}/evaluation.json") == 0
    )
    assert run("best", NO_TEXT) == 0
    assert run("diagnose", NO_TEXT) in (0, 1)
    assert run("report", NO_TEXT) == 0
    assert run("evaluate", os.fsdecode(b"none\xff")) == 2
    assert run("doctor", os.fsdecode(b"none\xff:make")) == 2
    assert run("train", "mnist", "--data-dir", os.fsdecode(b"none\xff")) == 2
    assert "are no UTF-8 text" in capsys.readouterr().err
    assert {os.fsencode(path.name) for path in here.iterdir()} == {b"r\xff un", b"x\xfe.png"}


@pytest.mark.parametrize("signalled", [signal.SIGHUP, signal.SIGTERM])
def test_a_hung_up_terminal_stops_as_sigterm_does(here, capsys, monkeypatch, signalled):
    from saddlepoint.training.trainer import Trainer

    advance = Trainer.train_step

    def step_and_signal(training):
        if training.step == 2:
            os.kill(os.getpid(), signalled)
        return advance(training)

    monkeypatch.setattr(Trainer, "train_step", step_and_signal)
    assert run("train", "mixture8", "--steps", 40, *TINY, "--out", "run") == 143
    assert "Stopped after step 3; saved." in capsys.readouterr().out
    monkeypatch.setattr(Trainer, "train_step", advance)
    assert run("resume", "run") == 0
