"""Where a new run goes: a directory that nobody has."""

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


def free_directory(config: RunConfig) -> Path:
    """Make that directory."""
    while True:
        path = free_path(config)
        try:
            path.mkdir(parents=True)
        except FileExistsError:  # another process was quicker
            continue
        return path


def empty_directory(path: Path) -> Path:
    """Make a directory that the user names, or take it where nothing is in it.

    Raises:
        UsageError: it holds a run or other files already, or is a file.
    """
    if path.is_dir() and not _holds_nothing(path):
        what = "another run" if (path / "config.yaml").exists() else "other files"
        raise UsageError(
            f"--out {path} holds {what} already. Go on with `saddlepoint resume {quoted(path)}`, or"
            " choose another --out."
        )
    if path.exists() and not path.is_dir():
        raise UsageError(f"--out {path} is a file. Choose a directory.")
    path.mkdir(parents=True, exist_ok=True)
    return path


def _holds_nothing(path: Path) -> bool:
    """Say whether a directory is empty but for what a process leaves that was killed while it made a run directory there."""
    entries = {entry.name: entry for entry in path.iterdir()}
    if "checkpoints" not in entries:
        return not entries
    return all(
        (name in ("checkpoints", "samples") and not any(entry.iterdir()))
        or name == "environment.json"
        or entry.match(".environment.json.*.tmp")
        or entry.match(".config.yaml.*.tmp")
        for name, entry in entries.items()
    )
