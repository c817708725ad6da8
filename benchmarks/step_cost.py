"""Milliseconds of one training step of every rule on the digits GAN, beside an alternating Adam loop written by hand.

    python -m benchmarks.step_cost [--rounds 15] [--output docs/step-cost.md]

Every method is a fresh training with the settings that its rule brings. One step of each is timed in turn, round after round, so that a
change of the machine's speed meets all of them; medians, and ratios to the loop by hand within a round. Two warm-up rounds are not counted.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import torch

from benchmarks.by_hand import alternating_adam
from saddlepoint import registry
from saddlepoint.problems import Digits
from saddlepoint.training import Training, resolve

WARM_UP = 2
HEAD = """# Cost of a step

Written by `python -m benchmarks.step_cost`: one training step on `digits` (reference networks, batch 64, both players and the moving
average), median of {rounds} interleaved rounds, {threads} threads. The ratio is to alternating Adam written by hand, measured in the same
rounds. Each rule has the settings that it brings to `saddlepoint train`. It was measured before `sga` took two products
in zero-sum games instead of four.

| rule | inner optimizer | ms a step | ratio | gradients | products |
|---|---|---|---|---|---|
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    trainings = {name: Training(resolve({"rule": name})) for name in registry.RULES}
    steps: dict[str, Callable[[], object]] = {
        "by hand": alternating_adam(Digits(), 1e-3, 0)[0],
        **{name: t.advance for name, t in trainings.items()},
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(WARM_UP + options.rounds):
        for name, step in steps.items():
            started = perf_counter()
            step()
            if round_ >= WARM_UP:
                times[name].append(1000 * (perf_counter() - started))
    rows = [f"| alternating Adam by hand | Adam | {statistics.median(times['by hand']):.1f} | 1 | 2 | 0 |"]
    for name, training in trainings.items():
        ratio = statistics.median(a / b for a, b in zip(times[name], times["by hand"], strict=True))
        cost, count = training.optimizer.cost, training.step
        inner = training.config.optimizer.name
        each = f"{cost.gradients / count:.3g} | {cost.products / count:.3g}"
        rows.append(f"| `{name}` | {inner} | {statistics.median(times[name]):.1f} | {ratio:.1f} | {each} |")
    text = HEAD.format(rounds=options.rounds, threads=torch.get_num_threads()) + "\n".join(rows) + "\n"
    print(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
