"""The report of a comparison: who is better, how sure that is, and what it costs."""

import json
import re

import pytest

from saddlepoint.errors import UsageError
from saddlepoint.report import make_report
from tests.report.synthetic import METHODS


def edited(path, change):
    """Write a comparison with its first problem changed."""
    file = path / "comparison.json"
    content = json.loads(file.read_text())
    change(content["problems"][0])
    file.write_text(json.dumps(content))
    return path


def rows(body, anchor):
    """Return the cells of the ranking of a problem, without tags."""
    table = body.split(f'id="{anchor}"')[1].split("</table>")[0].split("<tbody>")[1]
    cells = [
        re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL)
        for row in table.split("</tr>")[:-1]
    ]
    return [[" ".join(re.sub(r"<[^>]*>", " ", cell).split()) for cell in row] for row in cells]


class TestWhole:
    @pytest.fixture
    def made(self, comparison, page):
        return page(comparison())

    def test_it_says_what_was_compared(self, made):
        assert "<h1>evidence</h1>" in made.body
        assert (
            "2 problems, 11 methods, 5 seeds, 110 runs; 8 runs diverged or failed and count as"
            " worse than all others." in made.body
        )
        assert '<a href="#p2">digits</a>' in made.body
        assert "saddlepoint compare studies/evidence.yaml" in made.body

    def test_the_ranking_is_by_the_median_and_has_all_columns(self, made):
        ranking = rows(made.body, "p1")
        assert [row[0] for row in ranking] == [*map(str, range(1, 11)), ""]
        assert ranking[0][2:] == [
            "0.148 (0.124 … 0.172)",
            "5 of 5 40 % … 97 %",
            "baseline",
            "3.2 s",
            "2.1 ms 2",
            "11.8 MiB",
            "0",
        ]
        assert ranking[3][1].startswith("sign subgradient: gradient + sign")
        assert ranking[3][4:6] == ["0.84 p 0.06", "5.2 s not reached by 2 of 5"]
        assert ranking[-1][2] == "half or more broke off"
        assert ranking[-1][-1] == "4 diverged"

    def test_the_headline_says_how_sure_it_is(self, made):
        assert "The baseline adam has the best median: 0.148 (0.124 … 0.172)." in made.body
        assert (
            "extragradient+adam has the best median: 0.161 (0.139 … 0.188), against 0.193 of the"
            " baseline adam. A run of extragradient+adam is better than one of adam with"
            " probability 0.76 (adjusted p 0.09); with so few runs it is not significant."
            in made.body
        )

    def test_quality_has_a_median_a_range_and_three_axes(self, made):
        adam = made.charts["p1-quality"]["series"][0]
        assert (adam["name"], adam["tone"], set(adam["points"])) == (
            "adam",
            "ink",
            {"seconds", "steps", "gradient_equivalents"},
        )
        points = adam["points"]["steps"]
        assert len(points["x"]) == 8
        assert all(
            low < middle < high
            for low, middle, high in zip(points["low"], points["y"], points["high"], strict=True)
        )
        assert "bands: minimum and maximum over seeds" in made.body

    def test_a_line_ends_where_half_of_the_seeds_broke_off(self, made):
        sga = made.charts["p1-quality"]["series"][-1]["points"]["seconds"]
        assert [value is None for value in sga["y"]] == [False] * 4 + [True] * 4
        assert None not in sga["low"]  # the seed that is still there

    def test_methods_have_one_colour_in_all_charts_and_marks_tell_rounds_apart(self, made):
        drawn = [
            chart
            for chart in made.charts.values()
            if chart["kind"] == "lines" and chart["group"] == "p1"
        ]
        assert len(drawn) == 6
        assert (
            len(
                {
                    tuple((s["name"], s["tone"], s["mark"]) for s in chart["series"])
                    for chart in drawn
                }
            )
            == 1
        )
        assert len({(s["tone"], s["mark"] > 8) for s in drawn[0]["series"]}) == len(METHODS)

    def test_the_map_counts_seeds_and_names_them(self, made):
        chart = made.charts["p1-robustness"]
        assert chart["columns"] == ["× 0.1", "× 0.316", "× 1", "× 3.16", "× 10"]
        assert (chart["rows"][0], chart["text"][0][0]) == ("adam", "2/3")
        assert (
            chart["details"][0][0]
            == "seed 0: 0.1, reached; seed 1: 0.15, reached; seed 2: 0.2, missed"
        )

    def test_pictures_at_equal_budget(self, made):
        assert (
            'data-label="7.5\N{NO-BREAK SPACE}s, 50\N{NO-BREAK SPACE}% of the budget"' in made.body
        )
        assert (
            'data-label="10,000 gradient-equivalents, 50\N{NO-BREAK SPACE}% of the budget"'
            in made.body
        )
        assert made.body.count('<div class="nothing">diverged</div>') == 2 * 4

    def test_tuning_differences_and_broken_runs(self, made):
        tuning = made.body.split("Hyperparameter search; smaller values are better</caption>")[
            1
        ].split("</table>")[0]
        first = " ".join(re.sub(r"<[^>]*>", " ", tuning.split("<tr>")[2]).split())
        assert (
            first == "adam 4 1 0.12 optimizer.lr 0.0003, ratio 0.5 optimizer.lr 0.0003 to 0.01 (log"
            " scale); ratio one of 0.25, 0.5, 1"
        )
        assert "Trials of adam</caption>" in made.body
        differences = made.body.split(
            "Settings that differ between the methods; all others are equal"
        )[2].split("</table>")[0]
        assert "optimizer.lr" in differences
        assert "batch_size" not in differences
        assert "Step 1,801: player &#34;generator&#34;: the loss is NaN." in made.body

    def test_the_file_itself_will_do(self, comparison, page):
        path = comparison(problems=("digits",))
        assert page(path / "comparison.json").data == page(path).data


class TestIncomplete:
    def test_a_method_without_runs(self, comparison, page):
        def nothing(problem):
            problem["methods"][1] |= {
                "runs": [],
                "summary": None,
                "tuning": None,
                "robustness": None,
            }
            problem["pairs"] = []

        made = page(edited(comparison(), nothing))
        assert "Incomplete: some methods have no runs yet." in made.body
        assert "no runs yet" in made.body
        assert "soap" not in [series["name"] for series in made.charts["p1-quality"]["series"]]

    def test_no_runs_at_all(self, comparison, page):
        made = page(comparison(seeds=0, problems=("digits",)))
        assert made.charts == {}
        assert "No method has a median yet." in made.body
        assert "No run has intermediate evaluations yet." in made.body

    def test_no_problem_yet(self, comparison, page):
        assert "0 problems, 0 methods, 0 seeds, 0 runs." in page(comparison(problems=())).body

    def test_pictures_that_were_not_kept(self, comparison, page):
        assert (
            "Pictures were not saved, or are not in the directory of comparison.json."
            in page(comparison(pictures=False)).body
        )

    def test_pictures_of_other_directories_are_left_alone(self, comparison, page, run):
        run("elsewhere")

        def steal(problem):
            for method in problem["methods"]:
                for one in method["runs"]:
                    for point in one["points"]:
                        point["picture"] = "../elsewhere/samples/step-00000000.png"

        assert (
            "Pictures were not saved" in page(edited(comparison(problems=("digits",)), steal)).body
        )

    def test_everything_null_that_may_be(self, comparison, page):
        def empty(problem):
            problem |= {"target": None, "baseline": None, "metrics": {}, "pairs": []}
            for method in problem["methods"]:
                method |= {"tuning": None, "robustness": None}
                method["summary"] = dict.fromkeys(method["summary"], None) | {
                    "diverged": 0,
                    "failed": 0,
                }
                for one in method["runs"]:
                    one |= {"metrics": None, "peak_memory": None}
                    for point in one["points"]:
                        point |= {
                            "metrics": {"ema/total-variation": None},
                            "losses": None,
                            "gradient_norms": None,
                            "seconds": None,
                        }

        made = page(edited(comparison(problems=("digits",)), empty))
        assert list(made.charts) == []
        assert (
            "No hyperparameter search: every method ran with the settings of its configuration."
            in made.body
        )
        assert "the study has no robustness map" in made.body


class TestDamaged:
    def test_json(self, comparison):
        path = comparison(problems=("digits",))
        (path / "comparison.json").write_text("{")
        with pytest.raises(UsageError, match=r"comparison\.json is not JSON"):
            make_report(path)

    @pytest.mark.parametrize(
        ("change", "where"),
        [
            ({"format": 2}, "format: Input should be 1"),
            ({"problems": [{"name": "a"}]}, r"problems\.0\.budget: Field required"),
            ({"problems": 3}, "problems: "),
            (
                {"problems": [{"name": "a", "budget": {}}]},
                r"problems\.0\.budget: Dictionary should have at least 1 item",
            ),
        ],
    )
    def test_another_shape(self, comparison, change, where):
        path = comparison(problems=("digits",))
        content = json.loads((path / "comparison.json").read_text())
        (path / "comparison.json").write_text(json.dumps(content | change))
        with pytest.raises(UsageError, match=rf"comparison\.json is invalid: {where}"):
            make_report(path)
