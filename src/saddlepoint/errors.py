"""Errors and warnings. Each message says what happened, where, why and what to do."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class SaddlepointError(Exception):
    """Base class of all errors that this library raises intentionally."""


class UsageError(SaddlepointError, ValueError):
    """Incorrect use: a wrong name, value, file or combination."""


class MissingExtraError(ImportError, UsageError):
    """A feature needs a package that is not installed; the message has the command to install it.

    Attributes:
        name: the missing package.
    """


class DivergenceError(SaddlepointError, ArithmeticError):
    """A loss, gradient or direction became NaN or infinite; parameters were not changed.

    Attributes:
        player: the player whose quantity is not finite.
        term: the loss term that is not finite, or None if the loss has no named terms.
    """

    def __init__(self, message: str, *, player: str, term: str | None = None) -> None:
        super().__init__(message)
        self.player = player
        self.term = term


class DoubleBackwardError(SaddlepointError, RuntimeError):
    """A network contains an operation that PyTorch cannot differentiate twice."""


class DistributedError(SaddlepointError, RuntimeError):
    """Distributed training cannot continue: a process ended, hangs, or differs from the others.

    Attributes:
        told: whether another process reports the error already.
    """

    def __init__(self, message: str, *, told: bool = False) -> None:
        super().__init__(message)
        self.told = told


class SolverWarning(UserWarning):
    """A linear solve stopped before it reached its tolerance (warned once per optimizer)."""


class CurvatureWarning(UserWarning):
    """A combination that is allowed, but changes the result of a curvature rule."""


class CorruptFileWarning(UserWarning):
    """A file is corrupt; the message says what is used instead."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ' Did you mean "x"?' for the most similar known word, else list the known words.

    >>> did_you_mean("newtn", ["newton", "gradient"])
    ' Did you mean "newton"?'
    """
    names = sorted(known)
    if not names:
        return " There are none."
    near = get_close_matches(word, names, n=1, cutoff=0.6)
    return f' Did you mean "{near[0]}"?' if near else f" Known: {', '.join(names)}."


def quoted(path: Path | str) -> str:
    """Return a path quoted for the shell, for commands that the user may copy.

    >>> print(quoted("my runs/a"), quoted("-a"), quoted(os.fsdecode(b"b\\xff")))
    'my runs/a' ./-a $'b\\xff'
    """
    text = str(path)
    text = f"./{text}" if text.startswith("-") else text
    if text.isprintable():
        return shlex.quote(text)
    escaped = ""
    for byte in os.fsencode(text):
        printable = 32 <= byte < 127 and chr(byte) not in "'\\"
        escaped += chr(byte) if printable else f"\\x{byte:02x}"
    return f"$'{escaped}'"
