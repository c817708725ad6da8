"""Whether two players interact as in a zero-sum game, which decides the form of several rules."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import torch

from saddlepoint.rules.state import RuleState
from saddlepoint.vectors import Vector

if TYPE_CHECKING:
    from saddlepoint.rules.step import Step

_CLOSE = 1e-4  # far above the rounding of float32, far below what another loss changes
_PERIOD = 10  # steps; the test costs two products, a rule some four of them in every step


def interacts_as_zero_sum(step: Step) -> bool:
    """Return whether the game has two players with J_xy = −J_yxᵀ.

    That holds where the two losses add up to terms of one player alone. It is tested on a random
    vector, for two products, in the first step and in every tenth after it: a game may look
    zero-sum at its start only, as a GAN with a hinge loss does until a logit is beyond the margin.
    Once the answer was no, it stays no. While neither player depends on the other at all, J_xy =
    J_yx = 0, the answer is yes, since both forms of a rule agree there, and the next step tests
    again.

    A rule that calls this once a step declares ``cross = "unless_zero_sum"``.
    """
    numbers = step.state.numbers
    if len(step.linearization.active) != 2:
        return False
    asked = numbers["zero-sum asked"] = numbers.get("zero-sum asked", -1) + 1
    believed = numbers.get("zero-sum")
    if believed is None or (believed and asked % _PERIOD == 0):
        believed = _antisymmetric(step)
        if believed is None:
            return True
        numbers["zero-sum"] = believed
    return bool(believed)


def may_need_general_form(state: RuleState, active: Collection[str]) -> bool:
    """Return whether the next call of ``interacts_as_zero_sum`` tests the game or answers no."""
    next_asked = state.numbers.get("zero-sum asked", -1) + 1
    believed = state.numbers.get("zero-sum")
    return len(active) != 2 or not believed or next_asked % _PERIOD == 0


def _antisymmetric(step: Step) -> float | None:
    """Return whether J_xy v = −J_yxᵀ v for a random v, as 0 or 1; None where both are zero."""
    x, y = sorted(step.linearization.active)
    J, generator = step.linearization.jacobian, torch.Generator().manual_seed(0)
    like = Vector({y: step.players[y]})
    entries = torch.randn(like.dimension, generator=generator, dtype=torch.float64)
    v = like.unflatten(entries.to(like.tensors[0].device))
    across, back = J[x, y] @ v, J[y, x].T @ v
    length = max(float(across.norm()), float(back.norm()))
    return None if length == 0 else float(float((across + back).norm()) <= _CLOSE * length)
