"""What is observed between the steps: when training stops, what is best, what happens at a NaN, and
that a resumed run has it all."""

import json

import pytest
import torch
from torch import nn

import saddlepoint as sp
from saddlepoint.problems import Mixture8
from saddlepoint.training import Evaluator, RunDirectory, Trainer, resolve, train
from saddlepoint.training.probes import take_probe
from tests.training.test_resume import same

SPOILT = (
    'All layers are finite; the first non-finite number is the term "fake" of the loss of the'
    " discriminator."
)


class Listener:
    """A watcher that remembers what it was told, and how the log looked then."""

    def __init__(self, path=None):
        self.path, self.sentences, self.logs, self.evaluations = path, [], [], []

    def update(self, training, records):
        pass

    def report(self, sentence):
        self.sentences.append(sentence)
        if self.path is not None:
            self.logs.append(
                [
                    json.loads(line)
                    for line in (self.path / "metrics.jsonl").read_text().splitlines()
                ]
            )

    def evaluating(self, done, total):
        self.evaluations.append((done, total))


def listened(config, path):
    """Train to the end; return training, listener and status, or the error in its place."""
    training, run, listener = Trainer(config), RunDirectory.create(config, path), Listener(path)
    try:
        return training, listener, train(training, run, listener)
    except sp.DivergenceError as error:
        return training, listener, error


def summary_of(path):
    return json.loads((path / "summary.json").read_text())


def stopping_after(calls):
    """An interrupt that comes when the loop asks for the (calls + 1)-th time."""
    count = iter(range(1000))
    return lambda: next(count) >= calls


def killed_after(calls):
    """The same as a sudden end, which saves nothing."""
    count = iter(range(1000))

    def interrupted():
        if next(count) >= calls:
            raise KeyboardInterrupt

    return interrupted


@pytest.fixture
def spoil(monkeypatch):
    """Make a term of the discriminator's loss NaN in the steps where ``when(training)`` holds."""

    def plant(when):
        original = Trainer._closure

        def closure(self):
            inner = original(self)

            def losses():
                terms = inner()
                if "discriminator" in terms and when(self):
                    terms["discriminator"]["fake"] = terms["discriminator"]["fake"] * float("nan")
                return terms

            return losses

        monkeypatch.setattr(Trainer, "_closure", closure)

    return plant


class TestPatience:
    RARE = dict.fromkeys(("sample_every", "checkpoint_every", "probe_every", "log_every"), 1000)

    @pytest.mark.parametrize(("patience", "last"), [(1, 12), (2, 16), (3, 24)])
    def test_training_stops_after_so_many_evaluations_without_a_better_one(
        self, harness, tmp_path, monkeypatch, patience, last
    ):
        scores = iter([3.0, 1.0, 2.0, 1.0, 0.5 if patience == 3 else 1.0, 9.0, 9.0, 9.0])
        if patience == 3:
            last = 32
        monkeypatch.setattr(Evaluator, "score", lambda self, metrics, by=None: next(scores))
        config = harness.small(steps=60, patience=patience)
        training, run, status = harness.run_to_the_end(config, tmp_path / "run")
        assert (status, training.step) == ("stopped early", last)
        assert summary_of(tmp_path / "run")["status"] == "stopped early"
        assert training.best["step"] == last - 4 * patience
        assert run.load_checkpoint(config, "best")["step"] == last - 4 * patience

    def test_the_last_step_is_recorded_as_the_end_of_the_budget_is(
        self, harness, tmp_path, monkeypatch
    ):
        scores = iter([1.0, 2.0])
        monkeypatch.setattr(Evaluator, "score", lambda self, metrics, by=None: next(scores))
        training, run, status = harness.run_to_the_end(
            harness.small(steps=60, patience=1, **self.RARE), tmp_path / "run"
        )
        assert (status, training.step) == ("stopped early", 8)
        last = harness.lines(tmp_path / "run")[-1]
        assert last["step"] == 8
        assert {"metrics", "probe"} <= set(last)
        assert run.load_checkpoint(training.config)["step"] == 8
        assert (tmp_path / "run/samples/step-00000008.png").is_file()

    def test_a_resumed_run_stops_at_the_same_step(self, harness, tmp_path, monkeypatch):
        monkeypatch.setattr(
            Evaluator, "score", lambda self, metrics, by=None: float(self.trainer.step)
        )
        config = harness.small(steps=60, patience=3)
        straight, _, _ = harness.run_to_the_end(config, tmp_path / "straight")
        harness.run_to_the_end(config, tmp_path / "broken", stopping_after(10))
        resumed, _, status = harness.resume(tmp_path / "broken")
        assert (status, resumed.step) == ("stopped early", straight.step) == ("stopped early", 16)
        same(straight.state_dict(), resumed.state_dict())
        assert harness.lines(tmp_path / "straight") == harness.lines(tmp_path / "broken")

    def test_patience_of_the_whole_budget_ends_with_the_budget(
        self, harness, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(
            Evaluator, "score", lambda self, metrics, by=None: float(self.trainer.step)
        )
        assert harness.run_to_the_end(harness.small(patience=2), tmp_path / "run")[2] == "finished"


class TestBestBy:
    @pytest.mark.parametrize(
        ("name", "values", "best"),
        [
            ("ema/modes", [1.0, 5.0, 4.0], 8),
            ("modes", [1.0, 4.0, 5.0], 12),
            ("ema/reverse_kl", [0.5, 0.1, 0.9], 8),
            ("reverse_kl", [1, 2, 3], 4),
        ],
    )
    def test_the_metric_decides_in_its_direction(
        self, harness, tmp_path, monkeypatch, name, values, best
    ):
        found = iter(values)
        measure = Evaluator.evaluate
        monkeypatch.setattr(
            Evaluator,
            "evaluate",
            lambda self, **options: measure(self, **options) | {name: float(next(found))},
        )
        config = harness.small(best_by=name)
        training, run, _ = harness.run_to_the_end(config, tmp_path / "run")
        sign = 1 if name.endswith("reverse_kl") else -1
        assert training.best == {"score": sign * float(values[best // 4 - 1]), "step": best}
        assert run.load_checkpoint(config, "best")["step"] == best
        assert summary_of(tmp_path / "run")["best"] == training.best

    @pytest.mark.parametrize(
        ("problem", "name", "text"),
        [
            (
                "mixture8",
                "ema/mods",
                (
                    'Configuration: cannot select the best checkpoint by best_by="ema/mods": it is'
                    ' no metric of mixture8 with a direction. Did you mean "ema/modes"?'
                ),
            ),
            (
                "mixture8",
                "ema/recall[digit-cnn]",
                'best_by="ema/recall[digit-cnn]": it is no metric of mixture8 with a direction.',
            ),
            (
                "digits",
                "ema/gap[digit-cnn]",
                ('best_by="ema/gap[digit-cnn]": it is no metric of digits with a direction.'),
            ),
        ],
    )
    def test_unknown_and_undirected_metrics_are_refused_when_the_configuration_is_read(
        self, problem, name, text
    ):
        with pytest.raises(sp.UsageError) as caught:
            resolve({"problem": problem, "best_by": name})
        assert text in str(caught.value)

    def test_an_average_that_nobody_keeps_is_refused_before_training(self, harness):
        text = (
            'best_by="average/modes", but neither rule gradient nor optimizer adam keeps an average'
        )
        with pytest.raises(sp.UsageError, match=text):
            Trainer(harness.small(best_by="average/modes"))
        Trainer(harness.small(best_by="average/modes", optimizer="subgradient"))


class TestDivergence:
    @pytest.fixture
    def failed(self, harness, tmp_path, spoil):
        spoil(lambda training: training.step == 6)
        training, listener, error = listened(harness.small(), tmp_path / "run")
        assert isinstance(error, sp.DivergenceError)
        return training, listener, error, tmp_path / "run"

    def test_the_log_says_where_the_first_bad_number_arose(self, harness, failed):
        _, _, error, path = failed
        last = harness.lines(path)[-1]
        assert {key: last[key] for key in ("step", "divergence")} == {
            "step": 6,
            "divergence": {
                "step": 7,
                "message": str(error),
                "place": "loss",
                "player": "discriminator",
                "tensor": 'the term "fake" of the loss',
                "share": 1.0,
                "largest": None,
                "description": SPOILT,
            },
        }
        assert last["trace"]["steps"] == [5, 6], "what led to it"

    def test_the_summary_s_first_finding_is_it(self, failed):
        training, _, _, path = failed
        summary = summary_of(path)
        finding, *_ = summary["findings"]
        losses = training.trace.state_dict()[-1][1]["discriminator"]
        first = json.loads((path / "metrics.jsonl").read_text().splitlines()[1])["trace"]["losses"][
            "discriminator"
        ][0]
        assert (finding["name"], finding["player"], finding["level"], finding["since"]) == (
            "divergence",
            "discriminator",
            "alarm",
            7,
        )
        assert (
            finding["message"]
            == f"Training diverged in step 7. {SPOILT} Before, the discriminator's loss went"
            f" from {first:.3g} to {losses:.3g}. Try a smaller learning rate, a penalty on the"
            " discriminator (problem.r1), or on_divergence=roll_back."
        )
        assert (summary["status"], summary["steps"], summary["rollbacks"]) == ("diverged", 6, 0)

    def test_a_resumed_run_diverges_again_and_has_one_line_of_it(self, harness, failed):
        _, _, error, path = failed
        before, findings = harness.lines(path), summary_of(path)["findings"]
        with pytest.raises(sp.DivergenceError, match='Term "fake"') as again:
            harness.resume(path)
        assert str(again.value) == str(error)
        assert harness.lines(path) == before
        assert summary_of(path)["findings"] == findings

    def test_spoilt_data_is_named(self, harness, tmp_path, monkeypatch):
        real = Mixture8.real
        monkeypatch.setattr(
            Mixture8,
            "real",
            lambda self, step, size, seed: real(self, step, size, seed) / (0 if step == 5 else 1),
        )
        config = harness.small(evaluate_every=100, probe_every=100)
        _, _, error = listened(config, tmp_path / "run")
        assert isinstance(error, sp.DivergenceError)
        finding, *_ = summary_of(tmp_path / "run")["findings"]
        assert (
            "Training diverged in step 6. The first non-finite tensor is in the data: the real"
            " samples"
            " (100% of its entries" in finding["message"]
        )
        assert finding["message"].endswith("The cause is in the data, not in the networks.")


class TestRollBack:
    def test_goes_back_with_half_the_rates_and_reports(self, harness, tmp_path, spoil):
        spoil(lambda training: training.step == 6 and training.rollbacks == 0)
        training, listener, status = listened(
            harness.small(on_divergence="roll_back"), tmp_path / "run"
        )
        assert (status, training.step, training.rollbacks, training.lr_factor) == (
            "finished",
            12,
            1,
            0.5,
        )
        assert (
            f"Step 7 diverged; rolled back to step 4 with learning rates × 0.5. {SPOILT}"
            in listener.sentences
        )
        rates = {
            player: [group["lr"] for group in inner.param_groups]
            for player, inner in training.optimizer.optimizers.items()
        }
        options = {player: training.config.optimizer.options_for(player)["lr"] for player in rates}
        assert rates == {player: [rate / 2] for player, rate in options.items()}
        assert summary_of(tmp_path / "run")["rollbacks"] == 1
        (finding,) = [
            f
            for f in summary_of(tmp_path / "run")["findings"]
            if f["name"] in ("rolled-back", "divergence")
        ]
        assert (finding["name"], finding["level"], finding["since"]) == (
            "rolled-back",
            "warning",
            7,
        )
        assert (
            finding["message"]
            == "Training diverged 1 time, last in step 7, and continued with learning rates × 0.5."
            f" {SPOILT} Try these learning rates from the start."
        )

    @pytest.mark.parametrize("failing", [4, 5, 7])
    def test_the_log_ends_with_the_roll_back(self, harness, tmp_path, spoil, failing):
        """Also where the step after the checkpoint itself diverged, whose line has the checkpoint's
        step."""
        spoil(lambda training: training.step == failing and training.rollbacks == 0)
        _, listener, _ = listened(
            harness.small(on_divergence="roll_back", log_every=1), tmp_path / "run"
        )
        (log,) = [
            log
            for sentence, log in zip(listener.sentences, listener.logs, strict=True)
            if "diverged; rolled back to" in sentence
        ]
        assert [line["step"] for line in log] == [0, 1, 2, 3, 4, 4]
        assert not any("divergence" in line for line in log)
        last = log[-1]
        assert {key: last["rollback"][key] for key in ("number", "failed_step", "lr_factor")} == {
            "number": 1,
            "failed_step": failing + 1,
            "lr_factor": 0.5,
        }
        assert last["rollback"]["divergence"]["description"] == SPOILT
        assert "trace" not in last
        steps = [
            step
            for line in harness.lines(tmp_path / "run")
            for step in line.get("trace", {"steps": []})["steps"]
        ]
        assert steps == list(range(1, 13)), "every point once"

    def test_the_trajectory_is_that_of_half_the_rates_from_the_checkpoint(
        self, harness, tmp_path, spoil
    ):
        config = harness.small(on_divergence="roll_back")
        half = Trainer(config)
        for _ in range(4):
            half.train_step()
        half.lr_factor = 0.5
        for _ in range(8):
            half.train_step()
        spoil(lambda training: training.step == 6 and training.rollbacks == 0)
        training, _, _ = listened(config, tmp_path / "run")
        same(half.state_dict()["networks"], training.state_dict()["networks"])

    @pytest.mark.parametrize("most", [0, 1, 3])
    def test_at_most_so_many_times_then_it_raises(self, harness, tmp_path, spoil, most):
        spoil(lambda training: training.step == 6)
        training, listener, error = listened(
            harness.small(on_divergence="roll_back", max_rollbacks=most), tmp_path / "run"
        )
        assert isinstance(error, sp.DivergenceError)
        assert (training.rollbacks, training.lr_factor) == (most, 0.5**most)
        lines = harness.lines(tmp_path / "run")
        assert [line["rollback"]["number"] for line in lines if "rollback" in line] == list(
            range(1, most + 1)
        )
        assert [line["step"] for line in lines if "divergence" in line] == [6]
        assert (
            sum("diverged; rolled back to" in sentence for sentence in listener.sentences) == most
        )
        assert (
            summary_of(tmp_path / "run")["status"],
            summary_of(tmp_path / "run")["rollbacks"],
        ) == ("diverged", most)

    @pytest.mark.parametrize("stop", range(0, 15, 2))
    def test_resumed_it_equals_the_straight_run(self, harness, tmp_path, spoil, stop):
        spoil(lambda training: (training.step, training.rollbacks) in [(6, 0), (9, 1)])
        config = harness.small(on_divergence="roll_back", lr_schedule="linear")
        straight, _, status = harness.run_to_the_end(config, tmp_path / "straight")
        assert (status, straight.rollbacks) == ("finished", 2)
        assert (
            harness.run_to_the_end(config, tmp_path / "broken", stopping_after(stop))[2]
            == "interrupted"
        )
        resumed, _, status = harness.resume(tmp_path / "broken")
        assert status == "finished"
        same(straight.state_dict(), resumed.state_dict())
        assert harness.lines(tmp_path / "straight") == harness.lines(tmp_path / "broken")
        assert (
            summary_of(tmp_path / "straight")["findings"]
            == summary_of(tmp_path / "broken")["findings"]
        )

    def test_the_checkpoint_written_at_once_has_the_smaller_rate(self, harness, tmp_path, spoil):
        spoil(lambda training: training.step == 6 and training.rollbacks == 0)
        config = harness.small(on_divergence="roll_back")
        _, run, _ = harness.run_to_the_end(config, tmp_path / "run", stopping_after(7))
        state = run.load_checkpoint(config)
        assert (state["step"], state["rollbacks"], state["lr_factor"]) == (4, 1, 0.5)


class TestResuming:
    @pytest.mark.parametrize("end", [stopping_after, killed_after], ids=["interrupted", "killed"])
    @pytest.mark.parametrize("every", [1, 3, 5])
    def test_the_fine_record_survives_an_interruption_at_every_step(
        self, harness, tmp_path, every, end
    ):
        """With lines of the log, checkpoints and probes at different steps, so that there are
        always points which nobody took yet."""
        cadence = {
            "log_every": 5,
            "probe_every": 4,
            "checkpoint_every": 3,
            "evaluate_every": 6,
            "sample_every": 100,
            "trace_every": every,
        }
        config = harness.small(steps=13, evaluation_samples=160, **cadence)
        straight, _, _ = harness.run_to_the_end(config, tmp_path / "straight")
        lines = harness.lines(tmp_path / "straight")
        traced = [step for line in lines for step in line.get("trace", {"steps": []})["steps"]]
        assert traced == sorted({*range(every, 13, every), 13})
        cosines = {
            line["step"]: line["probe"]["update_cosine"] for line in lines if "probe" in line
        }
        assert [step for step, cosine in cosines.items() if cosine is not None] == [4, 8, 12]
        for stop in range(13):
            path = tmp_path / f"broken-{stop}"
            try:
                harness.run_to_the_end(config, path, end(stop))
            except KeyboardInterrupt:
                assert end is killed_after
            resumed, _, status = harness.resume(path)
            assert status == "finished"
            assert harness.lines(path) == lines, stop
            same(straight.state_dict(), resumed.state_dict(), f"stop {stop}")

    def test_the_cosine_is_that_of_the_last_two_updates(self, harness, tmp_path):
        config = harness.small(steps=8)
        training, points = Trainer(config), []
        for step in range(1, 9):
            training.train_step()
            if step >= 6:
                points.append(
                    {
                        player: nn.utils.parameters_to_vector(n.parameters()).detach()
                        for player, n in training.networks.items()
                    }
                )
        harness.run_to_the_end(config, tmp_path / "run")
        logged = harness.lines(tmp_path / "run")[-1]["probe"]["update_cosine"]
        for player in ("discriminator", "generator"):
            first, second = (
                points[1][player] - points[0][player],
                points[2][player] - points[1][player],
            )
            expected = torch.nn.functional.cosine_similarity(first.double(), second.double(), dim=0)
            assert logged[player] == pytest.approx(float(expected), rel=1e-5)

    def test_findings_are_those_of_the_straight_run_and_said_once(self, harness, tmp_path):
        config = harness.small(steps=40)
        _, listener, _ = listened(config, tmp_path / "straight")
        findings = summary_of(tmp_path / "straight")["findings"]
        assert any(finding["name"] == "mode-loss" for finding in findings)
        assert listener.sentences
        harness.run_to_the_end(config, tmp_path / "broken", stopping_after(30))
        run, again = RunDirectory.open(tmp_path / "broken"), Listener()
        training = Trainer(config)
        training.load_state_dict(run.load_checkpoint(config))
        run.truncate_log(training.step)
        train(training, run, again)
        assert summary_of(tmp_path / "broken")["findings"] == findings
        assert not any("mode collapse" in sentence for sentence in again.sentences), (
            "it was said before the interruption"
        )


class TestTime:
    def test_what_observing_cost_is_in_the_summary(self, harness, tmp_path):
        training, _, _ = harness.run_to_the_end(harness.small(), tmp_path / "run")
        summary = summary_of(tmp_path / "run")
        assert summary["seconds_here"] == summary["seconds"] == training.seconds
        assert min(summary["evaluating_seconds"], summary["probing_seconds"]) > 0
        assert (
            summary["observing_seconds"]
            > summary["evaluating_seconds"] + summary["probing_seconds"]
        )

    def test_after_a_resume_it_is_that_of_the_second_part(self, harness, tmp_path):
        harness.run_to_the_end(harness.small(), tmp_path / "run", stopping_after(9))
        before = summary_of(tmp_path / "run")["seconds"]
        harness.resume(tmp_path / "run")
        summary = summary_of(tmp_path / "run")
        assert summary["seconds_here"] == pytest.approx(summary["seconds"] - before)

    def test_evaluating_is_told_metric_by_metric(self, harness, tmp_path):
        _, listener, _ = listened(harness.small(steps=4), tmp_path / "run")
        assert listener.evaluations[0] == (0, 10)
        assert listener.evaluations[-1] == (10, 10)
        assert [done for done, _ in listener.evaluations] == sorted(
            done for done, _ in listener.evaluations
        )


class TestProbing:
    def probed_and_not(self, config):
        probed, plain = Trainer(config), Trainer(config)
        for _ in range(3):
            take_probe(probed)
            assert [r.losses for r in probed.train_step()] == [r.losses for r in plain.train_step()]
        take_probe(probed)
        same(plain.state_dict(), probed.state_dict())

    def test_batch_normalisation_is_left_alone(self):
        problem = {"name": "stacked-digits", "latent": 4, "size": 0.125}
        config = resolve({"problem": problem, "batch_size": 4, "steps": 3})
        training = Trainer(config)
        assert any(
            isinstance(module, nn.BatchNorm2d)
            for module in training.networks["discriminator"].modules()
        )
        self.probed_and_not(config)

    def test_dropout_is_left_alone(self, harness, monkeypatch):
        networks = Mixture8.networks

        def with_dropout(self, seed):
            return {
                player: nn.Sequential(network, nn.Dropout(0.5))
                for player, network in networks(self, seed).items()
            }

        monkeypatch.setattr(Mixture8, "networks", with_dropout)
        self.probed_and_not(harness.small())
