"""The directory of one run: its files and their names, format and recovery."""

from __future__ import annotations

import errno
import io
import re
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
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
from saddlepoint.training.config import FORMAT, RunConfig, read_yaml, validate
from saddlepoint.training.environment import environment
from saddlepoint.training.log_line import validate_line
from saddlepoint.training.run_paths import create_free_directory, use_empty_directory

At = Literal["last", "best"] | int
"""Which checkpoint: the last, the best, or that of a step."""

_NUMBERED = re.compile(r"step-(\d{8}|[1-9]\d{8,17})", re.ASCII)


class RunDirectory:
    """The files of a run.

    They are ``config.yaml``, ``environment.json``, ``metrics.jsonl``, ``samples/``,
    ``samples.png``, ``checkpoints/`` and ``summary.json``. Create a directory with ``create``
    (which refuses a directory that holds anything) or open one with ``open``; whoever trains in it
    holds its ``lock``. A file that cannot be written, because the disk is full or read-only, raises
    a UsageError with the command that resumes the run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.samples_picture = path / "samples.png"
        self._config = path / "config.yaml"
        self._metrics = path / "metrics.jsonl"
        self._summary = path / "summary.json"
        self._samples = path / "samples"
        self._checkpoints = path / "checkpoints"
        self._best = self._checkpoints / "best.pt"
        self._locked = False
        self._created = False

    @classmethod
    def create(cls, config: RunConfig, path: Path | None) -> RunDirectory:
        """Create the directory; by default the first free ``runs/PROBLEM-RULE-OPTIMIZER-NNN``.

        Raises:
            UsageError: the path holds a run or other files already, or cannot be created.
        """
        created = path is None or not path.exists()
        try:
            path = create_free_directory(config) if path is None else use_empty_directory(path)
            (path / "checkpoints").mkdir(exist_ok=True)
            (path / "samples").mkdir(exist_ok=True)
            for name in ("environment.json", "config.yaml"):
                remove_temporary_files(path, name)
            write_json(path / "environment.json", environment(config.device))
            # written last: a directory with this file is complete
            write_atomic(path / "config.yaml", _config_file(config))
        except OSError as error:
            raise UsageError(
                f"Cannot create the run directory {path}: {error.strerror or error}. Choose another"
                " --out."
            ) from error
        run = cls(path)
        run._created = created
        return run

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Open the directory of an existing run.

        Raises:
            UsageError: it is no run directory, or has a symbolic link in it.
        """
        if not (path / "config.yaml").is_file():
            raise UsageError(
                f"{path} is not a run directory (no config.yaml). Give the directory that"
                " `saddlepoint train` printed."
            )
        refuse_symlinks(path)
        return cls(path)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Prevent other processes from training in this directory inside; reading stays allowed.

        The kernel releases the lock when the process ends, however it ends.

        Raises:
            UsageError: another process holds the lock.
        """
        if self._locked:
            yield
            return
        with ExitStack() as stack:
            with self._writing(self.path / ".lock"):
                holder = stack.enter_context(exclusive_lock(self.path / ".lock"))
            if holder is not None:
                raise UsageError(
                    f"{self.path} is being trained by {holder}. Wait for it, or stop it: two"
                    " processes would overwrite each other's files."
                )
            self._locked = True
            try:
                yield
            finally:
                self._locked = False

    def truncate_after(self, state: Mapping[str, Any] | None) -> None:
        """Restore the directory to what it was when a checkpoint was written.

        Later records, which training writes again, and partly written files of a killed process are
        removed. If ``best.pt`` is damaged, or older than the best step in the state, it is written
        again if that step's checkpoint is kept.

        Args:
            state: state of the checkpoint; None for the untrained run, of which only the
                configuration is kept.
        """
        step, rollbacks = (-1, 0) if state is None else (state["step"], state["rollbacks"])
        with self._writing(self.path):
            for directory in (self._checkpoints, self._samples):
                directory.mkdir(exist_ok=True)  # a copy may have left out empty directories
                remove_temporary_files(directory)
            for path in (self._config, self._metrics, self._summary, self.samples_picture):
                remove_temporary_files(self.path, path.name)
            for later, picture in _numbered_files(self._samples, ".png").items():
                if later > step:
                    picture.unlink()
        if self._metrics.exists() and self._metrics.read_bytes()[-1:] not in (b"", b"\n"):
            warnings.warn(
                f"{self._metrics} ends in an incomplete line, which is left out.",
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
        """Remove all files of a run that could not start, and the directory if it was created."""
        with self._writing(self.path):
            shutil.rmtree(self.path)
            if not self._created:
                self.path.mkdir()

    def read_config(self) -> RunConfig:
        """Return the run's complete configuration.

        Raises:
            UsageError: another version wrote it, or it is not valid.
        """
        tree = read_yaml(self._config)
        found = tree.pop("format", None)
        if found != FORMAT:
            try:
                record = parse_json(
                    read_bytes(self.path / "environment.json", MAX_JSON_BYTES).decode()
                )
                version = f"saddlepoint {str(record['saddlepoint'])[:40]}"
            except (UsageError, OSError, ValueError, KeyError, TypeError):
                version = "an unknown version of saddlepoint"
            name = f"{FORMAT - 1} or older" if found is None else repr(found)[:40]
            raise UsageError(
                f"{self.path} was made by {version} (format {name}); this version reads format"
                f" {FORMAT}. Train it again or use that version."
            )
        return validate(tree)

    def write_config(self, config: RunConfig) -> None:
        """Write the run's complete configuration."""
        self._write(self._config, _config_file(config))

    def log(self, line: dict[str, Any]) -> None:
        """Append one line to ``metrics.jsonl``."""
        with self._writing(self._metrics):
            append_atomic(self._metrics, json_line(line))

    def truncate_log(self, step: int, rollbacks: int | None = None) -> None:
        """Drop the lines after ``step``, which a resumed run writes again, and damaged lines.

        A divergence in the step after ``step`` is dropped too, and with ``rollbacks`` the lines of
        later roll-backs to this step.
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
        """Return the lines of ``metrics.jsonl``; damaged ones are left out, with a warning.

        There is no warning about an incomplete last line, which a killed process leaves, or which
        another process is writing.

        Raises:
            UsageError: the file is too long, or a line is not one of a run's log.
        """
        raw = (
            read_bytes(self._metrics, MAX_LOG_BYTES).split(b"\n")
            if self._metrics.exists()
            else [b""]
        )
        lines, damaged = [], 0
        for number, content in enumerate(raw[:-1], 1):
            try:
                line = parse_json(content.decode())
            except ValueError:
                line = None
            if isinstance(line, dict) and isinstance(line.get("step"), int):
                lines.append((number, line))
            else:
                damaged += 1
        if damaged:
            which = (
                "1 damaged line, which is"
                if damaged == 1
                else f"{damaged} damaged lines, which are"
            )
            warnings.warn(
                f"{self._metrics} has {which} left out.", CorruptFileWarning, stacklevel=2
            )
        return [validate_line(line, f"{self._metrics}, line {number}") for number, line in lines]

    def history(self, problem: GanProblem) -> History:
        """Return the log as the diagnostics read it."""
        return History(loss=problem.loss, coverage=problem.coverage_metric, lines=self.read_log())

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write ``summary.json``."""
        self._write(self._summary, json_bytes(summary))

    def read_summary(self) -> dict[str, Any]:
        """Return what ``write_summary`` wrote."""
        summary: dict[str, Any] = parse_json(read_bytes(self._summary, MAX_JSON_BYTES).decode())
        return summary

    def has_ended(self, step: int) -> bool:
        """Return whether the summary says that the run finished with this step."""
        try:
            summary = self.read_summary()
            return (summary["status"], summary["steps"]) == ("finished", step)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def write_evaluation(self, evaluation: dict[str, Any]) -> Path:
        """Write ``evaluation.json`` and return its path."""
        path = self.path / "evaluation.json"
        self._write(path, json_bytes(evaluation), training=False)
        return path

    def write_diagnosis(self, diagnosis: dict[str, Any], figures: dict[str, bytes]) -> Path:
        """Write ``diagnosis.json`` and ``diagnosis/NAME.png``; return the path of the former.

        Args:
            diagnosis: content of ``diagnosis.json``.
            figures: name → PNG.
        """
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
        """Write the state of a step, and drop older checkpoints.

        Args:
            state: the state.
            step: its step.
            keep: number of checkpoints to keep.
            spare: step of another checkpoint to keep.
            best: whether to write the state as the best one, too.
        """
        content = encode(state)
        if self._metrics.exists():
            with self._writing(self._metrics):
                # after a power failure the log must have every line that a checkpoint knows of
                flush(self._metrics)
        self._write(self._checkpoint_path(step), content)
        if best:
            self._write(self._best, content)
        self._prune(keep, spare)

    def drop_checkpoints_after(self, step: int) -> None:
        """Drop the checkpoints of later steps, but not the best one."""
        self._remove(later for later in self.checkpoint_steps() if later > step)

    def load_checkpoint(self, config: RunConfig, at: At = "last") -> dict[str, Any]:
        """Return the state of the last, the best or a step's checkpoint.

        Only plain values and tensors are unpickled. If the last checkpoint is damaged, the previous
        undamaged one is returned, with a warning.

        Raises:
            UsageError: there is none, it is damaged, of another format, or of another
                configuration.
        """
        first = self._find_checkpoint(at)
        candidates = [first]
        if at == "last":
            candidates = list(_numbered_files(self._checkpoints, ".pt").values())[::-1]
        damage: dict[str, str] = {}
        for path in candidates:
            try:
                state = decode(path.read_bytes())
            except CorruptCheckpointError as error:
                damage[path.name] = str(error)
                continue
            except CheckpointFormatError as error:
                raise UsageError(
                    f"Checkpoint {path} was written by another version or another program: {error}."
                ) from error
            except OSError as error:
                if error.errno == errno.EIO:
                    damage[path.name] = "the disk cannot read it"
                    continue
                raise UsageError(f"Cannot read {path}: {error.strerror or error}.") from error
            if state.get("config") != config.digest():
                raise UsageError(
                    f"Checkpoint {path} belongs to another configuration than {self._config}."
                    " Restore the run's own."
                )
            if damage:
                listed = [f"{name} is truncated or damaged: {why}" for name, why in damage.items()]
                warnings.warn(
                    f"In {self._checkpoints} {'; '.join(listed)}. The previous checkpoint,"
                    f" {path.name}, is used.",
                    CorruptFileWarning,
                    stacklevel=2,
                )
            return state
        if at == "last":
            remedy = (
                "All earlier ones are damaged too. Restore one from a copy, or start again with "
                f"`saddlepoint train --config {quoted(self._config)}`."
            )
        elif at == "best":
            remedy = "Use the last one instead; training can be resumed without the best one."
        else:
            steps = self.checkpoint_steps()
            others = [str(step) for step in steps if self._checkpoint_path(step) != first]
            remedy = f"Use another one: {', '.join([*others, 'best'])}."
        raise UsageError(
            f"Checkpoint {first} is truncated or damaged: {damage[first.name]}. {remedy}"
        )

    def checkpoint_steps(self) -> list[int]:
        """Return the steps whose checkpoints are kept, ascending; the best step may be missing."""
        return list(_numbered_files(self._checkpoints, ".pt"))

    def has_checkpoints(self) -> bool:
        """Return whether there is a checkpoint; a run may be killed before it writes its first."""
        return bool(self.checkpoint_steps()) or self._best.exists()

    def checkpoint_of(self, config: RunConfig, step: int) -> Path | None:
        """Return the file with the state of a step, a numbered one or the best; None without one.

        Raises:
            UsageError: the best checkpoint must be read, and is damaged.
        """
        path = self._checkpoint_path(step)
        if path.is_file():
            return path
        if self._best.is_file() and self.load_checkpoint(config, "best")["step"] == step:
            return self._best
        return None

    def _find_checkpoint(self, at: At) -> Path:
        steps = self.checkpoint_steps()
        path: Path | None = self._best
        if at != "best":
            number = at if isinstance(at, int) else steps[-1] if steps else None
            path = None if number is None else self._checkpoint_path(number)
        if path is not None and path.is_file():
            return path
        if isinstance(at, int) and steps:
            known = ", ".join(map(str, steps))
            raise UsageError(
                f"{self.path} has no checkpoint of step {at}. It has those of {known}; keep more"
                " with keep_checkpoints."
            )
        if at == "last" and self._best.exists():
            raise UsageError(
                f"{self._checkpoints} holds only {self._best.name}. Restore the other checkpoints"
                " from a copy."
            )
        raise UsageError(
            f"{self.path} has no {at} checkpoint; the run was stopped before it wrote one. "
            f"`saddlepoint resume {quoted(self.path)}` starts it."
        )

    def _prune(self, keep: int, spare: int | None) -> None:
        """Drop all checkpoints except the last ``keep`` and that of the step ``spare``."""
        self._remove(step for step in self.checkpoint_steps()[:-keep] if step != spare)

    def _remove(self, steps: Iterable[int]) -> None:
        for step in steps:
            path = self._checkpoint_path(step)
            with self._writing(path):
                path.unlink(missing_ok=True)

    def _restore_best(self, step: int) -> None:
        try:
            if decode(self._best.read_bytes())["step"] == step:
                return
            found = f"{self._best} is not of step {step}"
        except OSError as error:
            found = f"Cannot read {self._best}: {error.strerror or error}"
        except (CorruptCheckpointError, CheckpointFormatError) as error:
            found = f"{self._best} is damaged: {error}"
        try:
            content = self._checkpoint_path(step).read_bytes()
            decode(content)
            self._write(self._best, content)
        except (OSError, CorruptCheckpointError, CheckpointFormatError):
            warnings.warn(
                f"{found}, and there is no undamaged copy. The next better evaluation writes it"
                " again.",
                CorruptFileWarning,
                stacklevel=3,
            )

    def _write(self, path: Path, content: bytes, *, training: bool = True) -> None:
        with self._writing(path, training=training):
            write_atomic(path, content)

    @contextmanager
    def _writing(self, path: Path, *, training: bool = True) -> Iterator[None]:
        """Turn an OSError into a UsageError with the path, the reason and how to resume."""
        try:
            yield
        except OSError as error:
            steps = self.checkpoint_steps()
            kept = (
                f"The checkpoint of step {steps[-1]} is complete"
                if steps
                else "Nothing is trained yet"
            )
            remedy = (
                f" {kept}; when the cause is removed, resume with: saddlepoint resume"
                f" {quoted(self.path)}"
                if training
                else ""
            )
            raise UsageError(f"Cannot write {path}: {error.strerror or error}.{remedy}") from error

    def _checkpoint_path(self, step: int) -> Path:
        return self._checkpoints / f"step-{step:08d}.pt"


class NullRunDirectory(RunDirectory):
    """The run directory for processes other than process 0: it writes nothing."""

    def log(self, line: dict[str, Any]) -> None: ...

    def truncate_log(self, step: int, rollbacks: int | None = None) -> None: ...

    def write_summary(self, summary: dict[str, Any]) -> None: ...

    def save_picture(self, picture: Image.Image, step: int) -> None: ...

    def save_checkpoint(
        self,
        state: dict[str, Any],
        step: int,
        keep: int,
        *,
        spare: int | None = None,
        best: bool = False,
    ) -> None: ...

    def discard(self) -> None: ...

    def drop_checkpoints_after(self, step: int) -> None: ...


def _config_file(config: RunConfig) -> bytes:
    return f"format: {FORMAT}\n{config.to_yaml()}".encode()


def _numbered_files(directory: Path, suffix: str) -> dict[int, Path]:
    """Return step → file of the files that are named by a step, ascending; others are ignored."""
    found = {}
    for path in directory.glob(f"step-*{suffix}"):
        name = _NUMBERED.fullmatch(path.name.removesuffix(suffix))
        if name is not None:
            found[int(name[1])] = path
    return dict(sorted(found.items()))


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
"""Suffix of an image file → its format."""


def picture_bytes(picture: Image.Image, suffix: str) -> bytes:
    """Return a picture in the format of a file suffix, one of ``FORMATS``; "" means PNG."""
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
