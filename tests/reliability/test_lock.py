"""Two processes on one run: the second is refused, whichever it is, and a killed one leaves nothing
that would refuse a third."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

import saddlepoint as sp
from saddlepoint.cli import main
from saddlepoint.training import RunDirectory


def command(*arguments):
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return caught.value.code or 0


def test_a_run_that_is_being_trained_is_not_resumed_and_can_be_looked_at(tmp_path, capsys):
    run = tmp_path / "run"
    options = [
        "mixture8",
        "--steps",
        "1000000",
        "--set",
        "problem.hidden=8",
        "--set",
        "evaluation_samples=160",
        "--out",
        run,
    ]
    options += [
        item for key in ("checkpoint_every", "evaluate_every") for item in ("--set", f"{key}=50")
    ]
    child = subprocess.Popen(
        [sys.executable, "-m", "saddlepoint", "train", *options], stdout=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 120
        while (
            not (run / "checkpoints/step-00000050.pt").exists()
            and child.poll() is None
            and time.monotonic() < deadline
        ):
            time.sleep(0.05)
        assert command("resume", run) == 2
        said = capsys.readouterr().err
        sentence = (
            rf"{run} is being trained by process {child.pid} on \S+\. Wait for it, or stop it: two"
            r" processes would overwrite each other's files\."
        )
        assert re.fullmatch(f"Error: {sentence}\n", said)
        assert command("train", "mixture8", "--out", run) == 2
        assert "holds another run already" in capsys.readouterr().err
        assert (
            command("sample", run)
            == command("evaluate", run, "--replicates", 0)
            == command("report", run)
            == 0
        )
        assert child.poll() is None, "it was not disturbed"
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    steps = RunDirectory.open(run).checkpoint_steps()[-1] + 3
    assert command("resume", run, "--steps", steps) == 0


def test_two_that_resume(copy):
    first, second = RunDirectory.open(copy), RunDirectory.open(copy)
    with first.lock():
        with (
            pytest.raises(sp.UsageError, match=f"is being trained by process {os.getpid()} on "),
            second.lock(),
        ):
            pass
        with first.lock():  # by itself it is not refused
            pass
        with pytest.raises(sp.UsageError, match="is being trained by"), second.lock():
            pass
    with second.lock():
        pass


def test_a_copied_lock_is_none(copy):
    (copy / ".lock").write_text("process 1 on another machine, that died with it\n")
    with RunDirectory.open(copy).lock():
        assert (copy / ".lock").read_text().startswith(f"process {os.getpid()} on ")
