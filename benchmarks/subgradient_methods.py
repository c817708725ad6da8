"""What are subgradient methods worth beside Adam? Every method's rate tuned in the same way, then
measured on other seeds.

    python -m benchmarks.subgradient_methods [mixture8 mixture25 digits …] [--jobs 2]

All methods use alternating gradients with the minimax loss, the discriminator at half the
generator's rate, batches of 64 and the reference networks. Each has the same five rates to choose
from, half a decade apart, on seed 100; where the best is the first or last, the grid goes on in
that direction (at most twice). The table is over other seeds. Mixtures are compared at equal steps,
whose cost is nearly the same for all methods; digits at equal seconds. Results are kept in
``results/subgradient_methods.json``, so an interrupted study goes on where it stopped; the tables
are printed at the end.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.study import Run, Study, train_configured

RESULTS = Path(__file__).parent / "results" / "subgradient_methods.json"
TUNING_SEED = 100
HALF_DECADE = 10**0.5
GRAFTED = "grafted (Adam's length)"

# method → (the middle of its rates, its optimizer, the schedule, the generator that is measured)
METHODS: dict[str, tuple[float, dict[str, Any], str, str]] = {
    "Adam": (3e-3, {"name": "adam"}, "linear", "ema/"),
    "sign": (1e-3, {"name": "sign"}, "linear", "ema/"),
    "Signum": (1e-3, {"name": "signum"}, "linear", "ema/"),
    "normalised": (0.03, {"name": "normalized"}, "linear", "ema/"),
    GRAFTED: (3e-3, {"name": "grafted"}, "linear", "ema/"),
    "subgradient c/√t, suffix average": (
        1.0,
        {"name": "subgradient", "average": "suffix"},
        "constant",
        "average/",
    ),
}

# problem → (its configuration and the budget, the seeds, the methods)
PROBLEMS: dict[str, tuple[dict[str, Any], range, list[str]]] = {
    "mixture8": ({"problem": "mixture8", "steps": 6000}, range(10), list(METHODS)),
    "mixture25": ({"problem": "mixture25", "steps": 6000}, range(10), list(METHODS)),
    "digits": (
        {"problem": "digits", "seconds": 40.0},
        range(5),
        [method for method in METHODS if method != GRAFTED],
    ),
}


def configuration(run: Run) -> dict[str, Any]:
    """Return the configuration of a run."""
    _, optimizer, schedule, _ = METHODS[run["method"]]
    rates = {"lr": run["lr"], "players": {"discriminator": {"lr": run["lr"] / 2}}}
    return {
        **PROBLEMS[run["problem"]][0],
        "rule": "gradient",
        "optimizer": {**optimizer, **rates},
        "lr_schedule": schedule,
        "seed": run["seed"],
    }


def score(run: Run) -> float:
    """Return what tuning minimises: the Fréchet distance, or less modes and quality."""
    if run["metrics"] is None:
        return float("inf")
    measured = {
        name.removeprefix(METHODS[run["method"]][3]): value
        for name, value in run["metrics"].items()
    }
    return (
        measured["frechet[digit-cnn]"]
        if "frechet[digit-cnn]" in measured
        else -measured["modes"] - measured["quality"]
    )


def tuned(study: Study, problem: str, method: str) -> tuple[float, int]:
    """Return the best rate on the tuning seed, and how many rates were tried."""
    middle = METHODS[method][0]
    exponents = [-2, -1, 0, 1, 2]
    while True:
        runs = study.complete(
            [run_of(problem, method, middle * HALF_DECADE**e, TUNING_SEED) for e in exponents]
        )
        best = min(range(len(runs)), key=lambda i: score(runs[i]))
        if 0 < best < len(runs) - 1 or len(runs) == 7:
            return runs[best]["lr"], len(runs)
        exponents = [exponents[0] - 1, *exponents] if best == 0 else [*exponents, exponents[-1] + 1]


def run_of(problem: str, method: str, lr: float, seed: int) -> Run:
    return {"problem": problem, "method": method, "lr": float(f"{lr:.3g}"), "seed": seed}


def table(study: Study, problem: str) -> str:
    """Return a problem's table; the runs that are missing are made."""
    digits = problem == "digits"
    names = ["Fréchet"] if digits else ["modes", "quality"]
    head = [
        "method",
        "rate (tried)",
        *(f"{name}: median (range)" for name in names),
        *([] if digits else ["all modes"]),
        "ms a step",
    ]
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for method in PROBLEMS[problem][2]:
        prefix = METHODS[method][3]
        lr, tried = tuned(study, problem, method)
        runs = study.complete([run_of(problem, method, lr, seed) for seed in PROBLEMS[problem][1]])
        alive = [run["metrics"] for run in runs if run["metrics"] is not None]
        cells = [f"{lr:.2g} ({tried})"]
        for key in ["frechet[digit-cnn]"] if digits else ["modes", "quality"]:
            values = sorted(metrics[prefix + key] for metrics in alive)
            form = "{:.2f}" if key == "quality" else "{:.3g}"
            shown = (
                [form.format(v) for v in (statistics.median(values), values[0], values[-1])]
                if values
                else ["–"] * 3
            )
            lost = f", {len(runs) - len(alive)} diverged" if len(alive) < len(runs) else ""
            cells.append(f"{shown[0]} ({shown[1]}–{shown[2]}{lost})")
        if not digits:
            modes = 25 if problem == "mixture25" else 8
            cells.append(
                f"{sum(metrics[prefix + 'modes'] == modes for metrics in alive)} of {len(runs)}"
            )
        cells.append(
            f"{statistics.median(1000 * run['seconds'] / run['steps'] for run in runs):.1f}"
        )
        rows.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "problems", nargs="*", choices=[*PROBLEMS, []], help="all of them by default"
    )
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(train_configured(configuration(json.loads(options.one)))))
        return
    study = Study("benchmarks.subgradient_methods", RESULTS, options.jobs)
    for problem in options.problems or PROBLEMS:
        print(f"## {problem}\n\n{table(study, problem)}\n", flush=True)


if __name__ == "__main__":
    main()
