"""Making a report: which kind it is, and the finished page."""

from __future__ import annotations

from pathlib import Path

from saddlepoint.errors import UsageError
from saddlepoint.report.comparison_file import Comparison
from saddlepoint.report.comparison_page import comparison_page
from saddlepoint.report.page import render
from saddlepoint.report.reading import read_record
from saddlepoint.report.run_files import RunFiles
from saddlepoint.report.run_page import run_page


def make_report(path: Path) -> str:
    """Return the page about a run's directory, a comparison's directory, or its ``comparison.json``: one whole HTML document.

    Raises:
        UsageError: the path is none of them, or a file of it is damaged.
    """
    comparison = path / "comparison.json" if path.is_dir() else path
    if comparison.is_file() and comparison.suffix == ".json":
        return render(
            "comparison.html.jinja",
            comparison_page(read_record(Comparison, comparison), comparison.parent),
        )
    if (path / "config.yaml").is_file():
        return render("run.html.jinja", run_page(RunFiles.open(path)))
    raise UsageError(
        f"{path} is neither a run (no config.yaml) nor a comparison (no comparison.json). "
        "Give the directory that `saddlepoint train` or `saddlepoint compare` printed."
    )
