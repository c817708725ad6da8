"""What a probe measures at one point of training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from saddlepoint.diagnostics.gradients import GradientHealth


@dataclass(frozen=True)
class Probe:
    """The numbers of one probe; None stands for what could not be measured, with the reason in ``unmeasured``.

    Attributes:
        gradients: sizes, zeros and noise of the players' gradients.
        saturated: player → share of the discriminator's outputs where that player's loss is flat.
        accuracy: how well the discriminator separates training samples from generated ones; ½ is
            chance.
        memory: P(D(training sample) > D(held-out sample)); ½ where it learnt none by heart.
        antisymmetric: the share of rotation in the field, ‖Aξ‖² / (‖Aξ‖² + ‖Sξ‖²).
        update_cosine: player → cosine of the angle between its last two updates.
        diversity: mean distance between generated samples, as a share of that between real ones.
        unmeasured: name → reason.
    """

    gradients: GradientHealth
    saturated: dict[str, float]
    accuracy: float
    memory: float | None
    antisymmetric: float | None
    update_cosine: dict[str, float] | None
    diversity: float
    unmeasured: dict[str, str]


def spread(samples: Tensor) -> float:
    """Return the root mean square distance between two different samples, √(2 Σ_j Var_j), from the variances of the coordinates.

    Args:
        samples: shape (n, …), n ≥ 2.

    >>> import torch
    >>> spread(torch.tensor([[0.0], [2.0]]))
    2.0
    """
    return math.sqrt(2 * float(samples.reshape(len(samples), -1).double().var(dim=0).sum()))
