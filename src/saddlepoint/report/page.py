"""The finished page: one HTML document with everything in it, which asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import saddlepoint
from saddlepoint.extras import needs
from saddlepoint.report.charts import AXES, Chart
from saddlepoint.report.formatting import number, whole


def render(template: str, page: Mapping[str, Any]) -> str:
    """Return a template filled with a page's content, its style, its scripts and the data of its charts.

    All text is escaped. The content security policy names the two scripts by their hashes, so that
    nothing else can run and nothing can be loaded, whatever a name in a file may hold.
    """
    plotly, script = plotly_script(), _part("script.js")
    return (
        _templates()
        .get_template(template)
        .render(
            page,
            data={
                "axis": page["axis"],
                "axes": AXES,
                "charts": [chart.to_dict() for chart in page["charts"]],
            },
            axes=axes_of(page["charts"]),
            policy=(
                "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src"
                f" {_hash(plotly)} {_hash(script)}"
            ),
            style=Markup(_part("style.css")),
            plotly=Markup(plotly),
            script=Markup(script),
            version=saddlepoint.__version__,
        )
    )


def axes_of(charts: list[Chart]) -> dict[str, str]:
    """Return the axes that some chart can be drawn over: name → title."""
    found = {
        axis
        for chart in charts
        for series in chart.legend
        for axis, points in series.points.items()
        if points.x
    }
    return {axis: title for axis, title in AXES.items() if axis in found}


@cache
def plotly_script() -> str:
    """Return Plotly's script; it is of some megabytes, and once in a page."""
    with needs("train", "A report"):
        from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("saddlepoint.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # jinja's tojson escapes <, >, & and ', and with them the ends of scripts; a number that JSON
    # lacks is an error, not a broken page
    environment.filters |= {"number": number, "whole": whole}
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment


def _part(name: str) -> str:
    return (files("saddlepoint.report") / "templates" / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
