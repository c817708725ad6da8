"""Pictures embedded in the page: one frame per moment, all frames behind one slider."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from saddlepoint.errors import UsageError
from saddlepoint.io.limits import read_bytes
from saddlepoint.report.formatting import duration, integer, percent
from saddlepoint.report.schemas import Method, Point, Problem, RunFiles

MAX_BYTES = 1 << 24
"""Limit of one picture, 16 MiB; the library writes pictures of at most a tenth of that."""

MAX_PIXELS = 1 << 25
"""Limit of one picture: a small file may decompress to any size in the viewer of the report."""

MAX_FRAMES = 48
"""Number of pictures of a run in the page; of more, an evenly spaced selection is shown."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture in a frame.

    Attributes:
        name: the method; empty for a run.
        source: data URI; None if there is no picture.
        description: alternative text, or the reason why there is no picture.
    """

    name: str
    source: str | None
    description: str


@dataclass(frozen=True, kw_only=True)
class Frame:
    """All pictures of one moment; ``label`` names it."""

    label: str
    pictures: Sequence[Picture]


def data_uri(path: Path) -> str:
    """Return a PNG file as a data URI.

    Raises:
        UsageError: the file cannot be read, is not a PNG file, or is too large.
    """
    try:
        content = read_bytes(path, MAX_BYTES)
    except OSError as error:
        raise UsageError(f"Cannot read the picture {path}: {error.strerror or error}.") from error
    is_png = content.startswith(b"\x89PNG\r\n\x1a\n") and content[12:16] == b"IHDR"
    if not is_png or len(content) < 33:
        raise UsageError(
            f"The picture {path} is not a PNG file: it is damaged. Delete it to create the report"
            " without it."
        )
    width, height = struct.unpack(">II", content[16:24])
    if width * height > MAX_PIXELS:
        raise UsageError(
            f"The picture {path} has {width:,} × {height:,} pixels; the limit is {MAX_PIXELS:,}."
            " Delete it to create the report without it."
        )
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def run_frames(run: RunFiles) -> list[Frame]:
    """Return a frame for each picture of a run, at most ``MAX_FRAMES``."""
    seconds = {line.step: line.seconds for line in run.lines}
    files = run.sample_files
    if len(files) > MAX_FRAMES:
        kept = np.linspace(0, len(files) - 1, MAX_FRAMES).round().astype(int)
        files = [files[index] for index in kept]
    frames = []
    for step, file in files:
        label = f"step {integer(step)}"
        if seconds.get(step) is not None:
            label += f", {duration(seconds[step])}"
        picture = Picture(name="", source=data_uri(file), description=f"Samples at {label}")
        frames.append(Frame(label=label, pictures=[picture]))
    return frames


def comparison_frames(problem: Problem, directory: Path) -> list[Frame]:
    """Return frames with the pictures of all methods at equal shares of the budget.

    There is one frame for each point of the run with the most points, and none if no picture was
    saved.
    """
    longest: Sequence[Point] = ()
    saved = False
    for method in problem.ranked:
        points = method.example_run.points if method.example_run is not None else ()
        saved = saved or any(_picture_file(point.picture, directory) for point in points)
        longest = points if len(points) > len(longest) else longest
    if not saved:
        return []

    axis, amount = next(iter(problem.budget.items()))
    tolerance, frames = 0.5 / len(longest), []
    for moment in (point.progress for point in longest):
        spent = f"{integer(amount * moment)} {axis.replace('_', '-')}"
        if axis == "seconds":
            spent = duration(amount * moment)
        frames.append(
            Frame(
                label=f"{spent}, {percent(moment)} of the budget",
                pictures=[
                    _method_picture(method, moment, tolerance, directory)
                    for method in problem.ranked
                ],
            )
        )
    return frames


def _method_picture(method: Method, moment: float, tolerance: float, directory: Path) -> Picture:
    """Return a method's picture at a share of the budget, or the reason why there is none."""
    run, source = method.example_run, None
    if run is None:
        description = "no run yet"
    else:
        point = min(run.points, key=lambda point: abs(point.progress - moment))
        file = _picture_file(point.picture, directory)
        if abs(point.progress - moment) > tolerance:
            description = run.status if run.status != "finished" else "not evaluated here"
        elif file is None:
            description = "picture not saved"
        else:
            step = integer(point.step)
            description = f"Samples of {method.name}, seed {run.seed}, step {step}"
            source = data_uri(file)
    return Picture(name=method.name, source=source, description=description)


def _picture_file(picture: str | None, directory: Path) -> Path | None:
    """Return the file of a picture, None if it is missing or outside the directory."""
    if picture is None:
        return None
    try:
        file = (directory / picture).resolve()
        return file if file.is_relative_to(directory.resolve()) and file.is_file() else None
    except (OSError, ValueError):  # not a valid file name
        return None
