import errno
import io
import json
import os
import subprocess
import sys

import pytest
import torch

import saddlepoint as sp
from saddlepoint.io.atomic import write_atomic, write_json
from saddlepoint.io.checkpoint import FORMAT, with_checksum
from saddlepoint.training import Evaluator, RunDirectory, Trainer, train
from tests.training.conftest import run_to_the_end, small


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_to_the_end(small(), tmp_path_factory.mktemp("runs") / "run")


class TestAFinishedRun:
    def test_holds_everything(self, run):
        _, directory, status = run
        assert status == "finished"
        names = {path.name for path in directory.path.iterdir()}
        assert names == {
            "config.yaml",
            "environment.json",
            "metrics.jsonl",
            "samples",
            "samples.png",
            "checkpoints",
            "summary.json",
        }  # and no lock: nobody claimed it
        assert sorted(path.name for path in (directory.path / "samples").iterdir()) == [
            f"step-{n:08d}.png" for n in (0, 4, 8, 12)
        ]
        assert sorted(p.name for p in (directory.path / "checkpoints").iterdir()) == [
            "best.pt",
            *(f"step-{n:08d}.pt" for n in (4, 8, 12)),
        ]

    def test_summary(self, run):
        training, directory, _ = run
        summary = json.loads((directory.path / "summary.json").read_text())
        assert (summary["problem"], summary["rule"], summary["optimizer"], summary["seed"]) == (
            "mixture8",
            "gradient",
            "adam",
            0,
        )
        assert (summary["steps"], summary["status"]) == (12, "finished")
        assert summary["cost"] == {"gradients": 24, "products": 0, "losses": 24}
        assert summary["seconds_per_step"] == pytest.approx(summary["seconds"] / 12)
        assert summary["metrics"] == training.metrics
        assert set(summary["metrics"]) == {
            prefix + name
            for prefix in ("", "ema/")
            for name in ("modes", "quality", "reverse_kl", "effective_modes", "mode_distance")
        }
        assert summary["rollbacks"] == 0

    def test_metrics(self, run):
        _, directory, _ = run
        lines = [
            json.loads(line) for line in (directory.path / "metrics.jsonl").read_text().splitlines()
        ]
        assert [line["step"] for line in lines] == [0, 4, 8, 12]
        assert set(lines[0]) == {"step", "seconds", "probe"}
        for line in lines[1:]:
            assert (
                set(line["losses"]) == set(line["gradient_norms"]) == {"discriminator", "generator"}
            )
            assert "ema/modes" in line["metrics"]
            assert line["seconds"] > 0

    def test_environment(self, run):
        _, directory, _ = run
        environment = json.loads((directory.path / "environment.json").read_text())
        assert environment["torch"] == torch.__version__
        assert environment["device"] == "cpu"


def test_the_best_checkpoint_is_the_best_evaluation(harness, tmp_path, monkeypatch):
    scores = iter([3.0, 1.0, 2.0])
    monkeypatch.setattr(Evaluator, "score", lambda self, metrics, by=None: next(scores))
    training, run, _ = harness.run_to_the_end(harness.small(), tmp_path / "run")
    assert training.best == {"score": 1.0, "step": 8}
    assert run.load_checkpoint(training.config, "best")["step"] == 8


def test_solver_reports_are_logged(harness, tmp_path):
    harness.run_to_the_end(harness.small(rule="cgd"), tmp_path / "run")
    line = harness.lines(tmp_path / "run")[1]
    assert line["solves"]["joint"]["status"] == "converged"
    assert line["solves"]["joint"]["products"] >= 1


class TestDivergence:
    def test_saves_the_last_finite_state_and_says_where(self, harness, tmp_path):
        problem = {"name": "mixture8", "activation": "leaky_relu"}
        config = harness.small(problem=problem, optimizer={"name": "sgd", "lr": 1e30}, steps=50)
        with pytest.raises(
            sp.DivergenceError,
            match=r'player "(discriminator|generator)" is (nan|inf|-inf)|is not finite',
        ):
            harness.run_to_the_end(config, tmp_path / "run")
        summary = json.loads((tmp_path / "run/summary.json").read_text())
        assert summary["status"] == "diverged"
        assert summary["error"].startswith(f"Step {summary['steps'] + 1}: ")
        training = Trainer(config)
        training.load_state_dict(RunDirectory.open(tmp_path / "run").load_checkpoint(config))
        assert training.is_finite()

    def test_a_term_is_named(self, harness, tmp_path, monkeypatch):
        training = Trainer(harness.small())
        original = training.problem.losses

        def losses(self, networks, batch, active):
            terms = original(networks, batch, active)
            if training.step == 3 and "discriminator" in active:
                terms["discriminator"]["fake"] = terms["discriminator"]["fake"] * float("nan")
            return terms

        monkeypatch.setattr(type(training.problem), "losses", losses)
        run = RunDirectory.create(training.config, tmp_path / "run")
        with pytest.raises(
            sp.DivergenceError, match='Term "fake" of the loss of player "discriminator" is nan'
        ):
            train(training, run, harness.silent())
        assert run.load_checkpoint(training.config)["step"] == 3


class TestRefusals:
    def test_a_directory_that_holds_a_run(self, harness, tmp_path):
        RunDirectory.create(harness.small(), tmp_path / "run")
        with pytest.raises(
            sp.UsageError, match=r"holds another run already\. Resume it with `saddlepoint resume"
        ):
            RunDirectory.create(harness.small(), tmp_path / "run")

    def test_a_directory_that_holds_other_files(self, harness, tmp_path):
        (tmp_path / "thesis.tex").write_text("")
        with pytest.raises(sp.UsageError, match="holds other files already"):
            RunDirectory.create(harness.small(), tmp_path)

    def test_a_file(self, harness, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(sp.UsageError, match=r"is a file\. Choose a directory"):
            RunDirectory.create(harness.small(), tmp_path / "file")

    def test_no_run(self, tmp_path):
        with pytest.raises(sp.UsageError, match=r"is not a run directory \(no config\.yaml\)"):
            RunDirectory.open(tmp_path)

    def test_a_checkpoint_of_another_configuration(self, harness, tmp_path):
        _, run, _ = harness.run_to_the_end(harness.small(), tmp_path / "run")
        with pytest.raises(sp.UsageError, match="belongs to another configuration"):
            run.load_checkpoint(harness.small(batch_size=16))

    def test_a_malicious_checkpoint_is_not_executed(self, harness, tmp_path):
        training, run, _ = harness.run_to_the_end(harness.small(), tmp_path / "run")
        witness = tmp_path / "witness"

        class Payload:
            def __reduce__(self):
                return os.mkdir, (str(witness),)

        buffer = io.BytesIO()
        torch.save({"format": FORMAT, "config": Payload()}, buffer)
        (tmp_path / "run/checkpoints/step-00000012.pt").write_bytes(
            with_checksum(buffer.getvalue())
        )
        with pytest.raises(
            sp.UsageError,
            match=(
                r"another program: its pickle refers to \w+\.mkdir, which no checkpoint of this"
                r" library does"
            ),
        ):
            run.load_checkpoint(training.config)
        assert not witness.exists()

    def test_a_checkpoint_of_another_program(self, harness, tmp_path):
        training, run, _ = harness.run_to_the_end(harness.small(), tmp_path / "run")
        buffer = io.BytesIO()
        torch.save({"weights": 1}, buffer)
        (tmp_path / "run/checkpoints/step-00000012.pt").write_bytes(
            with_checksum(buffer.getvalue())
        )
        with pytest.raises(
            sp.UsageError,
            match="written by another version or another program: its format is not 5",
        ):
            run.load_checkpoint(training.config)

    def test_checkpoints_of_a_version_without_checksums(self, harness, tmp_path):
        """They are not used on trust, and nothing is deleted."""
        training, run, _ = harness.run_to_the_end(harness.small(), tmp_path / "run")
        for path in (tmp_path / "run/checkpoints").iterdir():
            torch.save({"format": 2, **training.state_dict()}, path)
        with pytest.raises(
            sp.UsageError,
            match="it does not end with a checksum, as checkpoints before format 3 do not",
        ):
            run.load_checkpoint(training.config)
        assert run.checkpoint_steps() == [4, 8, 12]


class TestFiles:
    def test_a_failed_write_leaves_the_old_file_and_no_other(self, tmp_path, monkeypatch):
        target = tmp_path / "a"
        target.write_bytes(b"old")

        def fail(descriptor):
            raise OSError(errno.ENOSPC, "disk full")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="disk full") as error:
            write_atomic(target, b"new")
        assert error.value.filename == str(target)
        assert target.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [target]

    def test_json_never_holds_nan(self, tmp_path):
        write_json(tmp_path / "a.json", {"x": [float("nan"), 1.5, float("inf")], "y": (2, None)})
        assert json.loads((tmp_path / "a.json").read_text()) == {
            "x": [None, 1.5, None],
            "y": [2, None],
        }

    def test_a_torn_last_line_is_dropped(self, harness, tmp_path):
        run = RunDirectory.create(harness.small(), tmp_path / "run")
        for step in (1, 2, 3):
            run.log({"step": step})
        with (tmp_path / "run/metrics.jsonl").open("ab") as file:
            file.write(b'{"step": 4, "los')
        run.truncate_log(2)
        assert harness.lines(tmp_path / "run") == [{"step": 1}, {"step": 2}]


@pytest.mark.slow
def test_the_same_command_gives_the_same_files(tmp_path):
    """In two processes, so that nothing may depend on hash seeds or addresses."""
    for name in "ab":
        options = [
            "mixture8",
            "--steps",
            "6",
            "--set",
            "problem.hidden=8",
            "--set",
            "evaluation_samples=160",
            "--out",
            tmp_path / name,
        ]
        subprocess.run(
            [sys.executable, "-m", "saddlepoint", "train", *options],
            check=True,
            capture_output=True,
        )
    for file in ("samples.png", "config.yaml"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    a, b = (json.loads((tmp_path / name / "summary.json").read_text()) for name in "ab")
    assert a["metrics"] == b["metrics"]
