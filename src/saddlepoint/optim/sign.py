"""The sign subgradient method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from saddlepoint.errors import DivergenceError, UsageError


class SignSubgradient(Optimizer):
    """Move every parameter by a fixed amount against the sign of its gradient: T(θ) = ε · sign(∇L(θ)), θ ← θ − lr · T(θ).

    The step does not depend on the gradient's size, so it does not vanish with it: a saturated discriminator that sends back
    1e-9 of the usual gradient moves the generator as far as a healthy one. The price: the step does not shrink near a solution, so
    constant steps end in a limit cycle of size lr · ε. Lower lr over time (any torch scheduler), or average the iterates.

    Works for either player and under any rule of this library whose units are gradients. sign(0) = 0: a dead unit stays where it is.

    Args:
        params: parameters or groups, as for every torch optimizer.
        lr: the step α; sign methods want 3 to 10 times less than Adam.
        epsilon: ε, the size of the subgradient.

    Raises:
        UsageError: lr or epsilon is negative.
        DivergenceError: a gradient is NaN or infinite. Its sign would be 0 or ±1 and hide it. No parameter of any group moves.

    References: Bernstein et al. (2018), signSGD, arXiv:1802.04434; Shor (1985), Minimization Methods for Non-Differentiable Functions.

    >>> x = torch.tensor([1.0, -2.0, 0.0], requires_grad=True)
    >>> optimizer = SignSubgradient([x], lr=0.5)
    >>> (1e-12 * (x**2).sum()).backward()
    >>> optimizer.step()
    >>> x.tolist()
    [0.5, -1.5, 0.0]
    """

    def __init__(self, params: ParamsT, lr: float, epsilon: float = 1.0) -> None:
        if not lr >= 0:
            raise UsageError(f"SignSubgradient: lr={lr} must be at least 0.")
        if not epsilon >= 0:
            raise UsageError(f"SignSubgradient: epsilon={epsilon} must be at least 0.")
        super().__init__(params, {"lr": lr, "epsilon": epsilon})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step; a closure, if given, recomputes the loss and is evaluated first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        parameters = [[p for p in group["params"] if p.grad is not None] for group in self.param_groups]
        gradients = [[p.grad for p in own if p.grad is not None] for own in parameters]
        _check_finite([gradient for own in gradients for gradient in own])
        for group, own, grads in zip(self.param_groups, parameters, gradients, strict=True):
            if own:
                torch._foreach_add_(own, torch._foreach_sign(grads), alpha=-float(group["lr"]) * group["epsilon"])
        return loss

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("epsilon", 1.0)


def _check_finite(gradients: list[Tensor]) -> None:
    if not gradients:
        return
    largest = torch.stack([n.to(gradients[0].device) for n in torch._foreach_norm(gradients, float("inf"))])
    if not bool(largest.isfinite().all()):
        bad = int((~largest.isfinite()).nonzero()[0])
        raise DivergenceError(
            f"SignSubgradient: gradient {bad}, shape {tuple(gradients[bad].shape)}, is not finite. Its sign would hide "
            "that. No parameter was changed; find the first non-finite loss, or lower the learning rate.",
            player="",
        )
