"""Writing files so that a reader never sees half of one, even when the process is killed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_atomic(path: Path, content: bytes) -> None:
    """Write beside the target, flush to the disk, then rename: the target is the old file or the whole new one."""
    if path.exists() and not path.is_file():  # a device or a pipe, which the rename would put a file in the place of
        path.write_bytes(content)
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically; NaN and infinity, which JSON lacks, become null."""
    write_atomic(path, (json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def json_line(value: Any) -> bytes:
    """Return a value as one line of JSON."""
    return (json.dumps(_finite(value), ensure_ascii=False, allow_nan=False) + "\n").encode()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value
