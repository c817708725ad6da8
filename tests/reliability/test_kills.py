"""Runs that are killed or told to stop in the middle of what they do: each ends as the one that
nobody disturbed."""

import json
import os
import signal
from pathlib import Path

import pytest
import yaml
from scripts.kill_runs import OUTSIDE, Kill, differences, make_straight, suffer

from saddlepoint.io.checkpoint import decode
from saddlepoint.training import Evaluator, RunDirectory, Trainer
from tests.training.conftest import lines, small

pytestmark = pytest.mark.slow

PLANS = {
    "in a step, and while the directory is put in order": [Kill("step", 2, 9), Kill("rewind", 2)],
    "with half a checkpoint written": [Kill("checkpoint", 4, 3)],
    "between a checkpoint and its name, in an evaluation": [
        Kill("checkpoint", 1, 1),
        Kill("evaluation", 2, 4),
    ],
    "between the best checkpoint and the other, with half a line written": [
        Kill("checkpoint", 2, 2),
        Kill("log", 1, 3),
    ],
    "with half a picture written, and at any time": [
        Kill("sample", 4, 3),
        Kill(OUTSIDE, seconds=0.7),
    ],
}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return make_straight("soap with a roll-back", tmp_path_factory.mktemp("straight"))


@pytest.mark.parametrize("plan", PLANS)
def test_killed_it_ends_as_the_run_that_nobody_killed(straight, tmp_path, plan):
    fate = suffer(straight, tmp_path, PLANS[plan])
    assert fate.differences == []
    planned = [f"{kill.moment} {kill.point}" for kill in PLANS[plan] if kill.moment != OUTSIDE]
    assert [kill for kill in fate.kills if not kill.startswith(OUTSIDE)] == planned, (
        "every one has hit"
    )


def test_the_comparison_finds_what_differs(straight, tmp_path):
    """A test of the tests: a changed number, a changed bit, a missing and a further file."""
    import shutil

    from saddlepoint.io.checkpoint import encode

    assert differences(straight.path, straight.path) == []
    shutil.copytree(straight.path, tmp_path / "run")
    log, last = tmp_path / "run/metrics.jsonl", tmp_path / "run/checkpoints/step-00000024.pt"
    log.write_text(log.read_text().replace('"step": 6,', '"step": 7,', 1))
    state = decode(last.read_bytes())
    next(iter(state["networks"]["generator"].values())).view(-1)[0] *= 1.0000002
    last.write_bytes(encode(state))
    (tmp_path / "run/samples/step-00000003.png").unlink()
    (tmp_path / "run/.summary.json.17.tmp").write_text("")
    found = differences(straight.path, tmp_path / "run")
    assert found[:2] == [
        ".summary.json.17.tmp is in one only",
        "samples/step-00000003.png is in one only",
    ]
    assert [text.split(":")[0] for text in found[2:]] == [
        "checkpoints/step-00000024.pt",
        "metrics.jsonl",
    ]


class TestBeforeTheFirstCheckpoint:
    def test_a_run_without_one_starts_from_the_beginning_by_resume(self, cli, copy, finished):
        for path in (copy / "checkpoints").iterdir():
            path.unlink()
        (copy / "checkpoints/.step-00000000.pt.17.tmp").write_bytes(b"half")
        code, out, _ = cli("resume", copy)
        assert code == 0
        assert out.startswith(
            "note: The run was stopped before its first checkpoint; it starts from the beginning.\n"
        )
        assert differences(finished, copy) == []

    def test_a_directory_that_was_only_begun_is_used(self, cli, tmp_path, finished):
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(small().model_dump(mode="json")))
        run = tmp_path / "run"
        for name in ("checkpoints", "samples"):
            (run / name).mkdir(parents=True)
        (run / ".config.yaml.17.tmp").write_bytes(b"half")
        (run / "environment.json").write_text("{}")
        assert cli("train", "--config", tmp_path / "config.yaml", "--out", run)[0] == 0
        assert differences(finished, run) == []

    @pytest.mark.parametrize("foreign", ["checkpoints/weights.pt", "thesis.tex"])
    def test_one_that_holds_anything_else_is_not(self, cli, tmp_path, foreign):
        (tmp_path / "run/checkpoints").mkdir(parents=True)
        (tmp_path / "run" / foreign).write_text("mine")
        code, _, err = cli("train", "mixture8", "--out", tmp_path / "run")
        assert (code, "holds other files already" in err) == (2, True)
        assert (tmp_path / "run" / foreign).read_text() == "mine"


def test_killed_between_the_last_checkpoint_and_the_summary_it_is_ended_by_resume(
    cli, copy, finished
):
    (copy / "summary.json").unlink()
    assert cli("resume", copy)[0] == 0
    assert differences(finished, copy) == []
    code, _, err = cli("resume", copy)
    assert (code, err) == (
        2,
        (
            f"Error: {copy} has used its budget of 12 steps. Extend it with --steps +N or"
            " --seconds S.\n"
        ),
    )


SIGNALLED = {
    "a step": (Trainer, "train_step", 7),
    "an evaluation": (Evaluator, "evaluate", 2),
    "a checkpoint": (RunDirectory, "save_checkpoint", 2),
    "a picture": (RunDirectory, "save_picture", 2),
    "a line of the log": (RunDirectory, "log", 2),
}


class TestSignals:
    @pytest.fixture
    def signalled(self, cli, tmp_path, monkeypatch):
        """Trains with the cadence of ``small``; signals arrive inside the ``number``-th call of a
        method."""

        def train(owner, method, number, *signals):
            original, calls = getattr(owner, method), iter(range(1, 1000))

            def called(*arguments, **options):
                if next(calls) == number:
                    for one in signals:
                        os.kill(os.getpid(), one)
                return original(*arguments, **options)

            monkeypatch.setattr(owner, method, called)
            (tmp_path / "config.yaml").write_text(yaml.safe_dump(small().model_dump(mode="json")))
            return cli("train", "--config", tmp_path / "config.yaml", "--out", "run")

        return train

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    @pytest.mark.parametrize("what", SIGNALLED)
    def test_the_step_is_finished_and_saved(self, signalled, cli, finished, what, number, code):
        owner, method, call = SIGNALLED[what]
        found, out, _ = signalled(owner, method, call, number)
        step = 7 if what == "a step" else 8 if what == "an evaluation" else 4
        assert (
            found,
            f"Stopped after step {step}; saved. Resume with: saddlepoint resume run\n" in out,
        ) == (code, True)
        assert json.loads(Path("run/summary.json").read_text())["status"] == "interrupted"
        assert RunDirectory(Path("run")).checkpoint_steps()[-1] == step
        assert cli("resume", "run")[0] == 0
        extra = Path("run/checkpoints/step-00000007.pt")
        assert lines(Path("run")) == lines(finished)
        assert not extra.exists() or step == 7
        last = "checkpoints/step-00000012.pt"
        assert not [
            text
            for text in differences(finished, Path("run"))
            if "checkpoints/" not in text or text.startswith(last)
        ]

    @pytest.mark.parametrize("what", SIGNALLED)
    def test_a_second_ctrl_c_stops_at_once_and_the_run_goes_on_all_the_same(
        self, signalled, cli, finished, what
    ):
        owner, method, call = SIGNALLED[what]
        found, _, _ = signalled(owner, method, call, signal.SIGINT, signal.SIGINT)
        assert found in (1, 130)
        assert cli("resume", "run")[0] == 0
        assert differences(finished, Path("run")) == []
