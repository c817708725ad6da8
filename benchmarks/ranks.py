"""How a step is shared by several processes of one machine: milliseconds for 1, 2 and 4, each with
one thread, on the same global batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import torch.distributed as dist
from torch.optim import Adam

from benchmarks.contestants import ADAM, optimizers
from benchmarks.pairs import PAIRS
from benchmarks.timing import median
from saddlepoint import GameOptimizer, GradientDescent
from saddlepoint.distributed import Distributed, SingleProcess
from saddlepoint.rules import Consensus

WORLDS = (1, 2, 4)
BATCH, STEPS, WARM_UP = 512, 10, 2
RULES = {"GradientDescent": GradientDescent(), "Consensus": Consensus()}


def measure(device: torch.device, rounds: int) -> dict[str, Any]:
    """Return network → rule → processes → milliseconds and kilobytes of a step; the numbers of
    processes take turns."""
    if device.type != "cpu":
        raise SystemExit("ranks: processes of one CPU are measured")
    found: dict[str, dict[str, dict[int, list[dict[str, float]]]]] = {}
    for _ in range(max(rounds // 5, 2)):
        for world in WORLDS:
            for pair, rules in _together(world).items():
                for rule, row in rules.items():
                    found.setdefault(pair, {}).setdefault(rule, {}).setdefault(world, []).append(
                        row
                    )
    return {
        "batch": BATCH,
        "cores": os.cpu_count(),
        "pairs": {pair: _rows(rules) for pair, rules in found.items()},
    }


def _rows(rules: dict[str, dict[int, list[dict[str, float]]]]) -> dict[str, list[dict[str, float]]]:
    rows = {}
    for rule, worlds in rules.items():
        times = {world: median([row["ms"] for row in own]) for world, own in worlds.items()}
        rows[rule] = [
            {
                "processes": world,
                "ms": times[world],
                "speedup": round(times[1] / times[world], 2),
                "vectors": worlds[world][0]["vectors"],
            }
            for world in WORLDS
        ]
    return rows


def _together(world: int) -> dict[str, dict[str, dict[str, float]]]:
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.ranks", str(world), directory]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        processes = [
            subprocess.Popen([*command, str(rank)], env=environment) for rank in range(world)
        ]
        if any(process.wait(timeout=600) for process in processes):
            raise RuntimeError(f"a process of {world} failed")
        found: dict[str, dict[str, dict[str, float]]] = json.loads(
            (Path(directory) / "found.json").read_text()
        )
        return found


def _worker(world: int, directory: Path, rank: int) -> None:
    distributed = SingleProcess()
    if world > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{directory / 'store'}", rank=rank, world_size=world
        )
        distributed = Distributed()
    found = {pair: {name: _timed(pair, name, distributed) for name in RULES} for pair in PAIRS}
    if rank == 0:
        (directory / "found.json").write_text(json.dumps(found))
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()


def _timed(name: str, rule: str, distributed: SingleProcess) -> dict[str, float]:
    pair = PAIRS[name](torch.device("cpu"), batch=BATCH)
    share = distributed.batch_slice(BATCH)
    pair.batches = [(real[share], noise[share]) for real, noise in pair.batches]
    optimizer = GameOptimizer(
        optimizers(pair, Adam, **ADAM),
        RULES[rule],
        modules=pair.networks.values(),
        distributed=distributed,
    )
    times = []
    for step in range(WARM_UP + STEPS):
        before = distributed.traffic.bytes
        started = perf_counter()
        pair.draw()
        optimizer.step(pair.losses)
        if step >= WARM_UP:
            times.append(1000 * (perf_counter() - started))
    size = sum(p.numel() for network in pair.networks.values() for p in network.parameters())
    return {
        "ms": distributed.all_reduce_max(median(times)),
        "vectors": round((distributed.traffic.bytes - before) / 4 / size, 2),
    }


if __name__ == "__main__":
    _worker(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
