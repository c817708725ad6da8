"""Coordinate descent on randomly chosen coordinates."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from saddlepoint.errors import UsageError
from saddlepoint.optim.base import GradientOptimizer, Group, check_at_least, step_along
from saddlepoint.optim.random import uniform_like
from saddlepoint.optim.state_dict import parameter_labels


class RandomCoordinate(GradientOptimizer):
    """Update randomly chosen coordinates: θ_j ← θ_j − (lr / p) · b_j · g_j, b_j ~ Bernoulli(p).

    The expected update is that of gradient descent. For the usual stochastic gradient, which
    samples the data, draw the mini-batch in the closure.

    Args:
        params: parameters or groups.
        lr: the learning rate.
        probability: p, the probability of each coordinate to be updated, in (0, 1].
        seed: seed of the random numbers. The coordinates of a step are a function of (seed,
            parameter, step), where a parameter is identified by its name, or by its index among all
            parameters if it has none. They do not depend on which other parameters have a gradient.

    Raises:
        UsageError: lr or seed is negative, or probability is outside of (0, 1]; a complex parameter
            or a sparse gradient.

    Reference: Nesterov (2012), Efficiency of coordinate descent methods on huge-scale optimization
    problems, SIAM J. Optim. 22.

    >>> x = torch.zeros(4, requires_grad=True)
    >>> optimizer = RandomCoordinate([x], lr=0.5, probability=0.5)
    >>> x.sum().backward()
    >>> optimizer.step()
    >>> sorted(set(x.tolist()))
    [-1.0, 0.0]
    """

    def __init__(
        self, params: ParamsT, lr: float = 0.1, *, probability: float = 0.5, seed: int = 0
    ) -> None:
        super().__init__(params, {"lr": lr, "probability": probability, "seed": seed})

    def validate_group(self, group: Group) -> None:
        check_at_least(
            "RandomCoordinate",
            lr=(group["lr"], 0),
            seed=(group["seed"], 0),
            probability=(group["probability"], 0),
        )
        if not 0 < group["probability"] <= 1:
            raise UsageError(
                f"RandomCoordinate: probability={group['probability']} must be in (0, 1]."
            )

    def update_group(self, group: Group, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        labels = parameter_labels(self)
        directions = []
        for parameter, gradient in zip(parameters, gradients, strict=True):
            uniform = uniform_like(gradient, group["seed"], labels[parameter], group["t"])
            directions.append(torch.where(uniform < group["probability"], gradient, 0.0))
        step_along(parameters, directions, float(group["lr"]) / group["probability"])
