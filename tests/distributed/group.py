"""Processes of a gloo group, each running the same function of (distributed, *arguments)."""

import os
import subprocess
import sys
import warnings
from datetime import timedelta
from pathlib import Path

ROOT = Path(__file__).parents[2]


def in_group(main) -> None:
    """What a program that ``started`` runs does: python -m PROGRAM RANK WORLD STORE TIMEOUT
    ARGUMENTS."""
    import torch.distributed as dist

    from saddlepoint.distributed import Distributed

    rank, world, store, timeout, *arguments = sys.argv[1:]
    warnings.simplefilter("ignore")  # the tests of one process look at them
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=int(rank),
        world_size=int(world),
        timeout=timedelta(seconds=float(timeout)),
    )
    main(Distributed(), *arguments)
    dist.destroy_process_group()


def started(
    program: str, world: int, directory: Path, *arguments: object, timeout: float = 300.0
) -> list[subprocess.Popen[str]]:
    """Start ``python -m PROGRAM`` in so many processes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    common = [str(world), str(directory / "store"), str(timeout), *map(str, arguments)]
    return [
        subprocess.Popen(
            [sys.executable, "-m", program, str(rank), *common],
            cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for rank in range(world)
    ]  # fmt: skip


def ended(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Wait for the processes; return each one's exit code and output."""
    outputs = [process.communicate(timeout=600)[0] for process in processes]
    return [
        (process.returncode, output) for process, output in zip(processes, outputs, strict=True)
    ]
