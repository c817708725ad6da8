"""The errors a user can meet. Each message says what, where, why and what to do."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class SaddlepointError(Exception):
    """Base of every error that this library raises on purpose."""


class UsageError(SaddlepointError, ValueError):
    """A mistake of the caller: a wrong name, value, file or combination."""


class MissingExtraError(ImportError, UsageError):
    """A part of the library needs a package that is not installed; the message has the command that installs it.

    Attributes:
        name: the package that is missing.
    """


class DivergenceError(SaddlepointError, ArithmeticError):
    """A loss, gradient or direction became NaN or infinite; parameters were left as they were.

    Attributes:
        player: the player whose quantity is not finite.
        term: the loss term that is not finite, or None where the loss has no named terms.
    """

    def __init__(self, message: str, *, player: str, term: str | None = None) -> None:
        super().__init__(message)
        self.player = player
        self.term = term


class DoubleBackwardError(SaddlepointError, RuntimeError):
    """A network contains an operation that PyTorch cannot differentiate twice."""


class DistributedError(SaddlepointError, RuntimeError):
    """The processes that train together cannot go on: one ended, hangs, or differs from the others.

    Attributes:
        told: whether another process says it already.
    """

    def __init__(self, message: str, *, told: bool = False) -> None:
        super().__init__(message)
        self.told = told


class SolverWarning(UserWarning):
    """A linear solve stopped before it reached its tolerance (said once per optimizer)."""


class CurvatureWarning(UserWarning):
    """A combination that is allowed but changes what a curvature rule computes."""


class CorruptFileWarning(UserWarning):
    """Something on the disk is damaged; the sentence says what is used in its place."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ' Did you mean "x"?' for the nearest known word, else the list of known words.

    >>> did_you_mean("newtn", ["newton", "gradient"])
    ' Did you mean "newton"?'
    """
    names = sorted(known)
    if not names:
        return " There are none."
    near = get_close_matches(word, names, n=1, cutoff=0.6)
    return f' Did you mean "{near[0]}"?' if near else f" Known: {', '.join(names)}."


def quoted(path: Path | str) -> str:
    """Return a path as a shell takes it, in a command that the user may copy.

    >>> print(quoted("my runs/a"), quoted("-a"), quoted(os.fsdecode(b"b\\xff")))
    'my runs/a' ./-a $'b\\xff'
    """
    text = str(path)
    text = f"./{text}" if text.startswith("-") else text
    if text.isprintable():
        return shlex.quote(text)
    escaped = "".join(_in_shell(byte) for byte in os.fsencode(text))
    return f"$'{escaped}'"


def _in_shell(byte: int) -> str:
    """Return a byte as it stands between $' and '."""
    character = chr(byte)
    plain = 32 <= byte < 127 and character not in "'\\"
    return character if plain else f"\\x{byte:02x}"
