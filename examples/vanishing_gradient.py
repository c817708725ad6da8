"""
A vanishing gradient
====================

The discriminator is trained alone until, under the minimax loss, the generator's gradient is about
1e-10 of its usual size. Then both players train in turn with gradient descent, Adam, sign steps or
normalised steps. Gradient descent does not move. Sign and normalised steps do not depend on the
size of the gradient. Adam divides by it, as long as it is larger than Adam's ε.

The script prints a table and draws the figure of docs/subgradient-methods.md; about five minutes on
one core, less with ``--seeds 2``. ::

    python examples/vanishing_gradient.py [--seeds 10] [--steps 2000] [--out docs/images]

.. image:: /images/vanishing_gradient.png
   :alt: Slope of the loss on generated samples, and modes covered, over 2000 steps
"""

# sphinx_gallery_thumbnail_path = "images/vanishing_gradient.png"

import argparse
import statistics
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import saddlepoint as sp
from saddlepoint.optim import NormalizedSubgradient, SignSubgradient
from saddlepoint.problems import Mixture8Saturated

D, G = "discriminator", "generator"
METHODS = {  # learning rate of the generator; the discriminator has half of it
    "gradient descent": (partial(torch.optim.SGD), 0.1),
    "Adam": (partial(torch.optim.Adam, betas=(0.0, 0.999)), 2e-3),
    "sign": (SignSubgradient, 2e-3),
    "normalised": (NormalizedSubgradient, 0.1),
}
COLOURS = {
    "gradient descent": "#777777",
    "Adam": "#1f77b4",
    "sign": "#d62728",
    "normalised": "#2ca02c",
}


def run(method, seed, steps, every):
    """Return step, slope, distance moved by the samples, modes and quality, every few steps."""
    problem = Mixture8Saturated()
    networks = problem.networks(seed)  # the discriminator has had its 500 steps alone
    make, rate = METHODS[method]
    inner = {
        player: make(network.parameters(), lr=rate * (1 if player == G else 0.5))
        for player, network in networks.items()
    }
    optimizer = sp.GameOptimizer(inner)
    noise = problem.batch(0, 2500, seed).noise
    start = networks[G](noise).detach()
    measured = []
    for step in range(steps + 1):
        if step % every == 0:
            samples = networks[G](noise).detach()
            metrics = problem.metrics(samples)
            # E |∂ loss / ∂ logit|, a factor of the generator's gradient
            slope = float(torch.sigmoid(networks[D](samples).detach()).mean())
            moved = float((samples - start).norm(dim=1).mean())
            measured.append((step, slope, moved, metrics["modes"], metrics["quality"]))
        batch = problem.batch(1000 + step, 64, seed)  # none that the discriminator has seen
        for player in (D, G):
            optimizer.step(partial(problem.losses, networks, batch, {player}))
    return measured


def draw(results, path):
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    labels = ("slope of the minimax loss on generated samples", "modes covered, of 8")
    for axis, column, label in zip(axes, (1, 3), labels, strict=True):
        for method, runs in results.items():
            steps = [row[0] for row in runs[0]]
            values = torch.tensor(
                [[row[column] for row in one] for one in runs], dtype=torch.float64
            )
            low, middle, high = (values.quantile(q, dim=0) for q in (0.1, 0.5, 0.9))
            axis.plot(steps, middle, label=method, color=COLOURS[method], linewidth=2)
            axis.fill_between(steps, low, high, color=COLOURS[method], alpha=0.15, linewidth=0)
        axis.set(xlabel="steps after the discriminator has won", title=label)
        axis.grid(alpha=0.3)
    axes[0].set_yscale("log")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(results)
    )
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[1], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    results = {
        m: [
            run(m, seed, options.steps, max(1, options.steps // 50))
            for seed in range(options.seeds)
        ]
        for m in METHODS
    }
    draw(results, options.out / "vanishing_gradient.png")
    head = (
        "method",
        "slope at first",
        "steps until it is 1e-3",
        "samples moved by",
        "modes at the end",
        "quality at the end",
    )
    print(f"| {' | '.join(head)} |\n" + "|---" * len(head) + "|")
    for method, runs in results.items():
        escapes = [next((row[0] for row in one if row[1] > 1e-3), float("inf")) for one in runs]
        columns = [
            [one[0][1] for one in runs],
            escapes,
            *([one[-1][k] for one in runs] for k in (2, 3, 4)),
        ]
        cells = [f"{statistics.median(c):.4g} ({min(c):.3g}–{max(c):.3g})" for c in columns]
        print(f"| {method} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
