"""Probes in runs: on by default, without a trace in the trajectory, and alarms that come when they
must and not otherwise."""

import json

import pytest
import torch
from torch import nn

from saddlepoint.diagnostics import diagnose
from saddlepoint.training import Trainer


def test_probes_are_logged_and_leave_the_trajectory_alone(harness, tmp_path):
    often, _, _ = harness.run_to_the_end(harness.small(probe_every=1), tmp_path / "often")
    rarely, _, _ = harness.run_to_the_end(harness.small(probe_every=12), tmp_path / "rarely")
    for player in ("discriminator", "generator"):
        pairs = zip(
            often.networks[player].parameters(), rarely.networks[player].parameters(), strict=True
        )
        assert all(torch.equal(a, b) for a, b in pairs)
    lines = harness.lines(tmp_path / "often")
    assert [line["step"] for line in lines if "probe" in line] == list(range(13))
    probe = lines[0]["probe"]
    measured = {
        "gradients",
        "saturated",
        "accuracy",
        "membership_auc",
        "antisymmetric",
        "update_cosine",
        "diversity",
        "unmeasured",
    }
    assert all(set(line["probe"]) == measured for line in lines)
    assert set(probe["gradients"]) == {"norms", "layers", "zeros", "signal_to_noise"}
    assert set(probe["gradients"]["layers"]["generator"]) == {
        name for name, _ in often.networks["generator"].named_parameters()
    }
    assert set(probe["saturated"]) == {"discriminator", "generator"}
    assert probe["unmeasured"] == {
        "membership_auc": "the data is not a finite set",
        "update_cosine": "the last two updates were not kept",
    }


def test_a_healthy_run_has_no_findings(harness, tmp_path):
    # modes that a small generator covers at once
    wide = {"name": "mixture8", "hidden": 32, "radius": 0.5, "sigma": 0.5}
    harness.run_to_the_end(
        harness.small(problem=wide, rule="gradient", steps=200, batch_size=32, probe_every=10),
        tmp_path / "run",
    )
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["findings"] == []


class Watcher:
    def __init__(self):
        self.sentences = []

    def update(self, training, records):
        pass

    def report(self, sentence):
        self.sentences.append(sentence)

    def evaluating(self, done, total):
        pass


@pytest.fixture
def saturating():
    """A discriminator that wins after the fifth step, whatever the generator does."""

    def saturate(training):
        last = [
            module
            for module in training.networks["discriminator"].modules()
            if isinstance(module, nn.Linear)
        ][-1]
        with torch.no_grad():
            last.weight.zero_()
            last.bias.fill_(-25.0)

    return saturate


def test_a_saturated_discriminator_is_said_once_and_kept(
    harness, tmp_path, saturating, monkeypatch
):
    from saddlepoint.training import RunDirectory, train

    advance = Trainer.train_step

    def advance_and_saturate(self):
        records = advance(self)
        if self.step == 5:
            saturating(self)
        return records

    monkeypatch.setattr(Trainer, "train_step", advance_and_saturate)
    config = harness.small(
        problem={"name": "mixture8", "hidden": 8, "latent": 2, "loss": "minimax"},
        optimizer={"name": "sgd"},
        probe_every=2,
    )
    training, watcher = Trainer(config), Watcher()
    train(training, RunDirectory.create(config, tmp_path / "run"), watcher)
    (sentence,) = [s for s in watcher.sentences if "generator's" in s[:20]]
    assert "the discriminator has saturated, 100% of its outputs" in sentence
    (kept,) = [
        f
        for f in json.loads((tmp_path / "run" / "summary.json").read_text())["findings"]
        if f["name"] == "vanishing-gradient"
    ]
    assert (kept["player"], kept["level"], kept["since"]) == ("generator", "alarm", 6)
    again = diagnose(RunDirectory.open(tmp_path / "run").history(training.problem))
    assert kept["message"] in [finding.message for finding in again], "the log alone says it too"


def binary(rule, **options):
    return {
        "problem": {"name": "digits-binary", "hidden": 8, "generator_hidden": 4},
        "rule": rule,
        "evaluation_samples": 200,
        "batch_size": 8,
        **options,
    }


def test_an_output_without_a_gradient_is_named_only_where_the_rule_needs_one(harness, tmp_path):
    from saddlepoint.training import resolve

    for rule, expected in (("gradient", ["zero-gradient"]), ("per-player", [])):
        path = tmp_path / rule
        harness.run_to_the_end(resolve(binary(rule, steps=2)), path)
        findings = json.loads((path / "summary.json").read_text())["findings"]
        assert [
            finding["name"] for finding in findings if finding["player"] == "generator"
        ] == expected
