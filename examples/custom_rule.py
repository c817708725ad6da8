"""
A rule of your own
==================

A rule is a frozen dataclass with one method, ``direction(step)``. This one is extragradient with
a larger correction. ``check_rule`` runs it through the conformance suite of the library. ::

    python examples/custom_rule.py [--steps 300] [--out docs/images]

.. image:: /images/custom_rule.png
   :alt: Distance from the solution over the steps, for three rules
"""

# sphinx_gallery_thumbnail_path = "images/custom_rule.png"

import argparse
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import saddlepoint as sp
from saddlepoint.games import bilinear
from saddlepoint.testing import check_rule


@dataclass(frozen=True)
class ScaledExtragradient(sp.Rule):
    """d = ξ + κ (ξ(θ − h ξ) − ξ); κ = 1 is extragradient, 0 gradient descent."""

    kappa: float = 2.0

    def direction(self, step):
        gradient = step.linearization.gradient
        with step.extrapolated(gradient, keep_state=False):
            ahead = step.linearize(1).gradient
        return gradient + self.kappa * (ahead - gradient)


parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[1])
parser.add_argument("--steps", type=int, default=300)
parser.add_argument("--out", type=Path, default=Path("docs/images"))
options = parser.parse_args()

# %%
# The suite raises an ``AssertionError`` that says what is wrong with a rule. For example, it checks
# that a run can be saved and loaded, and that the order of the players does not matter.

check_rule(ScaledExtragradient())
print("ScaledExtragradient passes the conformance suite")

# %%
# On f = x·y gradient descent moves away from the solution (0, 0); the other rules approach it.

rules = {
    "gradient descent": sp.GradientDescent(),
    "extragradient": sp.Extragradient(),
    "scaled extragradient, κ = 2": ScaledExtragradient(),
}
figure, axis = plt.subplots(figsize=(8, 4.5), layout="constrained")
for name, rule in rules.items():
    game = bilinear()
    inner = {player: torch.optim.SGD(own, lr=0.1) for player, own in game.players.items()}
    optimizer = sp.GameOptimizer(inner, rule)
    distances = []
    for _ in range(options.steps):
        optimizer.step(game.losses)
        distances.append(float(game.distance()))
    axis.semilogy(distances, label=name)
    print(f"{name}: distance {distances[-1]:.2g} after {options.steps} steps")
axis.set(xlabel="steps", ylabel="distance from the solution")
axis.grid(alpha=0.3)
axis.legend()
figure.savefig(options.out / "custom_rule.png", dpi=110)
