"""A comparison makes missing runs only, counts all of them, and resumes with the same results."""

import csv
import json
import multiprocessing
import subprocess
import sys
from dataclasses import asdict

import pytest
import yaml

from saddlepoint.compare import compare, tune_method
from saddlepoint.compare.execution import execute, failed_result
from saddlepoint.compare.runs import RunId
from saddlepoint.errors import UsageError

CLOCK = {
    "seconds",
    "peak_memory",
    "environment",
    "command",
    "milliseconds_per_step",
    "time_to_target",
}


def without_clock(value):
    """What does not depend on how fast the machine was."""
    if isinstance(value, dict):
        return {key: without_clock(inner) for key, inner in value.items() if key not in CLOCK}
    return [without_clock(inner) for inner in value] if isinstance(value, list) else value


def methods_of(comparison, problem=0):
    return {method["name"]: method for method in comparison["problems"][problem]["methods"]}


class TestResults:
    def test_every_run_is_there_once(self, small_study, recorded, tmp_path):
        runner = recorded()
        found = compare(small_study(seeds=3), tmp_path, execute=runner)
        assert len(runner.jobs) == 6
        assert {
            name: [run["seed"] for run in own["runs"]] for name, own in methods_of(found).items()
        } == {
            "adam": [0, 1, 2],
            "sign": [0, 1, 2],
        }
        assert json.loads((tmp_path / "comparison.json").read_text()) == found

    def test_the_table_has_a_line_for_every_run(self, small_study, recorded, tmp_path):
        compare(small_study(), tmp_path, execute=recorded())
        rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
        assert [(row["method"], row["seed"], row["status"]) for row in rows] == [
            ("adam", "0", "finished"),
            ("adam", "1", "finished"),
            ("sign", "0", "finished"),
            ("sign", "1", "finished"),
        ]
        assert all(0 <= float(row["ema/mode_distance"]) <= 1 for row in rows)

    def test_pictures_of_the_first_seed_at_every_point(self, small_study, recorded, tmp_path):
        found = compare(small_study(), tmp_path, execute=recorded())
        first, second = methods_of(found)["adam"]["runs"]
        assert [point["picture"] for point in first["points"]] == [
            f"pictures/tiny-ring/adam/seed-0/0{n}.png" for n in (1, 2, 3)
        ]
        assert all(
            (tmp_path / point["picture"]).read_bytes().startswith(b"\x89PNG")
            for point in first["points"]
        )
        assert [point["picture"] for point in second["points"]] == [None] * 3

    def test_results_that_are_no_success_are_counted(self, small_study, recorded, tmp_path):
        def half_of_them_fail(job):
            return (
                execute(job)
                if job.config["seed"] == 0
                else {**failed_result("overflow"), "status": "diverged", "steps": 2, "seconds": 1.0}
            )

        found = compare(small_study(), tmp_path, execute=recorded(result=half_of_them_fail))
        summary = methods_of(found)["adam"]["summary"]
        assert (summary["diverged"], summary["success"]["rate"], summary["success"]["runs"]) == (
            1,
            0.5,
            2,
        )
        assert summary["median"] is None  # infinite: one of two runs has no end
        assert summary["time_to_target"]["censored"] == 1

    def test_pairs_are_with_the_baseline(self, small_study, recorded, tmp_path):
        study = small_study(methods=["adam", "sign", "signum"], baseline="sign")
        pairs = compare(study, tmp_path, execute=recorded())["problems"][0]["pairs"]
        assert [(pair["first"], pair["second"]) for pair in pairs] == [
            ("adam", "sign"),
            ("signum", "sign"),
        ]
        assert all(pair["p"] <= pair["p_adjusted"] <= 1 for pair in pairs)

    def test_larger_is_better(self, small_study, recorded, tmp_path):
        study = small_study(problem={"metric": "ema/modes", "target": 1e9}, tuning={"trials": 4})
        found = compare(study, tmp_path, execute=recorded())
        trials = methods_of(found)["adam"]["tuning"]["trials"]
        assert all(trial["value"] >= 0 for trial in trials)
        won = max(
            (trial for trial in trials if trial["final"] is not None),
            key=lambda trial: trial["final"],
        )
        assert methods_of(found)["adam"]["tuning"]["best"] == won["parameters"]
        low, high = methods_of(found)["adam"]["summary"]["interval"]
        assert low <= methods_of(found)["adam"]["summary"]["median"] <= high
        assert methods_of(found)["adam"]["summary"]["success"]["rate"] == 0


class TestRobustness:
    def test_the_map_scales_both_rates(self, small_study, recorded, tmp_path):
        runner = recorded()
        study = small_study(
            methods=["adam"], problem={"robustness": {"factors": [0.1, 10], "seeds": 1}}
        )
        found = methods_of(compare(study, tmp_path, execute=runner))["adam"]["robustness"]
        rates = [
            (
                job.config["optimizer"]["lr"],
                job.config["optimizer"]["players"]["discriminator"]["lr"],
            )
            for job in runner.jobs
        ]
        assert rates == [(2e-3, 1e-3)] * 2 + [
            pytest.approx((2e-4, 1e-4)),
            pytest.approx((2e-2, 1e-2)),
        ]
        assert (found["factors"], found["seeds"], found["success"]) == (
            [0.1, 1, 10],
            [0],
            [[True], [True], [True]],
        )
        assert len(found["runs"]) == 2


class TestResuming:
    def test_an_interrupted_comparison_gives_the_same_results(
        self, small_study, recorded, tmp_path
    ):
        study = small_study(tuning={"trials": 3, "finalists": 1})
        straight = compare(study, tmp_path / "straight", execute=recorded())
        made = 0
        for most in (1, 2, 4, 100):
            runner = recorded(most=most)
            if most < 100:
                with pytest.raises(KeyboardInterrupt):
                    compare(study, tmp_path / "broken", execute=runner)
            else:
                found = compare(study, tmp_path / "broken", execute=runner)
            made += len(runner.jobs)
        assert made == 2 * 3 + 2 * 2  # nothing was made twice
        assert without_clock(found) == without_clock(straight)

    def test_nothing_is_made_again(self, small_study, recorded, tmp_path):
        study = small_study(tuning={"trials": 2, "finalists": 1})
        compare(study, tmp_path, execute=recorded())
        runner = recorded()
        compare(study, tmp_path, execute=runner)
        assert runner.jobs == []

    def test_the_finished_file_alone_is_enough(self, small_study, recorded, tmp_path):
        study = small_study(
            tuning={"trials": 2, "finalists": 1},
            problem={"robustness": {"factors": [0.1], "seeds": 1}},
        )
        first = compare(study, tmp_path / "a", execute=recorded())
        (tmp_path / "b").mkdir()
        for name in ("study.yaml", "comparison.json"):
            (tmp_path / "b" / name).write_bytes((tmp_path / "a" / name).read_bytes())
        runner = recorded()
        assert compare(study, tmp_path / "b", execute=runner)["problems"] == first["problems"]
        assert runner.jobs == []

    @pytest.mark.parametrize("tuning", [{"trials": 2, "finalists": 1}, None])
    def test_an_interrupt_in_a_new_problem_keeps_the_finished_ones_of_the_file(
        self, small_study, recorded, tmp_path, tuning
    ):
        """Also where the file is all there is: a problem that is put first is written beside the
        finished one, not in its place."""
        study = small_study(tuning=tuning)
        first = compare(study, tmp_path / "a", execute=recorded())
        (tmp_path / "b").mkdir()
        for name in ("study.yaml", "comparison.json"):
            (tmp_path / "b" / name).write_bytes((tmp_path / "a" / name).read_bytes())
        new = study.problems[0].model_copy(update={"name": "put first", "budget": {"steps": 7}})
        with pytest.raises(KeyboardInterrupt):
            compare(
                study.model_copy(update={"problems": (new, *study.problems)}),
                tmp_path / "b",
                execute=recorded(most=1),
            )
        left = json.loads((tmp_path / "b" / "comparison.json").read_text())["problems"]
        assert left[-1] == first["problems"][0]

    def test_more_seeds_and_methods_keep_what_is_there(self, small_study, recorded, tmp_path):
        compare(small_study(), tmp_path, execute=recorded())
        runner = recorded()
        compare(small_study(seeds=3, methods=["adam", "sign", "signum"]), tmp_path, execute=runner)
        assert len(runner.jobs) == 2 + 3

    def test_a_torn_file_is_made_again(self, small_study, recorded, tmp_path):
        compare(small_study(), tmp_path, execute=recorded())
        (tmp_path / "comparison.json").unlink()
        torn = tmp_path / "runs" / "tiny-ring" / "adam" / "seed-0.json"
        torn.write_bytes(torn.read_bytes()[:100])
        runner = recorded()
        compare(small_study(), tmp_path, execute=runner)
        assert len(runner.jobs) == 1

    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            ("{", "Cannot read"),
            ('{"format": 99}', "is not a comparison of format 1. Choose another --out."),
        ],
    )
    def test_a_damaged_final_file_is_reported(
        self, small_study, recorded, tmp_path, content, sentence
    ):
        compare(small_study(), tmp_path, execute=recorded())
        (tmp_path / "comparison.json").write_text(content)
        with pytest.raises(UsageError, match=sentence):
            compare(small_study(), tmp_path, execute=recorded())

    def test_another_directory_is_left_alone(self, small_study, recorded, tmp_path):
        (tmp_path / "thesis.tex").write_text("years of work")
        with pytest.raises(UsageError, match="holds other files already"):
            compare(small_study(), tmp_path, execute=recorded())

    def test_jobs_side_by_side_give_the_same(self, small_study, recorded, tmp_path):
        study = small_study(seeds=4)
        one = compare(study, tmp_path / "one", execute=recorded())
        four = compare(study, tmp_path / "four", jobs=4, execute=recorded())
        assert without_clock(one) == without_clock(four)

    @pytest.mark.slow
    def test_a_comparison_resumes_after_a_killed_process(self, small_study, recorded, tmp_path):
        study = small_study(seeds=4, tuning={"trials": 2, "finalists": 1})
        (tmp_path / "small.yaml").write_text(yaml.safe_dump(study.to_dict()))
        command = [sys.executable, "-m", "saddlepoint", "compare", "small.yaml", "--out", "killed"]
        with subprocess.Popen(
            command,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
        ) as process:
            assert any("seed-0" in line for line in process.stdout)
            process.kill()
        runner = recorded()
        found = compare(study, tmp_path / "killed", execute=runner)
        assert 0 < len(runner.jobs) < 8
        assert without_clock(found) == without_clock(
            compare(study, tmp_path / "straight", execute=recorded())
        )

    @pytest.mark.slow
    def test_two_processes_share_one_comparison(self, small_study, tmp_path):
        context = multiprocessing.get_context("spawn")
        study = small_study(seeds=3, tuning={"trials": 3, "finalists": 1})
        counts = context.Queue()
        workers = [context.Process(target=_work, args=(study, tmp_path, counts)) for _ in range(2)]
        for worker in workers:
            worker.start()
        made = [counts.get(timeout=240) for _ in workers]
        for worker in workers:
            worker.join()
        found = compare(study, tmp_path, execute=_refuse)
        assert {name: len(own["runs"]) for name, own in methods_of(found).items()} == {
            "adam": 3,
            "sign": 3,
        }
        assert {name: len(own["tuning"]["trials"]) for name, own in methods_of(found).items()} == {
            "adam": 3,
            "sign": 3,
        }
        assert sum(made) == 2 * 3 + 2 * 3  # trials and runs, none of them by both


def _work(study, path, counts):
    from tests.compare.conftest import Recorded

    runner = Recorded()
    compare(study, path, execute=runner)
    counts.put(len(runner.jobs))


def _refuse(job, heartbeat):
    raise AssertionError(f"a finished run is made again: {asdict(job)}")


class TestTuneTogether:
    def test_several_jobs_share_a_search(self, small_study, recorded, tmp_path):
        runner = recorded()
        study = small_study(methods=["acgd"], tuning={"trials": 6, "finalists": 1})
        found, config = tune_method(study, tmp_path, jobs=2, execute=runner)
        assert len(found.trials) == 6
        assert config.optimizer.lr == found.best["optimizer.lr"]
        assert len({json.dumps(trial["parameters"]) for trial in found.trials}) == 6


def test_a_run_has_a_file():
    run_id = RunId("a/b <c>", "x+y", 3, 0.316)
    assert str(run_id.file) == "runs/a-b-c/x+y/seed-3-lr-x0.316.json"
    assert str(run_id.pictures) == "pictures/a-b-c/x+y/seed-3-lr-x0.316"
