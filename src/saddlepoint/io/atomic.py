"""Writing files such that a reader never sees a part of one.

This holds when the process is killed and when the disk is full.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any


def write_atomic(path: Path, content: bytes) -> None:
    """Write a temporary file in the same directory, flush it to the disk, and rename it.

    The target is the old file or the whole new one. A device or a pipe is written directly, since
    the rename would replace it by a file.

    Raises:
        OSError: the file cannot be written; the old file is unchanged and no temporary file is
            left.
    """
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
            # the name that the user knows, not the temporary one
            error.filename, error.filename2 = str(path), None
        with suppress(OSError):  # on a read-only disk this fails too, and would hide the reason
            temporary.unlink(missing_ok=True)
        raise
    flush(path.parent)


def append_atomic(path: Path, content: bytes) -> None:
    """Append to a file; where not all of the content fits on the disk, none of it is kept.

    Raises:
        OSError: the file cannot be written; its length is unchanged.
    """
    with path.open("ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            rest = memoryview(content)
            # a full disk first accepts a part, and reports the error at the next write
            while rest:
                rest = rest[file.write(rest) :]
        except BaseException:
            file.truncate(before)
            raise


def flush(path: Path) -> None:
    """Wait until the content of a file, or the entries of a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporary_files(directory: Path, name: str = "*") -> None:
    """Remove the temporary files of ``write_atomic`` that killed processes left.

    Args:
        directory: where to look.
        name: pattern of the names of the targets.
    """
    for path in directory.glob(f".{name}.*.tmp"):
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as ``json_bytes`` encodes it, atomically."""
    write_atomic(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Return a value as indented JSON; NaN and infinity, which JSON lacks, become null."""
    text = json.dumps(_as_json(value), indent=2, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def json_line(value: Any) -> bytes:
    """Return a value as one line of JSON; NaN and infinity become null."""
    text = json.dumps(_as_json(value), ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(inner) for inner in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    if isinstance(value, str):  # a path may contain bytes that are not valid UTF-8
        return value.encode(errors="backslashreplace").decode()
    return value
