"""Timing that a changing machine does not bend: every contestant in turn, round after round, and
ratios within a round."""

from __future__ import annotations

import gc
import os
import platform
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from saddlepoint.compare.statistics import median_interval

Times = dict[str, list[float]]
"""contestant → milliseconds, one per round."""


def interleaved(
    contestants: Mapping[str, Callable[[], object]], rounds: int, *, warm_up: int = 3
) -> Times:
    """Time one call of each contestant in every round, in an order drawn anew; the first rounds are
    not counted."""
    times: Times = {name: [] for name in contestants}
    order, draws = list(contestants), random.Random(0)
    enabled = gc.isenabled()
    gc.disable()  # a collection would fall on whoever is running
    try:
        for round_ in range(warm_up + rounds):
            draws.shuffle(order)
            for name in order:
                synchronise()
                started = perf_counter()
                contestants[name]()
                synchronise()
                if round_ >= warm_up:
                    times[name].append(1000 * (perf_counter() - started))
            gc.collect()
    finally:
        if enabled:
            gc.enable()
    return times


def ratio(times: Times, one: str, other: str) -> dict[str, Any]:
    """Return how much longer ``one`` takes than ``other``: the median of the rounds' ratios with
    its 95 % interval."""
    middle, (low, high) = median_interval(
        [a / b for a, b in zip(times[one], times[other], strict=True)]
    )
    return {"ratio": round(middle, 3), "low": round(low, 3), "high": round(high, 3)}


def median(values: list[float]) -> float:
    """Return the median, rounded to four digits."""
    return float(f"{median_interval(values)[0]:.4g}")


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory(work: Callable[[], object], device: torch.device) -> int:
    """Return the most bytes of tensors that were alive at once during ``work``, counted from its
    start.

    On a GPU the allocator knows; on the CPU the profiler's record of allocations is added up.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        synchronise()
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        work()
    alive, most = 0, 0
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        alive += event.nbytes()
        most = max(most, alive)
    return most


def machine(device: torch.device) -> dict[str, Any]:
    """Describe what the timings were taken on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [
            line.split(":", 1)[1].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        if info.exists()
        else []
    )
    return names[0] if names else platform.processor() or platform.machine()
