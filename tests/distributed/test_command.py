"""Training in several processes from the command line: the same run, whatever happens to one of
them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from saddlepoint.training import RunDirectory, Trainer

pytestmark = pytest.mark.slow

STEPS, EVERY = 400, 20
SLOW = ["--optimizer", "sgd", "--lr", "0.02"]
"""Steps that do not blow rounding up: so many of Adam's would, in single precision."""
OPTIONS = [
    "--set",
    "lr_schedule=constant",
    "--set",
    f"checkpoint_every={EVERY}",
    "--set",
    "evaluation_samples=200",
    "--batch-size",
    "16",
]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "saddlepoint", *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=300, check=False
    )


def last_step(path: Path) -> int:
    return max((int(file.stem[5:]) for file in path.glob("checkpoints/step-*.pt")), default=-1)


def wait_for_step(path: Path, step: int, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 200
    while last_step(path) < step:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def workers(process: subprocess.Popen[str]) -> list[int]:
    """Return the processes that train, of those that the given one started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            environment = (entry / "environ").read_bytes().split(b"\0")
        except (OSError, ValueError, IndexError):  # it ended while it was looked at
            continue
        distributed = [part for part in environment if part.startswith(b"RANK=")]
        if parent == process.pid and distributed:
            found.append((distributed[0], int(entry.name)))
    return [pid for _, pid in sorted(found)]


def theta(path: Path, step: int) -> torch.Tensor:
    directory = RunDirectory.open(path)
    training = Trainer(directory.read_config())
    training.load_state_dict(directory.load_checkpoint(directory.read_config(), step))
    return torch.cat(
        [
            p.detach().double().reshape(-1)
            for network in training.networks.values()
            for p in network.parameters()
        ]
    )


@pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="finds the processes through /proc"
)
def test_a_killed_process_another_number_of_them_and_one_alone_give_one_trajectory(tmp_path):
    """Two processes of which one is killed, resumed by one process, against one process only."""
    several, alone = tmp_path / "several", tmp_path / "alone"
    process = subprocess.Popen(
        command(
            "train", "mixture8", "--steps", STEPS, "--out", several, "--nproc", 2, *SLOW, *OPTIONS
        ),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    wait_for_step(several, 3 * EVERY, process)
    os.kill(workers(process)[1], signal.SIGKILL)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "in 2 processes" in output
    assert last_step(several) == STEPS
    lines = RunDirectory.open(several).read_log()
    assert [line["step"] for line in lines] == sorted({line["step"] for line in lines})
    more = run("resume", several, "--steps", f"+{EVERY}")
    assert more.returncode == 0, more.stderr
    straight = run("train", "mixture8", "--steps", STEPS + EVERY, "--out", alone, *SLOW, *OPTIONS)
    assert straight.returncode == 0, straight.stderr
    one, other = theta(alone, STEPS + EVERY), theta(several, STEPS + EVERY)
    assert float((one - other).norm() / one.norm()) < 1e-4
    assert float((theta(alone, STEPS) - one).norm()) > 1e-2  # it is far from standing still


def test_a_signal_stops_all_processes_after_the_same_step_and_saves(tmp_path):
    path = tmp_path / "run"
    process = subprocess.Popen(
        command("train", "mixture8", "--steps", 100_000, "--out", path, "--nproc", 2, *OPTIONS),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    wait_for_step(path, EVERY, process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 143, output
    assert RunDirectory.open(path).read_summary()["status"] == "interrupted"
    assert f"Stopped after step {last_step(path)}; saved." in output


def test_a_mistake_ends_with_one_sentence_and_its_exit_code(tmp_path):
    path = tmp_path / "run"
    found = run("train", "mixture8", "--steps", 10, "--out", path, "--nproc", 2, "--batch-size", 65)
    assert found.returncode == 2
    assert (
        found.stderr.count(
            "Error: A batch of 65 samples cannot be split over 2 processes. Use a multiple, such as"
            " 64 or 66."
        )
        == 1
    )
    assert "Traceback" not in found.stderr
    assert not path.exists()


def test_a_divergence_has_its_own_exit_code(tmp_path):
    found = run(
        "train",
        "mixture8",
        "--steps",
        50,
        "--out",
        tmp_path / "run",
        "--nproc",
        2,
        "--optimizer",
        "sgd",
        "--lr",
        "1e38",
        *OPTIONS,
    )
    assert found.returncode == 3, found.stderr
    assert found.stderr.count("Diverged in step") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--nproc", "0"], "0 is less than 1"),
        (["--nproc", "2", "--rule", "newtn"], 'Did you mean "newton"?'),
    ],
)
def test_what_one_process_can_see_is_said_before_others_are_started(arguments, sentence):
    found = run("train", "mixture8", *arguments)
    assert found.returncode == 2
    assert sentence in found.stderr
