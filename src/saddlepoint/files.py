"""Writing files so that a reader never sees half of one, even when the process is killed or the disk is full."""

from __future__ import annotations

import fcntl
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def write_atomic(path: Path, content: bytes) -> None:
    """Write beside the target, flush to the disk, then rename: the target is the old file or the whole new one.

    Raises:
        OSError: it cannot be written; the old file is as it was, and no other is left.
    """
    # a device or a pipe, which the rename would put a file in the place of
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno is not None:
            # what the reader knows, not the temporary name
            error.filename, error.filename2 = str(path), None
        with suppress(OSError):  # on a read-only disk this fails as well, and would hide why
            temporary.unlink(missing_ok=True)
        raise
    flush(path.parent)


def append_whole(path: Path, content: bytes) -> None:
    """Append to a file in one write; of what does not fit on the disk nothing stays.

    Raises:
        OSError: it cannot be written; the file is as long as it was.
    """
    with path.open("ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            rest = memoryview(content)
            # a full disk takes a part first, and says why when it is asked to take the rest
            while rest:
                rest = rest[file.write(rest) :]
        except BaseException:
            file.truncate(before)
            raise


def flush(path: Path) -> None:
    """Wait until what was written to a file, or a directory's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def drop_leftovers(directory: Path, name: str = "*") -> None:
    """Remove what killed processes were writing: the temporary files of ``write_atomic`` whose targets match ``name``."""
    for path in directory.glob(f".{name}.*.tmp"):
        path.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[str | None]:
    """Hold a lock file inside; yields None, or which process holds it where another does. A process that ends, however, lets go of it.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            yield file.read().strip() or "another process"
            return
        file.truncate(0)
        file.write(_this_process())
        file.flush()
        yield None


class SharedLock:
    """A lock file that several processes hold together, or one alone. A process that ends, however, lets go of it.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+")

    def share(self) -> None:
        """Hold it with others; wait for one that has it alone."""
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def take(self) -> bool:
        """Let go of a share and hold it alone if nobody else holds it; say whether that is so."""
        fcntl.flock(self._file, fcntl.LOCK_UN)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def sign(self) -> None:
        """Write down that this process holds it."""
        self._file.truncate(0)
        self._file.write(_this_process())
        self._file.flush()

    def holder(self) -> str:
        """Return which process signed last."""
        self._file.seek(0)
        return self._file.read(200).strip() or "another process"

    def close(self) -> None:
        """Let go of it."""
        self._file.close()


def _this_process() -> str:
    return f"process {os.getpid()} on {platform.node()}\n"


def write_json(path: Path, value: Any) -> None:
    """Write a value as ``json_text``, atomically."""
    write_atomic(path, json_text(value))


def json_text(value: Any) -> bytes:
    """Return a value as indented JSON; NaN and infinity, which JSON lacks, become null."""
    return (
        json.dumps(_storable(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    ).encode()


def json_line(value: Any) -> bytes:
    """Return a value as one line of JSON."""
    return (json.dumps(_storable(value), ensure_ascii=False, allow_nan=False) + "\n").encode()


def _storable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _storable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(inner) for inner in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    if isinstance(value, str):  # a path may hold bytes that are no text
        return value.encode(errors="backslashreplace").decode()
    return value
