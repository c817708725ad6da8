"""Versions, machine and source code that a run or a comparison was made with."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import saddlepoint
from saddlepoint.extras import needs


def environment(device: str) -> dict[str, Any]:
    """Return versions, machine and source revision."""
    git, revision = shutil.which("git"), None
    if git is not None:
        found = subprocess.run(
            [git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        )
        revision = found.stdout.strip() if found.returncode == 0 else None
    return {
        **versions(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "git_revision": revision,
        "command": ["saddlepoint", *sys.argv[1:]],
    }


def versions() -> dict[str, str]:
    """Return the versions of the packages that results depend on."""
    # read without importing them, which takes seconds and is not needed by every problem
    with needs("train", "The record of a run"):
        torchmetrics, scipy = version("torchmetrics"), version("scipy")
    return {
        "saddlepoint": saddlepoint.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "scipy": scipy,
        "torchmetrics": torchmetrics,
    }


@cache
def code_digest() -> str:
    """Return a hash of the library's files, without the command line and the reports."""
    root, digest = Path(saddlepoint.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        if (
            path.is_file()
            and path.suffix != ".pyc"
            and path.name[0] != "."
            and name.parts[0] not in ("cli", "report")
        ):
            digest.update(f"{name}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def processor(device: str) -> str:
    """Return the name of the GPU, or of the CPU with the instruction set that PyTorch uses."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return (
        f"{next(named, platform.processor() or platform.machine())},"
        f" {torch.backends.cpu.get_cpu_capability()}"
    )
