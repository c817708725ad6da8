"""How the cost of a step grows: with parameters, batch and solver iterations, as slopes on
logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.optim import Adam

from benchmarks.contestants import (
    ADAM,
    Step,
    optimizers,
    plain_sgd,
    simultaneous_by_hand,
    with_rule,
)
from benchmarks.pairs import PAIRS, Pair
from benchmarks.timing import interleaved, median, peak_memory
from saddlepoint import AdaptiveCompetitiveGradient
from saddlepoint.optim import SOAP
from saddlepoint.rules import Consensus

WIDTHS = (4, 16, 64, 128, 256, 512, 1024, 2048)  # 7e3 … 1e7 parameters of both networks together
BATCHES = (16, 64, 256, 1024)
ITERATIONS = (1, 2, 4, 8, 16, 32)
mlp = PAIRS["mlp"]
CONTESTANTS = (
    "Adam called directly",
    "Consensus + Adam",
    "AdaptiveCompetitiveGradient, 2 iterations",
    "SOAP",
)


def measure(device: torch.device, rounds: int) -> dict[str, Any]:
    """Return milliseconds, memory and slopes along each axis."""
    few = max(rounds // 3, 3)
    widths = [
        (
            sum(
                p.numel()
                for network in mlp(device, width=w).networks.values()
                for p in network.parameters()
            ),
            {"width": w},
        )
        for w in WIDTHS
    ]
    return {
        "parameters": _axis(device, [*widths], few, memory=True),
        "batch": _axis(device, [(b, {"batch": b}) for b in BATCHES], rounds),
        "iterations": _iterations(device, rounds),
    }


def _steps(make: Callable[[], Pair]) -> dict[str, Callable[[], Step]]:
    def ruled(rule: Any, adam: bool) -> Step:
        pair = make()
        return with_rule(pair, rule, optimizers(pair, Adam, **ADAM) if adam else plain_sgd(pair))[0]

    makers: tuple[Callable[[], Step], ...] = (
        lambda: simultaneous_by_hand(make()),
        lambda: ruled(Consensus(gamma=0.1), True),
        lambda: ruled(AdaptiveCompetitiveGradient(tol=0.0, max_iter=2), False),
        lambda: simultaneous_by_hand(make(), SOAP, lr=1e-4, max_dimension=512, weight_decay=0.0),
    )
    return dict(zip(CONTESTANTS, makers, strict=True))


def _axis(
    device: torch.device,
    points: list[tuple[int, dict[str, int]]],
    rounds: int,
    *,
    memory: bool = False,
) -> dict[str, Any]:
    rows: dict[str, dict[str, list[float]]] = {name: {"ms": [], "MiB": []} for name in CONTESTANTS}
    for _, options in points:
        makers = _steps(partial(mlp, device, **options))  # type: ignore[arg-type]
        times = interleaved({name: maker() for name, maker in makers.items()}, rounds)
        for name in CONTESTANTS:
            rows[name]["ms"].append(median(times[name]))
            if memory:
                rows[name]["MiB"].append(
                    round(
                        peak_memory(lambda maker=makers[name]: _twice(maker()), device) / 2**20, 2
                    )
                )  # type: ignore[misc]
    at = [size for size, _ in points]
    slopes = {
        name: {what: slope(at, values) for what, values in row.items() if values}
        for name, row in rows.items()
    }
    return {"at": at, "rows": rows, "slopes": slopes}


def _twice(step: Step) -> None:
    step()
    step()


def _iterations(device: torch.device, rounds: int) -> dict[str, Any]:
    def make(budget: int) -> Step:
        pair = mlp(device)
        return with_rule(
            pair, AdaptiveCompetitiveGradient(tol=0.0, max_iter=budget), plain_sgd(pair)
        )[0]

    steps = {str(budget): make(budget) for budget in ITERATIONS} | {
        "Adam called directly": simultaneous_by_hand(mlp(device))
    }
    times = interleaved(steps, rounds)
    ms = [median(times[str(budget)]) for budget in ITERATIONS]
    line = np.polyfit(ITERATIONS, ms, 1)
    adam = median(times["Adam called directly"])
    return {
        "at": list(ITERATIONS),
        "ms": ms,
        "an iteration": round(float(line[0]) / adam, 3),
        "without": round(float(line[1]) / adam, 3),
    }


def slope(sizes: list[int], values: list[float]) -> float:
    """Return the exponent of the upper half of the sizes, where the price of making calls is small
    beside the work."""
    upper = slice(len(sizes) // 2, None)
    return round(
        float(
            np.polyfit(
                [math.log(s) for s in sizes[upper]], [math.log(v) for v in values[upper]], 1
            )[0]
        ),
        2,
    )
