"""A checkpoint as bytes: a state that loads without executing code, and its checksum."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from typing import Any

import torch

import saddlepoint
from saddlepoint.training.checkpoint_file import ForeignContentError, read_checkpoint

FORMAT = 5  # of the state; 5 has new keys
_SEAL = b"\nsaddlepoint checkpoint, SHA-256 %s\n"
_SEAL_LENGTH = len(_SEAL % (b"0" * 64))


class DamagedCheckpointError(Exception):
    """The bytes are not those that were written; the message says how that is known."""


class OtherFormatError(Exception):
    """The bytes are as they were written, but no checkpoint of this format."""


def encode(state: Mapping[str, Any]) -> bytes:
    """Return a state as bytes: the file of ``torch.save``, followed by the checksum."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "saddlepoint": saddlepoint.__version__, **state}, buffer)
    return sealed(buffer.getvalue())


def decode(content: bytes) -> dict[str, Any]:
    """Return the state; only plain values and tensors are unpickled, after the checksum.

    Raises:
        DamagedCheckpointError: a part is missing or a bit has changed.
        OtherFormatError: another version or another program wrote it.
    """
    payload, seal = memoryview(content)[:-_SEAL_LENGTH], content[-_SEAL_LENGTH:]
    if seal != _seal_of(payload):
        whole = seal.startswith(_SEAL.partition(b"%")[0])
        raise DamagedCheckpointError(
            "its checksum is that of other content"
            if whole
            else "it does not end with its checksum, as those of versions before format 3 do not"
        )
    try:
        state = read_checkpoint(io.BytesIO(payload))
    except Exception as error:  # torch raises many kinds, some without a text
        said = (
            str(error)
            if isinstance(error, ForeignContentError)
            else f"it holds something that is not loaded ({type(error).__name__})"
        )
        raise OtherFormatError(said) from error
    if not isinstance(state, dict):
        raise OtherFormatError(f"it is not of format {FORMAT}")
    found = state.get("format")
    if found != FORMAT:
        version = state.get("saddlepoint") if type(found) is int else None
        if type(version) is str:
            raise OtherFormatError(
                f"it is of format {found}, written by saddlepoint {version[:40]}; this version"
                f" reads format {FORMAT}"
            )
        raise OtherFormatError(f"it is not of format {FORMAT}")
    return state


def sealed(payload: bytes) -> bytes:
    """Return the bytes with their checksum behind them."""
    return payload + _seal_of(payload)


def _seal_of(payload: bytes | memoryview) -> bytes:
    return _SEAL % hashlib.sha256(payload).hexdigest().encode()
