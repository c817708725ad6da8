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

STEP, STEPS, START = 0.03, (0.03, 0.1, 0.3), (1.0, 0.618)
GAMES = {"pure rotation, xy": (0.0, 1.0, 0.0), "damped, xy + x²/4 − y²/4": (0.5, 1.0, -0.5)}
REMEDIES = {  # name → rule, momentum of the sign, whether the learning rate falls like 1/√t, colour
    "constant steps": (sp.GradientDescent(), 0.0, False, "#d62728"),
    "decay": (sp.GradientDescent(), 0.0, True, "#ff7f0e"),
    "average": (sp.Averaged(), 0.0, False, "#2ca02c"),
    "momentum 0.9": (sp.GradientDescent(), 0.9, False, "#8c564b"),
    "extragradient": (sp.Extragradient(), 0.0, False, "#1f77b4"),
    "extragradient, decay": (sp.Extragradient(), 0.0, True, "#9467bd"),
}


def path(game_name, remedy, lr, steps):
    """Return the distance from the equilibrium and the point (x, y) after every step."""
    rule, momentum, decays, _ = REMEDIES[remedy]
    game = zero_sum(*GAMES[game_name], START)
    inner = {
        player: SignSubgradient(own, lr=lr, momentum=momentum)
        for player, own in game.players.items()
    }
    optimizer = sp.GameOptimizer(inner, rule)
    distances, points = [], []
    for t in range(steps):
        for own in inner.values():
            own.param_groups[0]["lr"] = lr / (1 + t) ** 0.5 if decays else lr
        optimizer.step(game.losses)
        points.append(game.theta.detach().clone())
        if isinstance(rule, sp.Averaged):
            with optimizer.averaged():
                distances.append(game.distance())
        else:
            distances.append(game.distance())
    return torch.tensor(distances), torch.stack(points)


def main():
    parser = argparse.ArgumentParser(description="Sign steps on a pure and on a damped rotation.")
    parser.add_argument("--length", type=float, default=60.0, help="sum of the steps of a run")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for axis, game in zip(axes, GAMES, strict=False):
        print(f"{game}: mean distance over the last quarter of the run\n")
        print("| | " + " | ".join(f"step {lr:g}" for lr in STEPS) + " |")
        print("|---" * (1 + len(STEPS)) + "|")
        for remedy, (*_, colour) in REMEDIES.items():
            runs = [path(game, remedy, lr, round(options.length / lr))[0] for lr in STEPS]
            means = [float(run[-max(1, len(run) // 4) :].mean()) for run in runs]
            print(f"| {remedy} | " + " | ".join(f"{mean:.2g}" for mean in means) + " |")
            steps = range(1, len(runs[0]) + 1)
            axis.loglog(steps, runs[0], label=remedy, color=colour, linewidth=1.2)
        axis.set(title=f"{game}: distance, step {STEP:g}", xlabel="steps")
        axis.grid(alpha=0.3)
        print()
    for remedy in ("constant steps", "momentum 0.9", "extragradient"):
        x, y = path("pure rotation, xy", remedy, STEP, 600)[1].T
        axes[2].plot(x, y, label=remedy, color=REMEDIES[remedy][3], linewidth=1)
    title = f"paths on the pure rotation, step {STEP:g}"
    axes[2].set(title=title, xlabel="x", ylabel="y", aspect="equal")
    axes[2].grid(alpha=0.3)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(REMEDIES))
    figure.savefig(options.out / "oscillation.png", dpi=110)


if __name__ == "__main__":
    main()
