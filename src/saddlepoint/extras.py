"""Optional dependencies: installation extras, and errors that name the pip command."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from saddlepoint.errors import MissingExtraError

Extra = Literal["train", "tune", "fidelity", "postgresql"]

_ALWAYS = {"saddlepoint", "torch", "numpy", *sys.stdlib_module_names}
"""Packages of every installation. No extra helps if a module of these cannot be found."""


def install(extra: Extra) -> str:
    """Return the command that installs an extra.

    >>> print(install("train"))
    pip install 'saddlepoint[train]'
    """
    return f"pip install 'saddlepoint[{extra}]'"


@contextmanager
def needs(extra: Extra, what: str) -> Iterator[None]:
    """Context for imports of optional dependencies.

    If such contexts are nested, the error names the outermost feature, which the user asked for.

    Args:
        extra: the extra that installs all packages imported inside.
        what: the feature that needs them, for the error message.

    Raises:
        MissingExtraError: a package is not installed; the message has the pip command.

    >>> with needs("train", "A report"):  # doctest: +NORMALIZE_WHITESPACE
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
