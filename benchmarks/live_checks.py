"""What checking parameter groups at every step costs, as a share of the step.

python -m benchmarks.live_checks
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from time import perf_counter

import torch
from torch import Tensor
from torch.nn.functional import softplus

import saddlepoint as sp
from saddlepoint.models import MLP


def main() -> None:
    torch.set_num_threads(1)
    print("game                      check µs    step µs    share %")
    for name, (optimizer, losses) in {
        "two numbers": two_numbers(),
        "784-128-128 networks": networks(),
    }.items():
        shares, checks, steps = [], [], []
        for _ in range(20):
            optimizer.step(losses)
        for _ in range(15):
            step = seconds(lambda optimizer=optimizer, losses=losses: optimizer.step(losses), 50)
            check = seconds(optimizer._players, 500)
            shares.append(check / step)
            checks.append(check)
            steps.append(step)
        check, step, share = (statistics.median(values) for values in (checks, steps, shares))
        print(f"{name:24} {1e6 * check:9.2f} {1e6 * step:10.0f} {100 * share:10.2f}")


def seconds(call: Callable[[], object], times: int) -> float:
    started = perf_counter()
    for _ in range(times):
        call()
    return (perf_counter() - started) / times


def two_numbers() -> tuple[sp.GameOptimizer, Callable[[], dict[str, Tensor]]]:
    x, y = (torch.ones(1, requires_grad=True) for _ in range(2))
    optimizer = sp.GameOptimizer(
        {name: torch.optim.SGD([p], lr=1e-3) for name, p in (("x", x), ("y", y))}
    )
    return optimizer, lambda: {"x": (x * y).sum(), "y": -(x * y).sum()}


def networks() -> tuple[sp.GameOptimizer, Callable[[], dict[str, Tensor]]]:
    generator = torch.Generator().manual_seed(0)
    G, D = (
        MLP((64, 128, 128, 784), generator=generator),
        MLP((784, 128, 128, 1), generator=generator),
    )
    z, real = torch.randn(64, 64, generator=generator), torch.randn(64, 784, generator=generator)
    optimizer = sp.GameOptimizer(
        {
            "discriminator": torch.optim.Adam(D.parameters()),
            "generator": torch.optim.Adam(G.parameters()),
        }
    )

    def losses() -> dict[str, Tensor]:
        fake = D(G(z))
        return {
            "discriminator": softplus(-D(real)).mean() + softplus(fake).mean(),
            "generator": softplus(-fake).mean(),
        }

    return optimizer, losses


if __name__ == "__main__":
    main()
