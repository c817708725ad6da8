"""Checkpoints as bytes: a state that loads without executing anything, and its checksum.

A checkpoint is what ``torch.save`` writes, followed by the SHA-256 of it: a zip archive of
uncompressed records, one of them a pickle that describes plain containers and says which record
holds which tensor storage. ``torch.load(weights_only=True)`` executes no pickle by itself. Before
it reads the file, this module refuses whatever checkpoints of this library never contain:
compressed records, which could expand to any size; globals other than tensors, their storages and
``OrderedDict`` (torch allows more, such as ``bytearray(n)``); storages that are larger than their
records, behind whose end older versions of torch read.
"""

from __future__ import annotations

import hashlib
import io
import pickletools
import struct
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import torch

import saddlepoint

FORMAT = 5  # of the state in it

MAX_PICKLE_BYTES = 1 << 26
"""Size of the pickle, 64 MiB; it holds no tensor data, and some hundred bytes for each tensor."""

_CHECKSUM = b"\nsaddlepoint checkpoint, SHA-256 %s\n"
_CHECKSUM_LENGTH = len(_CHECKSUM % (b"0" * 64))

_ITEM_SIZES = {
    **dict.fromkeys(("Double", "Long", "ComplexFloat"), 8),
    **dict.fromkeys(("Float", "Int"), 4),
    **dict.fromkeys(("Half", "BFloat16", "Short"), 2),
    **dict.fromkeys(("Char", "Byte", "Bool"), 1),
    "ComplexDouble": 16,
}
_STORAGES = {f"torch {name}Storage": size for name, size in _ITEM_SIZES.items()}
_GLOBALS = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", *_STORAGES}
_METADATA = {
    "data.pkl",
    "version",
    "byteorder",
    ".format_version",
    ".storage_alignment",
    ".data/serialization_id",
}
# fmt: off
_OPCODES = {
    "APPEND", "APPENDS", "BINFLOAT", "BINGET", "BININT", "BININT1", "BININT2", "BINPERSID",
    "BINPUT", "BINUNICODE", "BUILD", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "GLOBAL", "LONG1",
    "LONG_BINGET", "LONG_BINPUT", "MARK", "NEWFALSE", "NEWTRUE", "NONE", "PROTO", "REDUCE",
    "SETITEM", "SETITEMS", "STOP", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
}
# fmt: on
_VALUE_OPCODES = {"BININT", "BININT1", "BININT2", "LONG1", "GLOBAL", "BINUNICODE"}

_DESCRIPTOR_SIZES = (0, 12, 16, 20, 24)
"""Bytes behind a record: none, or a data descriptor that repeats its length."""


class CorruptCheckpointError(Exception):
    """The bytes differ from those that were written; the message says how that is known."""


class CheckpointFormatError(Exception):
    """The bytes are as they were written, but they are no checkpoint of this format."""


class InvalidCheckpointError(ValueError):
    """A file contains what no checkpoint of this library does; the message says what."""


def encode(state: Mapping[str, Any]) -> bytes:
    """Return the output of ``torch.save``, which ``torch.load`` reads, followed by its checksum."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "saddlepoint": saddlepoint.__version__, **state}, buffer)
    return with_checksum(buffer.getvalue())


def decode(content: bytes) -> dict[str, Any]:
    """Return the state that ``encode`` wrote.

    The checksum is verified first. Nothing but plain values and tensors is unpickled.

    Raises:
        CorruptCheckpointError: a part is missing or a bit has changed.
        CheckpointFormatError: another version or another program wrote it.
    """
    payload, checksum = memoryview(content)[:-_CHECKSUM_LENGTH], content[-_CHECKSUM_LENGTH:]
    if checksum != _CHECKSUM % hashlib.sha256(payload).hexdigest().encode():
        if checksum.startswith(_CHECKSUM.partition(b"%")[0]):
            raise CorruptCheckpointError("its checksum does not match its content")
        raise CorruptCheckpointError(
            "it does not end with a checksum, as checkpoints before format 3 do not"
        )
    try:
        state = load_payload(io.BytesIO(payload))
    except InvalidCheckpointError as error:
        raise CheckpointFormatError(str(error)) from error
    except Exception as error:  # torch raises many types, some without a message
        raise CheckpointFormatError(
            f"torch.load cannot load it ({type(error).__name__})"
        ) from error
    if isinstance(state, dict) and state.get("format") == FORMAT:
        return state
    if isinstance(state, dict) and type(state.get("format")) is int:
        version = state.get("saddlepoint")
        if type(version) is str:
            raise CheckpointFormatError(
                f"its format is {state['format']}, written by saddlepoint {version[:40]}; this"
                f" version reads format {FORMAT}"
            )
    raise CheckpointFormatError(f"its format is not {FORMAT}")


def with_checksum(payload: bytes) -> bytes:
    """Return the bytes followed by their checksum."""
    return payload + _CHECKSUM % hashlib.sha256(payload).hexdigest().encode()


def load_payload(file: BinaryIO) -> Any:
    """Return the content of a checkpoint without its checksum, tensors on the CPU.

    Raises:
        InvalidCheckpointError: the file is no zip archive, or contains what no checkpoint of this
            library does. Nothing of it was executed.
        Exception: one of the many that PyTorch raises for a corrupt file.
    """
    try:
        _check_archive(file)
    except (InvalidCheckpointError, OSError):
        raise
    except Exception as error:  # zipfile, struct and pickletools raise many types
        raise InvalidCheckpointError("it is not a zip archive of records") from error
    file.seek(0)
    return torch.load(file, map_location="cpu", weights_only=True)


def _check_archive(file: BinaryIO) -> None:
    """Refuse an archive whose records are not those that ``torch.save`` writes."""
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        _check_layout(file, archive, records)
        names = [record.filename for record in records]
        roots = {name.partition("/")[0] for name in names}
        if len(roots) != 1 or len(set(names)) != len(names):
            raise InvalidCheckpointError("it contains duplicate records, or those of two archives")
        sizes = {record.filename.partition("/")[2]: record.file_size for record in records}
        if not 0 < sizes.get("data.pkl", 0) <= MAX_PICKLE_BYTES:
            raise InvalidCheckpointError(
                f"it contains no data.pkl of at most {MAX_PICKLE_BYTES:,} bytes"
            )
        root = roots.pop()
        if "byteorder" in sizes and archive.read(f"{root}/byteorder") != b"little":
            raise InvalidCheckpointError("it was not written on a little-endian machine")
        expected = set(_METADATA)
        for key, size in _storages_in(archive.read(f"{root}/data.pkl")):
            expected.add(f"data/{key}")
            found = sizes.get(f"data/{key}", 0)
            if found != size or f"data/{key}" not in sizes:
                raise InvalidCheckpointError(
                    f"a tensor storage of {size:,} bytes is in a record of {found:,} bytes"
                )
        if unknown := sorted(sizes.keys() - expected):
            raise InvalidCheckpointError(f"its record {unknown[0]!r} belongs to no tensor")


def _check_layout(file: BinaryIO, archive: zipfile.ZipFile, records: list[zipfile.ZipInfo]) -> None:
    """Refuse an archive in which another reader of zip files could find other records.

    Records lie end to end, uncompressed, with nothing between them and nothing behind them but
    their central directory.
    """
    end = file.seek(-22, 2)
    directory_end, directory_start = _central_directory(file, end)
    if archive.comment or directory_start != archive.start_dir or not records:
        raise InvalidCheckpointError("its central directory is not at the expected position")

    position = 0
    for record in sorted(records, key=lambda record: record.header_offset):
        name = record.filename
        compressed = record.compress_type != zipfile.ZIP_STORED
        encrypted = record.flag_bits & 1
        if compressed or encrypted or record.file_size != record.compress_size:
            raise InvalidCheckpointError(
                f"its record {name!r} is compressed or encrypted, which those of checkpoints never"
                " are"
            )
        if record.header_offset - position not in _DESCRIPTOR_SIZES:
            raise InvalidCheckpointError(f"there are other bytes before its record {name!r}")
        file.seek(record.header_offset)
        header = file.read(30)
        (method,) = struct.unpack("<H", header[8:10])
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        if (
            header[:4] != b"PK\3\4"
            or method != zipfile.ZIP_STORED
            or file.read(name_length) != name.encode()
        ):
            raise InvalidCheckpointError(
                f"its record {name!r} differs from the entry in its central directory"
            )
        position = record.header_offset + 30 + name_length + extra_length + record.file_size
    if archive.start_dir - position not in _DESCRIPTOR_SIZES or directory_end != end:
        raise InvalidCheckpointError("there are other bytes behind its records")


def _central_directory(file: BinaryIO, end: int) -> tuple[int, int]:
    """Return end and start of the central directory, as the last bytes of the file state them.

    The end includes the records of zip64 that follow the directory.
    """
    file.seek(end)
    tail = file.read(22)
    if tail[:4] != b"PK\5\6" or tail[20:] != b"\0\0":
        raise InvalidCheckpointError("it does not end as a zip archive")
    size, start = struct.unpack("<II", tail[12:20])
    file.seek(max(end - 20, 0))
    locator = file.read(20)
    if locator[:4] != b"PK\6\7":
        return start + size, start
    zip64_end = struct.unpack("<Q", locator[8:16])[0]
    if zip64_end != end - 76:  # another reader would follow the locator there
        raise InvalidCheckpointError("its central directory is not at the expected position")
    file.seek(zip64_end)
    size, start = struct.unpack("<QQ", file.read(56)[40:56])
    return start + size + 76, start


def _storages_in(pickle: bytes) -> Iterator[tuple[str, int]]:
    """Yield record and size in bytes of every tensor storage that a pickle refers to.

    A storage is described by the tuple ("storage", type, record, device, number of items). Opcodes
    and globals that no checkpoint needs are refused. The pickle is parsed, not executed.
    """
    memo: dict[Any, Any] = {}
    recent: list[Any] = []  # strings, globals and integers since the last mark
    for opcode, argument, _ in pickletools.genops(pickle):
        name = opcode.name
        if name not in _OPCODES:
            raise InvalidCheckpointError(
                f"its pickle uses the opcode {name}, which no checkpoint needs"
            )
        if name == "GLOBAL" and argument not in _GLOBALS:
            raise InvalidCheckpointError(
                f"its pickle refers to {'.'.join(str(argument).split(' ', 1))}, which no checkpoint"
                " of this library does"
            )
        if name == "PROTO" and argument != 2:
            raise InvalidCheckpointError(f"its pickle has protocol {argument} instead of 2")

        if name == "MARK":
            recent = []
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = recent[-1] if recent else None
        elif name in ("BINGET", "LONG_BINGET"):
            recent.append(memo.get(argument))
        elif name in _VALUE_OPCODES:
            recent.append(argument)
        elif name == "BINPERSID":
            description = recent[-1] if recent else None
            if not isinstance(description, tuple) or description[0] != "storage":
                raise InvalidCheckpointError("it describes a tensor storage in an unknown form")
            _, kind, key, device, items = description
            if (
                kind not in _STORAGES
                or not isinstance(key, str)
                or not key.isdecimal()
                or not isinstance(items, int)
                or items < 0
            ):
                raise InvalidCheckpointError("it describes a tensor storage in an unknown form")
            if not isinstance(device, str) or device.partition(":")[0] not in ("cpu", "cuda"):
                raise InvalidCheckpointError("it contains a tensor on an unknown device")
            yield key, items * _STORAGES[kind]
            recent = [None]
        else:
            recent.append(tuple(recent) if name == "TUPLE" and len(recent) == 5 else None)
        # one more than a description has, so that a longer tuple is not taken for one
        del recent[:-6]
