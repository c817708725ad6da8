"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from saddlepoint.metrics import MetricResult
    from saddlepoint.training import Trainer

WEIGHTS = {"": "generator", "ema/": "moving average", "average/": "optimizer's average"}
"""Prefix of a metric's name → the weights that were evaluated."""

_UNLIMITED = 10_000
"""A width that no table needs."""

_INDENT_ABOVE = 20
"""Console width above which the lines of a row are indented below its first one."""


def print_table(console: Console, table: Table) -> None:
    """Print a table.

    Where the console is too narrow for the columns, each cell of a row gets a line of its own,
    after the title of its column.
    """
    from rich.padding import Padding
    from rich.text import Text

    options = console.options.update(max_width=_UNLIMITED)
    if console.measure(table, options=options).minimum <= console.width:
        console.print(table)
        return
    if table.title:
        console.print(table.title)
    titles = [Text.from_markup(str(column.header)) for column in table.columns]
    cells = [list(column.cells) for column in table.columns]
    for row in range(table.row_count):
        for number, title in enumerate(titles):
            line = Text.from_markup(str(cells[number][row]))
            if number and title.plain:
                line = Text.assemble(title, ": ", line)
            indent = 2 if number and console.width > _INDENT_ABOVE else 0
            console.print(Padding(line, (0, 0, 0, indent)))


def print_metrics(console: Console, training: Trainer, metrics: Mapping[str, float]) -> None:
    """Print the metrics of a run, with a column for each kind of weights that was evaluated."""
    from rich.markup import escape
    from rich.table import Table

    first = next(iter(training.problem.metric_names))
    prefixes = [prefix for prefix in WEIGHTS if prefix + first in metrics]
    titles = ["metric", *(WEIGHTS[prefix] for prefix in prefixes), "better", "meaning"]
    table = Table(*titles, box=None, header_style="bold")
    for name, metric in training.problem.metric_names.items():
        values = [f"{metrics[prefix + name]:.4g}" for prefix in prefixes]
        table.add_row(escape(name), *values, metric.better or "–", metric.meaning)
    print_table(console, table)


def print_results(console: Console, results: Mapping[str, Mapping[str, MetricResult]]) -> None:
    """Print metric results, prefix → metric → result, as values with their intervals."""
    from rich.markup import escape
    from rich.table import Table

    titles = ["metric", *(WEIGHTS[prefix] for prefix in results), "reference"]
    table = Table(*titles, box=None, header_style="bold")
    for name, result in next(iter(results.values())).items():
        values = []
        for results_of_weights in results.values():
            own = results_of_weights[name]
            value = f"{own.value:.4g}"
            if own.interval is not None:
                low, high = own.interval
                value += f" ({low:.4g} … {high:.4g})"
            values.append(value)
        reference = f"{result.real} real, {result.split}" if result.real else result.split
        table.add_row(escape(name), *values, reference)
    print_table(console, table)


def print_differences(console: Console, rows: Sequence[tuple[str, float, bool | None]]) -> None:
    """Print rows of metric, difference, and whether the intervals overlap."""
    from rich.markup import escape
    from rich.table import Table

    overlaps = {True: "overlap", False: "disjoint", None: "–"}
    table = Table("metric", "this − other", "95 % intervals", box=None, header_style="bold")
    for name, difference, overlap in rows:
        table.add_row(escape(name), f"{difference:+.4g}", overlaps[overlap])
    print_table(console, table)
