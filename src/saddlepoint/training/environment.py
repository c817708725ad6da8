"""What a run or a comparison was made with, for the record."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import version
from typing import Any

import torch

import saddlepoint
from saddlepoint.extras import needs


def environment(device: str) -> dict[str, Any]:
    """Return versions, machine and source revision, for the record."""
    with needs("train", "The record of a run"):
        torchmetrics = version("torchmetrics")  # read, not imported: that takes seconds, which not every problem needs
    return {
        "saddlepoint": saddlepoint.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "torchmetrics": torchmetrics,
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
