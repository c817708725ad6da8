"""Numbers as a reader should see them: three digits, thousands apart, and no more digits than an interval allows."""

from __future__ import annotations

import math
from datetime import timedelta

MISSING = "–"
"""What stands for a number that was not measured or is not finite."""

_SPACE = "\N{NO-BREAK SPACE}"


def number(value: float | None) -> str:
    """Return three digits, whole thousands.

    >>> number(0.08123), number(8.0), number(12345.6), number(None), number(0.00001)
    ('0.0812', '8', '12,346', '–', '1e−5')
    """
    if value is None or not math.isfinite(value):
        return MISSING
    if 1000 <= abs(value) < 1e9:
        return _signed(f"{value:,.0f}")
    mantissa, e, exponent = f"{value:.3g}".partition("e")
    return _signed(f"{mantissa}e{int(exponent)}" if e else mantissa)


def whole(value: float | None) -> str:
    """Return a count in full.

    >>> whole(1234567)
    '1,234,567'
    """
    return MISSING if value is None else f"{value:,.0f}"


def share(value: float | None) -> str:
    """Return a share as per cent.

    >>> share(0.801).replace("\\N{NO-BREAK SPACE}", " ")
    '80 %'
    """
    return MISSING if value is None else f"{100 * value:.0f}{_SPACE}%"


def with_unit(value: float | None, unit: str) -> str:
    """Return a number and its unit on one line.

    >>> with_unit(2.5, "ms").replace("\\N{NO-BREAK SPACE}", " ")
    '2.5 ms'
    """
    return MISSING if value is None else f"{number(value)}{_SPACE}{unit}"


def duration(seconds: float | None) -> str:
    """Return seconds, and minutes and hours from three minutes on.

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


def probability(p: float | None) -> str:
    """Return a p-value; very small ones as a bound.

    >>> probability(0.0312), probability(0.00001)
    ('0.031', '< 0.001')
    """
    if p is None:
        return MISSING
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def interval(value: float | None, ends: tuple[float | None, float | None] | None) -> str:
    """Return a value with its interval, all with the digits that two digits of its width leave; an open end is ∞.

    >>> interval(0.1, (0.0799, 0.2)), interval(72.31, (70.1, 75.9)), interval(8.0, None), interval(0.1, (0.08, None))
    ('0.10 (0.08 … 0.20)', '72.3 (70.1 … 75.9)', '8', '0.1 (0.08 … ∞)')
    """
    if value is None or ends is None:
        return number(value)
    low, high = ends
    if low is None or high is None or not high > low:
        said = ["−∞" if low is None else number(low), "∞" if high is None else number(high)]
        return f"{number(value)} ({said[0]} … {said[1]})"
    decimals = min(8, max(0, 1 - math.floor(math.log10(high - low))))
    return _signed(f"{value:,.{decimals}f} ({low:,.{decimals}f} … {high:,.{decimals}f})")


def plain(value: object) -> str:
    """Return a value of a configuration: whole numbers and texts as they are, others with their digits.

    >>> plain(0.001), plain([0.0, 0.999]), plain(None), plain(True)
    ('0.001', '0, 0.999', '–', 'true')
    """
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(plain(entry) for entry in value)
    return str(value)


def _signed(text: str) -> str:
    return text.replace("-", "−")
