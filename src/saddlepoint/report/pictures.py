"""Pictures inside the page: as data, one frame for each moment, one slider for all frames."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from saddlepoint.errors import UsageError
from saddlepoint.io.limits import read_bytes

PICTURE_BYTES = 1 << 24
"""Of one picture, 16 MiB; the largest that is made here is a tenth of it."""

PIXELS = 1 << 25
"""Of one picture: a small file may unpack to any number, in whatever opens the report."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture in a frame: whose it is, its data, and what it shows for whoever does not see it; without data, why there is none."""

    name: str
    source: str | None
    description: str


@dataclass(frozen=True, kw_only=True)
class Frame:
    """All pictures of one moment; ``label`` says which."""

    label: str
    pictures: Sequence[Picture]


def data_uri(path: Path) -> str:
    """Return a PNG file as a data URI; a UsageError says when it cannot be read or is none."""
    try:
        content = read_bytes(path, PICTURE_BYTES)
    except OSError as error:
        raise UsageError(f"Cannot read the picture {path}: {error.strerror or error}.") from error
    if (
        not content.startswith(b"\x89PNG\r\n\x1a\n")
        or content[12:16] != b"IHDR"
        or len(content) < 33
    ):
        raise UsageError(
            f"The picture {path} is not a PNG file. It is damaged; delete it, and the report leaves"
            " it out."
        )
    width, height = struct.unpack(">II", content[16:24])
    if width * height > PIXELS:
        raise UsageError(
            f"The picture {path} has {width:,} × {height:,} pixels, more than {PIXELS:,}. Delete"
            " it; the report leaves it out."
        )
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
