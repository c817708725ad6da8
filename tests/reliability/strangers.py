"""What the tests of hostile input share: a small run, checkpoints of a stranger's making, and
commands in this process."""

import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from saddlepoint.cli import main
from saddlepoint.io.checkpoint import with_checksum
from tests.training.conftest import run_to_the_end, small


def make_run(path, **options):
    """Write a run of eight steps with one checkpoint beside the best one, and return its
    configuration."""
    config = small(steps=8, keep_checkpoints=1, **options)
    run_to_the_end(config, path)
    return config


def checkpoints(path):
    """The files of a run's checkpoints."""
    return sorted((Path(path) / "checkpoints").glob("*.pt"))


def state_of(path):
    """What the last checkpoint of a run holds."""
    return torch.load(checkpoints(path)[-1], map_location="cpu", weights_only=True)


def replace_checkpoints(path, content):
    """Put the bytes, or the state, in the place of every checkpoint of a run, with a checksum that
    fits: anyone can make one."""
    for file in checkpoints(path):
        file.write_bytes(with_checksum(content if isinstance(content, bytes) else saved(content)))


def command(capsys, *arguments):
    """Run a command in this process: (exit code, output, errors)."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return caught.value.code or 0, out, err


class Calls:
    """Pickles as a call of ``function(*arguments)``, which unpickling would make."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def archive(records, root="archive", compression=zipfile.ZIP_STORED):
    """The bytes of a zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as target:
        for name, content in records.items():
            target.writestr(f"{root}/{name}", content)
    return buffer.getvalue()


def saved(value, **options):
    """The bytes that torch.save makes of a value."""
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def calling(module, name, *arguments):
    """A pickle, written by hand, that calls ``module.name(*arguments)`` with texts."""
    words = b"".join(
        b"X" + len(word.encode()).to_bytes(4, "little") + word.encode() for word in arguments
    )
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"(" + words + b"tR."


def payloads(witness):
    """name → the bytes of a checkpoint that makes ``witness`` where anything in it is executed."""
    made, shell = str(witness), f"touch {witness}"
    code = f"open({made!r}, 'w').close()"
    call = Calls(os.mkdir, made)
    benign, evil = saved({"format": 2, "config": ""}), saved(Calls(os.system, shell))
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as target:
        for name in ("storages", "tensors", "pickle"):
            content = pickle.dumps(call)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            target.addfile(entry, io.BytesIO(content))
    return {
        "reduce": saved({"format": 2, "config": call}),
        "os.system": evil,
        "eval": saved({"format": 2, "state": Calls(eval, code)}),
        "exec": saved([Calls(exec, code)]),
        "global of torch": archive(
            {"data.pkl": calling("torch.utils.collect_env", "run", shell), "version": b"3\n"}
        ),
        "global of the library": archive(
            {"data.pkl": calling("saddlepoint.registry.build", "load", "this:s"), "version": b"3\n"}
        ),
        "protocol 4": archive({"data.pkl": pickle.dumps(call, 4), "version": b"3\n"}),
        "protocol 0": archive({"data.pkl": pickle.dumps(call, 0), "version": b"3\n"}),
        "nested archive": archive(
            {
                "data.pkl": pickle.dumps({"format": 2}, 2),
                "data/0": evil,
                "inner/data.pkl": pickle.dumps(call),
            }
        ),
        "two archives": benign + evil,
        "hidden behind": evil + benign,
        "legacy format": saved(call, _use_new_zipfile_serialization=False),
        "bare pickle": pickle.dumps(call),
        "tar": tar.getvalue(),
        "script": archive(
            {
                "constants.pkl": pickle.dumps(call),
                "data.pkl": pickle.dumps(call),
                "code/a.py": code.encode(),
                "version": b"3\n",
            }
        ),
    }
