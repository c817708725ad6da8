"""Output: streams that never raise, and text that cannot control the terminal."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


class _SurvivingRaw(io.RawIOBase):
    """Writes to a file descriptor; after the first failure it drops all data.

    Attributes:
        failure: the error of the first failure, or None.
    """

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
            except BlockingIOError:  # another program has set the terminal to non-blocking
                select.select([], [self._descriptor], [])
            except OSError as error:
                self.failure = error
        return size


@contextmanager
def surviving_output() -> Iterator[None]:
    """Replace ``sys.stdout`` and ``sys.stderr`` inside the block by streams that never raise.

    Characters that the encoding lacks, and bytes of paths that are not valid UTF-8, are written as
    escapes such as ``\\u2016``. What cannot be written is dropped. Closed or absent streams are
    replaced by the null device, so that no file that is opened later takes the descriptor of one.
    Streams without a file descriptor, as in tests and notebooks, are kept.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as null:
        sys.stdout, sys.stderr = _surviving(sys.stdout, null), _surviving(sys.stderr, null)
        try:
            yield
        finally:
            sys.stdout.flush()
            failed = failure(sys.stdout)
            # a reader that closed the pipe has seen enough
            if failed is not None and failed.errno != errno.EPIPE:
                reason = failed.strerror or failed
                print(f"note: Standard output could not be written: {reason}.", file=sys.stderr)
            sys.stderr.flush()
            sys.stdout, sys.stderr = before


def _surviving(stream: Any, null: Any) -> Any:
    if stream is None or stream.closed:
        return null
    try:
        stream.flush()
        descriptor = stream.fileno()
    except (OSError, ValueError, AttributeError):
        return stream
    buffer = io.BufferedWriter(_SurvivingRaw(descriptor))
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return io.TextIOWrapper(buffer, encoding, errors="backslashreplace", line_buffering=True)


def failure(stream: Any) -> OSError | None:
    """Return why a stream of ``surviving_output`` drops its data, or None if it does not."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw.failure if isinstance(raw, _SurvivingRaw) else None


def is_reader_gone() -> bool:
    """Return whether standard output is a pipe that its reader has closed, as ``| head`` does."""
    failed = failure(sys.stdout)
    return failed is not None and failed.errno == errno.EPIPE


def make_console(*, quiet: bool = False) -> Console:
    """Return a console with the width of the terminal, or 140 columns elsewhere.

    Args:
        quiet: print nothing.
    """
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 140, quiet=quiet)


def print_text(console: Console, text: str) -> None:
    """Print text without interpreting markup, and with control characters escaped."""
    console.print(printable(text), markup=False, soft_wrap=True)


def printable(text: str) -> str:
    """Escape control characters, format characters and halves of surrogate pairs.

    A name in a file must not control the terminal.

    >>> printable("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    escaped = []
    for character in text:
        control = unicodedata.category(character) in ("Cc", "Cf", "Cs")
        if control and character not in "\n\t":
            character = ascii(character)[1:-1]
        escaped.append(character)
    return "".join(escaped)
