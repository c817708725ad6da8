"""The report of a run: everything that is there, and a sentence about what is not."""

import json
import shutil

import pytest

from saddlepoint.errors import UsageError
from saddlepoint.report import make_report


class TestWhole:
    @pytest.fixture
    def made(self, run, page):
        return page(run())

    def test_it_says_how_the_run_ended(self, made):
        assert "<h1>mixture8, gradient + adam</h1>" in made.body
        lead = (
            "Finished after 600 steps and 12\N{NO-BREAK SPACE}s of training (20\N{NO-BREAK SPACE}ms"
            " a step)."
        )
        measured = (
            "Latest metrics: modes 8 (moving average 8), quality 0.857 (moving average 0.923)."
        )
        assert f"{lead} {measured}" in made.body

    def test_every_chart_is_there_with_words_and_a_table(self, made):
        ids = set(made.charts)
        assert ids == {
            "metric-0",
            "metric-1",
            "losses",
            "gradients",
            "rotation",
            "discriminator",
            "saturation",
            "diversity",
            "spectrum",
            "own-hessians",
        }
        for name in ids:
            assert f'<div class="plot" id="{name}" role="img" aria-label="' in made.body
            assert f'<p class="summary" id="{name}-summary">' in made.body
        assert made.body.count('<details class="numbers">') == len(ids)

    def test_a_course_has_three_axes_that_agree(self, made):
        generator, discriminator = made.charts["losses"]["series"]
        assert (generator["name"], discriminator["name"]) == ("generator", "discriminator")
        points = generator["points"]
        # as finely as the trace, which has neither seconds nor gradient-equivalents
        assert len(points["steps"]["x"]) == 600
        assert points["seconds"]["x"][299] == pytest.approx(points["steps"]["x"][299] / 50)
        assert points["gradient_equivalents"]["x"][299] == pytest.approx(
            2 * points["steps"]["x"][299]
        )
        assert points["seconds"]["y"] == points["steps"]["y"]

    def test_the_healthy_band_is_that_of_the_summary(self, made):
        bands = [level for level in made.charts["losses"]["levels"] if level["y"] is None]
        assert [(band["low"], band["high"]) for band in bands] == [(0.1, 1.586), (-2.0, -0.02)]
        assert "Shaded: healthy range of the loss" in made.body

    def test_findings_results_cost_environment_and_commands(self, made):
        assert "mode collapse since step 600." in made.body
        assert (
            "From the diagnosis of step 600. Not measured: path, because there is no earlier"
            " checkpoint." in made.body
        )
        assert "0.857 (0.837 … 0.877)" in made.body
        assert (
            "2,500 samples, seed 0; known density; 95\N{NO-BREAK SPACE}% from 200 replicates"
            in made.body
        )
        assert "training: 12\N{NO-BREAK SPACE}s, 80\N{NO-BREAK SPACE}%" in made.body
        assert "<dt>gradients</dt><dd>1,200</dd>" in made.body
        assert "<dt>PyTorch</dt><dd>2.13.0+cpu</dd>" in made.body
        assert "saddlepoint train mixture8 --set &#39;rule.note=two words&#39;" in made.body
        assert "  name: mixture8\n" in made.body

    def test_pictures_are_inside_and_in_order(self, made):
        assert made.body.count('src="data:image/png;base64,') == 4
        labels = [
            f'data-label="step {step}, {step // 50}\N{NO-BREAK SPACE}s"'
            for step in (0, 200, 400, 600)
        ]
        assert [made.body.index(label) for label in labels] == sorted(
            made.body.index(label) for label in labels
        )
        assert made.body.count(" hidden>") == 3  # all but the last

    def test_of_very_many_pictures_some_are_shown_and_it_says_so(self, run, page):
        path = run()
        for step in range(1, 100):
            shutil.copy(
                path / "samples" / "step-00000600.png", path / "samples" / f"step-{step:08d}.png"
            )
        body = page(path).body
        assert body.count('src="data:image/png;base64,') == 48
        assert "48 of the 103 pictures in samples/, evenly spaced." in body
        assert 'data-label="step 0,' in body
        assert 'data-label="step 600,' in body

    def test_eigenvalues_keep_their_values_on_bent_scales(self, made):
        attracts, repels = made.charts["spectrum"]["series"]
        assert attracts["labels"] == [
            "17.7",
            "2.9 + 1.9 i",
            "2.9 − 1.9 i",
            "0.5 + 0.1 i",
            "0.5 − 0.1 i",
        ]
        assert (repels["labels"], repels["x"][0] < 0) == (["−0.4"], True)

    def test_what_cannot_be_measured_is_not_drawn(self, made):
        # membership_auc is null in every probe
        assert [series["name"] for series in made.charts["discriminator"]["series"]] == ["accuracy"]


class TestMissing:
    def test_each_missing_piece_names_the_command_that_makes_it(self, run, page):
        path = run(ended=False, evaluated=False, diagnosed=False)
        body = page(path).body
        assert "Not finished: 600 steps and 12\N{NO-BREAK SPACE}s of training so far." in body
        for command in ("diagnose", "diagnose {} --spectrum", "evaluate", "resume"):
            text = command if "{}" in command else command + " {}"
            assert f" Run <code>saddlepoint {text.format(path)}</code>." in body
        assert "Healthy ranges are not drawn: the run has no summary that names them." in body
        assert "The checks found nothing" not in body

    def test_findings_of_training_until_it_is_diagnosed(self, run, page):
        body = page(run(diagnosed=False)).body
        assert "mode collapse since step 600." in body
        assert "From the checks during training." in body

    def test_a_run_that_has_only_begun(self, run, page):
        path = run(ended=False, evaluated=False, diagnosed=False)
        for name in ("metrics.jsonl", "environment.json"):
            (path / name).unlink()
        shutil.rmtree(path / "samples")
        made = page(path)
        assert made.charts == {}
        for sentence in (
            "Not finished: no step of training so far.",
            "The log has no step yet.",
            "The run has no pictures in samples/.",
            "No metric has been computed yet.",
            "Versions and machine were not recorded",
        ):
            assert sentence in made.body

    def test_a_diverged_run_says_where(self, run, page):
        path = run()
        summary = json.loads((path / "summary.json").read_text())
        (path / "summary.json").write_text(
            json.dumps(summary | {"status": "diverged", "error": "Step 601: the loss is NaN."})
        )
        body = page(path).body
        assert "Diverged after 600 steps" in body
        assert "<strong>alarm</strong> Step 601: the loss is NaN." in body

    def test_no_gradient_equivalents_no_such_axis(self, run, page):
        path = run()
        lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        text = "".join(
            json.dumps({key: value for key, value in line.items() if key != "gradient_equivalents"})
            + "\n"
            for line in lines
        )
        (path / "metrics.jsonl").write_text(text)
        body = page(path).body
        assert 'value="seconds"' in body
        assert 'value="gradient_equivalents"' not in body

    def test_values_that_are_not_finite_are_gaps(self, run, page):
        path = run()
        with (path / "metrics.jsonl").open("a") as file:
            file.write(
                '{"step": 601, "seconds": 12.1, "gradient_equivalents": 1202, "losses":'
                ' {"generator": NaN}, "metrics": {"modes": null}}\n'
            )
        assert page(path).charts["metric-0"]["series"][0]["points"]["steps"]["y"][-1] is None

    def test_a_line_that_is_being_written_is_left_out(self, run, page):
        path = run()
        whole = page(path)
        with (path / "metrics.jsonl").open("a") as file:
            file.write('{"step": 650, "seco')
        assert page(path).data == whole.data


class TestDamaged:
    @pytest.mark.parametrize(
        "name", ["summary.json", "evaluation.json", "diagnosis.json", "environment.json"]
    )
    def test_json(self, run, name):
        path = run()
        (path / name).write_text('{"status": ')
        with pytest.raises(
            UsageError,
            match=rf"{name} is not JSON: .* The file is damaged or was written by another program",
        ):
            make_report(path)

    @pytest.mark.parametrize(
        "text", ["[]", "null", '"text"', '{"status": "finished", "steps": "many"}', '{"steps": 5}']
    )
    def test_another_shape(self, run, text):
        path = run()
        (path / "summary.json").write_text(text)
        with pytest.raises(UsageError, match=r"summary\.json is invalid: "):
            make_report(path)

    def test_a_line_of_the_log(self, run):
        path = run()
        lines = (path / "metrics.jsonl").read_text().splitlines()
        (path / "metrics.jsonl").write_text("\n".join([lines[0], lines[1][:40], *lines[2:]]) + "\n")
        with pytest.raises(UsageError, match=r"metrics\.jsonl, line 2 is not JSON: "):
            make_report(path)

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("a: [1", "is not YAML"),
            ("- 1", "is not a mapping"),
            ("", "is not a mapping"),
        ],
    )
    def test_the_configuration(self, run, text, reason):
        path = run()
        (path / "config.yaml").write_text(text)
        with pytest.raises(UsageError, match=reason):
            make_report(path)

    def test_a_picture(self, run):
        path = run()
        (path / "samples" / "step-00000200.png").write_bytes(b"no picture")
        with pytest.raises(UsageError, match="is not a PNG file"):
            make_report(path)

    def test_bytes_that_are_no_text(self, run):
        path = run()
        (path / "summary.json").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(UsageError, match=r"summary\.json is not a text file"):
            make_report(path)

    def test_neither_a_run_nor_a_comparison(self, tmp_path, run):
        for path in (tmp_path, tmp_path / "nowhere", run() / "config.yaml"):
            with pytest.raises(
                UsageError,
                match=(
                    r"is neither a run \(no config\.yaml\) nor a comparison \(no comparison\.json\)"
                ),
            ):
                make_report(path)
