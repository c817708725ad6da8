"""What validation of a file's content has in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BOOL_AS_NUMBER = (
    "YAML reads yes, no, on, off, true and false as truth values, and a number is needed"
)
"""The reason given for a key that ``find_bool_as_number`` finds."""


def find_bool_as_number(given: Any, validated: Any, prefix: str = "") -> str | None:
    """Return the key of a truth value that validation converted to a number, or None.

    Args:
        given: plain containers, as read from a file.
        validated: what validation made of them: containers, or objects with the keys as attributes.
        prefix: the key of ``given``.

    >>> find_bool_as_number({"lr": True, "fused": True}, {"lr": 1.0, "fused": True})
    'lr'
    """
    if isinstance(given, bool):
        is_number = isinstance(validated, int | float) and not isinstance(validated, bool)
        return prefix if is_number else None
    children: list[tuple[str, Any, Any]] = []
    if isinstance(given, Mapping):
        for key, inner in given.items():
            if isinstance(validated, Mapping):
                found = validated.get(key)
            else:
                found = getattr(validated, str(key), None)
            children.append((f"{prefix}.{key}" if prefix else str(key), inner, found))
    elif isinstance(given, list | tuple) and isinstance(validated, list | tuple):
        for inner, found in zip(given, validated, strict=False):
            children.append((prefix, inner, found))
    for key, inner, found in children:
        flagged = find_bool_as_number(inner, found, key)
        if flagged is not None:
            return flagged
    return None
