"""Results of a run, what may be compared with what, and the best of its evaluations."""

import json
from dataclasses import replace

import pytest

import saddlepoint as sp
from saddlepoint.metrics import MetricResult
from saddlepoint.training import Evaluator, RunDirectory
from saddlepoint.training.evaluator import (
    best_evaluation,
    differences,
    evaluate_metrics,
    read_results,
)
from tests.training.conftest import run_to_the_end, small

WIDE = {"name": "mixture8", "hidden": 8, "latent": 2, "radius": 0.5, "sigma": 0.08}
"""Modes that even a small generator meets, so that the metrics vary from sample to sample."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_to_the_end(
        small(problem=WIDE, rule={"name": "averaged", "rule": "gradient"}),
        tmp_path_factory.mktemp("runs") / "run",
    )


@pytest.fixture(scope="module")
def results(run):
    return evaluate_metrics(run[0], replicates=40)


def flat(results):
    return [result for own in results.values() for result in own.values()]


class TestCards:
    def test_values_are_what_training_measures(self, run, results):
        found = {
            prefix + name: result.value
            for prefix, own in results.items()
            for name, result in own.items()
        }
        assert found == Evaluator(run[0]).evaluate()
        assert list(results) == ["", "ema/", "average/"]
        assert [{result.weights for result in own.values()} for own in results.values()] == [
            {"raw"},
            {"ema"},
            {"average"},
        ]

    def test_intervals_contain_the_value_and_vary(self, results):
        for result in flat(results):
            low, high = result.interval
            assert low <= result.value <= high, result
            assert result.replicates == 40
        low, high = results["ema/"]["quality"].interval
        n, share = 160, results["ema/"]["quality"].value
        assert high - low == pytest.approx(2 * 1.96 * (share * (1 - share) / n) ** 0.5, rel=0.5), (
            "that of a share of 160 samples"
        )

    def test_they_are_functions_of_the_seed(self, run, results):
        assert evaluate_metrics(run[0], replicates=40) == results
        assert evaluate_metrics(run[0], seed=0, samples=160, replicates=40) == results
        other = evaluate_metrics(run[0], seed=1, replicates=40)
        assert {result.seed for result in flat(other)} == {1}
        assert other["ema/"]["quality"].interval != results["ema/"]["quality"].interval

    def test_without_replicates_there_are_no_intervals(self, run):
        assert {
            (result.interval, result.replicates)
            for result in flat(evaluate_metrics(run[0], replicates=0))
        } == {(None, 0)}

    def test_few_replicates_are_refused(self, run):
        with pytest.raises(
            sp.UsageError,
            match=r"at least 20 replicates and a level between 0 and 1, got 7 and 0\.95",
        ):
            evaluate_metrics(run[0], replicates=7)

    def test_progress_counts_the_cards(self, run):
        told = []
        evaluate_metrics(
            run[0], replicates=20, progress=lambda done, total: told.append((done, total))
        )
        assert told == [(done, 15) for done in range(15)]

    def test_making_them_changes_nothing(self, harness, tmp_path):
        plain, _, _ = harness.run_to_the_end(harness.small(steps=4), tmp_path / "plain")
        evaluated, _, _ = harness.run_to_the_end(harness.small(steps=4), tmp_path / "evaluated")
        evaluate_metrics(evaluated, replicates=20)
        assert [record.losses for record in plain.train_step()] == [
            record.losses for record in evaluated.train_step()
        ]


class TestDifferences:
    def test_with_themselves(self, results):
        found = differences(results, flat(results))
        assert [(value, overlap) for _, value, overlap in found] == [(0.0, True)] * 15
        assert [name for name, _, _ in found][5] == "ema/modes"

    def test_signs_and_gaps(self, results):
        ours = results["ema/"]["quality"]
        theirs = replace(ours, value=ours.value - 2, interval=(ours.value - 3, ours.value - 1.5))
        assert differences(results, [theirs]) == [("ema/quality", pytest.approx(2.0), False)]
        assert differences(results, [replace(theirs, interval=None)])[0][2] is None

    @pytest.mark.parametrize(
        ("options", "field"),
        [
            ({"samples": 200}, r"generated \(160 and 200\)"),
            ({"seed": 1}, r"seed \(0 and 1\)"),
            ({"replicates": 0}, r"replicates \(40 and 0\)"),
        ],
    )
    def test_other_conditions_are_refused_by_name(self, run, results, options, field):
        others = flat(evaluate_metrics(run[0], **{"replicates": 40, **options}))
        with pytest.raises(
            sp.UsageError,
            match=(
                rf"cannot be compared: they differ in {field}\. Evaluate both under the same"
                r" conditions"
            ),
        ):
            differences(results, others)

    def test_another_extractor_is_refused_by_name(self, results):
        others = [replace(result, extractor_hash="0123") for result in flat(results)]
        with pytest.raises(sp.UsageError, match=r"they differ in extractor_hash \('' and '0123'\)"):
            differences(results, others)

    def test_only_what_both_have_is_compared(self, results):
        first, *_ = flat(results)
        assert [name for name, _, _ in differences(results, [first])] == ["modes"]
        with pytest.raises(
            sp.UsageError,
            match="The two evaluations have no metric in common; they belong to different problems",
        ):
            differences(results, [replace(first, metric="other")])


class TestReading:
    def test_back_again(self, results, tmp_path):
        path = tmp_path / "evaluation.json"
        path.write_text(json.dumps({"results": [result.to_dict() for result in flat(results)]}))
        assert read_results(path) == flat(results)

    @pytest.mark.parametrize(
        ("content", "kind"),
        [
            (None, "FileNotFoundError"),
            (b"{", "JSONDecodeError"),
            (b"{}", "KeyError"),
            (b"[]", "TypeError"),
            (b'{"results": 3}', "TypeError"),
            (b"\xff\xfe", "UnicodeDecodeError"),
            (b'{"results": [3]}', "TypeError"),
        ],
    )
    def test_no_cards(self, tmp_path, content, kind):
        path = tmp_path / "evaluation.json"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(sp.UsageError) as caught:
            read_results(path)
        assert (
            str(caught.value)
            == f"{path} holds no results ({kind}). Give the evaluation.json that `saddlepoint"
            " evaluate` wrote."
        )

    def test_results_of_another_version(self, results, tmp_path):
        old = flat(results)[0].to_dict()
        del old["seed"]
        path = tmp_path / "evaluation.json"
        path.write_text(json.dumps({"results": [old]}))
        with pytest.raises(
            sp.UsageError, match=r"This is not the result of a metric \(missing: seed\)"
        ):
            read_results(path)
        assert isinstance(MetricResult.from_dict({**old, "seed": 0}), MetricResult)


class TestBestEvaluation:
    @pytest.fixture
    def logged(self, tmp_path):
        run = RunDirectory.create(small(), tmp_path / "run")
        values = {4: (2.0, 0.5, 0.9), 8: (6.0, 0.1, 0.4), 12: (5.0, 0.9, 0.3)}
        run.log({"step": 0, "probe": {}})
        for step, (modes, quality, kl) in values.items():
            own = {"modes": modes, "quality": quality, "reverse_kl": kl}
            run.log(
                {
                    "step": step,
                    "metrics": {**own, **{f"ema/{name}": value for name, value in own.items()}},
                }
            )
        return run

    @pytest.mark.parametrize(
        ("metric", "step", "values"),
        [
            ("modes", 8, [2.0, 6.0, 5.0]),
            ("ema/quality", 12, [0.5, 0.1, 0.9]),
            ("ema/reverse_kl", 12, [0.9, 0.4, 0.3]),
        ],
    )
    def test_by_a_metric(self, logged, metric, step, values):
        found = best_evaluation(logged, metric)
        assert (found.metric, found.step, found.checkpoint) == (metric, step, None)
        assert found.evaluations == list(zip((4, 8, 12), values, strict=True))

    def test_by_the_problem_s_score(self, logged):
        found = best_evaluation(logged)
        assert (found.metric, found.step) == ("the problem's score (smaller is better)", 8)
        assert found.evaluations == [(4, -2.5), (8, -6.1), (12, -5.9)]

    def test_by_what_training_chose_by(self, logged):
        logged.write_config(small(best_by="ema/quality"))
        assert (best_evaluation(logged).metric, best_evaluation(logged).step) == ("ema/quality", 12)
        assert best_evaluation(logged, "modes").step == 8

    def test_the_first_of_equals(self, logged):
        logged.log({"step": 16, "metrics": {"modes": 6.0}})
        assert best_evaluation(logged, "modes").step == 8

    def test_mistakes(self, logged, tmp_path):
        with pytest.raises(
            sp.UsageError,
            match=(
                r'Cannot select the best checkpoint by "mods": it was not measured\. Did you mean'
                r' "modes"\?'
            ),
        ):
            best_evaluation(logged, "mods")
        empty = RunDirectory.create(small(), tmp_path / "empty")
        with pytest.raises(
            sp.UsageError,
            match=(
                r"has no evaluation yet\. Train it further, or evaluate more often with"
                r" evaluate_every"
            ),
        ):
            best_evaluation(empty)

    def test_its_checkpoint_is_named_where_it_is_kept(self, harness, tmp_path, monkeypatch):
        scores = iter([2.0, 1.0, 3.0])
        monkeypatch.setattr(Evaluator, "score", lambda self, metrics, by=None: next(scores))
        _, run, _ = harness.run_to_the_end(harness.small(keep_checkpoints=1), tmp_path / "run")
        monkeypatch.setattr(
            Evaluator,
            "score",
            lambda self, metrics, by=None: {4: 2.0, 8: 1.0, 12: 3.0}[next(steps)],
        )
        steps = iter([4, 8, 12])
        found = best_evaluation(run)
        assert (found.step, found.checkpoint) == (8, tmp_path / "run/checkpoints/best.pt")
        config = run.read_config()
        assert run.checkpoint_of(config, 12) == tmp_path / "run/checkpoints/step-00000012.pt"
        assert run.checkpoint_of(config, 4) is None
        (tmp_path / "run/checkpoints/best.pt").write_bytes(b"torn")
        with pytest.raises(sp.UsageError, match=r"best\.pt is truncated or damaged"):
            run.checkpoint_of(config, 4)
