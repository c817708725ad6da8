"""Rules that use gradients only."""

from __future__ import annotations

from dataclasses import dataclass

from saddlepoint.rules.base import Rule, Step
from saddlepoint.vectors import Vector


@dataclass(frozen=True)
class Gradient(Rule):
    """Follow each player's own gradient: direction = ξ.

    With all players in the closure's mapping this is simultaneous gradient descent, with one player after the other it is the
    usual alternating training. With any inner optimizer it equals the hand-written loop exactly.

    Cost: one gradient per mover. Guarantee: on a bilinear game x·s·y simultaneous descent diverges, |λ|² = 1 + h²s², and
    alternating descent stays bounded, |λ| = 1 for h·s < 2; it converges where the Jacobian's eigenvalues have positive real
    parts and h is small.

    Reference: Arrow, Hurwicz and Uzawa (1958), Studies in Linear and Non-Linear Programming.
    """

    order = 1

    def direction(self, step: Step) -> Vector:
        return step.point.gradient
