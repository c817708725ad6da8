"""The directory of one run: everything about it, and the only code that knows where what lies."""

from __future__ import annotations

import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image

import saddlepoint
from saddlepoint.diagnostics import History
from saddlepoint.errors import UsageError
from saddlepoint.files import json_line, write_atomic, write_json
from saddlepoint.problems import GanProblem
from saddlepoint.reading import LOG_BYTES, parse_json, read_bytes, refuse_links
from saddlepoint.training.checkpoint_file import ForeignContentError, read_checkpoint
from saddlepoint.training.config import RunConfig, read_yaml, validate
from saddlepoint.training.log_line import checked_line

FORMAT = 2

_NAME = re.compile(r"step-(\d{8}|[1-9]\d{8,17})\.pt", re.ASCII)  # what _of_step makes of a number, and nothing else

At = Literal["last", "best"] | int
"""Which checkpoint: the last, the best, or that of a step."""


class RunDirectory:
    """``config.yaml``, ``environment.json``, ``metrics.jsonl``, ``samples/``, ``samples.png``, ``checkpoints/``, ``summary.json``.

    Create one with ``create`` (refuses a directory that holds anything) or open one with ``open``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.samples_picture = path / "samples.png"
        self._config = path / "config.yaml"
        self._metrics = path / "metrics.jsonl"
        self._checkpoints = path / "checkpoints"

    @classmethod
    def create(cls, config: RunConfig, path: Path | None) -> RunDirectory:
        """Make the directory; without a path the first free ``runs/PROBLEM-RULE-OPTIMIZER-NNN``.

        Raises:
            UsageError: the path holds a run or other files already, or cannot be made.
        """
        try:
            path = _free_directory(config) if path is None else _empty_directory(path)
            (path / "checkpoints").mkdir()
            (path / "samples").mkdir()
        except OSError as error:
            raise UsageError(f"Cannot make the run directory {path}: {error.strerror or error}. Choose another --out.") from error
        run = cls(path)
        run.write_config(config)
        write_json(path / "environment.json", environment(config.device))
        return run

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Open the directory of an existing run; a UsageError says when there is none."""
        if not (path / "config.yaml").is_file():
            raise UsageError(f"{path} is not a run directory (no config.yaml). Give the directory that `saddlepoint train` printed.")
        refuse_links(path)
        return cls(path)

    def read_config(self) -> RunConfig:
        """Return the run's complete configuration."""
        return validate(read_yaml(self._config))

    def write_config(self, config: RunConfig) -> None:
        """Write the run's complete configuration."""
        write_atomic(self._config, config.to_yaml().encode())

    def log(self, line: dict[str, Any]) -> None:
        """Append one line to ``metrics.jsonl``."""
        with self._metrics.open("ab") as file:
            file.write(json_line(line))

    def truncate_log(self, step: int) -> None:
        """Drop the lines after ``step``, which a resumed run will write again, a divergence in the step after it, and a torn last line."""
        if not self._metrics.exists():
            return
        kept = [line for line in self.read_log() if line["step"] < step or (line["step"] == step and "divergence" not in line)]
        write_atomic(self._metrics, b"".join(json_line(line) for line in kept))

    def read_log(self) -> list[dict[str, Any]]:
        """Return the lines of ``metrics.jsonl`` up to a torn one."""
        lines = []
        for number, raw in enumerate(read_bytes(self._metrics, LOG_BYTES).splitlines() if self._metrics.exists() else [], 1):
            try:
                found = parse_json(raw.decode())
            except ValueError:
                break
            lines.append(checked_line(found, f"{self._metrics}, line {number}"))
        return lines

    def history(self, problem: GanProblem) -> History:
        """Return the log as the verdicts read it."""
        return History(loss=problem.loss, coverage=problem.coverage, lines=self.read_log())

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write ``summary.json``."""
        write_json(self.path / "summary.json", summary)

    def read_summary(self) -> dict[str, Any]:
        """Return what ``write_summary`` wrote."""
        summary: dict[str, Any] = json.loads((self.path / "summary.json").read_text())
        return summary

    def write_evaluation(self, evaluation: dict[str, Any]) -> Path:
        """Write ``evaluation.json`` and return where it lies."""
        path = self.path / "evaluation.json"
        write_json(path, evaluation)
        return path

    def write_diagnosis(self, diagnosis: dict[str, Any], figures: dict[str, bytes]) -> Path:
        """Write ``diagnosis.json`` and the figures, name → PNG, into ``diagnosis/``; return where the former lies."""
        (self.path / "diagnosis").mkdir(exist_ok=True)
        for name, content in figures.items():
            write_atomic(self.path / "diagnosis" / f"{name}.png", content)
        path = self.path / "diagnosis.json"
        write_json(path, diagnosis)
        return path

    def save_picture(self, picture: Image.Image, step: int) -> None:
        """Write the picture of ``step`` into ``samples/`` and as the latest one."""
        content = png(picture)
        write_atomic(self.path / "samples" / f"step-{step:08d}.png", content)
        write_atomic(self.samples_picture, content)

    def save_checkpoint(self, state: dict[str, Any], step: int, keep: int, *, spare: int | None = None, best: bool = False) -> None:
        """Write the state of ``step`` and drop all but the last ``keep`` and that of ``spare``; ``best`` also writes it as the best one."""
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, "saddlepoint": saddlepoint.__version__, **state}, buffer)
        write_atomic(self._of_step(step), buffer.getvalue())
        if best:
            write_atomic(self._checkpoints / "best.pt", buffer.getvalue())
        for old in self.checkpoint_steps()[:-keep]:
            if old != spare:
                self._of_step(old).unlink()

    def drop_checkpoints_after(self, step: int) -> None:
        """Drop the states of later steps, but not the best one."""
        for later in self.checkpoint_steps():
            if later > step:
                self._of_step(later).unlink()

    def load_checkpoint(self, config: RunConfig, at: At = "last") -> dict[str, Any]:
        """Return the state of the last, the best or a step's checkpoint; nothing but plain values and tensors is ever unpickled.

        Raises:
            UsageError: there is none, it is damaged, of another format, or of another configuration.
        """
        path = self._checkpoint(at)
        try:
            with path.open("rb") as file:
                state = read_checkpoint(file)
        except Exception as error:  # torch raises many kinds for a damaged file, some without a text
            said = str(error) if isinstance(error, ForeignContentError) else type(error).__name__
            steps = self._steps()
            remedy = f"Delete it to go on from {steps[-2].name}." if at == "last" and len(steps) > 1 else "There is no earlier one."
            raise UsageError(f"Checkpoint {path} is truncated or damaged ({said}). {remedy}") from error
        if type(state) is not dict or state.get("format") != FORMAT:
            raise UsageError(f"Checkpoint {path} is not of format {FORMAT}; it was written by another version or another program.")
        if state.get("config") != config.digest():
            raise UsageError(f"Checkpoint {path} belongs to another configuration than {self._config}. Restore the run's own.")
        return state

    def checkpoint_steps(self) -> list[int]:
        """Return the steps whose checkpoints are kept, ascending; the best one may be another."""
        return [int(path.stem.removeprefix("step-")) for path in self._steps()]

    def checkpoint_of(self, config: RunConfig, step: int) -> Path | None:
        """Return where the state of a step is kept, as one of the last or as the best one; None where it is not.

        Raises:
            UsageError: the best checkpoint must be looked into, and is damaged.
        """
        path, best = self._of_step(step), self._checkpoints / "best.pt"
        if path.is_file():
            return path
        return best if best.is_file() and self.load_checkpoint(config, "best")["step"] == step else None

    def _checkpoint(self, at: At) -> Path:
        steps = self._steps()
        named = {"best": self._checkpoints / "best.pt", "last": steps[-1] if steps else None}
        path = named[at] if isinstance(at, str) else self._of_step(at)
        if path is not None and path.is_file():
            return path
        if isinstance(at, int) and steps:
            known = ", ".join(str(step) for step in self.checkpoint_steps())
            raise UsageError(f"{self.path} has no checkpoint of step {at}. It has those of {known}; keep more with keep_checkpoints.")
        raise UsageError(f"{self.path} has no {at} checkpoint; the run was stopped before it wrote one. Start it again.")

    def _of_step(self, step: int) -> Path:
        return self._checkpoints / f"step-{step:08d}.pt"

    def _steps(self) -> list[Path]:
        return sorted(path for path in self._checkpoints.glob("step-*.pt") if _NAME.fullmatch(path.name))


def png(picture: Image.Image) -> bytes:
    """Return a picture as PNG bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def environment(device: str) -> dict[str, Any]:
    """Return versions, machine and source revision, for the record."""
    import numpy
    import torchmetrics

    return {
        "saddlepoint": saddlepoint.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "torchmetrics": torchmetrics.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "git_revision": _git_revision(),
        "command": ["saddlepoint", *sys.argv[1:]],
    }


def _git_revision() -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    found = subprocess.run([git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else None


def _free_directory(config: RunConfig) -> Path:
    optimizer = config.optimizer.name.rpartition(":")[2].lower()
    for number in range(1, 100_000):
        path = Path("runs") / f"{config.problem.name}-{config.rule.name}-{optimizer}-{number:03d}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise UsageError("runs/ holds 99,999 such runs already. Choose a directory with --out.")


def _empty_directory(path: Path) -> Path:
    if path.is_dir() and any(path.iterdir()):
        what = "another run" if (path / "config.yaml").exists() else "other files"
        raise UsageError(f"--out {path} holds {what} already. Go on with `saddlepoint resume {path}`, or choose another --out.")
    if path.exists() and not path.is_dir():
        raise UsageError(f"--out {path} is a file. Choose a directory.")
    path.mkdir(parents=True, exist_ok=True)
    return path
