"""Names are text, the page asks for nothing, and making it needs no torch."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from itertools import pairwise

import pytest

from saddlepoint.report import make_report

NASTY = '</script><script>alert("x")</script><b>&amp;\u2028\'"{{ 1 }}%{x}'


@pytest.fixture
def nasty_run(run):
    path = run(problem={"name": NASTY}, optimizer={"name": NASTY})
    summary = json.loads((path / "summary.json").read_text())
    summary["metrics"] = {NASTY: 1.0, f"ema/{NASTY}": 2.0}
    summary["metric_names"] = {NASTY: {"meaning": NASTY, "better": "larger"}}
    summary["findings"] = [
        {
            "name": NASTY,
            "player": NASTY,
            "message": NASTY,
            "numbers": {NASTY: 1.0},
            "level": '"><script>',
            "since": None,
        }
    ]
    (path / "summary.json").write_text(json.dumps(summary))
    (path / "diagnosis.json").unlink()
    (path / "environment.json").write_text(
        json.dumps({NASTY: NASTY, "command": ["saddlepoint", NASTY]})
    )
    with (path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 601, "seconds": 12.1, "metrics": {NASTY: 1.0}}) + "\n")
    return path


@pytest.fixture
def nasty_comparison(comparison):
    return comparison(problems=(NASTY,), methods=("adam", NASTY, "sign"))


@pytest.mark.parametrize("kind", ["nasty_run", "nasty_comparison"])
def test_names_stay_text(request, page, kind):
    made = page(request.getfixturevalue(kind))
    assert "alert(" in made.body  # the name is there
    assert "<script>alert" not in made.html
    assert "<b>" not in made.body
    assert "\u2028" not in made.html.split('id="data">')[1].split("</script>")[0]
    assert "{{ 1 }}" in made.body  # no template in a template
    names = [entry["name"] for chart in made.data["charts"] for entry in chart.get("series", ())]
    # what charts show of it is what the file has; the script makes it plain text
    assert kind == "nasty_run" or names.count(NASTY) > 3
    assert made.html.count("<script") == 3
    assert made.html.count("</script>") == 3


@pytest.mark.parametrize("kind", ["run", "comparison"])
def test_nothing_is_asked_for(request, page, kind):
    made = page(request.getfixturevalue(kind)())
    assert not re.findall(r'(?:src|href|action|poster|data)="(?!data:image/png|#)[^"]*"', made.body)
    assert "url(" not in made.html.split("<style>")[1].split("</style>")[0]
    assert "@import" not in made.html.split("<style>")[1].split("</style>")[0]
    assert made.html.count("plotly.js v") == 1


def test_only_the_two_scripts_may_run(run):
    html = make_report(run())
    policy = (
        re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
        .group(1)
        .replace("&#39;", "'")
    )
    assert policy.startswith("default-src 'none'; img-src data: blob:; ")
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    ]
    assert re.search(r"script-src ([^;]*)", policy).group(1).split() == hashes
    assert " on" + "click=" not in html.split("<body>")[1].split("<script")[0]


@pytest.mark.parametrize("kind", ["run", "comparison"])
def test_headings_ids_and_labels(request, page, kind):
    body = page(request.getfixturevalue(kind)()).body
    levels = [int(level) for level in re.findall(r"<h(\d)", body)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = re.findall(r'\sid="([^"]*)"', body)
    assert len(ids) == len(set(ids))
    for target in re.findall(
        r'(?:href="#|for="|aria-labelledby="|aria-describedby=")([^"]*)"', body
    ):
        assert target in ids
    for table in re.findall(r"<table.*?</table>", body, re.DOTALL):
        assert "<caption>" in table
        assert '<th scope="row">' in table or "<tbody>\n</tbody>" in table
    assert (
        body.count('class="scroll" tabindex="0" role="region" aria-label="')
        == body.count('class="scroll"')
        == body.count("<table")
    )


def test_torch_is_not_loaded(run, comparison):
    script = (
        "import sys\nfrom pathlib import Path\nfrom saddlepoint.report import make_report\n"
        "assert 'torch' not in sys.modules\n"
        "for path in sys.argv[1:]: assert len(make_report(Path(path))) > 1_000_000\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(run()), str(comparison())],
        check=True,
        capture_output=True,
    )


def test_a_report_is_the_same_each_time(run):
    path = run()
    assert make_report(path) == make_report(path)
