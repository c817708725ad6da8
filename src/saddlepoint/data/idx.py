"""Reading and writing IDX files, the format of MNIST (plain or gzipped)."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from io import BufferedReader
from pathlib import Path

import numpy as np

from saddlepoint.errors import UsageError

_UNSIGNED_BYTE = 0x08
# a corrupt or hostile header must not allocate the machine away; MNIST's largest announces 47
# million
_MAXIMAL_BYTES = 1 << 28
_MAXIMAL_DIMENSIONS = 8


def read_idx(path: Path) -> np.ndarray:
    """Read an array of unsigned bytes from an IDX file, gzipped when its name ends in ``.gz``.

    No more is unpacked than the header announces, and no header may announce more than 256 MiB.

    Raises:
        UsageError: the file is missing, truncated, too large or not an IDX file of bytes.
    """
    try:
        with _opened(path) as file:
            start = file.read(4)
            if len(start) < 4 or start[:2] != b"\0\0" or start[2] != _UNSIGNED_BYTE:
                raise UsageError(
                    f"{path} is not an IDX file of unsigned bytes (wrong first four bytes). Fetch"
                    " the file again."
                )
            sizes = file.read(4 * start[3])
            if len(sizes) < 4 * start[3]:
                raise UsageError(
                    f"{path} is truncated inside its IDX header. Fetch the file again."
                )
            shape = struct.unpack(f">{start[3]}I", sizes)
            announced = math.prod(shape)
            if (
                math.prod(size or 1 for size in shape) > _MAXIMAL_BYTES
                or start[3] > _MAXIMAL_DIMENSIONS
            ):
                raise UsageError(
                    f"{path} announces {announced:,} bytes in {start[3]} dimensions; at most"
                    f" {_MAXIMAL_BYTES:,} in {_MAXIMAL_DIMENSIONS} are read. It is not an MNIST"
                    " file."
                )
            content = file.read(announced + 1)
    except (OSError, EOFError, zlib.error) as error:
        said = getattr(error, "strerror", None)
        raise UsageError(
            f"Cannot read {path}: {said}."
            if said
            else f"{path} is damaged: {error}. Fetch the file again."
        ) from error
    if len(content) != announced:
        held = f"{len(content)} bytes" if len(content) < announced else "more bytes"
        raise UsageError(
            f"{path} holds {held} of data where its header announces {announced}. Fetch the file"
            " again."
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write an array of unsigned bytes as gzipped IDX, the same bytes every time (no time stamp).

    Raises:
        UsageError: the array is not of unsigned bytes.
    """
    if array.dtype != np.uint8:
        raise UsageError(
            f"IDX files are written from uint8 arrays, not {array.dtype}. Convert the array first."
        )
    header = bytes([0, 0, _UNSIGNED_BYTE, array.ndim]) + struct.pack(
        f">{array.ndim}I", *array.shape
    )
    with (
        path.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=9, mtime=0) as packed,
    ):
        packed.write(header + array.tobytes())


def _opened(path: Path) -> gzip.GzipFile | BufferedReader:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
