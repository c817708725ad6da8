"""Which method makes the best digits in equal training time? Every method tuned on a seed of its own, then measured on others.

    python -m benchmarks.digits_methods [--seconds 40] [--jobs 2]

Each run has one thread and the given seconds of training (evaluation excluded). Learning rates are chosen by the Fréchet distance of
the moving average on seed 100; the table is over seeds 0, 1, 2. The first method is a loop written by hand in plain PyTorch. Results
are kept in ``results/digits_methods.json``, so an interrupted study goes on where it stopped; the table is printed at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

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


def train_configured(tree: dict[str, Any], seed: int, seconds: float) -> dict[str, Any]:
    """Train one of the library's methods for the given time; a diverged run is a result."""
    from saddlepoint import DivergenceError
    from saddlepoint.training import Training, resolve

    training = Training(resolve({"seed": seed, "seconds": seconds, **tree}))
    training.problem.load()
    try:
        while training.progress < 1:
            training.advance()
    except DivergenceError:
        return {"frechet": None, "ema": None, "steps": training.step, "seconds": training.seconds}
    metrics = training.evaluate()
    return {
        "frechet": metrics["frechet[digit-cnn]"],
        "ema": metrics["ema/frechet[digit-cnn]"],
        "steps": training.step,
        "seconds": training.seconds,
    }


def run_here(method: str, lr: float, seed: int, seconds: float) -> dict[str, Any]:
    if method == BY_HAND:
        return train_by_hand(lr, seed, seconds)
    return train_configured(METHODS[method][1](lr), seed, seconds)


def run_in_a_process(method: str, lr: float, seed: int, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.digits_methods", "--one", json.dumps([method, lr, seed, seconds])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return {"method": method, "lr": lr, "seed": seed, "budget": seconds, **json.loads(done.stdout)}


class Study:
    """Results so far, and the runs that are missing."""

    def __init__(self, seconds: float, jobs: int) -> None:
        self.seconds, self.jobs = seconds, jobs
        self.results: list[dict[str, Any]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else []

    def find(self, method: str, lr: float, seed: int) -> dict[str, Any] | None:
        key = {"method": method, "lr": lr, "seed": seed, "budget": self.seconds}
        return next((r for r in self.results if key.items() <= r.items()), None)

    def complete(self, runs: list[tuple[str, float, int]]) -> None:
        missing = [run for run in runs if self.find(*run) is None]
        with ThreadPoolExecutor(self.jobs) as pool:
            for result in pool.map(lambda run: run_in_a_process(*run, self.seconds), missing):
                self.results.append(result)
                RESULTS.write_text(json.dumps(self.results, indent=1) + "\n")
                print(result, file=sys.stderr, flush=True)

    def best_rate(self, method: str) -> float:
        found = [(self.find(method, lr, TUNING_SEED) or {})["ema"] for lr in METHODS[method][0]]
        scores = {lr: score for lr, score in zip(METHODS[method][0], found, strict=True) if score is not None}
        return min(scores, key=lambda lr: scores[lr]) if scores else METHODS[method][0][0]

    def table(self) -> str:
        rows = [
            "| method | learning rate | Fréchet, moving average: median (each seed) | Fréchet, generator | steps a second |",
            "|---|---|---|---|---|",
        ]
        for method in METHODS:
            lr = self.best_rate(method)
            runs = [run for seed in SEEDS if (run := self.find(method, lr, seed)) is not None]
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
        print(json.dumps(run_here(*json.loads(options.one))))
        return
    study = Study(options.seconds, options.jobs)
    study.complete([(method, lr, TUNING_SEED) for method, (rates, _) in METHODS.items() for lr in rates])
    study.complete([(method, study.best_rate(method), seed) for method in METHODS for seed in SEEDS])
    print(study.table())


if __name__ == "__main__":
    main()
