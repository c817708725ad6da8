"""Where modules are looked for: never in the current directory, unless the user names a module that lies there."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from importlib.util import find_spec

_SAFE = "PYTHONSAFEPATH"
_environment = threading.Lock()


@contextmanager
def safe_children() -> Iterator[None]:
    """Let Python processes that are started inside not look for modules in the current directory, as with ``python -P``."""
    with _environment:
        before = os.environ.get(_SAFE)
        os.environ[_SAFE] = "1"
        try:
            yield
        finally:
            if before is None:
                del os.environ[_SAFE]
            else:
                os.environ[_SAFE] = before


@contextmanager
def importable_here(module: str) -> Iterator[None]:
    """Let a module that the user named be imported from the current directory inside, if it is nowhere else.

    The directory comes last on the path, so that no file in it takes the place of a library.
    """
    here = os.getcwd()
    if not lies_here(module):
        yield
        return
    sys.path.append(here)
    try:
        yield
    finally:
        if sys.path[-1:] == [here]:  # what was imported may have changed the list itself
            sys.path.pop()


def lies_here(module: str) -> bool:
    """Say whether a module is found in the current directory and nowhere else, without running anything of it."""
    package = module.partition(".")[0]
    if package in sys.modules:
        return False
    try:
        return find_spec(package) is None and PathFinder.find_spec(package, [os.getcwd()]) is not None
    except (ImportError, ValueError):
        return False
