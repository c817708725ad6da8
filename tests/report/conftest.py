"""Reports of made-up runs and comparisons, and a browser that opens them."""

import json
import re

import pytest

from saddlepoint.report import make_report
from tests.report import synthetic


class Page:
    """The HTML of a report, and what its script draws."""

    def __init__(self, html):
        self.html = html
        self.body = re.sub(r"<script>.*?</script>|<style>.*?</style>", "", html, flags=re.DOTALL)
        found = re.search(
            r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL
        )
        self.data = json.loads(found.group(1))

    @property
    def charts(self):
        return {chart["id"]: chart for chart in self.data["charts"]}


@pytest.fixture
def run(tmp_path):
    """Return what writes a made-up run."""
    return lambda name="run", **options: synthetic.run(tmp_path / name, **options)


@pytest.fixture
def comparison(tmp_path):
    """Return what writes a made-up comparison."""
    return lambda **options: synthetic.comparison(tmp_path / "comparison", **options)


@pytest.fixture
def page():
    """Return what makes the report of a path."""
    return lambda path: Page(make_report(path))
