"""Numbers, settings, commands and tables as text.

Numbers have three significant digits and a thousands separator, and no more digits than their
interval supports.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

MISSING = "–"
"""Shown for a number that was not measured or is not finite."""

_SPACE = "\N{NO-BREAK SPACE}"
_NUMBER = re.compile(r"[−–]?[\d,.]*(e−?\d+)?(\s(s|%|ms|MiB))?")
_LONG_TEXT = 32
_ENVIRONMENT_TITLES = {
    "git_revision": "source revision",
    "cpus": "CPUs",
    "saddlepoint": "saddlepoint",
    "python": "Python",
    "torch": "PyTorch",
    "numpy": "NumPy",
}


def number(value: float | None) -> str:
    """Return three significant digits, or a rounded integer from 1,000 on.

    >>> number(0.08123), number(8.0), number(12345.6), number(None), number(0.00001)
    ('0.0812', '8', '12,346', '–', '1e−5')
    """
    if value is None or not math.isfinite(value):
        return MISSING
    if 1000 <= abs(value) < 1e9:
        return f"{value:,.0f}".replace("-", "−")
    mantissa, e, exponent = f"{value:.3g}".partition("e")
    text = f"{mantissa}e{int(exponent)}" if e else mantissa
    return text.replace("-", "−")


def integer(value: float | None) -> str:
    """Return a rounded integer with all its digits.

    >>> integer(1234567)
    '1,234,567'
    """
    return MISSING if value is None else f"{value:,.0f}"


def percent(value: float | None) -> str:
    """Return a share of 1 in percent.

    >>> percent(0.801).replace("\\N{NO-BREAK SPACE}", " ")
    '80 %'
    """
    return MISSING if value is None else f"{100 * value:.0f}{_SPACE}%"


def with_unit(value: float | None, unit: str) -> str:
    """Return a number and its unit, joined by a no-break space.

    >>> with_unit(2.5, "ms").replace("\\N{NO-BREAK SPACE}", " ")
    '2.5 ms'
    """
    return MISSING if value is None else f"{number(value)}{_SPACE}{unit}"


def duration(seconds: float | None) -> str:
    """Return seconds, or h:mm:ss from three minutes on.

    >>> duration(15.04).replace("\\N{NO-BREAK SPACE}", " "), duration(3723)
    ('15 s', '1:02:03')
    """
    if seconds is None or seconds < 180:
        return with_unit(seconds, "s")
    return str(timedelta(seconds=round(seconds)))


def memory(size: float | None) -> str:
    """Return bytes in MiB.

    >>> memory(3 * 2**20).replace("\\N{NO-BREAK SPACE}", " ")
    '3 MiB'
    """
    return with_unit(None if size is None else size / 2**20, "MiB")


def p_value(p: float | None) -> str:
    """Return a p-value; below 0.001 as a bound.

    >>> p_value(0.0312), p_value(0.00001)
    ('0.031', '< 0.001')
    """
    if p is None:
        return MISSING
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def interval(value: float | None, bounds: tuple[float | None, float | None] | None) -> str:
    """Return a value with its interval, rounded to two digits of the interval's width.

    A bound that is None is shown as infinite.

    >>> interval(0.1, (0.0799, 0.2)), interval(72.31, (70.1, 75.9))
    ('0.10 (0.08 … 0.20)', '72.3 (70.1 … 75.9)')
    >>> interval(8.0, None), interval(0.1, (0.08, None))
    ('8', '0.1 (0.08 … ∞)')
    """
    if value is None or bounds is None:
        return number(value)
    low, high = bounds
    if low is None or high is None or not high > low:
        low_text = "−∞" if low is None else number(low)
        high_text = "∞" if high is None else number(high)
        return f"{number(value)} ({low_text} … {high_text})"
    decimals = min(8, max(0, 1 - math.floor(math.log10(high - low))))
    text = f"{value:,.{decimals}f} ({low:,.{decimals}f} … {high:,.{decimals}f})"
    return text.replace("-", "−")


def setting(value: object) -> str:
    """Return a value of a configuration as text.

    >>> setting(0.001), setting([0.0, 0.999]), setting(None), setting(True)
    ('0.001', '0, 0.999', '–', 'true')
    """
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(setting(entry) for entry in value)
    return str(value)


def command_text(command: object) -> str:
    """Return a recorded command as it is typed in a shell.

    >>> command_text(["saddlepoint", "train", "--set", "a=b c"])
    "saddlepoint train --set 'a=b c'"
    """
    if isinstance(command, list | tuple):
        return shlex.join(str(word) for word in command)
    return str(command)


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table: its caption, column titles, and rows whose first cell is the row's name."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers only, which are right-aligned."""
        if not self.rows:
            return [False] * len(self.header)
        columns = zip(*self.rows, strict=True)
        return [all(map(_NUMBER.fullmatch, column)) for column in columns]

    @property
    def long(self) -> list[bool]:
        """Whether each column holds texts that need several lines."""
        if not self.rows:
            return [False] * len(self.header)
        columns = zip(*self.rows, strict=True)
        return [max(map(len, column)) > _LONG_TEXT for column in columns]


def environment_table(environment: Mapping[str, Any]) -> Table | None:
    """Return versions and machine as a table, None if they were not recorded."""
    rows = []
    for key, value in environment.items():
        if key != "command":
            rows.append([_ENVIRONMENT_TITLES.get(key, key.replace("_", " ")), setting(value)])
    return Table(caption="Environment", header=["name", "value"], rows=rows) if rows else None
