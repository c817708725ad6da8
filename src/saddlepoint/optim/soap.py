"""Adam in the eigenbasis of Shampoo's factors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from saddlepoint.errors import UsageError
from saddlepoint.kronecker import (
    accumulate,
    eigenbases,
    empty_factors,
    permute,
    rotate,
    rotate_back,
    update_eigenbases,
)
from saddlepoint.optim.base import GradientOptimizer, Group, Work, check_at_least, check_finite
from saddlepoint.precision import widen


class SOAP(GradientOptimizer):
    """Adam in the slowly changing eigenbasis of Shampoo's preconditioner.

    For a matrix with gradient G, F_L and F_R are the running means of G Gᵀ and Gᵀ G, and Q_L, Q_R
    their eigenvectors. In this basis, G' = Q_Lᵀ G Q_R, Adam's means are m ← β₁ m + (1 − β₁) G' and
    v ← β₂ v + (1 − β₂) G'², and after t such steps θ ← θ − lr · √(1 − β₂ᵗ) / (1 − β₁ᵗ) · Q_L [m /
    (√v + eps)] Q_Rᵀ. Every ``frequency`` steps the bases are updated by one power iteration. A
    tensor with more than two sides has one factor per side. Vectors and sides that are too long
    have no factor and are updated as by Adam.

    The Kronecker product Q_L ⊗ Q_R diagonalizes the best Kronecker approximation of the gradient's
    second moments, so this approximates full-matrix Adam at an affordable cost. Training two
    players needs smaller momenta than published: β₁ of 0 or 0.5 (docs/evidence.md).

    The first gradient of a parameter initializes its basis and does not change the parameter, as
    published. The trajectory is that of the published algorithm at less work, because m is kept in
    the basis (two rotations per step instead of three) and sides of equal length are processed in
    one batch. Memory in addition to Adam's two vectors: 2 d² numbers for a side of length d.

    Args:
        params: parameters or groups, as for every torch optimizer.
        lr: the learning rate; 3e-3 as published.
        betas: (β₁, β₂); (0.95, 0.95) as published.
        factor_beta: decay of the factors F; None for β₂, as published.
        eps: added to √v; 1e-8 as published.
        weight_decay: λ of the decoupled decay θ ← (1 − lr · λ) θ, applied after the update; 0.01 as
            published.
        frequency: number of steps between two updates of the bases; 10 as published.
        max_dimension: longer sides are not rotated; 10,000 as published. A smaller value makes
            networks with a long side much faster.

    Raises:
        UsageError: an option is out of range; a complex parameter or a sparse gradient.
        DivergenceError: a gradient is NaN or infinite. No parameter of any group is changed.

    Reference: Vyas et al. (2024), SOAP: Improving and stabilizing Shampoo using Adam,
    arXiv:2409.11321.

    >>> W = torch.eye(2, dtype=torch.float64, requires_grad=True)
    >>> A = torch.tensor([[3.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    >>> optimizer = SOAP([W], lr=0.1, weight_decay=0.0)
    >>> for _ in range(2):  # the first gradient initializes the basis
    ...     optimizer.zero_grad()
    ...     ((W @ A) ** 2).sum().backward()
    ...     optimizer.step()
    >>> W.detach().abs().round(decimals=3).tolist()  # a step of 0.1 along each eigenvector
    [[0.9, 0.0], [0.0, 0.9]]
    """

    state_tensors = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: ParamsT,
        lr: float = 3e-3,
        betas: tuple[float, float] = (0.95, 0.95),
        *,
        factor_beta: float | None = None,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        frequency: int = 10,
        max_dimension: int = 10_000,
    ) -> None:
        decay = betas[1] if factor_beta is None else factor_beta
        options = {
            "eps": eps,
            "weight_decay": weight_decay,
            "frequency": frequency,
            "max_dimension": max_dimension,
        }
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "factor_beta": decay, **options})

    def validate_group(self, group: Group) -> None:
        decays = {
            "betas[0]": group["betas"][0],
            "betas[1]": group["betas"][1],
            "factor_beta": group["factor_beta"],
        }
        non_negative = ("lr", "eps", "weight_decay", "max_dimension")
        check_at_least("SOAP", frequency=(group["frequency"], 1))
        check_at_least("SOAP", **{option: (group[option], 0) for option in non_negative})
        check_at_least("SOAP", **{name: (value, 0) for name, value in decays.items()})
        for name, value in decays.items():
            if not value < 1:
                raise UsageError(f"SOAP: {name}={value} must be less than 1.")

    def prepare(self, work: Work, loss: float | None) -> None:
        everything: list[Tensor] = []
        for _, parameters, _ in work:
            everything += parameters
        check_finite(self, everything, "The factors would stay non-finite.")

    def update_group(self, group: Group, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        moving, own_gradients, states = [], [], []
        for parameter, gradient in zip(parameters, widen(gradients), strict=True):
            state = self.state[parameter]
            if "exp_avg" in state:
                moving.append(parameter)
                own_gradients.append(gradient)
                states.append(state)
            else:
                factors = empty_factors(gradient, group["max_dimension"])
                accumulate(factors, gradient, group["factor_beta"])
                state.update(t=0, factors=factors, bases=eigenbases(factors))
                for name in self.state_tensors:
                    state[name] = torch.zeros_like(gradient, memory_format=torch.contiguous_format)
        if not moving:
            return

        (beta1, beta2), lr = group["betas"], float(group["lr"])
        step_sizes = []
        for state in states:
            state["t"] += 1
            step_sizes.append(-lr * (1 - beta2 ** state["t"]) ** 0.5 / (1 - beta1 ** state["t"]))

        # Adam in the eigenbasis
        rotated = [rotate(g, s["bases"]) for g, s in zip(own_gradients, states, strict=True)]
        first = [state["exp_avg"] for state in states]
        second = [state["exp_avg_sq"] for state in states]
        torch._foreach_lerp_(first, rotated, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, rotated, rotated, 1 - beta2)
        denominators = torch._foreach_sqrt(second)
        torch._foreach_add_(denominators, group["eps"])
        scaled = torch._foreach_div(first, denominators)
        torch._foreach_mul_(scaled, step_sizes)
        updates = [rotate_back(u, s["bases"]) for u, s in zip(scaled, states, strict=True)]
        torch._foreach_add_(moving, updates)
        if group["weight_decay"]:
            torch._foreach_mul_(moving, 1 - lr * group["weight_decay"])

        # update the factors and, every ``frequency`` steps, the bases
        for gradient, state in zip(own_gradients, states, strict=True):
            accumulate(state["factors"], gradient, group["factor_beta"])
        due = [state for state in states if state["t"] % group["frequency"] == 0]
        bases, orders = update_eigenbases(
            [state["factors"] for state in due], [state["bases"] for state in due]
        )
        for state, new_bases, order in zip(due, bases, orders, strict=True):
            # the first mean is rotated exactly, the second is only permuted
            state["exp_avg"] = rotate(rotate_back(state["exp_avg"], state["bases"]), new_bases)
            state["exp_avg_sq"] = permute(state["exp_avg_sq"], order)
            state["bases"] = new_bases
