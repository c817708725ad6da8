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
METHODS = {  # the generator's optimizer, learning rate (the discriminator has half of it), colour
    "gradient descent": (torch.optim.SGD, 0.1, "#777777"),
    "Adam": (partial(torch.optim.Adam, betas=(0.0, 0.999)), 2e-3, "#1f77b4"),
    "sign": (SignSubgradient, 2e-3, "#d62728"),
    "normalised": (NormalizedSubgradient, 0.1, "#2ca02c"),
}
COLUMNS = ("slope at first", "steps until it is 1e-3", "samples moved by", "modes at the end")
HEAD = ("method", *COLUMNS, "quality at the end")


def run(method, seed, steps, every):
    """Return rows of step, slope, distance of the samples from the first ones, modes, quality."""
    problem = Mixture8Saturated()
    networks = problem.networks(seed)  # the discriminator has had its 500 steps alone
    make, lr, _ = METHODS[method]
    inner = {D: make(networks[D].parameters(), lr=lr / 2), G: make(networks[G].parameters(), lr=lr)}
    optimizer = sp.GameOptimizer(inner)
    noise = problem.batch(0, 2500, seed).noise
    start = networks[G](noise).detach()
    rows = []
    for step in range(steps + 1):
        if step % every == 0:
            samples = networks[G](noise).detach()
            metrics = problem.metrics(samples)
            # E |∂ loss / ∂ logit|, a factor of the generator's gradient
            slope = float(torch.sigmoid(networks[D](samples).detach()).mean())
            moved = float((samples - start).norm(dim=1).mean())
            rows.append((step, slope, moved, metrics["modes"], metrics["quality"]))
        batch = problem.batch(1000 + step, 64, seed)  # none that the discriminator has seen
        for player in (D, G):
            optimizer.step(partial(problem.losses, networks, batch, {player}))
    return rows


def draw(results, path):
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    titles = ("slope of the minimax loss on generated samples", "modes covered, of 8")
    for axis, column, title in zip(axes, (1, 3), titles, strict=True):
        for method, runs in results.items():
            rows = torch.tensor(runs, dtype=torch.float64)  # (seeds, times, columns)
            low, middle, high = (rows[..., column].quantile(q, dim=0) for q in (0.1, 0.5, 0.9))
            steps, colour = rows[0, :, 0], METHODS[method][2]
            axis.plot(steps, middle, label=method, color=colour, linewidth=2)
            axis.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
        axis.set(xlabel="steps after the discriminator has won", title=title)
        axis.grid(alpha=0.3)
    axes[0].set_yscale("log")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(results))
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description="A generator before a discriminator that has won.")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    results, every = {}, max(1, options.steps // 50)
    for method in METHODS:
        results[method] = [run(method, seed, options.steps, every) for seed in range(options.seeds)]
    draw(results, options.out / "vanishing_gradient.png")
    print(f"| {' | '.join(HEAD)} |\n" + "|---" * len(HEAD) + "|")
    for method, runs in results.items():
        escapes = [next((row[0] for row in rows if row[1] > 1e-3), float("inf")) for rows in runs]
        last = list(zip(*(rows[-1] for rows in runs), strict=True))
        columns = [[rows[0][1] for rows in runs], escapes, *last[2:]]
        cells = [f"{statistics.median(c):.4g} ({min(c):.3g}–{max(c):.3g})" for c in columns]
        print(f"| {method} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
