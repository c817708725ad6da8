"""Packages that only some parts need: they come with extras of the installation, and what is missing is said with pip's command."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from saddlepoint.errors import MissingExtraError

Extra = Literal["train", "tune", "fidelity", "postgresql"]

_ALWAYS = {"saddlepoint", "torch", "numpy", *sys.stdlib_module_names}
"""Of every installation: a module of these that cannot be found is another fault, which no extra mends."""


def install(extra: Extra) -> str:
    """Return the command that installs an extra.

    >>> print(install("train"))
    pip install 'saddlepoint[train]'
    """
    return f"pip install 'saddlepoint[{extra}]'"


@contextmanager
def needs(extra: Extra, what: str) -> Iterator[None]:
    """Import inside of this what comes with an extra.

    Where one such part imports another, the outer one is named: it is what the user asked for.

    Args:
        extra: the extra that brings everything imported inside.
        what: the part that needs it, as the message names it.

    Raises:
        MissingExtraError: a package is not installed; the message has pip's command.

    >>> with needs("train", "A report"):
    ...     import no_such_package
    Traceback (most recent call last):
    saddlepoint.errors.MissingExtraError: A report needs no_such_package, which is not installed.
    Run: pip install 'saddlepoint[train]'
    """
    try:
        yield
    except (ModuleNotFoundError, MissingExtraError) as error:
        package = (error.name or "").partition(".")[0]
        if not package or package in _ALWAYS:
            raise
        message = f"{what} needs {package}, which is not installed. Run: {install(extra)}"
        raise MissingExtraError(message, name=package) from error
