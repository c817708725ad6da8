"""Reading what runs and comparisons wrote; what is missing or damaged is said in a sentence that names the file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from saddlepoint.errors import UsageError
from saddlepoint.io.limits import MAX_JSON_BYTES, MAX_LOG_BYTES, parse_json, read_bytes

DAMAGED = "It is damaged, or another program wrote it; make it again."


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def filled(value: Any) -> Any:
    """Return what null stands for where keys and values are expected: none."""
    return {} if value is None else value


Number = Annotated[float | None, BeforeValidator(_finite)]
"""A number, or None for one that was not measured or is not finite."""

Numbers = Annotated[dict[str, Number], BeforeValidator(filled), Field(default_factory=dict)]
"""name → number; empty where there are none."""

Texts = Annotated[dict[str, str], BeforeValidator(filled), Field(default_factory=dict)]
"""name → text; empty where there are none."""

Tree = Annotated[dict[str, Any], BeforeValidator(filled), Field(default_factory=dict)]
"""Plain containers as they are; empty where there are none."""


class Record(BaseModel):
    """Something that was written as JSON; keys that a report does not show are left out."""

    model_config = ConfigDict(extra="ignore", frozen=True)


R = TypeVar("R", bound=Record)


def read_text(path: Path, most: int) -> str:
    """Return the text of a file of at most so many bytes; a UsageError says why it cannot be read."""
    try:
        return read_bytes(path, most).decode()
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not text. {DAMAGED}") from error


def read_json(path: Path) -> Any:
    """Return the content of a JSON file, NaN and infinities as None; a UsageError says where it is damaged."""
    try:
        return parse_json(read_text(path, MAX_JSON_BYTES))
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}. {DAMAGED}") from error


def read_record(kind: type[R], path: Path) -> R:
    """Return a JSON file as a record; a UsageError says what does not fit."""
    return record_of(kind, read_json(path), str(path))


def read_if_there(kind: type[R], path: Path) -> R | None:
    """Return a JSON file as a record, None where there is no such file."""
    return read_record(kind, path) if path.exists() else None


def read_lines(kind: type[R], path: Path) -> list[R]:
    """Return a file of JSON lines as records, without a last line that is torn because the file is being written."""
    records = []
    lines = read_text(path, MAX_LOG_BYTES).splitlines(keepends=True) if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            value = parse_json(line)
        except ValueError as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise UsageError(f"{path}, line {number} is not JSON: {error}. {DAMAGED}") from error
        records.append(record_of(kind, value, f"{path}, line {number}"))
    return records


def record_of(kind: type[R], value: Any, where: str) -> R:
    """Return plain containers as a record; a UsageError says ``where`` and which key does not fit."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise UsageError(
            f"{where} is not as expected: {key}: {first['msg'].removeprefix('Value error, ')}."
            f" {DAMAGED}"
        ) from error
