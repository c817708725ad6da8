"""Metrics P: how long a step is, per parameter, before curvature is looked at."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from saddlepoint.errors import UsageError
from saddlepoint.rules.state import RuleState
from saddlepoint.vectors import Vector


@dataclass(frozen=True)
class RMS:
    """The diagonal metric of RMSProp: P = diag((√v + ε) / √(1 − βᵗ)) with v ← βv + (1 − β)ξ² after t steps.

    Args:
        beta: decay of the running mean of squares; 0.99 as in the published ACGD.
        epsilon: added to √v; 1e-5 as in the published ACGD.

    Raises:
        UsageError: beta outside [0, 1) or epsilon not positive.

    Reference: Tieleman and Hinton (2012), Lecture 6.5; the bias correction is that of Kingma and Ba (2015), arXiv:1412.6980.

    >>> state, xi = RuleState(), Vector({"x": [torch.tensor([3.0, -4.0])]})
    >>> RMS(epsilon=1e-8).update(state, "x", xi).flatten().round(decimals=4).tolist()
    [3.0, 4.0]
    """

    beta: float = 0.99
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        if not (0 <= self.beta < 1 and self.epsilon > 0):
            raise UsageError(f"RMS: needs 0 ≤ beta < 1 and epsilon > 0, not {self.beta} and {self.epsilon}.")

    def update(self, state: RuleState, name: str, xi: Vector) -> Vector:
        """Take ξ into the running mean that ``state`` holds under ``name``, and return P. Call it once a step."""
        t = state.numbers[f"time.{name}"] = state.numbers.get(f"time.{name}", 0) + 1
        before = state.vectors.get(f"square.{name}", xi.zeros())
        v = state.vectors[f"square.{name}"] = self.beta * before + (1 - self.beta) * (xi * xi)
        root = v.sqrt()
        torch._foreach_add_(root.tensors, self.epsilon)
        return root / float((1 - self.beta**t) ** 0.5)


def unscaled(e: Vector, root: Vector | None) -> Vector:
    """Return P^(−1/2) e, where ``root`` is P^(1/2) or None for the identity."""
    return e if root is None else e / root
