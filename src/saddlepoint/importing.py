"""Where modules are looked for: never in the current directory, but for modules of the user's own that are named."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

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
def importable_here() -> Iterator[None]:
    """Let modules of the current directory be imported inside, after all others: none takes the place of a library's or Python's."""
    here = os.getcwd()
    sys.path.append(here)
    try:
        yield
    finally:
        if here in sys.path:  # what was imported may have changed the list itself
            last = len(sys.path) - 1 - sys.path[::-1].index(here)
            del sys.path[last]
