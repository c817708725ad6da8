"""Do the checks find what is wrong, and are they silent where nothing is? Twenty healthy runs, and
twenty broken in five ways.

    python -m benchmarks.detection [--jobs 2] [--keep DIR]

A healthy run is one whose samples are good: digits with a Fréchet distance of at most 110 in the
classifier's features, rings with all eight modes and a quality of at least 0.7. It counts as a
false alarm if it ends with any alarm or warning. A broken run counts as detected if one of the
findings that name its fault is among the alarms and warnings at its end. Thresholds were chosen on
runs of other seeds. Results are kept in ``results/detection.json``, so an interrupted run goes on
where it stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.study import Run, Study

RESULTS = Path(__file__).parent / "results" / "detection.json"

# name → (configuration, the findings that name the fault; none for healthy runs)
SCENARIOS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "healthy digits": ({"problem": "digits", "steps": 4000}, ()),
    "healthy ring": ({"problem": "mixture8", "steps": 6000}, ()),
    "vanishing gradient": (
        {
            "problem": {"name": "digits", "loss": "minimax"},
            "steps": 2000,
            "discriminator_steps": 3,
            "optimizer": {"name": "adam", "lr": 1e-4, "players": {"discriminator": {"lr": 1e-2}}},
        },
        (
            "vanishing-gradient discriminator",
            "vanishing-gradient generator",
            "zero-gradient generator",
        ),
    ),
    "mode collapse": (
        {
            "problem": {"name": "mixture8", "activation": "silu", "loss": "non-saturating"},
            "steps": 4000,
            "optimizer": {"name": "adam", "lr": 3e-3},
        },
        ("mode-loss generator", "low-diversity generator"),
    ),
    "divergence": (
        {
            "problem": {"name": "digits", "loss": "wasserstein"},
            "steps": 2000,
            "optimizer": {"name": "sgd", "lr": 1.0},
        },
        ("divergence discriminator", "divergence generator"),
    ),
    "overfitting": (
        {"problem": {"name": "digits", "train_images": 200}, "steps": 4000},
        ("overfitting discriminator", "copying generator"),
    ),
    "gradient cut": (
        {"problem": "digits-binary", "rule": "gradient", "steps": 1000, "evaluation_samples": 1000},
        ("zero-gradient generator",),
    ),
}
SEEDS = {name: range(20, 30) if name.startswith("healthy") else range(20, 24) for name in SCENARIOS}


def train_and_judge(run: Run, keep: Path | None) -> dict[str, Any]:
    """Train with everything that a run records, and return what it ended with."""
    from saddlepoint.errors import DivergenceError
    from saddlepoint.training import RunDirectory, Trainer, resolve, train

    config = resolve({**SCENARIOS[run["scenario"]][0], "seed": run["seed"]})
    with tempfile.TemporaryDirectory() as temporary:
        place = (keep or Path(temporary)) / f"{run['scenario'].replace(' ', '-')}-{run['seed']}"
        directory, training = RunDirectory.create(config, place), Trainer(config)
        with contextlib.suppress(DivergenceError):
            train(training, directory)
        summary = json.loads((place / "summary.json").read_text())
    found = [
        f"{finding['name']} {finding['player']}"
        for finding in summary["findings"]
        if finding["level"] != "note"
    ]
    messages = [finding["message"] for finding in summary["findings"]]
    return {
        "status": summary["status"],
        "metrics": summary["metrics"],
        "findings": found,
        "messages": messages,
    }


def healthy(run: Run) -> bool:
    """Say whether a run meant to be healthy is, by its samples alone."""
    metrics = run["metrics"]
    if run["status"] != "finished":
        return False
    if "ema/modes" in metrics:
        return bool(metrics["ema/modes"] == 8 and metrics["ema/quality"] >= 0.7)
    return bool(metrics["ema/frechet[digit-cnn]"] <= 110)


def detected(run: Run) -> bool:
    """Say whether a finding names the fault that the run was given."""
    return bool(set(run["findings"]) & set(SCENARIOS[run["scenario"]][1]))


def table(runs: list[Run]) -> str:
    """Return the table of the documentation."""
    rows = ["| runs | number | as meant | findings |", "|---|---|---|---|"]
    for name in SCENARIOS:
        own = [run for run in runs if run["scenario"] == name]
        if name.startswith("healthy"):
            good = [run for run in own if healthy(run)]
            alarms = sum(bool(run["findings"]) for run in good)
            rows.append(f"| {name} | {len(own)} | {len(good)} healthy | {alarms} false alarms |")
        else:
            rows.append(f"| {name} | {len(own)} | – | {sum(map(detected, own))} detected |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="keep the run directories here")
    parser.add_argument("--one")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(train_and_judge(json.loads(options.one), options.keep)))
        return
    study = Study("benchmarks.detection", RESULTS, options.jobs)
    print(
        table(
            study.complete(
                [{"scenario": name, "seed": seed} for name in SCENARIOS for seed in SEEDS[name]]
            )
        )
    )


if __name__ == "__main__":
    main()
