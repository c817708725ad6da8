"""Test of J_xy = −J_yxᵀ, which decides the form of several rules."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import torch

from saddlepoint.rules.state import RuleState
from saddlepoint.vectors import Vector

if TYPE_CHECKING:
    from saddlepoint.rules.step import Step

_TOL = 1e-4  # far above the rounding of float32, far below the effect of a loss of another kind
_PERIOD = 10  # steps; the test costs two products, a rule costs about four in every step


def interacts_as_zero_sum(step: Step) -> bool:
    """Return whether the game has two active players with J_xy = −J_yxᵀ.

    That holds where the two losses add up to terms that depend on one player alone. It is tested on
    a random vector, at the cost of two products, in the first step and in every tenth after it: a
    game may look zero-sum at its start only, as a GAN with a hinge loss does until a logit is
    beyond the margin. Once the answer was no, it stays no. While neither player depends on the
    other at all, J_xy = J_yx = 0, the answer is yes, since both forms of a rule agree there, and
    the next step tests again.

    Call it once a step, in a rule that declares ``cross = "unless_zero_sum"``.
    """
    numbers, found = step.state.numbers, step.linearization
    if len(found.active) != 2:
        return False
    calls = numbers["zero_sum_calls"] = numbers.get("zero_sum_calls", -1) + 1
    known = numbers.get("zero_sum")
    if known is not None and not (known and calls % _PERIOD == 0):
        return bool(known)
    x, y = sorted(found.active)
    like = Vector({y: step.players[y]})
    generator = torch.Generator().manual_seed(0)
    entries = torch.randn(like.dimension, generator=generator, dtype=torch.float64)
    v = like.unflatten(entries.to(like.tensors[0].device))
    J = found.jacobian
    Jv, JTv = J[x, y] @ v, J[y, x].T @ v
    length = max(float(Jv.norm()), float(JTv.norm()))
    if length == 0:
        return True
    numbers["zero_sum"] = float(float((Jv + JTv).norm()) <= _TOL * length)
    return bool(numbers["zero_sum"])


def may_need_general_form(state: RuleState, active: Collection[str]) -> bool:
    """Return whether the next call of ``interacts_as_zero_sum`` tests the game or returns False.

    The step then needs J @ v across players.
    """
    next_call = state.numbers.get("zero_sum_calls", -1) + 1
    known = state.numbers.get("zero_sum")
    return len(active) != 2 or not known or next_call % _PERIOD == 0
