"""What does a step of this package's optimizers cost beside torch's SGD? Ten million parameters, medians of interleaved rounds.

    python -m benchmarks.sign_step [--rounds 40] [--tensors 10]

Prints a table of ratios to ``torch.optim.SGD(foreach=True)`` over the same parameters and gradients, in one run.
"""

from __future__ import annotations

import argparse
import statistics
from time import perf_counter

import torch
from torch.optim import SGD, Adam, Optimizer

from saddlepoint.optim import NormalizedSubgradient, SignSubgradient, Subgradient

BASE = "SGD(foreach=True)"


def parameters(tensors: int, device: torch.device | str = "cpu") -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    side = round((10_000_000 / tensors) ** 0.5)
    made = [torch.randn(side, side, generator=generator).to(device).requires_grad_() for _ in range(tensors)]
    for p in made:
        p.grad = torch.randn(side, side, generator=generator).to(device)
    return made


def contestants(shared: list[torch.Tensor]) -> dict[str, Optimizer]:
    """Every optimizer of the comparison, over the same parameters."""
    return {
        BASE: SGD(shared, lr=1e-3, foreach=True),
        "SignSubgradient": SignSubgradient(shared, lr=1e-3),
        "SignSubgradient(capturable=True), which does not check": SignSubgradient(shared, lr=1e-3, capturable=True),
        "SignSubgradient(momentum=0.9)": SignSubgradient(shared, lr=1e-3, momentum=0.9),
        "NormalizedSubgradient": NormalizedSubgradient(shared, lr=1e-3),
        "Subgradient": Subgradient(shared, lr=1e-3),
        "Adam(foreach=True)": Adam(shared, lr=1e-3, foreach=True),
        "Adam(fused=True)": Adam(shared, lr=1e-3, fused=True),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--tensors", type=int, default=10)
    options = parser.parse_args()
    shared = parameters(options.tensors)
    optimizers = contestants(shared)
    times: dict[str, list[float]] = {name: [] for name in optimizers}
    for _ in range(options.rounds):
        for name, optimizer in optimizers.items():
            start = perf_counter()
            optimizer.step()
            times[name].append(perf_counter() - start)
    base = statistics.median(times[BASE])
    print(f"{sum(p.numel() for p in shared):,} parameters in {len(shared)} tensors, {torch.get_num_threads()} threads\n")
    print("| optimizer | ms a step | ratio |\n|---|---|---|")
    for name, values in times.items():
        middle = statistics.median(values)
        print(f"| `{name}` | {1000 * middle:.1f} | {middle / base:.2f} |")


if __name__ == "__main__":
    main()
