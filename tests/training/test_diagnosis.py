"""Diagnosing a run afterwards: what is measured where, what is written, and that the run stays as
it is."""

import io
import json

import pytest
import torch
from PIL import Image
from torch import nn

import saddlepoint as sp
from saddlepoint.data import generator_for
from saddlepoint.diagnostics import diagnose as diagnose_history
from saddlepoint.diagnostics import game_spectrum
from saddlepoint.problems import Mixture8
from saddlepoint.problems.base import Batch
from saddlepoint.training import Evaluator, RunDirectory, Trainer, resolve
from saddlepoint.training.diagnosis import diagnose
from saddlepoint.training.probes import take_probe
from tests.training.conftest import run_to_the_end, small
from tests.training.test_resume import same

TINY = {"name": "mixture8", "hidden": 3, "latent": 2}
BOTH = ("discriminator", "generator")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_to_the_end(small(problem=TINY), tmp_path_factory.mktemp("runs") / "run")[1]


@pytest.fixture(scope="module")
def diagnosis(run):
    return diagnose(run, spectrum=True)


def restored(run, at="last"):
    config = run.read_config()
    training = Trainer(config)
    training.load_state_dict(run.load_checkpoint(config, at))
    return training


def files_of(path):
    return {
        str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()
    }


def strict(text):
    """Parse JSON without the constants that JSON lacks."""

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


class TestWhere:
    @pytest.mark.parametrize(("at", "step", "earlier"), [("last", 12, 4), (12, 12, 4), (8, 8, 4)])
    def test_at_a_checkpoint(self, run, at, step, earlier):
        found = diagnose(run, at)
        assert (found.step, found.path_from) == (step, earlier)
        assert found.path.distance == pytest.approx(
            float(nn.utils.parameters_to_vector(self.way(run, earlier, step)).norm()), rel=1e-5
        )
        assert found.unmeasured == {}
        assert found.spectrum is None
        assert (
            f"From step {earlier} to {step} the path angle shows {found.path.summary}."
            in found.lines()
        )
        assert (
            found.lines()[-1]
            == "Not measured: update_cosine, because the last two updates were not kept."
        )

    def way(self, run, start, end):
        a, b = (restored(run, step).networks for step in (start, end))
        return [
            q.detach() - p.detach()
            for player in BOTH
            for p, q in zip(a[player].parameters(), b[player].parameters(), strict=True)
        ]

    def test_at_the_earliest_there_is_no_way_to_it(self, run):
        found = diagnose(run, 4)
        assert (found.step, found.path, found.path_from) == (4, None, None)
        reason = "there is no earlier checkpoint to start from; keep more with keep_checkpoints"
        assert found.unmeasured == {"path": reason}
        assert found.lines()[-1] == f"Not measured: path, because {reason}."

    def test_at_the_best(self, harness, tmp_path, monkeypatch):
        scores = iter([3.0, 1.0, 2.0])
        monkeypatch.setattr(Evaluator, "score", lambda self, metrics, by=None: next(scores))
        _, run, _ = harness.run_to_the_end(harness.small(problem=TINY), tmp_path / "run")
        assert diagnose(run, "best").step == 8

    def test_a_step_that_is_not_kept(self, run):
        with pytest.raises(
            sp.UsageError,
            match=(
                r"has no checkpoint of step 5\. It has those of 4, 8, 12; keep more with"
                r" keep_checkpoints\."
            ),
        ):
            diagnose(run, 5)

    def test_a_run_without_a_checkpoint(self, tmp_path):
        run = RunDirectory.create(small(problem=TINY), tmp_path / "run")
        for at in ("last", "best", 4):
            with pytest.raises(sp.UsageError) as error:
                diagnose(run, at)
            reason = f"{run.path} has no {at} checkpoint; the run was stopped before it wrote one."
            assert str(error.value) == f"{reason} `saddlepoint resume {run.path}` starts it."


class TestWhat:
    def test_the_probe_is_that_of_the_checkpoint(self, run, diagnosis):
        own = take_probe(restored(run))
        assert diagnosis.probe.gradients == own.gradients
        assert (diagnosis.probe.accuracy, diagnosis.probe.diversity) == (
            own.accuracy,
            own.diversity,
        )
        numbers = diagnosis.lines()[len(diagnosis.findings) or 1]
        assert numbers.startswith(
            f"At step 12: ‖ξ‖ {own.gradients.norms['discriminator']:.2g} of the discriminator, "
        )
        assert f"discriminator right in {own.accuracy:.0%}" in numbers
        assert numbers.endswith(f"{own.antisymmetric:.0%} rotation along the field.")

    def test_the_findings_are_those_of_the_log(self, run, diagnosis):
        assert diagnosis.findings == diagnose_history(run.history(restored(run).problem))
        assert [f.to_dict() for f in diagnosis.findings] == run.read_summary()["findings"]

    def test_a_run_without_findings_says_so(self, run):
        found = diagnose(run)
        object.__setattr__(found, "findings", [])
        assert found.lines()[0] == "No finding in 12 steps, 4 probes."

    def test_the_spectrum_is_that_of_the_same_networks_on_the_same_batch(self, run, diagnosis):
        training = restored(run)
        problem = training.problem
        batch = Batch(problem.real(12, 256, 0), problem.noise(256, generator_for(0, "diagnosis")))
        own = game_spectrum(
            training.networks,
            lambda: problem.losses(training.networks, batch, BOTH),
            leader="generator",
        )
        assert diagnosis.spectrum.leading == own.leading
        assert diagnosis.spectrum.own == own.own
        assert diagnosis.spectrum.gradient_norm == own.gradient_norm
        (line,) = [line for line in diagnosis.lines() if line.startswith("Spectrum: ")]
        assert ", ".join(own.classes) in line
        assert f"{own.leading[0]:.2g}" in line

    def test_the_largest_eigenvalue_is_that_of_the_dense_jacobian(self, run, diagnosis):
        training = restored(run)
        problem, networks = training.problem, training.networks
        batch = Batch(problem.real(12, 256, 0), problem.noise(256, generator_for(0, "diagnosis")))
        losses = problem.losses(networks, batch, BOTH)
        flat = [p for player in BOTH for p in networks[player].parameters()]
        xi = torch.cat(
            [
                g.reshape(-1)
                for player in BOTH
                for g in torch.autograd.grad(
                    sum(losses[player].values()),
                    list(networks[player].parameters()),
                    create_graph=True,
                )
            ]
        )
        rows = [
            torch.autograd.grad(entry, flat, retain_graph=True, allow_unused=True) for entry in xi
        ]
        dense = torch.stack(
            [
                torch.cat(
                    [
                        (torch.zeros_like(p) if g is None else g).reshape(-1)
                        for p, g in zip(flat, row, strict=True)
                    ]
                )
                for row in rows
            ]
        )
        largest = float(torch.linalg.eigvals(dense.double()).abs().max())
        assert max(map(abs, diagnosis.spectrum.leading)) == pytest.approx(largest, rel=1e-3)


class TestWritten:
    def test_json_and_figures(self, harness, tmp_path):
        _, run, _ = harness.run_to_the_end(harness.small(problem=TINY), tmp_path / "run")
        found = diagnose(run, spectrum=True)
        path = run.write_diagnosis(found.to_dict(), found.figures())
        assert path == tmp_path / "run/diagnosis.json"
        written = strict(path.read_text())
        assert set(written) == {"step", "findings", "probe", "spectrum", "path", "unmeasured"}
        assert (written["step"], written["path"]["from_step"], written["path"]["summary"]) == (
            12,
            4,
            found.path.summary,
        )
        assert written["spectrum"]["leading"][0] == [
            found.spectrum.leading[0].real,
            found.spectrum.leading[0].imag,
        ]
        assert len(written["path"]["alphas"]) == len(written["path"]["cosines"]) == 41
        names = sorted(file.name for file in (tmp_path / "run/diagnosis").iterdir())
        assert names == ["course.png", "path.png", "spectrum.png"]
        for name in names:
            with Image.open(tmp_path / "run/diagnosis" / name) as picture:
                picture.load()
                assert min(picture.size) > 300
                assert len(picture.convert("RGB").getcolors(1 << 24)) > 10, "not an empty sheet"

    def test_the_same_run_gives_the_same_bytes(self, run):
        a, b = diagnose(run), diagnose(run)
        assert a.figures() == b.figures()
        assert json.dumps(a.to_dict()) == json.dumps(b.to_dict())

    def test_only_what_was_measured_is_drawn(self, run):
        pictures = diagnose(run, 4).figures()
        assert set(pictures) == {"course"}
        Image.open(io.BytesIO(pictures["course"])).verify()


class TestNothingChanges:
    def test_in_the_directory(self, harness, tmp_path):
        _, run, _ = harness.run_to_the_end(harness.small(problem=TINY), tmp_path / "run")
        before = files_of(tmp_path / "run")
        found = diagnose(run, "best", spectrum=True)
        run.write_diagnosis(found.to_dict(), found.figures())
        after = files_of(tmp_path / "run")
        assert {name: after[name] for name in before} == before
        assert {name.split("/")[0].split(".")[0] for name in set(after) - set(before)} == {
            "diagnosis"
        }

    def test_a_run_that_was_diagnosed_in_between_goes_on_as_the_straight_one(
        self, harness, tmp_path
    ):
        config = harness.small(problem=TINY)
        straight, _, _ = harness.run_to_the_end(config, tmp_path / "straight")
        count = iter(range(100))
        _, run, status = harness.run_to_the_end(
            config, tmp_path / "broken", lambda: next(count) >= 7
        )
        assert status == "interrupted"
        found = diagnose(run, spectrum=True)
        assert (found.step, found.history.last_step) == (7, 4)
        run.write_diagnosis(found.to_dict(), found.figures())
        resumed, _, _ = harness.resume(tmp_path / "broken")
        same(straight.state_dict(), resumed.state_dict())
        assert harness.lines(tmp_path / "straight") == harness.lines(tmp_path / "broken")


class Refusing(nn.Module):
    """A layer without a second derivative, as fused attention is one."""

    def forward(self, x):
        return torch.cdist(x, x.new_ones(1, 1), compute_mode="donot_use_mm_for_euclid_dist")


class TestNetworksThatRefuse:
    def test_second_derivatives_that_are_refused_are_named(self, harness, tmp_path, monkeypatch):
        networks = Mixture8.networks

        def refusing(self, seed):
            own = networks(self, seed)
            return {**own, "discriminator": nn.Sequential(own["discriminator"], Refusing())}

        monkeypatch.setattr(Mixture8, "networks", refusing)
        _, run, _ = harness.run_to_the_end(harness.small(problem=TINY), tmp_path / "run")
        found = diagnose(run, spectrum=True)
        assert found.spectrum is None
        assert found.probe.antisymmetric is None
        assert found.path is not None, "it needs no second derivative"
        assert set(found.unmeasured) == {"spectrum"}
        reason = (
            "A network contains torch.cdist, which has no second derivative. Curvature rules and"
            " Jacobian products need it. "
        )
        assert found.unmeasured["spectrum"].startswith(reason)
        assert found.lines()[-1].startswith(f"Not measured: spectrum, because {reason}")
        assert "rotation along the field" not in " ".join(found.lines())
        logged = harness.lines(tmp_path / "run")[-1]["probe"]
        assert logged["antisymmetric"] is None
        assert logged["unmeasured"]["antisymmetric"] == found.probe.unmeasured["antisymmetric"]
        strict(run.write_diagnosis(found.to_dict(), found.figures()).read_text())

    @pytest.mark.parametrize("rule", ["gradient", "per-player"])
    def test_a_threshold_does_not_stop_the_diagnosis(self, harness, tmp_path, rule):
        problem = {"name": "digits-binary", "hidden": 4, "generator_hidden": 2, "latent": 2}
        cadence = {
            "evaluate_every": 100,
            "sample_every": 2,
            "checkpoint_every": 2,
            "probe_every": 2,
        }
        config = resolve(
            {
                "problem": problem,
                "rule": rule,
                "steps": 4,
                "batch_size": 8,
                "evaluation_samples": 200,
                **cadence,
            }
        )
        _, run, _ = harness.run_to_the_end(config, tmp_path / "run")
        found = diagnose(run, spectrum=True)
        path = run.write_diagnosis(found.to_dict(), found.figures())
        assert found.spectrum is not None or "spectrum" in found.unmeasured
        assert found.path is not None
        assert ("zero-gradient" in [finding.name for finding in found.findings]) == (
            rule == "gradient"
        )
        assert strict(path.read_text())["probe"]["gradients"]["zeros"]["generator"] == 1.0

    def test_a_run_that_diverged_is_diagnosed(self, harness, tmp_path):
        problem = {**TINY, "activation": "leaky_relu"}
        with pytest.raises(sp.DivergenceError):
            harness.run_to_the_end(
                harness.small(problem=problem, optimizer={"name": "sgd", "lr": 1e10}, steps=50),
                tmp_path / "run",
            )
        run = RunDirectory.open(tmp_path / "run")
        found = diagnose(run, spectrum=True)
        assert (found.findings[0].name, found.findings[0].since) == ("divergence", found.step + 1)
        assert found.lines()[0].startswith(f"alarm: Training diverged in step {found.step + 1}. ")
        strict(run.write_diagnosis(found.to_dict(), found.figures()).read_text())

    def test_gradients_that_were_not_finite_at_a_probe(self, harness, tmp_path):
        """The log has null for them."""
        _, run, _ = harness.run_to_the_end(harness.small(problem=TINY), tmp_path / "run")
        lines = run.read_log()
        for line in (lines[0], lines[-1]):
            line["probe"]["gradients"]["norms"]["generator"] = float("nan")
            line["probe"]["diversity"] = float("inf")
        (tmp_path / "run/metrics.jsonl").unlink()
        for line in lines:
            run.log(line)
        assert "null" in (tmp_path / "run/metrics.jsonl").read_text()
        found = diagnose(run)
        assert not [finding for finding in found.findings if "gradient" in finding.name]
        strict(run.write_diagnosis(found.to_dict(), found.figures()).read_text())
