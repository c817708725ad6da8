"""Competitive gradient descent against its authors' package: same trajectory, and the time of a step in the same run.

    pip install -c constraints.txt '.[benchmark]'
    python -m benchmarks.against_cgds

Networks of the digits GAN, the minimax loss, batch 64, float64 for the trajectory of 20 steps (parameters must agree to 1e-4, or the
comparison is void), then float32 for the time, one step of each in turn.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from time import perf_counter

import CGDs
import torch

from saddlepoint import AdaptiveCompetitiveGradient, CompetitiveGradient, GameOptimizer, Rule
from saddlepoint.problems import Digits
from saddlepoint.problems.base import Batch

RATE, STEPS, ROUNDS = 1e-3, 20, 40


class Pair:
    """The digits GAN in one precision, with its batches."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.problem, self.dtype, self.number = Digits(loss="minimax", activation="tanh"), dtype, 0
        self.networks = {player: network.to(dtype) for player, network in self.problem.networks(0).items()}

    def losses(self) -> dict[str, torch.Tensor]:
        batch = self.problem.batch(self.number, 64, 0)
        typed = Batch(batch.real.to(self.dtype), batch.noise.to(self.dtype))
        found = self.problem.losses(self.networks, typed, tuple(self.networks))
        return {player: sum(terms.values(), torch.zeros((), dtype=self.dtype)) for player, terms in found.items()}

    def parameters(self) -> torch.Tensor:
        return torch.cat([p.detach().reshape(-1) for network in self.networks.values() for p in network.parameters()])


def ours(dtype: torch.dtype, rule: Rule) -> tuple[Pair, Callable[[], object]]:
    pair = Pair(dtype)
    inner = {player: torch.optim.SGD(network.parameters(), lr=RATE) for player, network in pair.networks.items()}
    optimizer = GameOptimizer(inner, rule)

    def step() -> None:
        optimizer.step(pair.losses)
        pair.number += 1

    return pair, step


def theirs(dtype: torch.dtype, adaptive: bool, tolerance: float) -> tuple[Pair, Callable[[], object]]:
    """The discriminator maximises the negative of its loss, which the generator minimises up to a term that is not its own.

    Their tolerance is on squared norms, so ours is squared.
    """
    pair = Pair(dtype)
    D, G = (list(network.parameters()) for network in pair.networks.values())
    if adaptive:
        optimizer = CGDs.ACGD(max_params=D, min_params=G, lr_max=RATE, lr_min=RATE, tol=tolerance**2, atol=0.0)
    else:
        optimizer = CGDs.BCGD(max_params=D, min_params=G, lr_max=RATE, lr_min=RATE, tol=tolerance**2, atol=0.0)

    def step() -> None:
        optimizer.zero_grad()
        optimizer.step(loss=-pair.losses()["discriminator"])
        pair.number += 1

    return pair, step


def main() -> None:
    for adaptive in (True, False):
        kind = AdaptiveCompetitiveGradient if adaptive else CompetitiveGradient
        name = "ACGD" if adaptive else "BCGD"
        (mine, step), (other, other_step) = ours(torch.float64, kind(tolerance=1e-10, budget=200)), theirs(torch.float64, adaptive, 1e-10)
        for _ in range(STEPS):
            step()
            other_step()
        gap = float((mine.parameters() - other.parameters()).abs().max())
        print(
            f"{name}: after {STEPS} steps the parameters differ by at most {gap:.1e}"
            + ("" if gap < 1e-4 else "  VOID: not the same trajectory")
        )
        for tolerance in (1e-6, 1e-2):
            (_, step), (_, other_step) = (
                ours(torch.float32, kind(tolerance=tolerance, budget=200, warm_start=True)),
                theirs(torch.float32, adaptive, tolerance),
            )
            times: dict[str, list[float]] = {"ours": [], "theirs": []}
            for _ in range(ROUNDS):
                for label, run in (("ours", step), ("theirs", other_step)):
                    started = perf_counter()
                    run()
                    times[label].append(1000 * (perf_counter() - started))
            ratio = statistics.median(a / b for a, b in zip(times["ours"][5:], times["theirs"][5:], strict=True))
            middle = {label: statistics.median(values[5:]) for label, values in times.items()}
            print(f"{name}, tolerance {tolerance:g}: {middle['ours']:.1f} ms a step, theirs {middle['theirs']:.1f} ms, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
