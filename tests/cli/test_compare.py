"""The commands compare and tune, as a user types them."""

import json
import subprocess
import sys

import pytest

SMALL = ("--budget", "steps=4", "--seeds", 2, "--jobs", 2)


class TestCompare:
    @pytest.mark.slow
    def test_a_small_comparison(self, cli):
        code, out, _ = cli(
            "compare",
            "mixture8",
            "--methods",
            "adam,sign,acgd",
            *SMALL,
            "--target",
            2.0,
            "--out",
            "here",
        )
        assert code == 0
        assert "1 problem(s), 3 method(s) on them, 2 seeds; results in here" in out
        assert (
            "mixture8, 4 steps a run: ema/mode_distance, smaller is better; success: 2 or smaller"
            in out
        )
        for row in ("adam", "sign", "acgd"):
            assert f"{row}, seed-1: finished, 4 steps in" in out
        assert "2 of 2" in out
        assert "report: saddlepoint report here" in out

        code, out, _ = cli(
            "compare",
            "mixture8",
            "--methods",
            "adam,sign,acgd",
            *SMALL,
            "--target",
            2.0,
            "--out",
            "here",
        )
        assert code == 0
        assert "seed-" not in out  # nothing was made again

    def test_a_file_says_the_same(self, cli, tmp_path):
        (tmp_path / "rings.yaml").write_text(
            "seeds: 1\nmethods: [adam]\nproblems: [{problem: mixture8, budget: {steps: 4},"
            " settings: {batch_size: 8}}]\n"
        )
        assert cli("compare", "rings.yaml")[0] == 0
        found = json.loads((tmp_path / "comparisons" / "rings" / "comparison.json").read_text())
        assert found["problems"][0]["methods"][0]["config"]["batch_size"] == 8

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (["mixture9"], 'Unknown problem "mixture9".'),
            (["mixture8", "--methods", "adan"], 'Unknown method "adan"'),
            (
                ["mixture8", "--budget", "60"],
                '--budget "60" is not of the form KIND=AMOUNT, for example seconds=60.',
            ),
            (["mixture8", "--budget", "hours=1"], "The comparison: problems.0.budget.hours"),
            (
                ["mixture8", "--metric", "ema/mods"],
                'cannot compare methods by "ema/mods": the problem has no such metric. Known: ',
            ),
            (
                ["mixture8", "--storage", "nonsense", "--trials", "1"],
                "Cannot open the storage nonsense",
            ),
            (["mixture8", "--methods", ""], '--methods "" contains an empty name'),
            (
                ["mixture8", "--methods", "adam, ,sign"],
                '--methods "adam, ,sign" contains an empty name',
            ),
            (
                ["mixture8", "--rerun", "kiled"],
                '--rerun: unknown kind "kiled". Did you mean "killed"?',
            ),
            (["mixture8", "--rerun", ""], '--rerun "" contains an empty name'),
            (["mixture8", "--budget", ""], '--budget "" is not of the form'),
            (["mixture8", "--baseline", ""], 'baseline "" is not a method'),
            (["mixture8", "--metric", ""], 'cannot compare methods by ""'),
            (["mixture8", "--storage", "", "--trials", "1"], "Cannot open the storage"),
            (["none.yaml"], "Cannot read the configuration none.yaml"),
            (
                ["none.yaml", "--seeds", "3"],
                "none.yaml describes the whole study and cannot be combined with --seeds.",
            ),
        ],
    )
    def test_mistakes_end_with_a_sentence(self, cli, arguments, sentence):
        code, _, err = cli("compare", *arguments)
        assert code == 2
        assert err.startswith("Error: ")
        assert sentence in err

    def test_an_interrupt_says_how_to_go_on(self, cli, monkeypatch):
        import saddlepoint.compare as room

        def interrupted(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr(room, "compare", interrupted)
        code, out, _ = cli("compare", "mixture8", *SMALL)
        assert code == 130
        assert "the same command resumes the work" in out

    @pytest.mark.slow
    def test_sigterm_keeps_what_is_finished(self, tmp_path):
        command = [
            sys.executable,
            "-m",
            "saddlepoint",
            "compare",
            "mixture8",
            "--methods",
            "adam",
            "--seeds",
            "4",
            "--budget",
            "seconds=0.5",
        ]
        with subprocess.Popen(
            [*command, "--out", "here"], cwd=tmp_path, stdout=subprocess.PIPE, text=True, bufsize=1
        ) as process:
            assert any("seed-0" in line for line in process.stdout)
            process.terminate()
            said = process.stdout.read()
        assert process.returncode == 143
        assert "the same command resumes the work" in said
        found = json.loads((tmp_path / "here" / "comparison.json").read_text())
        assert 1 <= len(found["problems"][0]["methods"][0]["runs"]) < 4

    def test_another_study_has_a_directory_of_its_own(self, cli, tmp_path):
        arguments = (
            "compare",
            "mixture8",
            "--budget",
            "steps=4",
            "--seeds",
            1,
            "--jobs",
            2,
            "--methods",
        )
        assert cli(*arguments, "adam")[0] == 0
        before = (tmp_path / "comparisons/mixture8/comparison.json").read_bytes()
        code, out, _ = cli(*arguments, "sign")
        assert code == 0
        assert (
            "note: comparisons/mixture8 holds another study, so this one has a directory of its"
            " own." in out
        )
        assert (tmp_path / "comparisons/mixture8/comparison.json").read_bytes() == before
        code, _, err = cli(*arguments, "sign", "--out", "comparisons/mixture8")
        assert code == 2
        assert "holds another study: baseline" not in err
        assert 'holds another study: method "adam" is there and not here' in err

    @pytest.mark.slow
    def test_nothing_of_the_current_directory_is_executed(self, tmp_path):
        """Not by the command, nor by the processes that it starts; what the user names is, and
        takes no library's place."""
        for name in (
            "torch",
            "numpy",
            "json",
            "yaml",
            "optuna",
            "scipy",
            "socket",
            "random",
            "pickle",
            "bitsandbytes",
        ):
            (tmp_path / f"{name}.py").write_text(
                f"open('witness-{name}', 'w')\nraise SystemError\n"
            )
        (tmp_path / "mine.py").write_text(
            "import beside, torch, random\nclass Mine(torch.optim.SGD): pass\n"
        )
        (tmp_path / "beside.py").touch()
        script = tmp_path / "bin" / "saddlepoint"
        script.parent.mkdir()
        script.write_text(
            "from saddlepoint.cli import main\nif __name__ == '__main__':\n    main()\n"
        )
        arguments = [
            "compare",
            "mixture8",
            "--methods",
            "pytorch_optimizer:SOAP,mine:Mine",
            "--budget",
            "steps=2",
            "--seeds",
            "1",
        ]
        done = subprocess.run(
            [sys.executable, str(script), *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, list(tmp_path.glob("witness*"))) == (0, []), done.stderr
        assert ": failed" not in done.stdout


class TestTune:
    def test_a_small_search(self, cli):
        code, out, _ = cli(
            "tune",
            "mixture8",
            "--method",
            "sign",
            "--trials",
            2,
            "--budget",
            "steps=4",
            "--out",
            "here",
        )
        assert code == 0
        assert "mixture8, sign: 2 trials of 4 steps by ema/mode_distance; stored in here" in out
        assert "trial 1: " in out
        command = next(
            line for line in out.splitlines() if line.startswith("train with the best: ")
        )
        assert command.startswith(
            "train with the best: saddlepoint train mixture8 --rule gradient --optimizer sign --set"
            " optimizer.lr="
        )

    def test_a_name_that_is_no_file_name(self, cli, tmp_path):
        code, *_ = cli(
            "tune",
            "mixture8",
            "--method",
            "pytorch_optimizer:SOAP",
            "--trials",
            1,
            "--budget",
            "steps=4",
        )
        assert code == 0
        assert (
            tmp_path / "comparisons" / "tune-mixture8-pytorch_optimizer-SOAP" / "tuning.db"
        ).exists()
