"""Who works on a trial: a process that can be looked for."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

from optuna.trial import FrozenTrial

from saddlepoint.training.config import Tree


@dataclass(frozen=True)
class Worker:
    """A process.

    Attributes:
        host: the name of its machine.
        pid: its number there.
        started: when it started, in the kernel's clock ticks: numbers are given again; empty where
            that cannot be read.
        space: the boot of the machine and the container that the number belongs to; empty where
            that cannot be read.
    """

    host: str
    pid: int
    started: str
    space: str

    def to_dict(self) -> Tree:
        """Return it in plain containers."""
        return asdict(self)

    def is_alive(self) -> bool | None:
        """Say whether it still runs; None where that cannot be known here."""
        if not self.space or not self.started or self.space != _space():
            return None
        return _started(self.pid) == self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def this_process() -> Worker:
    """Return this process."""
    return Worker(platform.node(), os.getpid(), _started(os.getpid()), _space())


def worker_of(trial: FrozenTrial) -> Worker | None:
    """Return who works on a trial; None where the database does not say, or says what this program has not written so."""
    kept = trial.user_attrs.get("worker")
    if not isinstance(kept, dict) or set(kept) != {"host", "pid", "started", "space"}:
        return None
    texts = [kept[name] for name in ("host", "started", "space")]
    if type(kept["pid"]) is not int or not all(isinstance(text, str) for text in texts):
        return None
    return Worker(**kept)


def _started(pid: int) -> str:
    """Return when a process started; empty where there is none of that number, or one that has ended and is not fetched yet."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if state in "ZX" else fields[18]


def _space() -> str:
    try:
        return (
            f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"
            f" {os.readlink('/proc/self/ns/pid')}"
        )
    except OSError:
        return ""
