"""Tables of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from saddlepoint.metrics import MetricResult
    from saddlepoint.training import Trainer

TITLES = {"": "generator", "ema/": "moving average", "average/": "optimizer's average"}
"""Whose metrics a prefix marks."""

_WIDEST = 10_000
"""Columns that no table needs."""

_INDENTED = 20
"""Columns above which the lines of a row are indented below the first."""


def show(console: Console, table: Table) -> None:
    """Print a table; where the terminal is too narrow for its columns, each row as lines of its own, a title before every value."""
    from rich.padding import Padding
    from rich.text import Text

    narrowest = console.measure(table, options=console.options.update(max_width=_WIDEST)).minimum
    if narrowest <= console.width:
        console.print(table)
        return
    if table.title:
        console.print(table.title)
    columns = [
        (Text.from_markup(str(column.header)), list(column.cells)) for column in table.columns
    ]
    for row in range(table.row_count):
        for number, (title, cells) in enumerate(columns):
            value = Text.from_markup(str(cells[row]))
            line = Text.assemble(title, ": ", value) if number and title.plain else value
            console.print(
                Padding(line, (0, 0, 0, 2 if number and console.width > _INDENTED else 0))
            )


def print_metrics(console: Console, training: Trainer, metrics: Mapping[str, float]) -> None:
    """Print a table of metrics with a column for each kind of weights that was measured."""
    from rich.markup import escape
    from rich.table import Table

    first = next(iter(training.problem.metric_names))
    shown = [prefix for prefix in TITLES if prefix + first in metrics]
    table = Table(
        "metric",
        *(TITLES[prefix] for prefix in shown),
        "better",
        "what it is",
        box=None,
        header_style="bold",
    )
    for name, metric in training.problem.metric_names.items():
        table.add_row(
            escape(name),
            *(f"{metrics[prefix + name]:.4g}" for prefix in shown),
            metric.better or "–",
            metric.meaning,
        )
    show(console, table)


def print_results(console: Console, results: Mapping[str, Mapping[str, MetricResult]]) -> None:
    """Print prefix → metric → result as a table of values with their intervals."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        "metric",
        *(TITLES[prefix] for prefix in results),
        "compared with",
        box=None,
        header_style="bold",
    )
    for name, result in next(iter(results.values())).items():
        against = f"{result.real} real, {result.split}" if result.real else result.split
        table.add_row(
            escape(name), *(_with_interval(own[name]) for own in results.values()), against
        )
    show(console, table)


def print_differences(console: Console, rows: Sequence[tuple[str, float, bool | None]]) -> None:
    """Print metric, difference and whether the intervals overlap."""
    from rich.markup import escape
    from rich.table import Table

    said = {True: "overlap", False: "apart", None: "–"}
    table = Table("metric", "this − other", "95 % intervals", box=None, header_style="bold")
    for name, difference, overlap in rows:
        table.add_row(escape(name), f"{difference:+.4g}", said[overlap])
    show(console, table)


def _with_interval(result: MetricResult) -> str:
    if result.interval is None:
        return f"{result.value:.4g}"
    low, high = result.interval
    return f"{result.value:.4g} ({low:.4g} … {high:.4g})"
