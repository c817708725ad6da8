"""Render the page: one HTML document with everything in it, which loads nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import saddlepoint
from saddlepoint.errors import UsageError
from saddlepoint.extras import needs
from saddlepoint.report.charts import AXES
from saddlepoint.report.comparison_page import comparison_page
from saddlepoint.report.formatting import integer, number
from saddlepoint.report.run_page import run_page
from saddlepoint.report.schemas import Comparison, RunFiles, read_record


def make_report(path: Path) -> str:
    """Return the HTML page of a run or a comparison.

    Args:
        path: the directory of a run or a comparison, or a ``comparison.json``.

    Raises:
        UsageError: the path is none of these, or one of its files is damaged.
    """
    comparison = path / "comparison.json" if path.is_dir() else path
    if comparison.is_file() and comparison.suffix == ".json":
        content = comparison_page(read_record(Comparison, comparison), comparison.parent)
        return render("comparison.html.jinja", content)
    if (path / "config.yaml").is_file():
        return render("run.html.jinja", run_page(RunFiles.open(path)))
    raise UsageError(
        f"{path} is neither a run (no config.yaml) nor a comparison (no comparison.json). "
        "Give the directory that `saddlepoint train` or `saddlepoint compare` printed."
    )


def render(template: str, page: Mapping[str, Any]) -> str:
    """Return a template filled with a page's content, style, scripts and the data of its charts.

    All text is escaped. The content security policy names the two scripts by their hashes, so that
    nothing else runs and nothing is loaded, whatever names the files contain.
    """
    environment = Environment(
        loader=PackageLoader("saddlepoint.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # jinja's tojson escapes <, >, & and ', so that no text can end a script element; a number that
    # JSON lacks is an error, not a broken page
    environment.filters |= {"number": number, "integer": integer}
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}

    templates = files("saddlepoint.report") / "templates"
    plotly, script = plotly_script(), (templates / "script.js").read_text(encoding="utf-8")
    hashes = []
    for text in (plotly, script):
        digest = hashlib.sha256(text.encode()).digest()
        hashes.append(f"'sha256-{base64.b64encode(digest).decode()}'")

    found = set()  # axes that at least one chart has
    for chart in page["charts"]:
        for series in chart.legend:
            found |= {axis for axis, points in series.points.items() if points.x}

    return environment.get_template(template).render(
        page,
        data={
            "axis": page["axis"],
            "axes": AXES,
            "charts": [chart.to_dict() for chart in page["charts"]],
        },
        axes={axis: title for axis, title in AXES.items() if axis in found},
        policy=(
            "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src"
            f" {' '.join(hashes)}"
        ),
        style=Markup((templates / "style.css").read_text(encoding="utf-8")),
        plotly=Markup(plotly),
        script=Markup(script),
        version=saddlepoint.__version__,
    )


@cache
def plotly_script() -> str:
    """Return Plotly's script, some megabytes."""
    with needs("train", "A report"):
        from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())
