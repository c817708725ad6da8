"""The directory of one run: everything about it, and the only code that knows where what lies."""

from __future__ import annotations

import io
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image

import saddlepoint
from saddlepoint.errors import UsageError
from saddlepoint.training.config import RunConfig, read_yaml, validate
from saddlepoint.training.files import json_line, write_atomic, write_json

FORMAT = 1


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
        """Drop the lines after ``step``, which a resumed run will write again, and a torn last line."""
        if not self._metrics.exists():
            return
        kept = []
        for raw in self._metrics.read_bytes().splitlines():
            try:
                line = json.loads(raw)
            except ValueError:
                break
            if line["step"] <= step:
                kept.append(raw + b"\n")
        write_atomic(self._metrics, b"".join(kept))

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write ``summary.json``."""
        write_json(self.path / "summary.json", summary)

    def write_evaluation(self, evaluation: dict[str, Any]) -> Path:
        """Write ``evaluation.json`` and return where it lies."""
        path = self.path / "evaluation.json"
        write_json(path, evaluation)
        return path

    def save_picture(self, picture: Image.Image, step: int) -> None:
        """Write the picture of ``step`` into ``samples/`` and as the latest one."""
        content = png(picture)
        write_atomic(self.path / "samples" / f"step-{step:08d}.png", content)
        write_atomic(self.samples_picture, content)

    def save_checkpoint(self, state: dict[str, Any], step: int, keep: int, *, best: bool = False) -> None:
        """Write the state of ``step`` and drop all but the last ``keep``; ``best`` also writes it as the best one."""
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, "saddlepoint": saddlepoint.__version__, **state}, buffer)
        write_atomic(self._checkpoints / f"step-{step:08d}.pt", buffer.getvalue())
        if best:
            write_atomic(self._checkpoints / "best.pt", buffer.getvalue())
        for old in self._steps()[:-keep]:
            old.unlink()

    def load_checkpoint(self, config: RunConfig, at: Literal["last", "best"] = "last") -> dict[str, Any]:
        """Return the state of the last or the best checkpoint; nothing but plain values and tensors is ever unpickled.

        Raises:
            UsageError: there is none, it is damaged, of another format, or of another configuration.
        """
        steps = self._steps()
        path = self._checkpoints / "best.pt" if at == "best" else steps[-1] if steps else None
        if path is None or not path.is_file():
            raise UsageError(f"{self.path} has no {at} checkpoint; the run was stopped before it wrote one. Start it again.")
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged file, some without a text
            remedy = f"Delete it to go on from {steps[-2].name}." if at == "last" and len(steps) > 1 else "There is no earlier one."
            raise UsageError(f"Checkpoint {path} is truncated or damaged ({type(error).__name__}). {remedy}") from error
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise UsageError(f"Checkpoint {path} is not of format {FORMAT}; it was written by another version or another program.")
        if state["config"] != config.digest():
            raise UsageError(f"Checkpoint {path} belongs to another configuration than {self._config}. Restore the run's own.")
        return state

    def _steps(self) -> list[Path]:
        return sorted(self._checkpoints.glob("step-*.pt"))


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
