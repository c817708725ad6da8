"""Recipes: what ``train --rule NAME`` uses where the user gives nothing else.

The values were found on ``digits``; the search spaces are those of ``compare``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from saddlepoint.registry.entries import ttur

Space = Mapping[str, Mapping[str, Any]]
"""Key → search range: ``{"log": (low, high)}`` or ``{"choices": (...)}``."""


@dataclass(frozen=True)
class Recipe:
    """How a rule is used to train networks.

    Attributes:
        optimizer: the inner optimizer and its options; with Adam's defaults by default.
        options: options of the rule where they differ from the defaults of its class, which are
            those of its paper.
        loss: the GAN loss.
        update_scheme: "alternating" or "simultaneous".
        steps: length of a default run, about a minute on two cores.
        space: search space of the rule. With ``optimizer.lr`` in it, it replaces the optimizer's
            space; otherwise it is searched together with it.
    """

    optimizer: Mapping[str, Any] = field(default_factory=lambda: {"name": "adam"})
    options: Mapping[str, Any] = field(default_factory=dict)
    loss: str = "minimax"
    update_scheme: str = "simultaneous"
    steps: int = 2000
    space: Space = field(default_factory=dict)


def _lr(low: float, high: float) -> Space:
    """Return a space of learning rates; "ratio" is the discriminator's over the generator's."""
    return {"optimizer.lr": {"log": (low, high)}, "ratio": {"choices": (0.25, 0.5, 1.0, 2.0)}}


_DAMPING: Space = {"rule.damping": {"log": (1e-2, 10.0)}}
_ADAM_BETAS: Space = {
    "optimizer.betas": {"choices": ([0.0, 0.999], [0.5, 0.999], [0.9, 0.999])},
}
_SOAP_BETAS: Space = {"optimizer.betas": {"choices": ([0.0, 0.95], [0.5, 0.95], [0.95, 0.95])}}
_LEADER = {"leader": "generator", "follower": "discriminator"}

RECIPES: dict[str, Recipe] = {
    "gradient": Recipe(
        update_scheme="alternating",
        steps=8000,
    ),
    "optimistic": Recipe(
        steps=8000,
    ),
    "extragradient": Recipe(
        steps=5000,
    ),
    "past-extragradient": Recipe(
        steps=8000,
    ),
    "lookahead": Recipe(
        update_scheme="alternating",
        steps=8000,
        options={"k": 10},
        space={"rule.k": {"choices": (5, 10, 50)}},
    ),
    "runge-kutta": Recipe(
        optimizer={"name": "sgd", "lr": 0.05},
        loss="non-saturating",
        steps=2500,
    ),
    "consensus": Recipe(
        options={"gamma": 0.1},
        steps=4000,
        space={"rule.gamma": {"log": (1e-2, 10.0)}},
    ),
    "sga": Recipe(
        options={"strength": 0.1},
        steps=3000,
        space={"rule.strength": {"log": (1e-2, 1.0)}},
    ),
    "hamiltonian": Recipe(
        steps=4000,
    ),
    "stochastic-hamiltonian": Recipe(
        steps=2000,
    ),
    "jare": Recipe(
        options={"gamma": 1.0},
        steps=4000,
        space={"rule.gamma": {"log": (1e-2, 100.0)}},
    ),
    "lola": Recipe(
        options={"alpha": 0.1},
        steps=3000,
        space={"rule.alpha": {"log": (1e-2, 1.0)}},
    ),
    "sos": Recipe(
        options={"alpha": 0.1},
        steps=3000,
        space={"rule.alpha": {"log": (1e-2, 1.0)}},
    ),
    "cgd": Recipe(
        optimizer={"name": "sgd", "lr": 0.005},
        options={"tol": 0.1},
        loss="non-saturating",
        space=_lr(1e-3, 0.3),
    ),
    "acgd": Recipe(
        optimizer={"name": "sgd", **ttur(4e-3, 2e-3)},
        options={"beta": 0.999, "tol": 0.1},
        space={**_lr(5e-4, 3e-2), "rule.beta": {"choices": (0.9, 0.99, 0.999)}},
    ),
    "kronecker-cgd": Recipe(
        optimizer={"name": "sgd", **ttur(1e-2, 5e-3)},
        options={
            "preconditioner": {"name": "kronecker", "max_dimension": 512},
            "tol": 0.1,
            "warm_start": True,
        },
        steps=1500,
        space=_lr(5e-4, 3e-2),
    ),
    "lcgd": Recipe(
        optimizer={"name": "sgd", "lr": 0.02},
        loss="non-saturating",
        steps=4000,
        space=_lr(1e-3, 0.3),
    ),
    "newton": Recipe(
        optimizer={"name": "sgd", **ttur(4.0, 2.0)},
        update_scheme="alternating",
        options={
            "preconditioner": {"name": "rms", "beta": 0.999},
            "damping": 1000.0,
            "adapt": False,
            "max_iter": 3,
        },
        space=_lr(0.3, 10.0),
    ),
    "proximal-point": Recipe(
        optimizer={"name": "sgd", "lr": 0.02},
        options={"tol": 0.1, "max_iter": 10},
        loss="non-saturating",
        space=_lr(1e-3, 0.3),
    ),
    "follow-the-ridge": Recipe(
        optimizer={"name": "sgd", "lr": 0.02},
        options={**_LEADER, "damping": 1.0, "max_iter": 5},
        space={**_lr(1e-3, 1.0), **_DAMPING},
    ),
    "total-gradient": Recipe(
        options={**_LEADER, "damping": 1.0, "max_iter": 5},
        space=_DAMPING,
    ),
    "gradient-newton": Recipe(
        optimizer={"name": "sgd", "lr": 0.02},
        options={**_LEADER, "damping": 1.0, "max_iter": 5},
        space={**_lr(1e-3, 1.0), **_DAMPING},
    ),
    "complete-newton": Recipe(
        optimizer={"name": "sgd", "lr": 0.02},
        options={**_LEADER, "damping": 1.0, "max_iter": 5},
        steps=1500,
        space={**_lr(1e-3, 1.0), **_DAMPING},
    ),
    "unrolled": Recipe(
        options={**_LEADER, "lr": 0.1},
        steps=1500,
        space={"rule.lr": {"log": (1e-2, 1.0)}},
    ),
    "averaged": Recipe(
        update_scheme="alternating",
        steps=8000,
    ),
    "clipped": Recipe(
        update_scheme="alternating",
        steps=8000,
    ),
    "every": Recipe(
        options={"rule": {"name": "consensus", "gamma": 0.1}, "k": 5},
        steps=6000,
    ),
    "per-player": Recipe(
        optimizer={"name": "adam", **ttur(5e-3, 1e-3)},
        options={
            "rule": {"name": "randomized-smoothing", "sigma": 0.1, "samples": 8, "batched": True},
            "players": ["generator"],
        },
        loss="non-saturating",
        update_scheme="alternating",
        steps=3000,
    ),
    "randomized-smoothing": Recipe(
        options={"sigma": 0.05, "samples": 8, "batched": True},
        loss="non-saturating",
        steps=2000,
    ),
    "spsa": Recipe(
        options={"c": 0.05},
        loss="non-saturating",
        steps=4000,
    ),
}
"""Rule → its recipe."""

OPTIMIZER_SPACES: dict[str, Space] = {
    "adam": {**_lr(3e-4, 1e-2), **_ADAM_BETAS},
    "adamw": {**_lr(3e-4, 1e-2), **_ADAM_BETAS},
    "rmsprop": _lr(1e-4, 1e-2),
    "sgd": _lr(1e-3, 1.0),
    "momentum-sgd": {
        **_lr(1e-3, 1.0),
        "optimizer.momentum": {"choices": (-0.1, -0.3, -0.5)},
    },
    "sign": _lr(1e-4, 1e-2),
    "signum": {**_lr(1e-4, 1e-2), "optimizer.momentum": {"choices": (0.5, 0.9)}},
    "normalized": _lr(1e-2, 1.0),
    "grafted": _lr(3e-4, 1e-2),
    "subgradient": _lr(0.1, 10.0),
    "random-coordinate": _lr(1e-2, 1.0),
    "soap": {**_lr(1e-3, 3e-2), **_SOAP_BETAS},
    "pytorch_optimizer:SOAP": {**_lr(1e-3, 3e-2), **_SOAP_BETAS},
}
"""Optimizer → its search space, for rules whose output is a gradient."""

ANY_OPTIMIZER_SPACE: Space = _lr(1e-4, 1e-1)
"""Search space of optimizers that have none of their own."""


def search_space(rule: str, optimizer: str) -> Space:
    """Return where the hyperparameters of a rule with an optimizer are searched."""
    own = RECIPES[rule].space if rule in RECIPES else {}
    if "optimizer.lr" in own:
        return own
    return {**OPTIMIZER_SPACES.get(optimizer, ANY_OPTIMIZER_SPACE), **own}
