"""Standard output and error that no encoding, closed pipe or full disk turns into an exception."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _Survivor(io.RawIOBase):
    """Writes to a file descriptor; after the first failure it drops what it is given, and remembers the failure."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.failure: OSError | None = None
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest and self.failure is None:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # somebody has set the terminal to non-blocking
                select.select([], [self._descriptor], [])
            except OSError as error:
                self.failure = error
        return size


@contextmanager
def surviving_output() -> Iterator[None]:
    """Give ``sys.stdout`` and ``sys.stderr`` inside a form that never raises.

    Characters that the encoding lacks are written as escapes such as ``\\u2016``, and so are bytes
    of paths that are not text. What cannot be written is dropped. Streams that are closed or absent
    go to the null device, so that no file which is opened later takes the place of one. Streams
    without a file descriptor, as in tests and notebooks, stay.
    """
    _fill_closed_descriptors()
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as null:
        sys.stdout, sys.stderr = _surviving(sys.stdout, null), _surviving(sys.stderr, null)
        try:
            yield
        finally:
            sys.stdout.flush()
            failed = failure(sys.stdout)
            # a reader that has seen enough is no error
            if failed is not None and failed.errno != errno.EPIPE:
                reason = failed.strerror or failed
                print(f"note: Standard output could not be written: {reason}.", file=sys.stderr)
            sys.stderr.flush()
            sys.stdout, sys.stderr = before


def reader_is_gone() -> bool:
    """Say whether standard output is a pipe that its reader has closed, as ``| head`` does."""
    failed = failure(sys.stdout)
    return failed is not None and failed.errno == errno.EPIPE


def failure(stream: Any) -> OSError | None:
    """Return why a stream of ``surviving_output`` drops what is written; None where it does not."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw.failure if isinstance(raw, _Survivor) else None


def _fill_closed_descriptors() -> None:
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _surviving(stream: Any, null: Any) -> Any:
    if stream is None or stream.closed:
        return null
    try:
        stream.flush()
        descriptor = stream.fileno()
    except (OSError, ValueError, AttributeError):
        return stream
    buffer = io.BufferedWriter(_Survivor(descriptor))
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return io.TextIOWrapper(buffer, encoding, errors="backslashreplace", line_buffering=True)
