"""Whether two players interact as in a zero-sum game, which decides the form of several rules."""

from __future__ import annotations

import torch

from saddlepoint.rules.base import Step
from saddlepoint.vectors import Vector

_CLOSE = 1e-4  # far above the rounding of float32, far below what another loss changes
_PERIOD = 10  # steps; finding out costs two products, a rule some four of them in every step


def interacts_as_zero_sum(step: Step) -> bool:
    """Say whether the game has two players with J_xy = −J_yxᵀ: their losses add up to terms of one player alone.

    Found out on a random vector, for two products, in the first step and again in every tenth after
    it: a game may look so at its start only, as a GAN with a hinge loss does until a logit is
    beyond the margin. What was once seen not to be zero-sum stays so. While neither player feels
    the other at all, J_xy = J_yx = 0, the answer is yes, since the forms of a rule are the same
    there, and the next step looks again. Ask once a step, and before the gradient, which then costs
    nothing more.
    """
    numbers = step.state.numbers
    if len(step.point.movers) != 2:
        return False
    asked = numbers["zero-sum asked"] = numbers.get("zero-sum asked", -1) + 1
    believed = numbers.get("zero-sum")
    if believed is None or (believed and asked % _PERIOD == 0):
        believed = _antisymmetric(step)
        if believed is None:
            return True
        numbers["zero-sum"] = believed
    return bool(believed)


def _antisymmetric(step: Step) -> float | None:
    """Return whether J_xy v = −J_yxᵀ v for a random v, as 0 or 1; None where both are zero."""
    x, y = sorted(step.point.movers)
    step.point.rows()
    J, generator = step.point.jacobian, torch.Generator().manual_seed(0)
    like = Vector({y: step.players[y]})
    v = like.unflatten(
        torch.randn(like.dimension, generator=generator, dtype=torch.float64).to(
            like.tensors[0].device
        )
    )
    across, back = J[x, y] @ v, J[y, x].T @ v
    length = max(float(across.norm()), float(back.norm()))
    return None if length == 0 else float(float((across + back).norm()) <= _CLOSE * length)
