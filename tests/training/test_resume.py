"""N steps straight equal n + resume + (N − n), bit for bit."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch

import saddlepoint
from saddlepoint.io.checkpoint import FORMAT
from saddlepoint.training import RunDirectory, Trainer

METHODS = {
    "adam": {},
    "sign": {"optimizer": {"name": "sign", "lr": 1e-3}},
    "soap": {"optimizer": {"name": "pytorch_optimizer:SOAP", "lr": 1e-3}},
    "acgd": {"rule": {"name": "acgd", "warm_start": True}},
    "cgd": {"rule": "cgd"},
    "newton": {"rule": "newton"},
    "newton full": {"rule": {"name": "newton", "part": "full"}},
    "several discriminator steps": {"discriminator_steps": 3},
    "linear schedule": {"lr_schedule": "linear"},
}
pytestmark = pytest.mark.filterwarnings("ignore::saddlepoint.errors.SolverWarning")


def same(a, b, where="state"):
    """Compare two states exactly, except for seconds."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            if key != "seconds":
                same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{where}[{index}]")
    else:
        assert a == b, where


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("stop", [3, 8])
def test_straight_equals_interrupted_and_resumed(harness, tmp_path, method, stop):
    config = harness.small(**METHODS[method])
    straight, _, status = harness.run_to_the_end(config, tmp_path / "straight")
    assert status == "finished"
    count = iter(range(100))
    _, _, status = harness.run_to_the_end(config, tmp_path / "broken", lambda: next(count) >= stop)
    assert status == "interrupted"
    resumed, _, status = harness.resume(tmp_path / "broken")
    assert status == "finished"
    same(straight.state_dict(), resumed.state_dict())
    assert harness.lines(tmp_path / "straight") == harness.lines(tmp_path / "broken")
    assert (tmp_path / "straight/samples.png").read_bytes() == (
        tmp_path / "broken/samples.png"
    ).read_bytes()


def test_a_longer_budget_continues_the_same_trajectory(harness, tmp_path):
    straight, _, _ = harness.run_to_the_end(harness.small(steps=12), tmp_path / "straight")
    harness.run_to_the_end(harness.small(steps=5), tmp_path / "short")
    resumed, _, _ = harness.resume(tmp_path / "short", steps=12)
    same(straight.state_dict()["networks"], resumed.state_dict()["networks"])


def test_the_state_loads_without_pickle_and_is_complete(harness, tmp_path):
    training, run, _ = harness.run_to_the_end(harness.small(), tmp_path / "run")
    same(
        run.load_checkpoint(training.config),
        {"format": FORMAT, "saddlepoint": saddlepoint.__version__, **training.state_dict()},
    )


KILLED_WHILE_WRITING = """
import os, signal, sys
import saddlepoint.io.atomic as atomic
real, calls = os.fsync, iter(range(1000))
def fsync(descriptor):
    if next(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    real(descriptor)
atomic.os.fsync = fsync
from saddlepoint.cli import main
main(["train", "mixture8", "--config", sys.argv[3], "--out", sys.argv[1]])
"""


@pytest.mark.parametrize("moment", [0, 9, 12, 17, 20, 26, 31])
def test_killed_while_writing_files(harness, tmp_path, moment):
    """SIGKILL at the moment of a flush: whatever was being written, the run directory goes on from
    its last checkpoint."""
    config, run = harness.small(), tmp_path / "run"
    straight, _, _ = harness.run_to_the_end(config, tmp_path / "straight")
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    command = [
        sys.executable,
        "-c",
        textwrap.dedent(KILLED_WHILE_WRITING),
        run,
        str(moment),
        tmp_path / "config.yaml",
    ]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    assert child.returncode == -signal.SIGKILL, child.stderr
    if not list((run / "checkpoints").glob("step-*.pt")):
        assert moment < 12, "the checkpoint of step 0 comes first"
        return
    resumed, _, status = harness.resume(run)
    assert status == "finished"
    same(straight.state_dict(), resumed.state_dict())
    assert harness.lines(tmp_path / "straight") == harness.lines(run)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_save_and_say_how_to_go_on(tmp_path, number, code):
    run = tmp_path / "run"
    options = [
        "mixture8",
        "--steps",
        "1000000",
        "--set",
        "log_every=1",
        "--set",
        "evaluate_every=1000000",
        "--out",
        run,
    ]
    command = [sys.executable, "-m", "saddlepoint", "train", *options]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 200
    while (
        not (
            (run / "metrics.jsonl").exists()
            and (run / "metrics.jsonl").read_bytes().count(b"\n") > 1
        )
        and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    os.kill(child.pid, number)
    output, _ = child.communicate(timeout=200)
    assert child.returncode == code, output
    assert f"saved. Resume with: saddlepoint resume {run}" in output
    directory = RunDirectory.open(run)
    config = directory.read_config()
    training = Trainer(config)
    training.load_state_dict(directory.load_checkpoint(config))
    assert training.step > 0
    assert f"Stopped after step {training.step};" in output
