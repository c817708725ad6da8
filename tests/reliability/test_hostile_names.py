"""Names of a stranger's choosing: text in a page and on a terminal, one part of a path in a
directory, and nothing else."""

import json
import os
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import saddlepoint as sp
from saddlepoint.cli.streams import printable
from saddlepoint.compare.directory import ComparisonDirectory, read_comparison
from saddlepoint.compare.runs import RunId
from saddlepoint.compare.schemas import validate_metric
from saddlepoint.compare.study import slug
from saddlepoint.report import make_report
from saddlepoint.training import RunDirectory, resolve
from tests.reliability.infection import infect
from tests.reliability.strangers import command, make_run
from tests.report import synthetic


class Tags(HTMLParser):
    """What a browser would make of a page: its tags, its attributes, what its links lead to, and
    the texts in scripts."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.names, self.links, self.scripts, self.inside = [], set(), set(), [], None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.names |= {name for name, _ in attributes}
        self.links |= {
            value
            for name, value in attributes
            if name in ("href", "src", "action", "style", "srcdoc", "data")
        }
        if tag == "script":
            self.scripts.append("")
            self.inside = True

    def handle_endtag(self, tag):
        if tag == "script":
            self.inside = None

    def handle_data(self, data):
        if self.inside:
            self.scripts[-1] += data


@pytest.mark.parametrize("kind", ["run", "comparison"])
def test_a_page_has_the_same_tags_whatever_the_names(tmp_path, kind):
    clean = getattr(synthetic, kind)(tmp_path / "clean")
    nasty = getattr(synthetic, kind)(tmp_path / "nasty")
    infect(nasty)
    html = make_report(nasty)
    assert html.count("window.ran") > 20  # the names are there
    ours, theirs = Tags(html), Tags(make_report(clean))
    assert set(ours.tags) <= set(theirs.tags)
    assert ours.names <= theirs.names
    assert not {name for name in ours.names if name.startswith("on")}
    assert not {link for link in ours.links if "window.ran" in link}
    assert len(ours.scripts) == 3
    assert ours.scripts[1:] == theirs.scripts[1:]  # the two that run
    raw = html.split('id="data">')[1].split("</script>")[0]
    assert "<" not in raw
    assert "window.ran" in json.dumps(json.loads(raw))


@given(st.text())
def test_a_name_is_one_part_of_a_path(name):
    part = slug(name)
    assert part not in ("", ".", "..")
    assert not set(part) & set("/\\\0:")
    assert len(part.encode()) <= 255
    run_id = RunId(name, name, 3)
    for root, path in ("runs", run_id.file), ("pictures", run_id.pictures):
        inside = Path(os.path.normpath("/comparison" / path))
        assert inside.is_relative_to(f"/comparison/{root}")
        assert len(inside.relative_to(f"/comparison/{root}").parts) == 3


@pytest.mark.parametrize(
    "name",
    [
        "../../x",
        "/etc/passwd",
        "..",
        "a/../../b",
        "C:\\x",
        "\\\\host\\share",
        "con",
        "nul.txt",
        "a\0b",
        "a" * 5000,
        "\u202e",
        "~",
        "-rf",
    ],
)
def test_a_study_writes_within_its_directory(tmp_path, small_study, name):
    study = small_study(methods={name: {"optimizer": "adam"}}, problem={"name": name})
    out = tmp_path / "deep" / "out"
    points = [{"progress": 1.0}]
    with ComparisonDirectory.open(out, study) as directory:
        before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(out)}
        with directory.lock(RunId(name, name, 0)):
            directory.write_result(
                RunId(name, name, 0),
                "key",
                {"pictures": [b"\x89PNG"], "points": points, "status": "failed"},
            )
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(out)} == before
    # the study, two locks, the picture, the run
    assert len([path for path in out.rglob("*") if path.is_file()]) == 5


@given(st.text())
def test_nothing_steers_the_terminal(text):
    said = printable(text)
    assert not any(ord(c) < 32 and c not in "\n\t" for c in said)
    assert not set(said) & {"\x7f", "\x9b", "\u202e", "\ud800"}
    said.encode()


class TestLinks:
    @pytest.fixture
    def run(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        make_run(Path("run"))
        Path("elsewhere").mkdir()
        Path("elsewhere/file").write_text("mine")
        return Path("run")

    @pytest.mark.parametrize(
        "name",
        [
            "samples",
            "checkpoints",
            "diagnosis",
            "metrics.jsonl",
            "summary.json",
            "samples.png",
            ".lock",
            "samples/x.png",
        ],
    )
    def test_that_lead_out_of_a_run_are_refused(self, run, capsys, name):
        place, target = run / name, Path("elsewhere").absolute()
        if place.is_dir():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
        place.symlink_to(
            target if name in ("samples", "checkpoints", "diagnosis") else target / "file"
        )
        for words in (
            ["resume", "run", "--steps", "+2"],
            ["sample", "run"],
            ["evaluate", "run"],
            ["diagnose", "run"],
            ["best", "run"],
            ["report", "run"],
        ):
            code, _, err = command(capsys, *words)
            assert (code, f"{place} is a symbolic link" in err) == (2, True)
        assert [path.name for path in Path("elsewhere").iterdir()] == ["file"]
        assert Path("elsewhere/file").read_text() == "mine"

    def test_to_a_run_are_followed(self, run, capsys):
        Path("latest").symlink_to(run)
        assert command(capsys, "sample", "latest")[0] == 0

    def test_in_a_comparison_are_refused(self, tmp_path, small_study):
        with ComparisonDirectory.open(tmp_path / "out", small_study()) as directory:
            (directory.path / "runs").symlink_to(tmp_path)
        with (
            pytest.raises(sp.UsageError, match="runs is a symbolic link"),
            ComparisonDirectory.open(tmp_path / "out", small_study()),
        ):
            pass

    @pytest.mark.parametrize(
        "picture",
        [
            "../secret.png",
            "/secret.png",
            "pictures/../../secret.png",
            "a\0b",
            "a" * 5000,
            ".",
            "link.png",
        ],
    )
    def test_pictures_of_a_comparison_are_of_its_directory(self, tmp_path, picture):
        Path(tmp_path / "secret.png").write_bytes(b"\x89PNG\r\n\x1a\n secret")
        path = synthetic.comparison(tmp_path / "out", methods=("adam",), problems=("a",), seeds=1)
        (path / "link.png").symlink_to(tmp_path / "secret.png")
        content = json.loads((path / "comparison.json").read_text())
        for point in content["problems"][0]["methods"][0]["runs"][0]["points"]:
            point["picture"] = (
                picture.replace("/secret", f"{tmp_path}/secret")
                if picture.startswith("/")
                else picture
            )
        (path / "comparison.json").write_text(json.dumps(content))
        assert "IHNlY3JldA" not in make_report(path)  # base64 of " secret"


class TestFilesInARun:
    @pytest.fixture
    def run(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        make_run(Path("run"))
        return Path("run")

    def test_strange_checkpoints_are_none(self, run, capsys):
        names = (
            "step-abc.pt",
            "step-1.pt",
            "step-.pt",
            "step--0000001.pt",
            "step-٠٠٠٠٠٠٠١.pt",
            "step-000000001.pt",
            f"step-{'9' * 200}.pt",
        )
        for name in names:
            (run / "checkpoints" / name).write_bytes(b"x")
        assert RunDirectory.open(run).checkpoint_steps() == [8]
        assert command(capsys, "resume", "run", "--steps", "+2")[0] == 0

    @pytest.mark.parametrize(
        "name",
        ["config.yaml", "summary.json", "metrics.jsonl", "environment.json", "evaluation.json"],
    )
    def test_pipes_are_not_waited_for(self, run, capsys, name):
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)
        for words in (["best", "run"], ["report", "run"]):
            code, _, err = command(capsys, *words)
            assert code in (0, 2)
            assert code == 0 or "is not a r" in err or "is neither a run" in err

    @pytest.mark.parametrize(
        "name", ["a" * 300, "a/" * 3000, "run/config.yaml/x", "/proc/nothing/x", "full"]
    )
    def test_paths_that_cannot_be(self, run, capsys, name):
        Path("full").symlink_to("/dev/full")  # a device is written to, and never replaced by a file
        for words in (
            ["resume", name],
            ["sample", "run", "-o", name],
            ["report", "run", "-o", name],
            ["train", "mixture8", "--out", name],
        ):
            code, _, err = command(capsys, *words, *(["--steps", 1] if words[0] == "train" else []))
            assert (code, err.startswith("Error: ")) == (2, True)
        assert Path("full").is_symlink()


@pytest.mark.parametrize(
    "name",
    [
        "torch.optim:../../x",
        "torch.optim:SGD/../../..",
        "../../x",
        "sgd/..",
        "torch.optim:" + "a" * 5000,
    ],
)
def test_the_default_directory_is_named_after_what_exists(name):
    with pytest.raises(sp.UsageError):
        resolve({"problem": "mixture8", "optimizer": {"name": name, "lr": 0.1}})


def test_the_loss_of_a_metric_that_is_null_is_infinite(small_study):
    plan = small_study().problems[0]
    assert plan.loss({plan.metric: None}) == float("inf")
    with pytest.raises(sp.UsageError, match="lacks the metric"):
        validate_metric({"points": [{"metrics": {}}], "metrics": None}, plan.metric, "here")


@pytest.mark.parametrize(
    "change",
    [
        {"key": 3},
        {"status": "won"},
        {"metrics": {"a": "b"}},
        {"metrics": []},
        {"points": 3},
        {"points": [{"progress": "x"}]},
        {"steps": -1},
        {"seconds": None},
        {"peak_memory": "much"},
    ],
)
def test_results_that_another_program_wrote_are_refused(tmp_path, small_study, change):
    """A key can be computed by anyone; what is stored under it must be a result."""
    run = {
        "key": "k", "status": "finished", "error": None, "steps": 1, "seconds": 1.0, "gradient_equivalents": 1.0, "peak_memory": None,
        "unconverged_solves": 0, "metrics": {"a": 1.0}, "points": [{"progress": 1.0, "seconds": 1.0, "metrics": {"a": 1.0}}],
    }  # fmt: skip
    run_id = RunId("a", "b", 0)
    with ComparisonDirectory.open(tmp_path / "out", small_study()) as directory:
        pass
    file = tmp_path / "out/runs/a/b/seed-0.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(run))
    assert directory.read_result(run_id, "k").items() >= run.items()
    file.write_text(json.dumps({**run, **change}))
    if change.get("key", "k") == "k":
        with pytest.raises(sp.UsageError, match="damaged, or another program wrote it"):
            directory.read_result(run_id, "k")
    method = {"runs": [{**run, **change}], "robustness": None, "tuning": None}
    (tmp_path / "out/comparison.json").write_text(
        json.dumps({"format": 1, "problems": [{"methods": [method]}]})
    )
    with pytest.raises(sp.UsageError, match="damaged, or another program wrote it"):
        read_comparison(tmp_path / "out/comparison.json")
    with pytest.raises(sp.UsageError, match="damaged, or another program wrote it"):  # noqa: SIM117 -- one of two that raise
        with ComparisonDirectory.open(tmp_path / "out", small_study()):
            pass
