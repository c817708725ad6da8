"""What the registry says of a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Entry:
    """A name's class and one line about it."""

    path: str
    summary: str


@dataclass(frozen=True)
class ProblemEntry(Entry):
    """A problem, with the GAN loss that it needs where that of the rule does not train it.

    Attributes:
        loss: that loss, or None.
        metric: by which methods are compared on it, unless another is chosen.
        method: the part of a run's configuration that trains it best, for who names neither rule
            nor optimizer (docs/evidence.md).
    """

    loss: str | None = None
    metric: str = "ema/frechet[digit-cnn]"
    method: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RuleEntry(Entry):
    """A rule: what theory says of it, and what it brings when the user says nothing else.

    Attributes:
        order: 0 for losses only, 1 for gradients, 2 for Jacobian products, with the rule's default
            options.
        games: for which games the rule is defined; it refuses others.
        cost: derivatives of one step of a two-player game; k is the number of solver iterations.
        bilinear: what it does on the bilinear game x·s·y with step h.
        minimax: what it does at local minimax points.
        paper: where it is published.
        optimizer: the natural inner optimizer and its options.
        options: the rule's options for training networks, where its own defaults are those of its
            paper.
        loss: the natural GAN loss.
        scheme: "alternating" or "simultaneous".
        steps: the length of a default run, about a minute on two cores.
    """

    order: int
    games: str
    cost: str
    bilinear: str
    minimax: str
    paper: str
    optimizer: Mapping[str, Any] = field(default_factory=lambda: {"name": "adam"})
    options: Mapping[str, Any] = field(default_factory=dict)
    loss: str = "minimax"
    scheme: str = "simultaneous"
    steps: int = 2000


@dataclass(frozen=True)
class OptimizerEntry(Entry):
    """An inner optimizer with default options and the schedule of its learning rate."""

    options: Mapping[str, Any] = field(default_factory=dict)
    schedule: str = "constant"


def two_rates(generator: float, discriminator: float) -> dict[str, Any]:
    """Two time scales, as in Heusel et al. (2017), arXiv:1706.08500; the values are the best found on ``digits``."""
    return {"lr": generator, "players": {"discriminator": {"lr": discriminator}}}
