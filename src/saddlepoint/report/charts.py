"""Charts as plain dicts for the page's script, each with the words and the table that say the same.

A chart knows no colours: a series has a *tone*, which the page turns into a colour of the light or
the dark scheme.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saddlepoint.report.formatting import number

AXES = {
    "seconds": "seconds of training",
    "steps": "steps",
    "gradient_equivalents": "gradient-equivalents",
}
"""What a course can be drawn over: name → title."""

TONES = 8
INK = "ink"
"""The tone of what others are compared with."""

PLAYERS = {"generator": "0", "discriminator": "1"}
"""player → tone, the same blue and orange as in the figures of a diagnosis."""

_NUMBER = re.compile(r"[−–]?[\d,.]*(e−?\d+)?(\s(s|%|ms|MiB))?")

_LINE = 32

Values = Sequence[float | None]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table: its caption, column titles, and rows whose first cell names them."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def of_numbers(self) -> list[bool]:
        """Whether a column holds nothing but numbers, which are set so that their digits stand below each other."""
        return [
            bool(column) and all(_NUMBER.fullmatch(cell) for cell in column)
            for column in self._columns
        ]

    @property
    def long(self) -> list[bool]:
        """Whether a column holds texts that want several lines."""
        return [any(len(cell) > _LINE for cell in column) for column in self._columns]

    @property
    def _columns(self) -> list[list[str]]:
        return [[row[index] for row in self.rows] for index in range(len(self.header))]


@dataclass(frozen=True, kw_only=True)
class Points:
    """A course along one axis; ``low`` and ``high`` are the band around it, empty where there is none."""

    x: Sequence[float]
    y: Values
    low: Values = ()
    high: Values = ()


@dataclass(frozen=True, kw_only=True)
class Series:
    """A named line.

    Attributes:
        name: as the legend says it.
        tone: "0" to "7", or "ink".
        mark: number of its symbol and, from the second round of tones on, of its dashes.
        points: axis → its course; words and tables are made from the first.
    """

    name: str
    tone: str
    points: Mapping[str, Points]
    mark: int = 0


@dataclass(frozen=True, kw_only=True)
class Level:
    """A horizontal line with a name, or a band where ``low`` or ``high`` is given."""

    tone: str
    name: str = ""
    y: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart on the page.

    Attributes:
        id: unique on the page.
        title: what is drawn.
        summary: the same in a sentence.
        table: the same in numbers.
        legend: the series that can be switched off; charts of one ``group`` switch together.
        rows: height in rows of a heat map; 0 for the height that all others have.
        spec: what the script draws.
    """

    id: str
    title: str
    summary: str
    table: Table
    spec: Mapping[str, Any]
    legend: Sequence[Series] = ()
    group: str = ""
    rows: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return what the script needs."""
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
    """Return a chart of courses over time, None where no series has a point; ``log`` draws sizes that span orders of magnitude."""
    drawn = [one for one in series if any(points.x for points in one.points.values())]
    if not drawn:
        return None
    spec = {
        "kind": "lines",
        "log": log,
        "series": [_series(one) for one in drawn],
        "levels": [vars(level) for level in levels],
    }
    return Chart(
        id=id,
        title=title,
        summary=_summary(drawn, note),
        table=_courses(title, drawn),
        spec=spec,
        legend=drawn,
        group=group,
    )


def map_chart(
    id: str,
    title: str,
    *,
    columns: Sequence[str],
    rows: Sequence[str],
    cells: Sequence[Sequence[Cell]],
    note: str,
) -> Chart:
    """Return a heat map of shares between 0 and 1; a cell's details are seen when it is pointed at."""
    spec = {
        "kind": "map",
        "columns": list(columns),
        "rows": list(rows),
        "z": [[_short(cell.share) for cell in row] for row in cells],
        "text": [[cell.text for cell in row] for row in cells],
        "details": [[cell.details for cell in row] for row in cells],
    }
    said = [
        [name, *(f"{cell.text}: {cell.details}" if cell.details else cell.text for cell in row)]
        for name, row in zip(rows, cells, strict=True)
    ]
    return Chart(
        id=id,
        title=title,
        summary=note,
        table=Table(caption=title, header=["method", *columns], rows=said),
        spec=spec,
        rows=len(rows),
    )


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of a heat map: a share, how it is written, and what it is made of."""

    share: float | None
    text: str
    details: str = ""


def plane_chart(
    id: str,
    title: str,
    groups: Mapping[str, Sequence[tuple[float, float]]],
    *,
    rows: Sequence[str] = (),
    note: str,
) -> Chart:
    """Return points of the plane on scales that are logarithmic far from 0; with ``rows`` the ordinates are numbers of rows."""
    points = [point for own in groups.values() for point in own]
    reach = max((abs(x) if rows else math.hypot(x, y) for x, y in points), default=0.0) or 1.0
    ticks = _ticks(reach)
    spec = {
        "kind": "plane",
        "ticks": [[_bent(tick, reach), number(tick)] for tick in ticks],
        "rows": list(rows),
        "series": [
            {
                "name": name,
                "tone": PLAYERS.get(name, INK if mark == 0 else "1"),
                "mark": mark,
                "x": [_bent(x, reach) for x, _ in own],
                "y": [y if rows else _bent(y, reach) for _, y in own],
                "said": [number(x) if rows else _complex(x, y) for x, y in own],
            }
            for mark, (name, own) in enumerate(groups.items())
        ],
    }
    said = [
        [name, ", ".join(number(x) if rows else _complex(x, y) for x, y in own)]
        for name, own in groups.items()
    ]
    return Chart(
        id=id,
        title=title,
        summary=note,
        table=Table(caption=title, header=["", "values"], rows=said),
        spec=spec,
    )


def _series(one: Series) -> dict[str, Any]:
    points = {
        axis: {name: [_short(value) for value in values] for name, values in vars(course).items()}
        for axis, course in one.points.items()
        if course.x
    }
    return {"name": one.name, "tone": one.tone, "mark": one.mark, "points": points}


def _short(value: float | None) -> float | None:
    """Six digits are more than a screen shows, and a third of the bytes."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def _courses(title: str, series: Sequence[Series]) -> Table:
    rows = []
    for one in series:
        known = _known(one)
        rows.append(
            [one.name, *map(number, (known[0], known[-1], min(known), max(known)))]
            if known
            else [one.name, *[number(None)] * 4]
        )
    return Table(caption=title, header=["", "first", "last", "least", "most"], rows=rows)


def _known(one: Series) -> list[float]:
    points = next(points for points in one.points.values() if points.x)
    return [value for value in points.y if value is not None and math.isfinite(value)]


def _summary(series: Sequence[Series], note: str) -> str:
    """Say where the lines go, of at most three: the table has them all."""
    said = [
        f"{one.name} {number(known[0])} → {number(known[-1])}"
        for one in series[:3]
        if (known := _known(one))
    ]
    more = [f"{len(series) - 3} more in the table"] if len(series) > 3 else []
    course = f"First to last: {'; '.join([*said, *more])}." if said else "No value is finite."
    return f"{course} {note}".rstrip()


def _bent(value: float, reach: float) -> float:
    """Map a value so that a hundredth of the reach is where the scale turns from linear to logarithmic."""
    return float(f"{math.asinh(100 * value / reach):.6g}")


def _ticks(reach: float) -> list[float]:
    """Return 0 and the powers of ten between a thirtieth of the reach and the reach, with both signs."""
    last = math.floor(math.log10(reach))
    powers = [
        10.0**exponent for exponent in range(last - 2, last + 1) if 10.0**exponent >= reach / 30
    ]
    return [*(-power for power in reversed(powers)), 0.0, *powers]


def _complex(re: float, im: float) -> str:
    return number(re) if im == 0 else f"{number(re)} {'+' if im > 0 else '−'} {number(abs(im))} i"
