"""Tables of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from saddlepoint.metrics import Card
    from saddlepoint.training import Training

TITLES = {"": "generator", "ema/": "moving average", "average/": "optimizer's average"}
"""Whose metrics a prefix marks."""


def print_metrics(console: Console, training: Training, metrics: Mapping[str, float]) -> None:
    """Print a table of metrics with a column for each kind of weights that was measured."""
    from rich.markup import escape
    from rich.table import Table

    first = next(iter(training.problem.metric_names))
    shown = [prefix for prefix in TITLES if prefix + first in metrics]
    table = Table("metric", *(TITLES[prefix] for prefix in shown), "better", "what it is", box=None, header_style="bold")
    for name, metric in training.problem.metric_names.items():
        table.add_row(escape(name), *(f"{metrics[prefix + name]:.4g}" for prefix in shown), metric.better or "–", metric.meaning)
    console.print(table)


def print_cards(console: Console, cards: Mapping[str, Mapping[str, Card]]) -> None:
    """Print prefix → metric → card as a table of values with their intervals."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("metric", *(TITLES[prefix] for prefix in cards), "compared with", box=None, header_style="bold")
    for name, card in next(iter(cards.values())).items():
        against = f"{card.real} real, {card.split}" if card.real else card.split
        table.add_row(escape(name), *(_with_interval(own[name]) for own in cards.values()), against)
    console.print(table)


def print_differences(console: Console, rows: Sequence[tuple[str, float, bool | None]]) -> None:
    """Print metric, difference and whether the intervals overlap."""
    from rich.markup import escape
    from rich.table import Table

    said = {True: "overlap", False: "apart", None: "–"}
    table = Table("metric", "this − other", "95 % intervals", box=None, header_style="bold")
    for name, difference, overlap in rows:
        table.add_row(escape(name), f"{difference:+.4g}", said[overlap])
    console.print(table)


def _with_interval(card: Card) -> str:
    if card.interval is None:
        return f"{card.value:.4g}"
    low, high = card.interval
    return f"{card.value:.4g} ({low:.4g} … {high:.4g})"
