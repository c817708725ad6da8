"""The commands that look at a run or at networks, as a user meets them: exact texts, exit codes,
files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from saddlepoint.training import Evaluator, RunDirectory, Trainer, resolve, train

TINY = [
    "--set",
    "problem.hidden=3",
    "--set",
    "problem.latent=2",
    "--set",
    "evaluation_samples=160",
    "--steps",
    "6",
]


@pytest.fixture
def run(cli):
    assert cli("train", "mixture8", *TINY, "--out", "run")[0] == 0
    return Path("run")


def with_log(path, findings):
    """A run of twelve steps whose log has a discriminator that memorised its samples, or
    nothing to find."""
    config = resolve(
        {
            "problem": {"name": "mixture8", "hidden": 3, "latent": 2},
            "steps": 4,
            "batch_size": 8,
            "evaluation_samples": 160,
        }
    )
    directory = RunDirectory.create(config, path)
    train(Trainer(config), directory)
    lines = directory.read_log()
    (path / "metrics.jsonl").unlink()
    for line in lines:
        line.pop("metrics", None)
        line["probe"] |= {"membership_auc": 0.91 if findings else 0.5, "diversity": 1.0}
        directory.log(line)
    return path


class TestDiagnose:
    def test_a_warning_is_said_first_and_is_exit_code_1(self, cli, tmp_path):
        with_log(tmp_path / "run", findings=True)
        code, out, err = cli("diagnose", "run")
        assert (code, err) == (1, "")
        first, *_, last = out.splitlines()
        assert (
            first
            == "warning: The discriminator ranks a training sample above a held-out one in 91% of"
            " pairs (50 % is healthy): it has memorised training samples since step 0. Try more"
            " data or augmentation, R1 (problem.r1), a smaller discriminator, or the best"
            " checkpoint (saddlepoint best)."
        )
        assert last == "run/diagnosis.json; figures in run/diagnosis"
        assert "\nAt step 4: ‖ξ‖ " in out
        assert json.loads(Path("run/diagnosis.json").read_text())["findings"][0]["message"] in first

    def test_nothing_to_find_is_exit_code_0(self, cli, tmp_path):
        with_log(tmp_path / "run", findings=False)
        code, out, err = cli("diagnose", "run")
        assert (code, err) == (0, "")
        assert out.startswith("No finding in 4 steps, 5 probes.\nAt step 4: ‖ξ‖ ")
        assert sorted(file.name for file in Path("run/diagnosis").iterdir()) == [
            "course.png",
            "path.png",
        ]

    def test_at_a_step_with_the_spectrum(self, cli, run):
        code, out, _ = cli("diagnose", run, "--at", 5, "--spectrum")
        assert code in (0, 1)
        assert "\nSpectrum: " in out
        assert "\nFrom step 4 to 5 the path angle shows " in out
        assert Path("run/diagnosis/spectrum.png").is_file()
        assert json.loads(Path("run/diagnosis.json").read_text())["step"] == 5

    def test_at_the_best(self, cli, run):
        best = json.loads(Path("run/summary.json").read_text())["best"]["step"]
        _, out, _ = cli("diagnose", run, "--at", "best")
        assert f"At step {best}: " in out

    @pytest.mark.parametrize(
        ("at", "text"),
        [
            ("first", 'Error: --at "first" is neither last, best nor the number of a step.\n'),
            ("-1", 'Error: --at "-1" is neither last, best nor the number of a step.\n'),
            ("4.0", 'Error: --at "4.0" is neither last, best nor the number of a step.\n'),
            (
                "99",
                (
                    "Error: run has no checkpoint of step 99. It has those of 4, 5, 6; keep more"
                    " with keep_checkpoints.\n"
                ),
            ),
        ],
    )
    def test_at_mistakes(self, cli, run, at, text):
        assert cli("diagnose", run, f"--at={at}") == (2, "", text)
        assert not Path("run/diagnosis.json").exists()

    def test_no_such_run(self, cli):
        text = (
            "Error: nowhere is not a run directory (no config.yaml). Give the directory that"
            " `saddlepoint train` printed.\n"
        )
        assert cli("diagnose", "nowhere") == (2, "", text)
        assert cli("best", "nowhere") == (2, "", text)


class TestBest:
    def test_by_the_problem_s_score(self, cli, run):
        code, out, err = cli("best", run)
        assert (code, err) == (0, "")
        best = json.loads(Path("run/summary.json").read_text())["best"]["step"]
        *table, last = out.splitlines()
        where = f"run/checkpoints/step-{best:08d}.pt" if best >= 4 else "run/checkpoints/best.pt"
        assert last == f"best by the problem's score (smaller is better): step {best}, {where}"
        assert [line.split()[0] for line in table[1:]] == ["1", "2", "3", "4", "5", "6"]
        assert [line.split()[0] for line in table if line.rstrip().endswith(" best")] == [str(best)]

    def test_by_a_metric(self, cli, run):
        log = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
        values = {line["step"]: line["metrics"]["reverse_kl"] for line in log if "metrics" in line}
        code, out, _ = cli("best", run, "--metric", "reverse_kl")
        step = min(values, key=values.get)
        assert code == 0
        assert f"best by reverse_kl: step {step}, " in out
        assert f"{values[step]:.4g}" in out

    def test_a_checkpoint_that_is_not_kept(self, cli, run):
        log = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
        for line in log:
            if "metrics" in line:
                line["metrics"]["modes"] = 8.0 if line["step"] == 2 else 1.0
        Path("run/metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
        Path("run/checkpoints/best.pt").unlink()
        _, out, _ = cli("best", run, "--metric", "modes")
        assert out.endswith(
            "best by modes: step 2, its checkpoint was not kept; increase keep_checkpoints to keep"
            " more\n"
        )

    def test_unknown_metric(self, cli, run):
        assert cli("best", run, "--metric", "ema/mods") == (
            2,
            "",
            (
                'Error: Cannot select the best checkpoint by "ema/mods": it was not measured. Did'
                " you"
                ' mean "ema/modes"?\n'
            ),
        )


class TestEvaluate:
    def test_values_with_intervals(self, cli, run):
        code, out, err = cli("evaluate", run)
        assert (code, err) == (0, "")
        head, modes, *_ = out.splitlines()
        assert head.split()[0] == "metric"
        assert "moving average" in head
        assert "reference" in head
        assert " … " in modes
        assert modes.rstrip().endswith("known density")
        results = json.loads(Path("run/evaluation.json").read_text())["results"]
        assert [result["metric"] for result in results] == [
            "modes",
            "quality",
            "reverse_kl",
            "effective_modes",
            "mode_distance",
        ] * 2
        assert all(
            result["replicates"] == 200 and len(result["interval"]) == 2 for result in results
        )

    def test_without_replicates(self, cli, run):
        code, out, _ = cli("evaluate", run, "--replicates", 0)
        assert code == 0
        assert "…" not in out
        assert {
            result["interval"]
            for result in json.loads(Path("run/evaluation.json").read_text())["results"]
        } == {None}

    def test_few_replicates(self, cli, run):
        assert cli("evaluate", run, "--replicates", 5) == (
            2,
            "",
            (
                "Error: An interval needs at least 20 replicates and a level between 0 and 1, got 5"
                " and 0.95. 200 at 0.95 are usual.\n"
            ),
        )

    def test_against_another_run_under_the_same_conditions(self, cli, run):
        cli("evaluate", run)
        cli("train", "mixture8", *TINY, "--seed", 1, "--out", "other")
        code, out, err = cli("evaluate", "other", "--against", "run/evaluation.json")
        assert (code, err) == (0, "")
        assert "this − other" in out
        ours, theirs = (
            json.loads(Path(f"{name}/evaluation.json").read_text())["metrics"]
            for name in ("other", "run")
        )
        rows = {
            line.split()[0]: line.split()[1]
            for line in out.split("this − other")[1].splitlines()[1:11]
        }
        assert rows == {name: f"{ours[name] - theirs[name]:+.4g}" for name in ours}
        _, out, _ = cli("evaluate", "other", "--against", "other/evaluation.json")
        assert out.split("this − other")[1].count("+0 ") == 10
        assert out.count(" overlap") == 10

    @pytest.mark.parametrize(
        ("options", "fields"),
        [
            (["--seed", 1], "seed (1 and 0)"),
            (["--samples", 200], "generated (200 and 160)"),
            (["--replicates", 0], "replicates (0 and 200)"),
            (["--samples", 200, "--seed", 3], "generated (200 and 160), seed (3 and 0)"),
        ],
    )
    def test_against_other_conditions(self, cli, run, options, fields):
        cli("evaluate", run)
        before = Path("run/evaluation.json").read_bytes()
        text = (
            f"Error: These two results cannot be compared: they differ in {fields}. Evaluate both"
            " under the same conditions.\n"
        )
        assert cli("evaluate", run, "--against", "run/evaluation.json", *options) == (2, "", text)
        assert Path("run/evaluation.json").read_bytes() == before

    def test_against_nothing(self, cli, run):
        text = (
            "Error: none.json holds no results (FileNotFoundError). Give the evaluation.json that"
            " `saddlepoint evaluate` wrote.\n"
        )
        assert cli("evaluate", run, "--against", "none.json") == (2, "", text)


GOOD = """
import torch
from torch import nn
from saddlepoint.models import MLP

def make():
    g = torch.Generator().manual_seed(0)
    G = MLP((4, 8, 2), activation="tanh", generator=g)
    D = MLP((2, 8, 1), activation="tanh", generator=g)
    return G, END(D), torch.randn(16, 4, generator=g), torch.randn(16, 2, generator=g)
"""


class TestDoctor:
    def write(self, name, text):
        Path(f"{name}.py").write_text(text)

    def test_a_problem_of_the_library(self, cli):
        code, out, err = cli("doctor", "mixture8")
        assert (code, err) == (0, "")
        assert "\nNo errors found.\n" in out or out.startswith("No errors found.\n")
        assert "a product of the Jacobian" in out
        assert "Memory for a batch of 64: parameters " in out
        assert "error: " not in out

    def test_a_pair_of_one_s_own(self, cli):
        self.write("my_good_gan", GOOD.replace("END(D)", "D"))
        code, out, err = cli("doctor", "my_good_gan:make")
        assert (code, err) == (0, "")
        assert "No errors found.\n" in out

    def test_a_sigmoid_at_the_end(self, cli):
        self.write("my_sigmoid_gan", GOOD.replace("END(D)", "nn.Sequential(D, nn.Sigmoid())"))
        code, out, err = cli("doctor", "my_sigmoid_gan:make")
        assert (code, err) == (1, "")
        (line,) = [line for line in out.splitlines() if line.startswith("error: ")]
        assert "The last operation of the discriminator is Sigmoid, " in line
        assert line.endswith(
            "the gradients would be too flat, and the optimum out of reach. Remove it."
        )
        assert "\n1 error.\n" in out

    @pytest.mark.parametrize(
        ("what", "text"),
        [
            (
                "my_needy_gan:make",
                (
                    'Error: Module "my_needy_gan" imports "no_such_package", which is not'
                    " installed. Install it or correct the import.\n"
                ),
            ),
            (
                "my_crashing_gan:make",
                (
                    'Error: Importing "my_crashing_gan" raised RuntimeError: no data. Correct the'
                    " module.\n"
                ),
            ),
            (
                "my_needy_gan:",
                (
                    'Error: "my_needy_gan:" names no function: write package.module:factory, with a'
                    " colon.\n"
                ),
            ),
            ("digtis", 'Error: Unknown problem "digtis". Did you mean "digits"?\n'),
        ],
    )
    def test_mistakes_end_with_a_sentence(self, cli, what, text):
        self.write("my_needy_gan", "import no_such_package")
        self.write("my_crashing_gan", "raise RuntimeError('no data')")
        assert cli("doctor", what) == (2, "", text)

    def test_an_unknown_loss(self, cli):
        code, out, err = cli("doctor", "mixture8", "--loss", "hnge")
        assert (code, out) == (2, "")
        assert err.startswith("Error: ")
        assert 'Did you mean "hinge"?' in err

    def test_a_problem_that_needs_a_directory(self, cli):
        code, _, err = cli("doctor", "mnist")
        assert (code, err) == (
            2,
            (
                "Error: Problem mnist: give the directory that holds MNIST's four IDX files with"
                " --data-dir.\n"
            ),
        )


class TestClosingLines:
    def test_what_observing_took(self, cli):
        _, out, _ = cli("train", "mixture8", *TINY, "--out", "run")
        (line,) = [line for line in out.splitlines() if line.startswith("observing took ")]
        summary = json.loads(Path("run/summary.json").read_text())
        whole = summary["seconds_here"] + summary["observing_seconds"]
        metrics, probes = summary["evaluating_seconds"], summary["probing_seconds"]
        assert (
            line == f"observing took {summary['observing_seconds']:.1f} s: metrics {metrics:.1f} s"
            f" ({metrics / whole:.0%}), probes {probes:.1f} s ({probes / whole:.0%}) of the total"
            " time"
        )

    def test_findings_are_pointed_to(self, cli):
        _, out, _ = cli("train", "mixture8", *TINY, "--out", "run")
        serious = [
            f
            for f in json.loads(Path("run/summary.json").read_text())["findings"]
            if f["level"] != "note"
        ]
        assert serious, "six steps cover no mode"
        plural = "s" if len(serious) > 1 else ""
        assert f"\n{len(serious)} finding{plural}; see: saddlepoint diagnose run\n" in out
        said = [line for line in out.splitlines() if line.startswith("note: ")]
        assert len(said) >= len(serious), "each is said when it is found, with the numbers of then"

    def test_stopped_early(self, cli, monkeypatch):
        monkeypatch.setattr(
            Evaluator, "score", lambda self, metrics, by=None: float(self.trainer.step)
        )
        options = ["--set", "patience=1", "--set", "evaluate_every=2", "--out", "run"]
        code, out, err = cli("train", "mixture8", *TINY[:-1], 20, *options)
        assert (code, err) == (0, "")
        assert "\nstopped early: no better evaluation since step 2\n" in out
        assert "\n4 steps in " in out
        code, out, err = cli("resume", "run")
        assert (code, err) == (0, "")
        assert "\nstopped early: no better evaluation since step 2\n" in out
        assert "\nobserving took 0.0 s: " in out

    def test_rolled_back_too_often(self, cli):
        options = [
            "--optimizer",
            "sgd",
            "--lr",
            1e30,
            "--set",
            "problem.activation=leaky_relu",
            "--set",
            "on_divergence=roll_back",
        ]
        code, out, err = cli("train", "mixture8", *TINY, *options, "--out", "run")
        assert code == 3
        assert out.count("diverged; rolled back to step ") == 3
        assert "with learning rates × 0.125. " in out
        assert err.startswith("Error: Diverged in step ")


class TestHelp:
    @pytest.mark.parametrize(
        "command", ["train", "resume", "sample", "evaluate", "diagnose", "best", "doctor", "list"]
    )
    def test_of_every_command(self, cli, command):
        code, out, err = cli(command, "--help")
        assert (code, err) == (0, "")
        assert f"Usage: saddlepoint {command} " in out

    def test_the_list_of_commands_is_complete(self, cli):
        _, out, _ = cli("--help")
        for command in (
            "train",
            "resume",
            "sample",
            "evaluate",
            "diagnose",
            "best",
            "doctor",
            "list",
        ):
            assert f" {command} " in out

    @pytest.mark.parametrize("command", ["diagnose", "best", "doctor", "evaluate"])
    def test_it_answers_without_loading_torch(self, command):
        script = (
            "import sys\nfrom saddlepoint.cli import main\n"
            "try: main(sys.argv[1:])\nexcept SystemExit as end: assert not end.code\n"
            "assert 'torch' not in sys.modules"
        )
        subprocess.run(
            [sys.executable, "-c", script, command, "--help"], check=True, capture_output=True
        )
