"""Reading and writing IDX files, the format of MNIST (plain or gzipped)."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from saddlepoint.errors import UsageError

_UNSIGNED_BYTE = 0x08
# limits of a header, so that a corrupt or hostile one cannot exhaust memory; MNIST's largest file
# has 47 million bytes
_MAX_BYTES = 1 << 28
_MAX_DIMENSIONS = 8


def read_idx(path: Path) -> np.ndarray:
    """Read an array of unsigned bytes from an IDX file, gzipped when its name ends in ``.gz``.

    At most as many bytes are unpacked as the header announces, and at most 256 MiB.

    Raises:
        UsageError: the file is missing, truncated, too large or not an IDX file of bytes.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
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
            size = math.prod(length or 1 for length in shape)
            if size > _MAX_BYTES or start[3] > _MAX_DIMENSIONS:
                raise UsageError(
                    f"{path} announces {announced:,} bytes in {start[3]} dimensions; the limit is"
                    f" {_MAX_BYTES:,} in {_MAX_DIMENSIONS}. It is not an MNIST file."
                )
            content = file.read(announced + 1)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None)
        if reason:
            raise UsageError(f"Cannot read {path}: {reason}.") from error
        raise UsageError(f"{path} is damaged: {error}. Fetch the file again.") from error
    if len(content) != announced:
        held = f"{len(content)} bytes" if len(content) < announced else "more bytes"
        raise UsageError(
            f"{path} holds {held} of data where its header announces {announced}. Fetch the file"
            " again."
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write an array of unsigned bytes as gzipped IDX, without a time stamp.

    Raises:
        UsageError: the array is not uint8.
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
