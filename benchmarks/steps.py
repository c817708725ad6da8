"""What a step costs: every rule on two pairs of networks, beside Adam written by hand and one plain
gradient, all in the same rounds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.optim import Adam

from benchmarks.contestants import (
    ADAM,
    Step,
    alternating_by_hand,
    consensus_by_hand,
    joint_gradient,
    optimizers,
    plain_sgd,
    registered,
    simultaneous_by_hand,
    with_rule,
)
from benchmarks.pairs import PAIRS, Pair
from benchmarks.timing import interleaved, median, peak_memory, ratio
from saddlepoint import (
    AdaptiveCompetitiveGradient,
    CompetitiveGradient,
    Game,
    KroneckerPreconditioner,
    Newton,
    Rule,
    linearize,
    registry,
)
from saddlepoint.rules import LOLA, Consensus, Every, Hamiltonian, SymplecticGradientAdjustment

HAND, TOGETHER, PLAIN = (
    "alternating Adam called directly",
    "simultaneous Adam called directly",
    "one joint gradient",
)
FIVE = "five steps of simultaneous Adam called directly"
PERIOD = 5
# the same calls on next to no numbers: what is left is the price of making them
TINY = {"width": 2, "batch": 1}

GRADIENT_UNITS: dict[str, Rule] = {
    "Consensus": Consensus(gamma=0.1),
    "Hamiltonian": Hamiltonian(),
    "SymplecticGradientAdjustment": SymplecticGradientAdjustment(strength=0.1),
    "SymplecticGradientAdjustment(align=False)": SymplecticGradientAdjustment(
        strength=0.1, align=False
    ),
    "LOLA": LOLA(alpha=0.1),
}
STEP_UNITS: dict[str, Rule] = {
    "AdaptiveCompetitiveGradient": AdaptiveCompetitiveGradient(tol=0.1),
    "CompetitiveGradient(preconditioner=KroneckerPreconditioner())": CompetitiveGradient(
        preconditioner=KroneckerPreconditioner(max_dimension=512), tol=0.1, warm_start=True
    ),
    "Newton": Newton(damping=100.0, adapt=False, max_iter=3),
}


def measure(device: torch.device, rounds: int) -> dict[str, Any]:
    """Return the costs of steps on both pairs of networks."""
    found = {}
    for name, make in PAIRS.items():
        pair = partial(make, device)
        found[name] = {
            "rules": _rules(pair, rounds),
            "parts": _parts(pair, rounds),
            "every": _every(pair, rounds),
            "memory": _memory(pair, device),
        }
    return found


def _rules(make: Callable[..., Pair], rounds: int) -> list[dict[str, Any]]:
    """Every rule as ``saddlepoint train`` sets it up."""
    names = list(registry.RULES)
    full = {name: registered(make(), name) for name in names}
    steps: dict[str, Step] = {
        HAND: alternating_by_hand(make()),
        PLAIN: partial(joint_gradient, make()),
    }
    times = interleaved(steps | {name: step for name, (step, _) in full.items()}, rounds)
    tiny = interleaved(
        {name: registered(make(**TINY), name)[0] for name in names}, max(rounds // 2, 3)
    )
    rows = []
    for name in names:
        optimizer = full[name][1]
        turns = 2 if registry.RECIPES[name].update_scheme == "alternating" else 1
        count = rounds + 3
        rows.append(
            {
                "rule": name,
                "optimizer": registry.RECIPES[name].optimizer["name"],
                "ms": median(times[name]),
                "to Adam": ratio(times, name, HAND),
                "to a gradient": ratio(times, name, PLAIN),
                "overhead": round(median(tiny[name]) / median(times[name]), 3),
                "gradients": round(optimizer.cost.gradients / count, 2),
                "products": round(optimizer.cost.products / count, 2),
                "turns": turns,
            }
        )
    return [
        {"rule": HAND, "ms": median(times[HAND])},
        {"rule": PLAIN, "ms": median(times[PLAIN])},
        *rows,
    ]


def _parts(make: Callable[..., Pair], rounds: int) -> dict[str, Any]:
    """What the library's own work costs beside the same by hand, and what curvature costs beside a
    gradient."""
    pair = make()
    game = Game({player: pair.parameters(player) for player in pair.networks}, pair.losses)
    point = linearize(game)
    J, xi = point.jacobian, point.gradient
    steps: dict[str, Step] = {
        TOGETHER: simultaneous_by_hand(make()),
        PLAIN: partial(joint_gradient, make()),
    }
    steps["GradientDescent"] = with_rule(own := make(), None, optimizers(own, Adam, **ADAM))[0]
    for name, rule in GRADIENT_UNITS.items():
        steps[name] = with_rule(own := make(), rule, optimizers(own, Adam, **ADAM))[0]
    steps["consensus called directly"] = consensus_by_hand(make())
    steps["J.T @ v"] = lambda: J.T @ xi
    steps["J.off_diagonal.T @ v"] = lambda: J.off_diagonal.T @ xi
    times = interleaved(steps, 2 * rounds)
    products = ("J.T @ v", "J.off_diagonal.T @ v")
    return {
        name: ratio(times, name, PLAIN if name in products else TOGETHER)
        for name in steps
        if name not in (TOGETHER, PLAIN)
    }


def _every(make: Callable[..., Pair], rounds: int) -> dict[str, Any]:
    """Curvature in every fifth step, five steps at a time; for a rule that returns updates the
    other steps are plain gradients under SGD."""
    steps: dict[str, Step] = {FIVE: _times(PERIOD, simultaneous_by_hand(make()))}
    for name, rule in {**GRADIENT_UNITS, **STEP_UNITS}.items():
        own = make()
        inner = plain_sgd(own) if rule.output == "update" else optimizers(own, Adam, **ADAM)
        steps[name] = _times(PERIOD, with_rule(own, Every(rule, k=PERIOD), inner)[0])
    times = interleaved(steps, rounds)
    return {name: ratio(times, name, FIVE) for name in steps if name != FIVE}


def _times(count: int, step: Step) -> Step:
    def several() -> None:
        for _ in range(count):
            step()

    return several


def _memory(make: Callable[..., Pair], device: torch.device) -> dict[str, float]:
    """Peak memory of networks, optimizer and two steps, relative to simultaneous Adam."""

    def peak(prepare: Callable[[Pair], Step]) -> int:
        def work() -> None:
            step = prepare(make())
            for _ in range(2):
                step()

        work()  # what is loaded lazily
        return peak_memory(work, device)

    base = peak(simultaneous_by_hand)
    found = {
        "GradientDescent": peak(
            lambda pair: with_rule(pair, None, optimizers(pair, Adam, **ADAM))[0]
        )
    }
    for name, rule in GRADIENT_UNITS.items():
        found[name] = peak(
            lambda pair, rule=rule: with_rule(pair, rule, optimizers(pair, Adam, **ADAM))[0]
        )  # type: ignore[misc]
    for name, rule in STEP_UNITS.items():
        found[name] = peak(lambda pair, rule=rule: with_rule(pair, rule, plain_sgd(pair))[0])  # type: ignore[misc]
    return {
        "Adam, MiB": round(base / 2**20, 1),
        **{name: round(bytes_ / base, 2) for name, bytes_ in found.items()},
    }
