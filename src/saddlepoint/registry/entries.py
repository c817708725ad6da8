"""What the registry knows about a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Entry:
    """The class of a name and a one-line summary.

    Attributes:
        path: ``package.module:Class``.
        summary: one line.
    """

    path: str
    summary: str


@dataclass(frozen=True)
class ProblemEntry(Entry):
    """A problem.

    Attributes:
        loss: the GAN loss that the problem needs, or None where the rule's loss works.
        metric: default metric by which methods are compared on the problem.
        method: recommended part of a run's configuration, used if the user names neither a rule nor
            an optimizer (docs/evidence.md).
    """

    loss: str | None = None
    metric: str = "ema/frechet[digit-cnn]"
    method: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RuleEntry(Entry):
    """A rule and its theory; its order and the games that it holds for are on its class.

    Attributes:
        cost: derivatives of one step of a two-player game; k is the number of solver iterations.
        bilinear: behaviour on the bilinear game x·s·y with step size h.
        minimax: behaviour at local minimax points.
        paper: where it is published.
    """

    cost: str
    bilinear: str
    minimax: str
    paper: str


@dataclass(frozen=True)
class OptimizerEntry(Entry):
    """An inner optimizer.

    Attributes:
        options: default options.
        lr_schedule: default schedule of its learning rate, "constant" or "linear".
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    lr_schedule: str = "constant"


def ttur(generator: float, discriminator: float) -> dict[str, Any]:
    """Return options of the two time-scale update rule: a learning rate for each player.

    Reference: Heusel et al. (2017), arXiv:1706.08500. The registry's values are the best ones found
    on ``digits``.
    """
    return {"lr": generator, "players": {"discriminator": {"lr": discriminator}}}
