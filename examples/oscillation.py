"""
Oscillation of sign steps
=========================

The length of a sign step does not shrink near a solution. On f = x·y simultaneous sign steps keep
abs(x) + abs(y) up to an error of the size of the step, and so circle around the solution. With some
curvature they approach it, down to a cycle of the size of the step. The script measures both games
with the usual remedies, prints a table and draws the figure of docs/oscillation.md. It takes under
a minute. ::

    python examples/oscillation.py [--length 60] [--out docs/images]

.. image:: /images/oscillation.png
   :alt: Distance from the equilibrium on two games, and paths on the pure rotation
"""

# sphinx_gallery_thumbnail_path = "images/oscillation.png"

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import saddlepoint as sp
from saddlepoint.games import zero_sum
from saddlepoint.optim import SignSubgradient
from saddlepoint.rules import Averaged, Extragradient, GradientDescent

STEP, SIZES, START = 0.03, (0.03, 0.1, 0.3), (1.0, 0.618)
GAMES = {"pure rotation, xy": (0.0, 1.0, 0.0), "damped, xy + x²/4 − y²/4": (0.5, 1.0, -0.5)}

# name → (rule, momentum of the sign, whether lr falls like 1/√t)
CURES = {
    "constant steps": (GradientDescent(), 0.0, False),
    "decay": (GradientDescent(), 0.0, True),
    "average": (Averaged(), 0.0, False),
    "momentum 0.9": (GradientDescent(), 0.9, False),
    "extragradient": (Extragradient(), 0.0, False),
    "extragradient, decay": (Extragradient(), 0.0, True),
}
COLOURS = dict(
    zip(CURES, ("#d62728", "#ff7f0e", "#2ca02c", "#8c564b", "#1f77b4", "#9467bd"), strict=True)
)


def path(game_name, cure, lr, steps):
    """Return the points (x, y) and their distances from the equilibrium, for every step."""
    rule, momentum, decays = CURES[cure]
    game = zero_sum(*GAMES[game_name], START)
    optimizer = sp.GameOptimizer(
        {
            player: SignSubgradient(own, lr=lr, momentum=momentum)
            for player, own in game.players.items()
        },
        rule,
    )
    distances, points = [], []
    for t in range(steps):
        for inner in optimizer.optimizers.values():
            inner.param_groups[0]["lr"] = lr / (1 + t) ** 0.5 if decays else lr
        optimizer.step(game.losses)
        points.append(game.theta.detach().clone())
        if isinstance(rule, Averaged):
            with optimizer.averaged():
                distances.append(game.distance())
        else:
            distances.append(game.distance())
    return torch.tensor(distances), torch.stack(points)


def tail(distances):
    """Return the mean distance over the last quarter of a run, the radius of a cycle."""
    return float(distances[-max(1, len(distances) // 4) :].mean())


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[1], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--length",
        type=float,
        default=60.0,
        help="what the steps of a run add up to, at constant steps",
    )
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for axis, game in zip(axes, GAMES, strict=False):
        print(
            f"{game}\n\n| | "
            + " | ".join(f"step {lr:g}" for lr in SIZES)
            + " |\n|---"
            + "|---" * len(SIZES)
            + "|"
        )
        for cure in CURES:
            distances = {lr: path(game, cure, lr, round(options.length / lr))[0] for lr in SIZES}
            print(f"| {cure} | " + " | ".join(f"{tail(d):.2g}" for d in distances.values()) + " |")
            axis.loglog(
                range(1, len(distances[STEP]) + 1),
                distances[STEP],
                label=cure,
                color=COLOURS[cure],
                linewidth=1.2,
            )
        axis.set(title=f"{game}: distance, step {STEP:g}", xlabel="steps")
        axis.grid(alpha=0.3)
        print()
    for cure in ("constant steps", "momentum 0.9", "extragradient"):
        points = path("pure rotation, xy", cure, STEP, 600)[1]
        axes[2].plot(points[:, 0], points[:, 1], label=cure, color=COLOURS[cure], linewidth=1)
    axes[2].set(
        title=f"paths on the pure rotation, step {STEP:g}", xlabel="x", ylabel="y", aspect="equal"
    )
    axes[2].grid(alpha=0.3)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(CURES)
    )
    figure.savefig(options.out / "oscillation.png", dpi=110)


if __name__ == "__main__":
    main()
