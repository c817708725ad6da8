"""Stochastic gradients by sampling coordinates."""

from __future__ import annotations

from itertools import count

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from saddlepoint.errors import UsageError
from saddlepoint.optim.base import GradientOptimizer, Group, Work, check_options, step_along
from saddlepoint.optim.draws import uniforms


class RandomCoordinate(GradientOptimizer):
    """Move a random part of the coordinates: θ_j ← θ_j − (lr / share) · b_j · g_j, with b_j = 1 with probability ``share``, else 0.

    The mean of the step is that of gradient descent, from a share of the coordinates. Sampling the data instead, the usual stochastic
    gradient, is the closure's part: it draws the mini-batch.

    Args:
        params: parameters or groups.
        lr: the step.
        share: probability of each coordinate to move, in (0, 1].
        seed: the coordinates of a step are a function of (seed, step).

    Raises:
        UsageError: lr or seed is negative, or share outside of (0, 1].

    Reference: Nesterov (2012), Efficiency of coordinate descent methods on huge-scale optimization problems, SIAM J. Optim. 22.

    >>> x = torch.zeros(4, requires_grad=True)
    >>> optimizer = RandomCoordinate([x], lr=0.5, share=0.5)
    >>> x.sum().backward()
    >>> optimizer.step()
    >>> sorted(set(x.tolist()))
    [-1.0, 0.0]
    """

    def __init__(self, params: ParamsT, lr: float = 0.1, *, share: float = 0.5, seed: int = 0) -> None:
        check_options("RandomCoordinate", lr=(lr, 0), seed=(seed, 0))
        if not 0 < share <= 1:
            raise UsageError(f"RandomCoordinate: share={share} must be in (0, 1].")
        super().__init__(params, {"lr": lr, "share": share, "seed": seed})

    def _prepare(self, work: Work, loss: float | None) -> None:
        self._draws = count()

    def _move(self, group: Group, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        chosen = [torch.where(self._coordinates(g, group), g, 0.0) for g in gradients]
        step_along(parameters, chosen, float(group["lr"]) / group["share"])

    def _coordinates(self, gradient: Tensor, group: Group) -> Tensor:
        return torch.lt(uniforms(gradient, group["seed"], next(self._draws), group["t"]), group["share"])
