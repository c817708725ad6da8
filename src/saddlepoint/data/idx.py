"""Reading and writing IDX files, the format of MNIST (plain or gzipped)."""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from saddlepoint.errors import UsageError

_UNSIGNED_BYTE = 0x08
_MAXIMAL_BYTES = 1 << 30  # a corrupt or hostile header must not allocate the machine away


def read_idx(path: Path) -> np.ndarray:
    """Read an array of unsigned bytes from an IDX file, gzipped when its name ends in ``.gz``.

    Raises:
        UsageError: the file is missing, truncated, too large or not an IDX file of bytes.
    """
    content = _read_bytes(path)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _UNSIGNED_BYTE:
        raise UsageError(f"{path} is not an IDX file of unsigned bytes (wrong first four bytes). Fetch the file again.")
    header = 4 + 4 * content[3]
    if len(content) < header:
        raise UsageError(f"{path} is truncated inside its IDX header. Fetch the file again.")
    shape = struct.unpack(f">{content[3]}I", content[4:header])
    if len(content) - header != math.prod(shape):
        raise UsageError(
            f"{path} holds {len(content) - header} bytes of data where its header announces {math.prod(shape)}. Fetch the file again."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write an array of unsigned bytes as gzipped IDX, the same bytes every time (no time stamp).

    Raises:
        UsageError: the array is not of unsigned bytes.
    """
    if array.dtype != np.uint8:
        raise UsageError(f"IDX files are written from uint8 arrays, not {array.dtype}. Convert the array first.")
    header = bytes([0, 0, _UNSIGNED_BYTE, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    with path.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=9, mtime=0) as packed:
        packed.write(header + array.tobytes())


def _read_bytes(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror or error}.") from error
    if path.suffix != ".gz":
        return raw
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as packed:
            content = packed.read(_MAXIMAL_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path} is damaged: {error}. Fetch the file again.") from error
    if len(content) > _MAXIMAL_BYTES:
        raise UsageError(f"{path} unpacks to more than {_MAXIMAL_BYTES} bytes. It is not an MNIST file.")
    return content
