"""Pictures inside the page: as data, one frame for each moment, one slider for all frames."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from saddlepoint.errors import UsageError


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
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"Cannot read the picture {path}: {error.strerror or error}.") from error
    if not content.startswith(b"\x89PNG"):
        raise UsageError(f"The picture {path} is not a PNG file. It is damaged; delete it, and the report leaves it out.")
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
