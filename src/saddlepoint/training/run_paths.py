"""Paths of new run directories."""

from __future__ import annotations

from pathlib import Path

from saddlepoint.errors import UsageError, quoted
from saddlepoint.training.config import RunConfig


def free_path(config: RunConfig) -> Path:
    """Return the first ``runs/PROBLEM-RULE-OPTIMIZER-NNN`` that does not exist."""
    optimizer = config.optimizer.name.rpartition(":")[2].lower()
    for number in range(1, 100_000):
        path = Path("runs") / f"{config.problem.name}-{config.rule.name}-{optimizer}-{number:03d}"
        if not path.exists():
            return path
    raise UsageError("runs/ holds 99,999 such runs already. Choose a directory with --out.")


def create_free_directory(config: RunConfig) -> Path:
    """Create the directory at ``free_path``."""
    while True:
        path = free_path(config)
        try:
            path.mkdir(parents=True)
        except FileExistsError:  # another process was faster
            continue
        return path


def use_empty_directory(path: Path) -> Path:
    """Create a directory that the user names, or use it if it is empty.

    A directory also counts as empty if it holds only what a process leaves that was killed while it
    created a run directory there.

    Raises:
        UsageError: it holds a run or other files, or is a file.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"--out {path} is a file. Choose a directory.")
    entries = {entry.name: entry for entry in path.iterdir()} if path.is_dir() else {}
    empty = not entries
    if "checkpoints" in entries:
        empty = all(
            (name in ("checkpoints", "samples") and not any(entry.iterdir()))
            or name == "environment.json"
            or entry.match(".environment.json.*.tmp")
            or entry.match(".config.yaml.*.tmp")
            for name, entry in entries.items()
        )
    if not empty:
        what = "another run" if "config.yaml" in entries else "other files"
        raise UsageError(
            f"--out {path} holds {what} already. Resume it with `saddlepoint resume"
            f" {quoted(path)}`, or choose another --out."
        )
    path.mkdir(parents=True, exist_ok=True)
    return path
