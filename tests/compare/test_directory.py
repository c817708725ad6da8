"""A directory holds one study: additions are allowed, other studies are refused."""

import json
from pathlib import Path

import pytest

from saddlepoint.compare import compare
from saddlepoint.compare.directory import (
    ComparisonDirectory,
    default_directory,
    first_difference,
    format_csv,
)
from saddlepoint.errors import UsageError


class TestAnotherStudy:
    @pytest.mark.parametrize(
        ("changes", "difference"),
        [
            (
                {"problem": {"budget": {"steps": 7}}},
                'problem "tiny ring": budget.steps is 6 there and 7 here',
            ),
            (
                {"problem": {"budget": {"seconds": 7}}},
                'problem "tiny ring": budget is steps=6 there and seconds=7 here',
            ),
            ({"problem": {"points": 4}}, 'problem "tiny ring": points is 3 there and 4 here'),
            ({"problem": {"name": "another"}}, 'problem "tiny ring" is there and not here'),
            (
                {"problem": {"settings": {"batch_size": 9}}},
                'problem "tiny ring": settings is batch_size=8',
            ),
            (
                {"problem": {"methods": ["adam"]}},
                'problem "tiny ring": method "sign" is there and not here',
            ),
            ({"methods": ["adam"]}, 'method "sign" is there and not here'),
            (
                {"methods": {"adam": {"settings": {"optimizer.lr": 1.0}}, "sign": None}},
                'method "adam": settings is empty there',
            ),
            ({"seeds": 1}, "seeds: 2 there and 1 here"),
            ({"tuning": {"trials": 2}}, "tuning is not given there and trials=2"),
            ({"name": "other"}, "name is small there and other here"),
        ],
    )
    def test_is_refused_and_changes_nothing(
        self, small_study, recorded, tmp_path, changes, difference
    ):
        compare(small_study(), tmp_path, execute=recorded())
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        with pytest.raises(UsageError) as error:
            compare(small_study(**changes), tmp_path, execute=recorded(most=0))
        assert f"holds another study: {difference}" in str(error.value)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before

    @pytest.mark.parametrize(
        "changes",
        [
            {"seeds": 3},
            {"methods": ["sign", "adam", "signum"]},
            {"baseline": "sign"},
            {"problem": {"target": 0.5}},
            {"problem": {"robustness": {"factors": [0.1], "seeds": 1}}},
            {"problem": {"methods": ["sign", "adam"]}},
        ],
    )
    def test_is_none_where_every_run_stays(self, small_study, changes):
        assert first_difference(small_study(), small_study(**changes)) is None

    def test_a_map_does_not_shrink(self, small_study):
        wide = small_study(problem={"robustness": {"factors": [0.1, 10], "seeds": 2}})
        narrow = small_study(problem={"robustness": {"factors": [0.1], "seeds": 2}})
        assert first_difference(narrow, wide) is None
        assert (
            first_difference(wide, narrow)
            == 'problem "tiny ring": robustness factor "10.0" is there and not here'
        )
        assert "robustness" in first_difference(wide, small_study())

    def test_that_cannot_be_read_is_reported(self, small_study, tmp_path):
        (tmp_path / "study.yaml").write_text("later: version")
        with (
            pytest.raises(UsageError, match="holds a study that cannot be read"),
            ComparisonDirectory.open(tmp_path, small_study()),
        ):
            pass


class TestAtTheSameTime:
    def test_the_same_study_is_shared(self, small_study, tmp_path):
        with (
            ComparisonDirectory.open(tmp_path, small_study()) as one,
            ComparisonDirectory.open(tmp_path, small_study()) as two,
        ):
            assert one.path == two.path

    @pytest.mark.parametrize(
        ("changes", "sentence"),
        [({"seeds": 1}, "holds another study"), ({"seeds": 3}, "works on the study there")],
    )
    def test_others_are_refused(self, small_study, tmp_path, changes, sentence):
        with ComparisonDirectory.open(tmp_path, small_study()):
            with (
                pytest.raises(UsageError, match=sentence),
                ComparisonDirectory.open(tmp_path, small_study(**changes)),
            ):
                pass
            with ComparisonDirectory.open(tmp_path, small_study()):
                pass

    def test_a_study_may_grow_afterwards(self, small_study, tmp_path):
        for seeds in (2, 3):
            with ComparisonDirectory.open(tmp_path, small_study(seeds=seeds)):
                assert f"seeds: {seeds}" in (tmp_path / "study.yaml").read_text()

    def test_what_a_killed_process_leaves_before_the_study_is_no_other_file(
        self, small_study, tmp_path
    ):
        for name in (".lock", ".study.yaml.123.tmp"):
            (tmp_path / name).write_text("half")
        with ComparisonDirectory.open(tmp_path, small_study()):
            pass


class TestDefaultDirectory:
    def test_of_another_study_is_another(self, small_study, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        first, other = small_study(), small_study(seeds=1)
        assert default_directory(first) == Path("comparisons/small")
        with ComparisonDirectory.open(default_directory(first), first):
            pass
        assert default_directory(small_study(seeds=3)) == Path("comparisons/small")
        place = default_directory(other)
        assert place.name.startswith("small-")
        with ComparisonDirectory.open(place, other):
            pass
        (tmp_path / "comparisons/small/study.yaml").write_text("damaged: [")
        assert default_directory(other) == place
        assert default_directory(small_study(seeds=1, problem={"target": 0.1})) == place


class TestTable:
    @pytest.mark.parametrize(
        "name", ["=HYPERLINK('x')", "+1+1", "-cmd", "@sum", "\t=1", "\r=1", "\n=1"]
    )
    def test_names_are_no_formulas(self, name):
        run = {
            "seed": 0,
            "status": "finished",
            "steps": 1,
            "seconds": -1.0,
            "gradient_equivalents": 1.0,
            "peak_memory": None,
        }
        run |= {"unconverged_solves": 0, "metrics": {name: -0.5}, "made_with": {}}
        method = {"name": name, "family": "first-order", "runs": [run]}
        text = format_csv({"problems": [{"name": name, "methods": [method]}]})
        assert text.count("'" + name) == 3
        assert "-0.5" in text
        assert "'-" not in text.replace("'-cmd", "")


def test_a_newer_comparison_is_refused(small_study, recorded, tmp_path):
    compare(small_study(), tmp_path, execute=recorded())
    file = tmp_path / "comparison.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 2}))
    before = file.read_bytes()
    with pytest.raises(UsageError, match="is not a comparison of format 1"):
        compare(small_study(), tmp_path, execute=recorded(most=0))
    assert file.read_bytes() == before
