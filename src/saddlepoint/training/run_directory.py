"""The directory of one run: everything about it, and the only code that knows where what lies."""

from __future__ import annotations

import errno
import io
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from saddlepoint.diagnostics import History
from saddlepoint.errors import CorruptFileWarning, UsageError, quoted
from saddlepoint.io.atomic import (
    append_atomic,
    flush,
    json_bytes,
    json_line,
    remove_temporary_files,
    write_atomic,
    write_json,
)
from saddlepoint.io.checkpoint import CheckpointFormatError, CorruptCheckpointError, decode, encode
from saddlepoint.io.limits import (
    MAX_JSON_BYTES,
    MAX_LOG_BYTES,
    parse_json,
    read_bytes,
    refuse_symlinks,
)
from saddlepoint.io.locks import exclusive_lock
from saddlepoint.problems import GanProblem
from saddlepoint.training.config import RunConfig, read_yaml, validate
from saddlepoint.training.environment import environment
from saddlepoint.training.log_line import checked_line
from saddlepoint.training.places import empty_directory, free_directory

At = Literal["last", "best"] | int
"""Which checkpoint: the last, the best, or that of a step."""


class RunDirectory:
    """``config.yaml``, ``environment.json``, ``metrics.jsonl``, ``samples/``, ``samples.png``, ``checkpoints/``, ``summary.json``.

    Create one with ``create`` (refuses a directory that holds anything) or open one with ``open``.
    Whoever trains in it has ``claimed`` it. What cannot be written, because the disk is full or
    read-only, is a UsageError that says how to go on.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.samples_picture = path / "samples.png"
        self._config = path / "config.yaml"
        self._metrics = path / "metrics.jsonl"
        self._summary = path / "summary.json"
        self._samples = path / "samples"
        self._checkpoints = path / "checkpoints"
        self._claimed = False
        self._made = False

    @classmethod
    def create(cls, config: RunConfig, path: Path | None) -> RunDirectory:
        """Make the directory; without a path the first free ``runs/PROBLEM-RULE-OPTIMIZER-NNN``.

        Raises:
            UsageError: the path holds a run or other files already, or cannot be made.
        """
        made = path is None or not path.exists()
        try:
            path = free_directory(config) if path is None else empty_directory(path)
            (path / "checkpoints").mkdir(exist_ok=True)
            (path / "samples").mkdir(exist_ok=True)
            for name in ("environment.json", "config.yaml"):
                remove_temporary_files(path, name)
            write_json(path / "environment.json", environment(config.device))
            # the last: where it is, the directory is whole
            write_atomic(path / "config.yaml", config.to_yaml().encode())
        except OSError as error:
            raise UsageError(
                f"Cannot make the run directory {path}: {error.strerror or error}. Choose another"
                " --out."
            ) from error
        run = cls(path)
        run._made = made
        return run

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Open the directory of an existing run; a UsageError says when there is none."""
        if not (path / "config.yaml").is_file():
            raise UsageError(
                f"{path} is not a run directory (no config.yaml). Give the directory that"
                " `saddlepoint train` printed."
            )
        refuse_symlinks(path)
        return cls(path)

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep other processes from training in this directory while inside; reading is not kept from anyone.

        The kernel lets go of it when the process ends, however that happens.

        Raises:
            UsageError: another process has it.
        """
        if self._claimed:
            yield
            return
        with ExitStack() as stack:
            with self._writing(self.path / ".lock"):
                holder = stack.enter_context(exclusive_lock(self.path / ".lock"))
            if holder is not None:
                raise UsageError(
                    f"{self.path} is being trained by {holder}. Wait for it, or stop it; two would"
                    " spoil each other's files."
                )
            self._claimed = True
            try:
                yield
            finally:
                self._claimed = False

    def rewind(self, state: Mapping[str, Any] | None) -> None:
        """Make the directory what it was when a checkpoint was written: what came later, which training makes again, is dropped.

        So is what a killed process left half written. Where ``best.pt`` is not the best checkpoint
        that the state knows of, because the process was killed in between or it is damaged, it is
        written again, as far as that state is kept.

        Args:
            state: of the checkpoint; None for the untrained run, of which nothing but the
                configuration stays.
        """
        step, rollbacks = (-1, 0) if state is None else (state["step"], state["rollbacks"])
        with self._writing(self.path):
            for directory in (self._checkpoints, self._samples):
                directory.mkdir(exist_ok=True)  # a copy may have left out empty ones
                remove_temporary_files(directory)
            for path in (self._config, self._metrics, self._summary, self.samples_picture):
                remove_temporary_files(self.path, path.name)
            for later, picture in _by_step(self._samples, ".png").items():
                if later > step:
                    picture.unlink()
        if self._metrics.exists() and self._metrics.read_bytes()[-1:] not in (b"", b"\n"):
            warnings.warn(
                f"{self._metrics} ends in half a line, which is left out.",
                CorruptFileWarning,
                stacklevel=2,
            )
        self.truncate_log(step, rollbacks)
        self.drop_checkpoints_after(step)
        if state is not None:
            if state["best"] is not None:
                self._restore_best(state["best"]["step"])
            self._prune(self.read_config().keep_checkpoints, state["checkpointed"])

    def discard(self) -> None:
        """Remove everything in the directory, of a run that could not begin, and the directory itself where it was made for it."""
        with self._writing(self.path):
            shutil.rmtree(self.path)
            if not self._made:
                self.path.mkdir()

    def read_config(self) -> RunConfig:
        """Return the run's complete configuration."""
        return validate(read_yaml(self._config))

    def write_config(self, config: RunConfig) -> None:
        """Write the run's complete configuration."""
        self._write(self._config, config.to_yaml().encode())

    def log(self, line: dict[str, Any]) -> None:
        """Append one line to ``metrics.jsonl``."""
        with self._writing(self._metrics):
            append_atomic(self._metrics, json_line(line))

    def truncate_log(self, step: int, rollbacks: int | None = None) -> None:
        """Drop the lines after ``step``, which a resumed run will write again, a divergence in the step after it, and damaged lines.

        With ``rollbacks`` also those of later roll-backs to this step.
        """
        if not self._metrics.exists():
            return
        kept = [
            line
            for line in self.read_log()
            if (line["step"] < step or (line["step"] == step and "divergence" not in line))
            and (rollbacks is None or line.get("rollback", {"number": 0})["number"] <= rollbacks)
        ]
        self._write(self._metrics, b"".join(json_line(line) for line in kept))

    def read_log(self) -> list[dict[str, Any]]:
        """Return the lines of ``metrics.jsonl``. Damaged ones are left out, with a warning; of half a line at the end there is none.

        Such a half is what a killed process leaves, or another one is writing at this moment.

        Raises:
            UsageError: the file is too long, or what a line says is of another kind than a run's
                log.
        """
        raw = (
            read_bytes(self._metrics, MAX_LOG_BYTES).split(b"\n")
            if self._metrics.exists()
            else [b""]
        )
        found = [
            (number, line)
            for number, line in enumerate(map(_parsed, raw[:-1]), 1)
            if line is not None
        ]
        damaged = len(raw) - 1 - len(found)
        if damaged:
            what = (
                "1 damaged line, which is"
                if damaged == 1
                else f"{damaged} damaged lines, which are"
            )
            warnings.warn(f"{self._metrics} has {what} left out.", CorruptFileWarning, stacklevel=2)
        lines = [checked_line(line, f"{self._metrics}, line {number}") for number, line in found]
        return lines

    def history(self, problem: GanProblem) -> History:
        """Return the log as the checks read it."""
        return History(loss=problem.loss, coverage=problem.coverage_metric, lines=self.read_log())

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write ``summary.json``."""
        self._write(self._summary, json_bytes(summary))

    def read_summary(self) -> dict[str, Any]:
        """Return what ``write_summary`` wrote."""
        summary: dict[str, Any] = parse_json(read_bytes(self._summary, MAX_JSON_BYTES).decode())
        return summary

    def has_ended(self, step: int) -> bool:
        """Say whether the summary of a run that finished with this step is written."""
        try:
            summary = self.read_summary()
            return (summary["status"], summary["steps"]) == ("finished", step)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def write_evaluation(self, evaluation: dict[str, Any]) -> Path:
        """Write ``evaluation.json`` and return where it lies."""
        path = self.path / "evaluation.json"
        self._write(path, json_bytes(evaluation), training=False)
        return path

    def write_diagnosis(self, diagnosis: dict[str, Any], figures: dict[str, bytes]) -> Path:
        """Write ``diagnosis.json`` and the figures, name → PNG, into ``diagnosis/``; return where the former lies."""
        directory, path = self.path / "diagnosis", self.path / "diagnosis.json"
        with self._writing(directory, training=False):
            directory.mkdir(exist_ok=True)
        for name, content in figures.items():
            self._write(directory / f"{name}.png", content, training=False)
        self._write(path, json_bytes(diagnosis), training=False)
        return path

    def save_picture(self, picture: Image.Image, step: int) -> None:
        """Write the picture of ``step`` into ``samples/`` and as the latest one."""
        content = png(picture)
        self._write(self._samples / f"step-{step:08d}.png", content)
        self._write(self.samples_picture, content)

    def save_checkpoint(
        self,
        state: dict[str, Any],
        step: int,
        keep: int,
        *,
        spare: int | None = None,
        best: bool = False,
    ) -> None:
        """Write the state of ``step`` and drop all but the last ``keep`` and that of ``spare``; ``best`` also writes it as the best one."""
        content = encode(state)
        if self._metrics.exists():
            with self._writing(self._metrics):
                # first: when the power fails, a checkpoint must not know of lines that the log
                # lacks
                flush(self._metrics)
        self._write(self._of_step(step), content)
        if best:
            self._write(self._best, content)
        self._prune(keep, spare)

    def drop_checkpoints_after(self, step: int) -> None:
        """Drop the states of later steps, but not the best one."""
        for later in self.checkpoint_steps():
            if later > step:
                self._drop(self._of_step(later))

    def load_checkpoint(self, config: RunConfig, at: At = "last") -> dict[str, Any]:
        """Return the state of the last, the best or a step's checkpoint; nothing but plain values and tensors is ever unpickled.

        Where the last one is damaged it is the previous one that is whole, with a warning.

        Raises:
            UsageError: there is none, it is damaged, of another format, or of another
                configuration.
        """
        first = self._checkpoint(at)
        damage: dict[str, str] = {}
        for path in reversed(self._steps()) if at == "last" else [first]:
            try:
                state = self._read(path, config)
            except CorruptCheckpointError as error:
                damage[path.name] = str(error)
                continue
            if damage:
                text = "; ".join(
                    f"{name} is truncated or damaged: {reason}" for name, reason in damage.items()
                )
                warnings.warn(
                    f"In {self._checkpoints} {text}. The previous one, {path.name}, is used.",
                    CorruptFileWarning,
                    stacklevel=2,
                )
            return state
        others = [str(step) for step in self.checkpoint_steps() if self._of_step(step) != first]
        remedy = {
            "last": (
                "No earlier one is whole. Restore it from a copy, or start again with "
                f"`saddlepoint train --config {quoted(self._config)}`."
            ),
            "best": "Use the last one in its place; training goes on without it.",
        }.get(str(at), f"Use another one: {', '.join([*others, 'best'])}.")
        raise UsageError(
            f"Checkpoint {first} is truncated or damaged: {damage[first.name]}. {remedy}"
        )

    def checkpoint_steps(self) -> list[int]:
        """Return the steps whose checkpoints are kept, ascending; the best one may be another."""
        return list(_by_step(self._checkpoints, ".pt"))

    def has_checkpoints(self) -> bool:
        """Say whether there is anything to go on from; of a run that was killed before its first checkpoint there is not."""
        return bool(self.checkpoint_steps()) or self._best.exists()

    def checkpoint_of(self, config: RunConfig, step: int) -> Path | None:
        """Return where the state of a step is kept, as one of the last or as the best one; None where it is not.

        Raises:
            UsageError: the best checkpoint must be looked into, and is damaged.
        """
        path = self._of_step(step)
        if path.is_file():
            return path
        return (
            self._best
            if self._best.is_file() and self.load_checkpoint(config, "best")["step"] == step
            else None
        )

    def _checkpoint(self, at: At) -> Path:
        steps = self._steps()
        named = {"best": self._best, "last": steps[-1] if steps else None}
        path = named[at] if isinstance(at, str) else self._of_step(at)
        if path is not None and path.is_file():
            return path
        if isinstance(at, int) and steps:
            known = ", ".join(str(step) for step in self.checkpoint_steps())
            raise UsageError(
                f"{self.path} has no checkpoint of step {at}. It has those of {known}; keep more"
                " with keep_checkpoints."
            )
        if at == "last" and self._best.exists():
            raise UsageError(
                f"{self._checkpoints} holds nothing but {self._best.name}. Restore the other"
                " checkpoints from a copy."
            )
        raise UsageError(
            f"{self.path} has no {at} checkpoint; the run was stopped before it wrote one. "
            f"`saddlepoint resume {quoted(self.path)}` starts it."
        )

    def _read(self, path: Path, config: RunConfig) -> dict[str, Any]:
        try:
            state = decode(path.read_bytes())
        except CheckpointFormatError as error:
            raise UsageError(
                f"Checkpoint {path} was written by another version or another program: {error}."
            ) from error
        except OSError as error:
            if error.errno == errno.EIO:
                raise CorruptCheckpointError("the disk cannot read it") from error
            raise UsageError(f"Cannot read {path}: {error.strerror or error}.") from error
        if state.get("config") != config.digest():
            raise UsageError(
                f"Checkpoint {path} belongs to another configuration than {self._config}. Restore"
                " the run's own."
            )
        return state

    def _prune(self, keep: int, spare: int | None) -> None:
        """Drop all checkpoints but the last ``keep`` and that of the step ``spare``."""
        for old in self.checkpoint_steps()[:-keep]:
            if old != spare:
                self._drop(self._of_step(old))

    def _restore_best(self, step: int) -> None:
        try:
            if decode(self._best.read_bytes())["step"] == step:
                return
            found = f"{self._best} is of another step than {step}"
        except OSError as error:
            found = f"Cannot read {self._best}: {error.strerror or error}"
        except (CorruptCheckpointError, CheckpointFormatError) as error:
            found = f"{self._best} is damaged: {error}"
        try:
            content = self._of_step(step).read_bytes()
            decode(content)
            self._write(self._best, content)
        except (OSError, CorruptCheckpointError, CheckpointFormatError):
            warnings.warn(
                f"{found}, and no whole copy is kept. The next better evaluation writes it again.",
                CorruptFileWarning,
                stacklevel=3,
            )

    def _write(self, path: Path, content: bytes, *, training: bool = True) -> None:
        with self._writing(path, training=training):
            write_atomic(path, content)

    def _drop(self, path: Path) -> None:
        with self._writing(path):
            path.unlink(missing_ok=True)

    @contextmanager
    def _writing(self, path: Path, *, training: bool = True) -> Iterator[None]:
        """Say what cannot be written, why, and how training goes on."""
        try:
            yield
        except OSError as error:
            steps = self.checkpoint_steps()
            kept = (
                f"The checkpoint of step {steps[-1]} is safe" if steps else "Nothing is trained yet"
            )
            remedy = (
                f" {kept}; when the cause is gone, go on with: saddlepoint resume"
                f" {quoted(self.path)}"
                if training
                else ""
            )
            raise UsageError(f"Cannot write {path}: {error.strerror or error}.{remedy}") from error

    @property
    def _best(self) -> Path:
        return self._checkpoints / "best.pt"

    def _of_step(self, step: int) -> Path:
        return self._checkpoints / f"step-{step:08d}.pt"

    def _steps(self) -> list[Path]:
        return list(_by_step(self._checkpoints, ".pt").values())


def _by_step(directory: Path, suffix: str) -> dict[int, Path]:
    """Return step → file of those that are named by one, ascending; what else lies there is not ours."""
    named = {
        _NAME.fullmatch(path.name.removesuffix(suffix)): path
        for path in directory.glob(f"step-*{suffix}")
    }
    return dict(sorted((int(name[1]), path) for name, path in named.items() if name is not None))


# what is made of a number, and nothing else
_NAME = re.compile(r"step-(\d{8}|[1-9]\d{8,17})", re.ASCII)


def _parsed(raw: bytes) -> dict[str, Any] | None:
    """Return a line of the log; None where it is damaged."""
    try:
        line = parse_json(raw.decode())
    except ValueError:
        return None
    return line if isinstance(line, dict) and isinstance(line.get("step"), int) else None


FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
"""Suffix of a picture's file → its format."""


def picture_bytes(picture: Image.Image, suffix: str) -> bytes:
    """Return a picture in the format that a file's suffix names, one of ``FORMATS``; PNG where there is none."""
    if suffix.lower() in ("", ".png"):
        return png(picture)
    buffer = io.BytesIO()
    picture.save(buffer, format=FORMATS[suffix.lower()], quality=95)
    return buffer.getvalue()


def png(picture: Image.Image) -> bytes:
    """Return a picture as PNG bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
