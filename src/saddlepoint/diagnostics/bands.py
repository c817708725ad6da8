"""Which values of a GAN's losses are healthy: it depends on the loss in use."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Band:
    """The healthy range of one player's loss.

    Attributes:
        low: below it the player has won; −∞ where the loss has no such level.
        chance: the value for a discriminator that outputs 0 for everything, as at the equilibrium.
        high: above it the player has lost.
    """

    low: float
    chance: float
    high: float


_INFINITE = math.inf
_LN2 = math.log(2)

BANDS: dict[str, dict[str, Band]] = {
    "minimax": {
        "discriminator": Band(0.1, 2 * _LN2, 2 * _LN2 + 0.2),
        "generator": Band(-2.0, -_LN2, -0.02),
    },
    "non-saturating": {
        "discriminator": Band(0.1, 2 * _LN2, 2 * _LN2 + 0.2),
        "generator": Band(0.1, _LN2, 6.0),
    },
    "hinge": {
        "discriminator": Band(0.1, 2.0, 2.2),
        "generator": Band(-_INFINITE, 0.0, _INFINITE),
    },
    "wasserstein": {
        "discriminator": Band(-_INFINITE, 0.0, 0.1),
        "generator": Band(-_INFINITE, 0.0, _INFINITE),
    },
}
"""loss → player → band. Chance is exact: a discriminator that cannot tell has 2 ln 2 under the logistic losses, 2 under the hinge, 0 under
Wasserstein's. Above it the discriminator is worse than no discriminator; a margin covers the noise
of a mini-batch. A logistic discriminator loss of 0.1 stands for a mean probability of 95 % on the
right side of both samples. Critics' generator losses have no level: their zero is free."""
