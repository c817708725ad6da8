"""NaN and infinity, planted in each place where they can arise: caught before anything moves,
named, and the policy applied."""

import json
import math

import pytest
import torch
import yaml

from saddlepoint.cli import main
from saddlepoint.problems.base import Batch
from saddlepoint.rules import CompetitiveGradient
from saddlepoint.training import RunDirectory, Trainer
from tests.training.conftest import small

STEP = 6  # so many steps are taken before it


def due(training):
    return training.step == STEP and training.rollbacks == 0


def in_data(monkeypatch, bad):
    batch = Trainer.batch

    def spoilt(self, ahead=0):
        found = batch(self, ahead)
        return Batch(found.real * bad, found.noise) if due(self) else found

    monkeypatch.setattr(Trainer, "batch", spoilt)


def in_parameters(monkeypatch, bad):
    advance = Trainer.train_step

    def spoilt(self):
        if due(self):
            with torch.no_grad():
                next(self.networks["generator"].parameters())[0] = bad
        return advance(self)

    monkeypatch.setattr(Trainer, "train_step", spoilt)


def in_closure(change):
    def plant(monkeypatch, bad):
        closure = Trainer._closure

        def spoilt(self):
            inner = closure(self)

            def losses():
                terms = inner()
                if due(self) and "discriminator" in terms:
                    terms["discriminator"]["fake"] = change(
                        terms["discriminator"]["fake"], self.networks["discriminator"], bad
                    )
                return terms

            return losses

        monkeypatch.setattr(Trainer, "_closure", spoilt)

    return plant


def infinite_slope(loss, network, bad):
    """Add a root at its zero: nothing to the value, infinity to the gradient, or NaN where 0 · ∞
    arises."""
    parameter = next(network.parameters())
    return loss + (parameter - parameter.detach()).sum().sqrt() * (0.0 if math.isnan(bad) else 1.0)


def in_solver(monkeypatch, bad):
    present = {}
    advance, direction = Trainer.train_step, CompetitiveGradient.direction

    def noted(self):
        present["training"] = self
        return advance(self)

    monkeypatch.setattr(Trainer, "train_step", noted)
    monkeypatch.setattr(
        CompetitiveGradient,
        "direction",
        lambda self, step: direction(self, step) * (bad if due(present["training"]) else 1.0),
    )


PLACES = {
    "data": (
        in_data,
        (
            "The first non-finite tensor is in the data: the real samples (100% of its entries"
            " are not"
            " finite)."
        ),
    ),
    "parameter": (in_parameters, "The first non-finite tensor is a parameter: "),
    "loss": (
        in_closure(lambda loss, _, bad: loss * bad),
        'All layers are finite; the first non-finite number is the term "fake" of the loss of the',
    ),
    "gradient": (
        in_closure(infinite_slope),
        "The losses are finite; the first non-finite tensor is a gradient: at ",
    ),
    "update": (in_solver, "Losses and gradients are finite (up to "),
}


@pytest.fixture
def trained(tmp_path, monkeypatch, capsys):
    def train(**options):
        (tmp_path / "config.yaml").write_text(
            yaml.safe_dump(small(rule="cgd", **options).model_dump(mode="json"))
        )
        with pytest.raises(SystemExit) as caught:
            main(
                ["train", "--config", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "run")]
            )
        out, err = capsys.readouterr()
        return (
            caught.value.code or 0,
            out,
            err,
            json.loads((tmp_path / "run/summary.json").read_text()),
        )

    return train


@pytest.mark.filterwarnings("ignore::saddlepoint.errors.SolverWarning")
@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=str)
@pytest.mark.parametrize("place", PLACES)
class TestWhereverItArises:
    def test_training_stops_with_the_last_finite_state(
        self, trained, monkeypatch, tmp_path, place, bad
    ):
        plant, sentence = PLACES[place]
        plant(monkeypatch, bad)
        code, _, err, summary = trained(on_divergence="stop")
        assert code == 3
        assert err.startswith(f"Error: Diverged in step {STEP + 1}: ")
        finding, *_ = summary["findings"]
        assert (summary["status"], finding["name"], finding["since"]) == (
            "diverged",
            "divergence",
            STEP + 1,
        )
        assert sentence in finding["message"]
        run = RunDirectory.open(tmp_path / "run")
        assert run.read_log()[-1]["divergence"]["place"] == place
        training = Trainer(run.read_config())
        training.load_state_dict(run.load_checkpoint(training.config))
        assert training.is_finite()
        assert training.step == (4 if place == "parameter" else STEP)

    def test_or_goes_back_and_on(self, trained, monkeypatch, tmp_path, place, bad):
        plant, sentence = PLACES[place]
        plant(monkeypatch, bad)
        code, out, _, summary = trained(on_divergence="roll_back")
        assert code == 0
        assert (
            f"note: Step {STEP + 1} diverged; rolled back to step 4 with learning rates × 0.5."
            f" {sentence}" in out
        )
        assert (summary["status"], summary["steps"], summary["rollbacks"]) == ("finished", 12, 1)
        (line,) = [
            line for line in RunDirectory.open(tmp_path / "run").read_log() if "rollback" in line
        ]
        assert line["rollback"]["divergence"]["place"] == place


def test_a_product_that_is_not_finite(trained, monkeypatch):
    """A root of the fourth order: finite with a finite slope at its zero, and a second derivative
    that is not."""

    def rough(loss, network, _):
        parameter = next(network.parameters())[0, 0]
        return loss + ((parameter - parameter.detach()).square() + 0).pow(0.75)

    in_closure(rough)(monkeypatch, math.nan)
    code, _, err, summary = trained()
    assert code == 3
    assert (
        'The solve "joint" of CompetitiveGradient met a number that is not finite, in the gradient'
        " or in product " in err
    )
    assert "No parameter was changed." in err
    assert (summary["status"], summary["steps"]) == ("diverged", STEP)
