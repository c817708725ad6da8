"""The file of a checkpoint, read as a stranger's: it is looked at before PyTorch sees it, and nothing in it is executed.

A checkpoint is what ``torch.save`` writes: a zip archive of uncompressed records, one of them a
pickle that describes plain containers and says which record is which tensor's memory.
``torch.load(weights_only=True)`` executes no pickle by itself. Beyond that this reader lets nothing
through but what checkpoints of this library consist of: no compressed record, which could unpack to
any size; no name of anything but a tensor and its storage; no storage that is larger than its
record.
"""

from __future__ import annotations

import pickletools
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import torch

HEADER_BYTES = 1 << 26
"""Of the pickle, 64 MiB; it holds no tensor, and takes some hundred bytes for each."""

_WIDTHS = {
    **dict.fromkeys(("Double", "Long", "ComplexFloat"), 8),
    **dict.fromkeys(("Float", "Int"), 4),
    **dict.fromkeys(("Half", "BFloat16", "Short"), 2),
    **dict.fromkeys(("Char", "Byte", "Bool"), 1),
    "ComplexDouble": 16,
}
_STORAGES = {f"torch {name}Storage": width for name, width in _WIDTHS.items()}
_GLOBALS = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", *_STORAGES}
_ABOUT = (
    "data.pkl",
    "version",
    "byteorder",
    ".format_version",
    ".storage_alignment",
    ".data/serialization_id",
)
_BUILDING = (
    "PROTO STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE"
    " EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS"
    " BINPUT LONG_BINPUT BINGET LONG_BINGET GLOBAL REDUCE BUILD BINPERSID"
)
_OPERATIONS = frozenset(_BUILDING.split())
_NUMBERS = {"BININT", "BININT1", "BININT2", "LONG1"}


class ForeignContentError(ValueError):
    """A file holds what no checkpoint of this library does; the sentence says what."""


def read_checkpoint(file: BinaryIO) -> Any:
    """Return what a file with a checkpoint holds: plain containers, numbers, text and tensors on the CPU.

    Raises:
        ForeignContentError: it is no archive of records, or holds what no checkpoint of this
            library does. Nothing of it was executed.
        Exception: one of PyTorch's many for a damaged file.
    """
    _check_archive(file)
    file.seek(0)
    return torch.load(file, map_location="cpu", weights_only=True)


def _check_archive(file: BinaryIO) -> None:
    """Refuse an archive that is not laid out as torch.save does it: records end to end, nothing between or behind, none compressed."""
    with _as_foreign(), zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        _check_layout(file, archive, records)
        names = [record.filename for record in records]
        roots = {name.partition("/")[0] for name in names}
        if len(roots) != 1 or len(set(names)) != len(names):
            raise ForeignContentError("it has records of the same name, or of several archives")
        sizes = {record.filename.partition("/")[2]: record.file_size for record in records}
        if not 0 < sizes.get("data.pkl", 0) <= HEADER_BYTES:
            raise ForeignContentError(f"it has no data.pkl of at most {HEADER_BYTES:,} bytes")
        root = roots.pop()
        if "byteorder" in sizes and archive.read(f"{root}/byteorder") != b"little":
            raise ForeignContentError("it was not written on a little-endian machine")
        expected = set(_ABOUT)
        for key, size in _storages(archive.read(f"{root}/data.pkl")):
            expected.add(f"data/{key}")
            if sizes.get(f"data/{key}") != size:
                raise ForeignContentError(
                    f"a tensor's memory of {size:,} bytes is in a record of"
                    f" {sizes.get(f'data/{key}', 0):,}"
                )
        if unknown := sorted(sizes.keys() - expected):
            raise ForeignContentError(f"its record {unknown[0]!r} is no tensor's")


def _check_layout(file: BinaryIO, archive: zipfile.ZipFile, records: list[zipfile.ZipInfo]) -> None:
    """Check that whoever reads the archive finds the same records in it."""
    end = file.seek(-22, 2)
    directory, told = _end(file, end)
    if archive.comment or told != archive.start_dir or not records:
        raise ForeignContentError("its table of records is not where it should be")
    position = 0
    for record in sorted(records, key=lambda record: record.header_offset):
        if (
            record.compress_type != zipfile.ZIP_STORED
            or record.file_size != record.compress_size
            or record.flag_bits & 1
        ):
            raise ForeignContentError(
                f"its record {record.filename!r} is compressed or encrypted, which a checkpoint's"
                " never is"
            )
        # none, or what says again how long the record is
        if record.header_offset - position not in (0, 12, 16, 20, 24):
            raise ForeignContentError(f"something lies before its record {record.filename!r}")
        file.seek(record.header_offset)
        header = file.read(30)
        method, name, extra = (
            struct.unpack("<H", header[8:10])[0],
            *struct.unpack("<HH", header[26:30]),
        )
        if (
            header[:4] != b"PK\3\4"
            or method != zipfile.ZIP_STORED
            or file.read(name) != record.filename.encode()
        ):
            raise ForeignContentError(
                f"its record {record.filename!r} is another one in the table of records"
            )
        position = record.header_offset + 30 + name + extra + record.file_size
    if archive.start_dir - position not in (0, 12, 16, 20, 24) or directory != end:
        raise ForeignContentError("something lies behind its records")


def _end(file: BinaryIO, end: int) -> tuple[int, int]:
    """Return where the table of records ends with what belongs to it, and where it begins, from the last bytes of the file."""
    file.seek(end)
    tail = file.read(22)
    if tail[:4] != b"PK\5\6" or tail[20:] != b"\0\0":
        raise ForeignContentError("it does not end as an archive of records does")
    size, start = struct.unpack("<II", tail[12:20])
    file.seek(max(end - 20, 0))
    locator = file.read(20)
    if locator[:4] != b"PK\6\7":
        return start + size, start
    at = struct.unpack("<Q", locator[8:16])[0]
    if at != end - 76:  # another reader would go there
        raise ForeignContentError("its table of records is not where it should be")
    file.seek(at)
    size, start = struct.unpack("<QQ", file.read(56)[40:56])
    return start + size + 76, start


def _storages(header: bytes) -> Iterator[tuple[str, int]]:
    """Yield the record and the size of every tensor's memory that the pickle names; refuse whatever else it would do."""
    memo: dict[Any, Any] = {}  # by number
    recent: list[Any] = []  # texts, names and numbers since the last mark
    for operation, argument, _ in pickletools.genops(header):
        name = operation.name
        if name not in _OPERATIONS:
            raise ForeignContentError(f"its pickle would do {name}, which no checkpoint needs")
        if name == "GLOBAL" and argument not in _GLOBALS:
            raise ForeignContentError(
                f"it names {'.'.join(str(argument).split(' ', 1))}, which no checkpoint of this"
                " library does"
            )
        if name == "PROTO" and argument != 2:
            raise ForeignContentError(
                f"its pickle is of protocol {argument}, a checkpoint's is of 2"
            )
        if name == "MARK":
            recent = []
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = recent[-1] if recent else None
        elif name in ("BINGET", "LONG_BINGET"):
            recent.append(memo.get(argument))
        elif name == "BINPERSID":
            yield _storage(recent)
            recent = [None]
        elif name in _NUMBERS or name in ("GLOBAL", "BINUNICODE"):
            recent.append(argument)
        else:
            recent.append(tuple(recent) if name == "TUPLE" and len(recent) == 5 else None)
        # one more than a memory's description has, so that a longer tuple is not taken for one
        del recent[:-6]


def _storage(recent: list[Any]) -> tuple[str, int]:
    """Return the record and the size of a memory from what was read just before: ('storage', type, record, device, length)."""
    found = recent[-1] if recent else None
    if not isinstance(found, tuple) or found[0] != "storage":
        raise ForeignContentError("it describes a tensor's memory in a way of its own")
    _, kind, key, device, length = found
    if (
        kind not in _STORAGES
        or not isinstance(key, str)
        or not key.isdecimal()
        or not isinstance(length, int)
        or length < 0
    ):
        raise ForeignContentError("it describes a tensor's memory in a way of its own")
    if not isinstance(device, str) or device.partition(":")[0] not in ("cpu", "cuda"):
        raise ForeignContentError("it has a tensor on an unknown device")
    return key, length * _STORAGES[kind]


@contextmanager
def _as_foreign() -> Iterator[None]:
    """Say of what zipfile and pickletools cannot read that it is no checkpoint."""
    try:
        yield
    except (ForeignContentError, OSError):
        raise
    except Exception as error:
        raise ForeignContentError("it is no archive of records") from error
