"""The command line as a user meets it: exact texts, exit codes, files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from saddlepoint import registry

LEAKY = ["--set", "problem.activation=leaky_relu"]  # tanh networks survive any step
TINY = ["--set", "problem.hidden=8", "--set", "evaluation_samples=160", "--steps", "6"]


class TestTrain:
    def test_default_directory_table_and_picture(self, cli):
        code, out, err = cli("train", "mixture8", *TINY)
        assert (code, err) == (0, "")
        assert "run directory: runs/mixture8-gradient-adam-001" in out
        assert "samples: runs/mixture8-gradient-adam-001/samples.png" in out
        assert "modes" in out
        assert "6 steps in" in out
        assert Path("runs/mixture8-gradient-adam-001/samples.png").is_file()
        _, out, _ = cli("train", "mixture8", *TINY)
        assert "runs/mixture8-gradient-adam-002" in out

    def test_plain_lines_when_piped(self, cli):
        _, out, _ = cli("train", "mixture8", *TINY)
        assert "100 %  step 6" in out
        assert "\x1b" not in out

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore::saddlepoint.errors.SolverWarning")
    @pytest.mark.parametrize("rule", registry.RULES)
    @pytest.mark.parametrize("problem", ["digits", "mixture25"])
    def test_every_rule_alone_just_works(self, cli, rule, problem):
        code, _, err = cli(
            "train",
            problem,
            "--rule",
            rule,
            "--steps",
            2,
            "--set",
            "evaluation_samples=500",
            "--out",
            "run",
        )
        assert (code, err) == (0, "")
        summary = json.loads(Path("run/summary.json").read_text())
        assert (summary["rule"], summary["status"], summary["steps"]) == (rule, "finished", 2)

    def test_options_of_a_rule_and_of_a_rule_within_it(self, cli):
        code, _, err = cli(
            "train",
            "mixture8",
            "--rule",
            "consensus",
            "--set",
            "rule.gamma=10",
            *TINY,
            "--out",
            "a",
        )
        assert (code, err) == (0, "")
        assert "gamma: 10.0" in Path("a/config.yaml").read_text()
        settings = [
            "--set",
            "rule.rule=extragradient",
            "--set",
            "rule.rule.keep_state=false",
            "--set",
            "rule.k=3",
        ]
        code, _, err = cli(
            "train", "mixture8", "--rule", "lookahead", *settings, *TINY, "--out", "b"
        )
        assert (code, err) == (0, "")
        assert cli("resume", "b", "--steps", "+2")[0] == 0
        assert "keep_state: false" in Path("b/config.yaml").read_text()

    @pytest.mark.parametrize(
        "optimizer", [*registry.OPTIMIZERS, "pytorch_optimizer:SOAP", "torch.optim:NAdam"]
    )
    def test_every_optimizer(self, cli, optimizer):
        code, _, err = cli("train", "mixture8", "--optimizer", optimizer, *TINY, "--out", "run")
        assert (code, err) == (0, "")

    @pytest.mark.slow
    def test_digits_report_the_hash_of_their_extractor(self, cli):
        cli("train", "--steps", 2, "--set", "evaluation_samples=200", "--out", "run")
        summary = json.loads(Path("run/summary.json").read_text())
        assert len(summary["extractors"]["digit-cnn"]) == 64
        assert "ema/frechet[digit-cnn]" in summary["metrics"]
        _, out, _ = cli("evaluate", "run", "--samples", 300)
        assert "frechet[digit-cnn]" in out
        assert f"digit-cnn: SHA-256 {summary['extractors']['digit-cnn']}" in out

    def test_seconds(self, cli):
        code, _, _ = cli("train", "mixture8", *TINY[:-2], "--seconds", 0.2, "--out", "run")
        summary = json.loads(Path("run/summary.json").read_text())
        assert code == 0
        assert summary["seconds"] >= 0.2

    def test_options_override_the_file(self, cli):
        problem = "problem: {name: mixture8, hidden: 8, radius: 1.0}"
        Path("c.yaml").write_text(
            f"{problem}\nsteps: 6\nevaluation_samples: 160\noptimizer: {{lr: 1e-4}}\n"
        )
        assert cli("train", "--config", "c.yaml", "--lr", 3e-4, "--seed", 5, "--out", "run")[0] == 0
        text = Path("run/config.yaml").read_text()
        assert "radius: 1.0" in text
        assert "lr: 0.0003" in text
        assert "seed: 5" in text

    def test_the_saved_configuration_trains_the_same_again(self, cli):
        cli("train", "mixture8", *TINY, "--out", "a")
        cli("train", "--config", "a/config.yaml", "--out", "b")
        assert Path("a/samples.png").read_bytes() == Path("b/samples.png").read_bytes()

    @pytest.mark.slow
    def test_mnist(self, cli, mnist_directory):
        code, _, _ = cli(
            "train",
            "mnist",
            "--data-dir",
            mnist_directory,
            "--steps",
            1,
            "--set",
            "evaluation_samples=200",
            "--out",
            "run",
        )
        assert code == 0
        assert cli("sample", "run")[0] == 0


class TestResumeSampleEvaluate:
    @pytest.fixture
    def run(self, cli):
        cli("train", "mixture8", *TINY, "--out", "run")
        return "run"

    def test_resume_for_more_steps(self, cli, run):
        code, out, _ = cli("resume", run, "--steps", "+4")
        assert code == 0
        assert "10 steps in" in out
        assert "steps: 10" in Path("run/config.yaml").read_text()
        code, out, _ = cli("resume", run, "--steps", "12")
        assert "12 steps in" in out

    def test_resume_for_more_seconds(self, cli, run):
        before = json.loads(Path("run/summary.json").read_text())
        assert cli("resume", run, "--seconds", 0.1)[0] == 0
        after = json.loads(Path("run/summary.json").read_text())
        assert after["seconds"] >= before["seconds"] + 0.1
        assert after["steps"] > 6

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            (
                [],
                (
                    "Error: run has used its budget of 6 steps. Extend it with --steps +N or"
                    " --seconds S.\n"
                ),
            ),
            (
                ["--steps", "6"],
                "Error: --steps 6: the run has 6 steps already. Write +N for N more.\n",
            ),
            (
                ["--steps", "lots"],
                (
                    'Error: --steps "lots" is not a number of steps; write 20000 for a total or'
                    " +2000 for more.\n"
                ),
            ),
            (["--seconds", "0"], "Error: --seconds 0.0 must be positive.\n"),
        ],
    )
    def test_resume_mistakes(self, cli, run, options, text):
        assert cli("resume", run, *options) == (2, "", text)

    def test_sample(self, cli, run):
        code, out, _ = cli("sample", run, "-n", 16, "-o", "grid.png")
        assert code == 0
        assert out == "16 samples of step 6: grid.png\n"
        with Image.open("grid.png") as picture:
            assert picture.size == (640, 640)
        for options in ([], ["--best"], ["--raw"], ["--seed", 3]):
            assert cli("sample", run, *options)[0] == 0

    def test_sample_into_nowhere(self, cli, run):
        code, _, err = cli("sample", run, "-o", "no/such/grid.png")
        assert (code, err) == (
            2,
            "Error: Cannot write no/such/grid.png: No such file or directory.\n",
        )

    def test_evaluate_repeats_what_training_measured(self, cli, run):
        code, out, _ = cli("evaluate", run)
        assert code == 0
        assert "160 samples, seed 0: run/evaluation.json" in out
        evaluation, summary = (
            json.loads(Path(f"run/{name}.json").read_text()) for name in ("evaluation", "summary")
        )
        assert evaluation["metrics"] == summary["metrics"]
        cli("evaluate", run, "--samples", 500, "--seed", 1, "--best")
        assert json.loads(Path("run/evaluation.json").read_text())["evaluation"] == {
            "samples": 500,
            "seed": 1,
        }

    def test_too_few_samples(self, cli, run):
        code, _, err = cli("evaluate", run, "--samples", 50)
        assert (code, err) == (
            2,
            (
                "Error: Mode coverage needs at least 160 samples, got 50. Evaluate with more"
                " samples.\n"
            ),
        )


class TestList:
    @pytest.mark.parametrize(
        ("what", "names"),
        [
            ("problems", registry.PROBLEMS),
            ("rules", registry.RULES),
            ("optimizers", registry.OPTIMIZERS),
            (
                "metrics",
                ["frechet[digit-cnn]", "mmd2[digit-cnn]", "class_coverage", "modes", "quality"],
            ),
        ],
    )
    def test_names_everything(self, cli, what, names):
        code, out, _ = cli("list", what)
        assert code == 0
        assert all(f" {name} " in out for name in names)


class TestMistakes:
    """A sentence, exit code 2, and nothing left behind."""

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (["digtis"], 'Error: Unknown problem "digtis". Did you mean "digits"?\n'),
            (["--rule", "newtn"], 'Error: Unknown rule "newtn". Did you mean "newton"?\n'),
            (["--optimizer", "adan"], 'Error: Unknown optimizer "adan". Did you mean "adam"?\n'),
            (
                ["--lr", "-1"],
                (
                    "Error: Configuration: optimizer.lr=-1.0 is not valid: Input should be greater"
                    " than 0.\n"
                ),
            ),
            (
                ["--steps", "0"],
                (
                    "Error: Configuration: steps=0 is not valid: Input should be greater than or"
                    " equal to 1.\n"
                ),
            ),
            (["--set", "rule.x=1"], 'Error: Rule gradient has no option "x". There are none.\n'),
            (
                ["--set", "lr"],
                (
                    'Error: --set "lr" is not of the form key.path=value, for example --set'
                    " rule.damping=0.1.\n"
                ),
            ),
            (
                ["mnist"],
                (
                    "Error: Problem mnist: give the directory that holds MNIST's four IDX files"
                    " with --data-dir.\n"
                ),
            ),
            (
                ["mnist", "--data-dir", "nowhere"],
                (
                    "Error: nowhere has neither train-images-idx3-ubyte.gz nor"
                    " train-images-idx3-ubyte. Give the directory that holds MNIST's four IDX files"
                    " with --data-dir.\n"
                ),
            ),
            (
                ["--config", "none.yaml"],
                "Error: Cannot read the configuration none.yaml: No such file or directory.\n",
            ),
            (
                ["--rule", "acgd", "--optimizer", "adam"],
                (
                    'Error: Player "discriminator": AdaptiveCompetitiveGradient returns updates'
                    " that already contain the learning rate, so its inner optimizer must be"
                    " torch.optim.SGD without momentum and weight decay, not Adam. Use SGD, or a"
                    " rule whose output is a gradient.\n"
                ),
            ),
        ],
    )
    def test_train(self, cli, arguments, text):
        assert cli("train", *arguments) == (2, "", text)
        assert not Path("runs").exists()

    def test_out_that_holds_another_run_is_left_as_it_is(self, cli):
        cli("train", "mixture8", *TINY, "--out", "run")
        before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
        text = (
            "Error: --out run holds another run already. Resume it with `saddlepoint resume run`,"
            " or"
            " choose another --out.\n"
        )
        assert cli("train", "mixture8", *TINY, "--out", "run") == (2, "", text)
        assert {
            path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()
        } == before

    @pytest.mark.parametrize("command", ["resume", "sample", "evaluate"])
    def test_no_such_run(self, cli, command):
        text = (
            "Error: nowhere is not a run directory (no config.yaml). Give the directory that"
            " `saddlepoint train` printed.\n"
        )
        assert cli(command, "nowhere") == (2, "", text)

    @pytest.mark.filterwarnings("default::saddlepoint.errors.CorruptFileWarning")
    @pytest.mark.parametrize("command", ["resume", "sample", "evaluate", "diagnose"])
    def test_truncated_checkpoint(self, cli, command):
        cli("train", "mixture8", *TINY, "--out", "run")
        last = Path("run/checkpoints/step-00000006.pt")
        last.write_bytes(last.read_bytes()[:1000])
        code, out, err = cli(command, "run")
        assert code in (0, 1), "1 is what diagnose finds"
        assert err.startswith(
            "note: In run/checkpoints step-00000006.pt is truncated or damaged: it does not end"
            " with a checksum, "
        )
        assert err.endswith("The previous checkpoint, step-00000005.pt, is used.\n")
        assert {
            "resume": "6 steps in",
            "sample": "samples of step 5",
            "evaluate": "evaluation.json",
            "diagnose": "At step 5",
        }[command] in out

    def test_a_run_whose_configuration_was_edited(self, cli):
        cli("train", "mixture8", *TINY, "--out", "run")
        config = Path("run/config.yaml")
        config.write_text(config.read_text().replace("ema: 0.999", "ema: 0.99"))
        code, _, err = cli("resume", "run", "--steps", "+1")
        assert (code, err) == (
            2,
            (
                "Error: Checkpoint run/checkpoints/step-00000006.pt belongs to another"
                " configuration than run/config.yaml. Restore the run's own.\n"
            ),
        )

    def test_unknown_option(self, cli):
        code, _, err = cli("train", "--stpes", 5)
        assert code == 2
        assert "No such option: --stpes" in err

    def test_diverged(self, cli):
        code, _, err = cli(
            "train", "mixture8", "--optimizer", "sgd", "--lr", 1e30, *TINY, *LEAKY, "--out", "run"
        )
        assert code == 3
        assert err.startswith("Error: Diverged in step ")
        assert 'player "' in err
        assert err.endswith("The last finite state is in run/checkpoints.\n")
        assert json.loads(Path("run/summary.json").read_text())["status"] == "diverged"


def test_help_answers_without_loading_torch():
    script = (
        "import sys\nfrom saddlepoint.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    for arguments in (["--help"], ["train", "--help"], ["list", "problems"]):
        subprocess.run([sys.executable, "-c", script, *arguments], check=True, capture_output=True)


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m saddlepoint list rules | true"
    done = subprocess.run(
        command,
        shell=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        check=False,
    )
    assert "Traceback" not in done.stderr
