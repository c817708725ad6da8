"""Stochastic gradients by sampling coordinates."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from saddlepoint.errors import UsageError
from saddlepoint.optim.base import GradientOptimizer, Group, check_options, step_along
from saddlepoint.optim.draws import uniforms
from saddlepoint.optim.identity import labels


class RandomCoordinate(GradientOptimizer):
    """Move a random part of the coordinates: θ_j ← θ_j − (lr / share) · b_j · g_j, with b_j = 1 with probability ``share``, else 0.

    The mean of the step is that of gradient descent, from a share of the coordinates. Sampling the
    data instead, the usual stochastic gradient, is the closure's part: it draws the mini-batch.

    Args:
        params: parameters or groups.
        lr: the step.
        share: probability of each coordinate to move, in (0, 1].
        seed: the coordinates of a step are a function of (seed, parameter, step), with the
            parameter known by its name, or else by its place among all of the optimizer's: whether
            others have a gradient changes nothing.

    Raises:
        UsageError: lr or seed is negative, or share outside of (0, 1]; a complex parameter or a
            sparse gradient.

    Reference: Nesterov (2012), Efficiency of coordinate descent methods on huge-scale optimization
    problems, SIAM J. Optim. 22.

    >>> x = torch.zeros(4, requires_grad=True)
    >>> optimizer = RandomCoordinate([x], lr=0.5, share=0.5)
    >>> x.sum().backward()
    >>> optimizer.step()
    >>> sorted(set(x.tolist()))
    [-1.0, 0.0]
    """

    def __init__(
        self, params: ParamsT, lr: float = 0.1, *, share: float = 0.5, seed: int = 0
    ) -> None:
        super().__init__(params, {"lr": lr, "share": share, "seed": seed})

    def _check_options(self, group: Group) -> None:
        check_options(
            "RandomCoordinate",
            lr=(group["lr"], 0),
            seed=(group["seed"], 0),
            share=(group["share"], 0),
        )
        if not 0 < group["share"] <= 1:
            raise UsageError(f"RandomCoordinate: share={group['share']} must be in (0, 1].")

    def _move(self, group: Group, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        names = labels(self)
        drawn = [
            uniforms(g, group["seed"], names[p], group["t"])
            for p, g in zip(parameters, gradients, strict=True)
        ]
        chosen = [
            torch.where(u < group["share"], g, 0.0) for u, g in zip(drawn, gradients, strict=True)
        ]
        step_along(parameters, chosen, float(group["lr"]) / group["share"])
