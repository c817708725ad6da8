"""Healthy ranges of the losses of a GAN, for each loss function."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class LossRange:
    """The healthy range of one player's loss.

    Attributes:
        low: below it the player wins; −∞ where the loss has no such level.
        chance: the loss under a discriminator that outputs 0 for everything, as at the equilibrium.
        high: above it the player loses.
    """

    low: float
    chance: float
    high: float


_LN2 = math.log(2)

LOSS_RANGES: dict[str, dict[str, LossRange]] = {
    "minimax": {
        "discriminator": LossRange(0.1, 2 * _LN2, 2 * _LN2 + 0.2),
        "generator": LossRange(-2.0, -_LN2, -0.02),
    },
    "non-saturating": {
        "discriminator": LossRange(0.1, 2 * _LN2, 2 * _LN2 + 0.2),
        "generator": LossRange(0.1, _LN2, 6.0),
    },
    "hinge": {
        "discriminator": LossRange(0.1, 2.0, 2.2),
        "generator": LossRange(-math.inf, 0.0, math.inf),
    },
    "wasserstein": {
        "discriminator": LossRange(-math.inf, 0.0, 0.1),
        "generator": LossRange(-math.inf, 0.0, math.inf),
    },
}
"""loss → player → healthy range.

The chance level is exact: a discriminator that cannot distinguish the samples has 2 ln 2 under the
logistic losses, 2 under the hinge loss, 0 under Wasserstein's. Above it the discriminator is worse
than none; a margin covers the noise of a mini-batch. A logistic discriminator loss of 0.1
corresponds to a mean probability of 95 % for the correct class. Generator losses of critics have no
level: their zero is arbitrary.
"""
