"""Charts as plain dicts for the page's script, each with a text summary and a table.

A chart holds no colors: a series has a *tone*, which the style sheet maps to a color of the light
or the dark scheme.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saddlepoint.report.formatting import MISSING, Table, number

AXES = {
    "seconds": "seconds of training",
    "steps": "steps",
    "gradient_equivalents": "gradient-equivalents",
}
"""Horizontal axes of line charts: name → title."""

TONES = 8
INK = "ink"
"""The tone of a reference, such as the baseline."""

PLAYERS = {"generator": "0", "discriminator": "1"}
"""player → tone, the same blue and orange as in the figures of a diagnosis."""

Values = Sequence[float | None]


@dataclass(frozen=True, kw_only=True)
class Points:
    """A curve over one axis; ``low`` and ``high`` bound the band around it, empty without one."""

    x: Sequence[float]
    y: Values
    low: Values = ()
    high: Values = ()


@dataclass(frozen=True, kw_only=True)
class Series:
    """A named line.

    Attributes:
        name: its name in the legend.
        tone: "0" to "7", or "ink".
        mark: index of its symbol; lines with ``mark`` above 8 are dashed.
        points: axis → curve; summary and table use the first.
    """

    name: str
    tone: str
    points: Mapping[str, Points]
    mark: int = 0

    @property
    def empty(self) -> bool:
        """Whether no curve has points."""
        return not any(points.x for points in self.points.values())

    @property
    def finite_values(self) -> list[float]:
        """The finite values of the first curve that has points."""
        points = next(points for points in self.points.values() if points.x)
        return [value for value in points.y if value is not None and math.isfinite(value)]


@dataclass(frozen=True, kw_only=True)
class Level:
    """A horizontal line with a name, or a band if ``low`` or ``high`` is given."""

    tone: str
    name: str = ""
    y: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of a heat map: a share, its text, and details shown on hover."""

    share: float | None
    text: str
    details: str = ""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart of the page.

    Attributes:
        id: unique on the page.
        title: what is drawn.
        summary: the content as text.
        table: the content as numbers.
        legend: the series that can be hidden; charts of one ``group`` share their legend.
        rows: number of rows of a heat map, which sets its height; 0 for all other charts.
        spec: the data for the script.
    """

    id: str
    title: str
    summary: str
    table: Table
    spec: Mapping[str, Any]
    legend: Sequence[Series] = ()
    group: str = ""
    rows: int = 0

    @property
    def single_points(self) -> bool:
        """Whether no line has more than one point."""
        for series in self.legend:
            if any(len(points.x) > 1 for points in series.points.values()):
                return False
        return True

    def to_dict(self) -> dict[str, Any]:
        """Return the data for the script."""
        return {"id": self.id, "group": self.group or self.id, **self.spec}


def line_chart(
    id: str,
    title: str,
    series: Iterable[Series],
    *,
    levels: Sequence[Level] = (),
    log: bool = False,
    note: str = "",
    group: str = "",
) -> Chart | None:
    """Return a line chart, or None if no series has a point; ``log`` for a logarithmic scale."""
    drawn = [one for one in series if not one.empty]
    if not drawn:
        return None

    data, rows, ranges = [], [], []
    for one in drawn:
        curves = {}
        for axis, points in one.points.items():
            if points.x:
                curves[axis] = {name: _rounded(values) for name, values in vars(points).items()}
        data.append({"name": one.name, "tone": one.tone, "mark": one.mark, "points": curves})
        values = one.finite_values
        if values:
            extremes = (values[0], values[-1], min(values), max(values))
            rows.append([one.name, *map(number, extremes)])
            ranges.append(f"{one.name} {number(values[0])} → {number(values[-1])}")
        else:
            rows.append([one.name, *[MISSING] * 4])
            ranges.append("")

    # the summary names at most three series; the table has them all
    named = [text for text in ranges[:3] if text]
    summary = "No value is finite."
    if named:
        if len(drawn) > 3:
            named.append(f"{len(drawn) - 3} more in the table")
        summary = f"First to last: {'; '.join(named)}."
    return Chart(
        id=id,
        title=title,
        summary=f"{summary} {note}".rstrip(),
        table=Table(caption=title, header=["", "first", "last", "min", "max"], rows=rows),
        spec={
            "kind": "lines",
            "log": log,
            "series": data,
            "levels": [vars(level) for level in levels],
        },
        legend=drawn,
        group=group,
    )


def heat_map(
    id: str,
    title: str,
    *,
    columns: Sequence[str],
    rows: Sequence[str],
    cells: Sequence[Sequence[Cell]],
    note: str,
) -> Chart:
    """Return a heat map of shares between 0 and 1; a cell's details are shown on hover."""
    shares, texts, details, table = [], [], [], []
    for name, row in zip(rows, cells, strict=True):
        shares.append(_rounded([cell.share for cell in row]))
        texts.append([cell.text for cell in row])
        details.append([cell.details for cell in row])
        described = [f"{cell.text}: {cell.details}" if cell.details else cell.text for cell in row]
        table.append([name, *described])
    return Chart(
        id=id,
        title=title,
        summary=note,
        table=Table(caption=title, header=["method", *columns], rows=table),
        spec={
            "kind": "map",
            "columns": list(columns),
            "rows": list(rows),
            "z": shares,
            "text": texts,
            "details": details,
        },
        rows=len(rows),
    )


def plane_chart(
    id: str,
    title: str,
    groups: Mapping[str, Sequence[tuple[float, float]]],
    *,
    rows: Sequence[str] = (),
    note: str,
) -> Chart:
    """Return points (x, y) of the complex plane on arsinh scales, logarithmic far from 0.

    With ``rows``, x is a real value and y the index of its row.
    """
    reach = 0.0
    for values in groups.values():
        for x, y in values:
            reach = max(reach, abs(x) if rows else math.hypot(x, y))
    reach = reach or 1.0

    # ticks: 0 and ± the powers of ten between reach / 30 and reach
    last = math.floor(math.log10(reach))
    powers = [10.0**k for k in range(last - 2, last + 1) if 10.0**k >= reach / 30]
    ticks = [*(-power for power in reversed(powers)), 0.0, *powers]

    series, table = [], []
    for mark, (name, values) in enumerate(groups.items()):
        if rows:
            y_scaled = [y for _, y in values]
            texts = [number(x) for x, _ in values]
        else:
            y_scaled = [_arsinh(y, reach) for _, y in values]
            texts = []
            for x, y in values:
                imaginary = f" {'+' if y > 0 else '−'} {number(abs(y))} i"
                texts.append(number(x) if y == 0 else number(x) + imaginary)
        series.append(
            {
                "name": name,
                "tone": PLAYERS.get(name, INK if mark == 0 else "1"),
                "mark": mark,
                "x": [_arsinh(x, reach) for x, _ in values],
                "y": y_scaled,
                "labels": texts,
            }
        )
        table.append([name, ", ".join(texts)])
    return Chart(
        id=id,
        title=title,
        summary=note,
        table=Table(caption=title, header=["", "values"], rows=table),
        spec={
            "kind": "plane",
            "ticks": [[_arsinh(tick, reach), number(tick)] for tick in ticks],
            "rows": list(rows),
            "series": series,
        },
    )


def _rounded(values: Iterable[float | None]) -> list[float | None]:
    """Return values with six digits, a third of the bytes; None for those that are not finite."""
    return [
        None if value is None or not math.isfinite(value) else float(f"{value:.6g}")
        for value in values
    ]


def _arsinh(value: float, reach: float) -> float:
    """Return arsinh(100 value / reach), linear below about reach / 100, logarithmic above."""
    return float(f"{math.asinh(100 * value / reach):.6g}")
