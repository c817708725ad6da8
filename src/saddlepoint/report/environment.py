"""Where numbers come from: versions, machine, source revision and the command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from saddlepoint.report.charts import Table
from saddlepoint.report.formatting import plain

_TITLES = {
    "git_revision": "source revision",
    "cpus": "CPUs",
    "saddlepoint": "saddlepoint",
    "python": "Python",
    "torch": "PyTorch",
    "numpy": "NumPy",
}


def environment_table(environment: Mapping[str, Any]) -> Table | None:
    """Return versions and machine, None where they were not recorded."""
    rows = [
        [_TITLES.get(key, key.replace("_", " ")), plain(value)]
        for key, value in environment.items()
        if key != "command"
    ]
    return Table(caption="Environment", header=["what", "value"], rows=rows) if rows else None


def command_text(command: object) -> str:
    """Return a recorded command as one types it.

    >>> command_text(["saddlepoint", "train", "--set", "a=b c"])
    "saddlepoint train --set 'a=b c'"
    """
    return (
        shlex.join(str(word) for word in command)
        if isinstance(command, list | tuple)
        else str(command)
    )
