"""Which method makes the best digits in equal training time? Every method tuned on a seed of its own, then measured on others.

    python -m benchmarks.digits_methods [--seconds 40] [--jobs 2]

Each run has one thread and the given seconds of training (evaluation excluded). Learning rates are chosen by the Fréchet distance of
the moving average on seed 100; the table is over seeds 0, 1, 2. The first method is a loop written by hand in plain PyTorch. Results
are kept in ``results/digits_methods.json``, so an interrupted study goes on where it stopped; the table is printed at the end.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.study import Run, Study, train_configured

RESULTS = Path(__file__).parent / "results" / "digits_methods.json"
TUNING_SEED, SEEDS = 100, (0, 1, 2)
BY_HAND = "Adam, loop by hand"


def rates(generator: float, ratio: float = 0.5) -> dict[str, Any]:
    """The generator at one rate, the discriminator at ``ratio`` of it."""
    return {"lr": generator, "players": {"discriminator": {"lr": generator * ratio}}}


# method → (learning rates to choose from, configuration at one of them)
METHODS: dict[str, tuple[tuple[float, ...], Any]] = {
    BY_HAND: ((1e-4, 3e-4, 1e-3, 3e-3), None),
    "gradient + adam (default)": ((2e-3,), lambda lr: {}),
    "gradient + adam (0.5, 0.999)": (
        (1e-3, 3e-3),
        lambda lr: {"optimizer": {"lr": lr, "betas": [0.5, 0.999]}, "problem": {"loss": "non-saturating"}},
    ),
    "gradient + SOAP": ((1e-3, 3e-3, 1e-2), lambda lr: {"optimizer": {"name": "pytorch_optimizer:SOAP", **rates(lr)}}),
    "gradient + sign": ((1e-3, 3e-3, 1e-2), lambda lr: {"optimizer": {"name": "sign", **rates(lr, 1 / 3)}}),
    "newton": ((1.0, 2.0, 4.0), lambda lr: {"rule": "newton", "optimizer": rates(lr)}),
    "cgd": ((1e-3, 5e-3, 0.02, 0.05), lambda lr: {"rule": "cgd", "optimizer": {"lr": lr}}),
    "acgd": ((1e-3, 2e-3, 4e-3), lambda lr: {"rule": "acgd", "optimizer": rates(lr)}),
}


def train_by_hand(lr: float, seed: int, seconds: float) -> dict[str, Any]:
    """Train with the loop of ``by_hand`` for the given time."""
    from benchmarks.by_hand import alternating_adam
    from saddlepoint.problems import Digits

    problem = Digits()
    problem.load()
    step, generator, average = alternating_adam(problem, lr, seed)
    count, start = 0, perf_counter()
    while perf_counter() - start < seconds:
        step()
        count += 1
    spent, distance = perf_counter() - start, "frechet[digit-cnn]"
    raw, ema = (problem.metrics(problem.generate(net, 2000, 0, "evaluation"))[distance] for net in (generator, average))
    return {"frechet": raw, "ema": ema, "steps": count, "seconds": spent}


def run_here(run: Run) -> dict[str, Any]:
    method, lr, seed, seconds = run["method"], run["lr"], run["seed"], run["budget"]
    if method == BY_HAND:
        return train_by_hand(lr, seed, seconds)
    found = train_configured({"seed": seed, "seconds": seconds, **METHODS[method][1](lr)})
    metrics, name = found["metrics"] or {}, "frechet[digit-cnn]"
    return {"frechet": metrics.get(name), "ema": metrics.get("ema/" + name), "steps": found["steps"], "seconds": found["seconds"]}


def runs_of(method: str, rates: Iterable[float], seeds: Iterable[int], seconds: float) -> list[Run]:
    return [{"method": method, "lr": lr, "seed": seed, "budget": seconds} for lr in rates for seed in seeds]


def best_rate(study: Study, method: str, seconds: float) -> float:
    """Return the rate of least distance on the tuning seed; the runs that are missing are made."""
    found = study.complete(runs_of(method, METHODS[method][0], [TUNING_SEED], seconds))
    return float(min(found, key=lambda run: math.inf if run["ema"] is None else run["ema"])["lr"])


def table(study: Study, seconds: float) -> str:
    rows = [
        "| method | learning rate | Fréchet, moving average: median (each seed) | Fréchet, generator | steps a second |",
        "|---|---|---|---|---|",
    ]
    for method in METHODS:
        lr = best_rate(study, method, seconds)
        runs = study.complete(runs_of(method, [lr], SEEDS, seconds))
        ema, raw = ([run[key] for run in runs if run[key] is not None] for key in ("ema", "frechet"))
        lost = f", {len(runs) - len(ema)} diverged" if len(ema) < len(runs) else ""
        each = ", ".join(f"{value:.0f}" for value in ema)
        speed = statistics.median(run["steps"] / run["seconds"] for run in runs)
        middle = (f"{statistics.median(ema):.0f} ({each}{lost})", f"{statistics.median(raw):.0f}") if ema else ("all diverged", "–")
        rows.append(f"| {method} | {lr:g} | {middle[0]} | {middle[1]} | {speed:.0f} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run_here(json.loads(options.one))))
        return
    print(table(Study("benchmarks.digits_methods", RESULTS, options.jobs), options.seconds))


if __name__ == "__main__":
    main()
