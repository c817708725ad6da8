"""Which results are made again: changed input files, other versions, failures."""

import csv
import json

import pytest

from saddlepoint.compare import compare
from saddlepoint.compare.comparison import SilentWatcher
from saddlepoint.compare.execution import failed_result
from saddlepoint.compare.provenance import input_hashes, is_interrupted, should_rerun
from saddlepoint.data import images
from saddlepoint.training.config import resolve


class Notes(SilentWatcher):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def runs_of(found):
    return [run for method in found["problems"][0]["methods"] for run in method["runs"]]


def fails(error):
    return lambda job: failed_result(error)


class TestVersions:
    @pytest.fixture
    def older(self, small_study, recorded, tmp_path, monkeypatch):
        """A comparison that was made with another PyTorch."""
        with monkeypatch.context() as then:
            then.setattr("saddlepoint.training.environment.torch.__version__", "2.0.0")
            compare(small_study(), tmp_path, execute=recorded())
        return tmp_path

    def test_they_are_kept_and_reported(self, small_study, recorded, older):
        runner, watcher = recorded(), Notes()
        found = compare(small_study(seeds=3), older, execute=runner, watcher=watcher)
        assert len(runner.jobs) == 2
        assert (
            "4 finished runs and trials were made with other versions (torch 2.0.0, now 2."
            in watcher.notes[0]
        )
        assert sum(run["made_with"]["torch"] == "2.0.0" for run in runs_of(found)) == 4
        rows = list(csv.DictReader((older / "results.csv").read_text().splitlines()))
        assert sum("torch 2.0.0" in row["made_with"] for row in rows) == 4

    def test_they_are_made_again_on_request(self, small_study, recorded, older):
        runner = recorded()
        found = compare(small_study(), older, execute=runner, rerun=["outdated"])
        assert len(runner.jobs) == 4
        assert all(run["made_with"]["torch"] != "2.0.0" for run in runs_of(found))

    def test_a_finished_file_without_a_record_was_made_in_its_environment(
        self, small_study, recorded, older
    ):
        file = older / "comparison.json"
        content = json.loads(file.read_text())
        for run in runs_of(content):
            del run["made_with"]
        file.write_text(json.dumps(content))
        for run in (older / "runs").rglob("*.json"):
            run.unlink()
        found = compare(small_study(), older, execute=recorded(most=0))
        assert {run["made_with"]["torch"] for run in runs_of(found)} == {
            content["environment"]["torch"]
        }
        assert {run["made_with"]["source"] for run in runs_of(found)} == {"not recorded"}

    def test_looking_again_does_not_change_where_it_was_made(self, small_study, recorded, older):
        before = json.loads((older / "comparison.json").read_text())["environment"]
        assert compare(small_study(), older, execute=recorded(most=0))["environment"] == before

    def test_trials(self, small_study, recorded, tmp_path, monkeypatch):
        study = small_study(methods=["adam"], seeds=1, tuning={"trials": 3, "finalists": 2})
        with monkeypatch.context() as then:
            then.setattr("saddlepoint.training.environment.torch.__version__", "2.0.0")
            compare(study, tmp_path, execute=recorded())
        assert compare(study, tmp_path, execute=recorded(most=0))
        runner = recorded()
        found = compare(study, tmp_path, execute=runner, rerun=["outdated"])
        assert len(runner.jobs) == 3 + 2 + 1
        trials = found["problems"][0]["methods"][0]["tuning"]["trials"]
        assert {trial["made_with"]["torch"] != "2.0.0" for trial in trials} == {True}


class TestFilesOfTheUser:
    def test_the_source_of_an_optimizer(self, small_study, recorded, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("SADDLEPOINT_TRUST", "mine_for_provenance")
        (tmp_path / "beside.py").write_text("x = 1\n")
        module = tmp_path / "mine_for_provenance.py"
        module.write_text("import torch\nimport beside\nclass Mine(torch.optim.SGD):\n    pass\n")
        study = small_study(
            methods={"mine": {"optimizer": {"name": "mine_for_provenance:Mine", "lr": 0.1}}}
        )
        for change, made in (
            (lambda: None, 2),
            (lambda: None, 0),
            (lambda: (tmp_path / "beside.py").write_text("x = 22\n"), 2),
        ):
            change()
            runner = recorded()
            compare(study, tmp_path / "out", execute=runner)
            assert len(runner.jobs) == made

    def test_the_data(self, tmp_path):
        for path in images.EMBEDDED.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        config = resolve({"problem": "mnist", "data_dir": str(tmp_path)})
        before = input_hashes(config)
        assert input_hashes(config) == before
        changed = next(tmp_path.glob("train-labels*"))
        changed.write_bytes(changed.read_bytes() + b"\0")
        assert input_hashes(config) != before

    def test_what_the_library_has_is_no_file_of_the_user(self):
        assert input_hashes(resolve({"problem": "digits"})) == {}

    def test_a_file_that_changes_meanwhile(self, small_study, recorded, tmp_path, monkeypatch):
        state = iter(range(100))
        monkeypatch.setattr(
            "saddlepoint.compare.runs.input_hashes", lambda config: {"data": next(state)}
        )
        with pytest.raises(ValueError, match="changed during a run"):
            compare(small_study(), tmp_path, execute=recorded())
        assert not list((tmp_path / "runs").rglob("*.json"))


class TestFailures:
    KILLED = "The process of the run was killed by signal 9 (SIGKILL)."

    @pytest.mark.parametrize(
        ("error", "rerun", "made"),
        [
            (KILLED, [], 0),
            (KILLED, ["killed"], 4),
            (KILLED, ["failed"], 4),
            (KILLED, ["outdated"], 0),
            ("ValueError: no", ["killed"], 0),
            ("ValueError: no", ["failed"], 4),
            (
                (
                    "The process of the run ended with exit code -15; −9 is what running out of"
                    " memory looks like."
                ),
                [],
                4,
            ),
        ],
    )
    def test_of_runs(self, small_study, recorded, tmp_path, error, rerun, made):
        compare(small_study(), tmp_path, execute=recorded(result=fails(error)))
        runner = recorded()
        compare(small_study(), tmp_path, execute=runner, rerun=rerun)
        assert len(runner.jobs) == made

    def test_of_runs_that_are_killed_again(self, small_study, recorded, tmp_path):
        compare(small_study(), tmp_path, execute=recorded(result=fails(self.KILLED)))
        runner = recorded(result=fails(self.KILLED))
        compare(small_study(), tmp_path, execute=runner, rerun=["killed"])
        assert len(runner.jobs) == 4

    def test_of_trials(self, small_study, recorded, tmp_path):
        study = small_study(methods=["adam"], seeds=1, tuning={"trials": 2, "finalists": 1})
        compare(study, tmp_path, execute=recorded(result=fails(self.KILLED)))
        runner = recorded()
        found = compare(study, tmp_path, execute=runner, rerun=["killed"])
        assert len(runner.jobs) == 2 + 1
        assert [
            trial["status"] for trial in found["problems"][0]["methods"][0]["tuning"]["trials"]
        ] == ["finished"] * 2

    def test_only_interrupted_runs_have_no_result(self):
        said = (
            "The process of the run ended with exit code {}; −9 is what running out of memory looks"
            " like."
        )
        assert [
            is_interrupted(failed_result(said.format(code)))
            for code in (-1, -2, -15, -9, -11, 1, 2)
        ] == [True] * 3 + [False] * 4

    def test_a_finished_run_is_never_failed(self):
        finished = {"status": "finished", "error": None, "made_with": {"torch": "2"}}
        assert not should_rerun(finished, ["killed", "failed", "outdated"], {"torch": "2"})
