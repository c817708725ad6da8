"""Gradient descent with positive or negative momentum."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from saddlepoint.errors import UsageError
from saddlepoint.optim.base import GradientOptimizer, Group, check_at_least
from saddlepoint.precision import widen


class MomentumSGD(GradientOptimizer):
    """Heavy-ball momentum that may be negative: θ_{t+1} = θ_t − lr · g_t + β (θ_t − θ_{t−1}).

    ``torch.optim.SGD`` refuses β < 0. In games negative momentum damps the rotation: on a bilinear
    game alternating descent with β = −0.5 converges linearly for h·s < 1. With a positive β it does
    not converge, and simultaneous descent does not converge with any β.

    Args:
        params: parameters or groups, as for every torch optimizer.
        lr: the step size h.
        momentum: β in (−1, 1); −0.5 in the paper's theory, −0.1 to −0.5 in its experiments.

    Raises:
        UsageError: lr is negative, or momentum is outside of (−1, 1); a sparse gradient.

    A parameter without a gradient is skipped, and its last update is kept for its next step, like
    the momentum buffer of torch's SGD. Complex parameters are updated as their real and imaginary
    parts.

    Reference: Gidel et al. (2019), Negative momentum for improved game dynamics, arXiv:1807.04740.

    >>> x = torch.tensor([1.0], requires_grad=True)
    >>> optimizer = MomentumSGD([x], lr=0.5, momentum=-0.5)
    >>> for _ in range(2):
    ...     optimizer.zero_grad()
    ...     x.sum().backward()
    ...     optimizer.step()
    >>> x.item()  # 1 − ½, then − ½ + (−½)(−½)
    0.25
    """

    state_tensors = ("update",)

    def __init__(self, params: ParamsT, lr: float, momentum: float = -0.5) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    def supports_complex(self, group: Group) -> bool:
        """Return True: the update is linear, so complex numbers count as pairs of real ones."""
        return True

    def validate_group(self, group: Group) -> None:
        check_at_least("MomentumSGD", lr=(group["lr"], 0), momentum=(group["momentum"], -1))
        if not -1 < group["momentum"] < 1:
            raise UsageError(f"MomentumSGD: momentum={group['momentum']} must be between -1 and 1.")

    def update_group(self, group: Group, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        updates = self.buffers("update", parameters)
        torch._foreach_mul_(updates, group["momentum"])
        torch._foreach_add_(updates, widen(gradients), alpha=-float(group["lr"]))
        torch._foreach_add_(parameters, updates)
