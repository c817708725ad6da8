"""One run: equal start, data and evaluation for all methods, three kinds of budgets, failures."""

import mmap
import time

import pytest
import torch

from saddlepoint.compare.execution import Job, PeakMemory, execute, run_in_subprocess
from saddlepoint.training import Evaluator, Trainer, resolve

SMALL = {
    "problem": {"name": "mixture8", "hidden": 4, "latent": 2},
    "batch_size": 8,
    "evaluation_samples": 160,
}


def job(points=2, metric="ema/mode_distance", **options):
    return Job(resolve({**SMALL, "steps": 6, **options}).model_dump(mode="json"), metric, points)


def without_clock(result):
    points = [
        {key: value for key, value in point.items() if key != "seconds"}
        for point in result["points"]
    ]
    kept = {
        key: value
        for key, value in result.items()
        if key not in ("seconds", "peak_memory", "points")
    }
    return {**kept, "points": points}


class TestFairness:
    def test_every_method_starts_from_the_same_networks_and_sees_the_same_batches(self):
        methods = [
            {"optimizer": "adam"},
            {"optimizer": "sign"},
            {"rule": "acgd"},
            {"rule": "extragradient"},
            {"rule": "newton"},
        ]
        trainings = [
            Trainer(resolve({**SMALL, "steps": 6, "seed": 3, **method})) for method in methods
        ]
        first = trainings[0]
        for other in trainings[1:]:
            for player, network in first.networks.items():
                for mine, theirs in zip(
                    network.parameters(), other.networks[player].parameters(), strict=True
                ):
                    assert torch.equal(mine, theirs)
            for ahead in range(3):
                assert torch.equal(first.batch(ahead).real, other.batch(ahead).real)
                assert torch.equal(first.batch(ahead).noise, other.batch(ahead).noise)

    def test_a_result_reproduces(self):
        assert without_clock(execute(job())) == without_clock(execute(job()))

    def test_evaluation_changes_nothing(self):
        often, once = execute(job(points=6)), execute(job(points=1))
        assert often["metrics"] == once["metrics"]
        assert [point["step"] for point in often["points"]] == [1, 2, 3, 4, 5, 6]

    def test_the_metrics_are_those_of_training(self):
        config = resolve({**SMALL, "steps": 6})
        training = Trainer(config)
        while training.progress < 1:
            training.train_step()
        straight = Evaluator(training).evaluate()
        result = execute(Job(config.model_dump(mode="json"), "ema/modes", 1, all_metrics=True))
        assert result["metrics"] == {
            name: value for name, value in straight.items() if name.startswith("ema/")
        }


class TestBudgets:
    def test_steps(self):
        result = execute(job())
        assert (result["status"], result["steps"]) == ("finished", 6)
        assert [point["progress"] for point in result["points"]] == [0.5, 1]

    def test_gradient_equivalents(self):
        plain = execute(job(steps=None, gradient_equivalents=24))
        double = execute(
            job(
                steps=None,
                gradient_equivalents=24,
                rule="extragradient",
                update_scheme="alternating",
            )
        )
        assert (plain["steps"], plain["gradient_equivalents"]) == (12, 24)  # two gradients a step
        assert (double["steps"], double["gradient_equivalents"]) == (6, 24)

    def test_products_count_twice(self):
        result = execute(job(rule="consensus"))
        # one closure, two gradients, two rows
        assert result["gradient_equivalents"] == pytest.approx(6 * (1 / 3 + 4 / 3 + 2 * 2))

    def test_seconds_are_processor_time_and_leave_out_evaluation(self, monkeypatch):
        monkeypatch.setattr(
            Evaluator,
            "evaluate_only",
            lambda self, names: time.sleep(0.3) or dict.fromkeys(names, 0.0),
        )
        began = time.perf_counter()
        result = execute(job(points=3, steps=None, seconds=0.05))
        assert time.perf_counter() - began > 0.9
        assert 0.05 <= result["seconds"] < 0.3


class TestEnds:
    def test_divergence_is_a_result(self):
        result = execute(
            job(
                optimizer={"name": "sgd", "lr": 1e30},
                problem={**SMALL["problem"], "activation": "relu"},
            )
        )
        assert (result["status"], result["metrics"]) == ("diverged", None)
        assert result["error"].startswith(
            'Step 1: Term "fake" of the loss of player "generator" is'
        )

    def test_a_failure_is_a_result_with_its_reason(self):
        result = execute(job(metric="ema/mode_distances"))
        assert result["status"] == "failed"
        assert result["error"].startswith(
            'UsageError: Problem mixture8 has no metric "ema/mode_distances" in this run.'
        )

    def test_a_process_that_is_killed_is_a_failed_run(self):
        result = run_in_subprocess(
            job(optimizer={"name": "tests.compare.deadly:Deadly", "lr": 0.1})
        )
        assert result["status"] == "failed"
        assert "killed by signal 9 (SIGKILL)" in result["error"]

    def test_a_run_apart_is_the_run_here(self):
        assert without_clock(run_in_subprocess(job())) == without_clock(execute(job()))

    def test_what_beat_raises_ends_the_process(self):
        began = time.perf_counter()

        def stop():
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_in_subprocess(job(steps=None, seconds=600), heartbeat=stop)
        assert time.perf_counter() - began < 60


def fresh(mebibytes: int) -> mmap.mmap:
    """Memory new from the kernel: what an allocator gives may have been resident, and freed, long
    before."""
    memory = mmap.mmap(-1, mebibytes * 2**20)
    for _ in range(mebibytes):
        memory.write(b"x" * 2**20)
    return memory


class TestMemory:
    def test_the_peak_between_start_and_stop(self):
        memory = PeakMemory("cpu")
        memory.start()
        held = fresh(64)
        memory.stop()
        if memory.most is None:
            pytest.skip("the kernel does not let a process reset its record of the peak")
        assert 60 * 2**20 < memory.most < 120 * 2**20
        held.close()
        first = memory.most
        fresh(256).close()  # not watched
        memory.start()
        memory.stop()
        assert memory.most == first

    def test_of_a_run(self):
        result = run_in_subprocess(job())
        assert result["peak_memory"] is None or result["peak_memory"] >= 0
