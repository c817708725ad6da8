"""Modules of the user's own, which lie in the current directory."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


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
