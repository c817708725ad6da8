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
    refresh,
    reordered,
    rotated,
    rotated_back,
)
from saddlepoint.optim.base import GradientOptimizer, Group, Work, check_finite, check_options
from saddlepoint.precision import widen


class SOAP(GradientOptimizer):
    """Adam in the slowly turning eigenbasis of each tensor's second moments in Kronecker form.

    For a matrix with gradient G, F_L and F_R are the running means of G Gᵀ and Gᵀ G, and Q_L, Q_R
    their eigenvectors. In the basis, G' = Q_Lᵀ G Q_R, Adam's means are m ← β₁ m + (1 − β₁) G' and v
    ← β₂ v + (1 − β₂) G'², and after t such steps θ ← θ − lr · √(1 − β₂ᵗ) / (1 − β₁ᵗ) · Q_L [m / (√v
    + eps)] Q_Rᵀ. Every ``frequency`` steps the bases follow their factors by one power iteration. A
    tensor with more sides has a factor for each; vectors, and sides that are too long, have none
    and see Adam.

    Its Kronecker product Q_L ⊗ Q_R diagonalises the best Kronecker-shaped guess at the gradient's
    second moments, so this is a full-matrix Adam that one can afford. In two-player training lower
    momenta than published are needed: β₁ of 0 or 0.5 (docs/evidence.md).

    The first gradient of a parameter only sets its basis, and does not move it, as published. The
    trajectory is that of the published algorithm; the work is less, because m is kept in the basis
    (two rotations a step where three were) and sides of one length turn together. Memory beside
    Adam's two vectors: twice d² numbers for a side of length d.

    Args:
        params: parameters or groups, as for every torch optimizer.
        lr: the learning rate; 3e-3 as published.
        betas: (β₁, β₂); (0.95, 0.95) as published.
        factor_beta: decay of the factors F; β₂ when left out, as published.
        eps: added to √v; 1e-8 as published.
        weight_decay: λ of the decoupled decay θ ← (1 − lr · λ) θ, after the step; 0.01 as
            published.
        frequency: steps between two refreshes of the bases; 10 as published.
        max_dimension: sides longer than this are not rotated; 10,000 as published. Less makes
            networks with a long side much faster.

    Raises:
        UsageError: an option outside of its range; a complex parameter or a sparse gradient.
        DivergenceError: a gradient is NaN or infinite. No parameter of any group moves.

    Reference: Vyas et al. (2024), SOAP: Improving and stabilizing Shampoo using Adam,
    arXiv:2409.11321.

    >>> W = torch.eye(2, dtype=torch.float64, requires_grad=True)
    >>> A = torch.tensor([[3.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    >>> optimizer = SOAP([W], lr=0.1, weight_decay=0.0)
    >>> for _ in range(2):  # the first gradient sets the basis
    ...     optimizer.zero_grad()
    ...     ((W @ A) ** 2).sum().backward()
    ...     optimizer.step()
    >>> W.detach().abs().round(decimals=3).tolist()  # one step of size 0.1 along each eigenvector, however different their values
    [[0.9, 0.0], [0.0, 0.9]]
    """

    shaped = ("exp_avg", "exp_avg_sq")

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

    def _check_options(self, group: Group) -> None:
        decays = {
            "betas[0]": group["betas"][0],
            "betas[1]": group["betas"][1],
            "factor_beta": group["factor_beta"],
        }
        positive = ("lr", "eps", "weight_decay", "max_dimension")
        check_options(
            "SOAP",
            frequency=(group["frequency"], 1),
            **{option: (group[option], 0) for option in positive},
        )
        check_options("SOAP", **{name: (value, 0) for name, value in decays.items()})
        for name, value in decays.items():
            if not value < 1:
                raise UsageError(f"SOAP: {name}={value} must be below 1.")

    def _prepare(self, work: Work, loss: float | None) -> None:
        check_finite(
            self, [p for _, own, _ in work for p in own], "Its factors would never forget that."
        )

    def _move(self, group: Group, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        gradients = widen(gradients)
        moving = [
            (p, g) for p, g in zip(parameters, gradients, strict=True) if "exp_avg" in self.state[p]
        ]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if "exp_avg" not in self.state[parameter]:
                self._begin(group, parameter, gradient)
        if moving:
            self._follow(group, *map(list, zip(*moving, strict=True)))

    def _begin(self, group: Group, parameter: Tensor, gradient: Tensor) -> None:
        factors = empty_factors(gradient, group["max_dimension"])
        accumulate(factors, gradient, group["factor_beta"])
        means = {
            name: torch.zeros_like(gradient, memory_format=torch.contiguous_format)
            for name in ("exp_avg", "exp_avg_sq")
        }
        self.state[parameter].update(t=0, **means, factors=factors, bases=eigenbases(factors))

    def _follow(self, group: Group, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        states = [self.state[p] for p in parameters]
        (beta1, beta2), rate, sizes = group["betas"], float(group["lr"]), []
        for state in states:
            state["t"] += 1
            sizes.append(-rate * (1 - beta2 ** state["t"]) ** 0.5 / (1 - beta1 ** state["t"]))
        turned = [rotated(g, state["bases"]) for g, state in zip(gradients, states, strict=True)]
        first, second = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq"))
        torch._foreach_lerp_(first, turned, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, turned, turned, 1 - beta2)
        scale = torch._foreach_sqrt(second)
        torch._foreach_add_(scale, group["eps"])
        steps = torch._foreach_div(first, scale)
        torch._foreach_mul_(steps, sizes)
        torch._foreach_add_(
            parameters,
            [rotated_back(s, state["bases"]) for s, state in zip(steps, states, strict=True)],
        )
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
        for gradient, state in zip(gradients, states, strict=True):
            accumulate(state["factors"], gradient, group["factor_beta"])
        self._turn([state for state in states if state["t"] % group["frequency"] == 0])

    def _turn(self, states: list[Group]) -> None:
        """Let the bases follow their factors; the means are carried over, the first exactly and the second entry by entry."""
        bases, orders = refresh(
            [state["factors"] for state in states], [state["bases"] for state in states]
        )
        for state, fresh, order in zip(states, bases, orders, strict=True):
            state["exp_avg"] = rotated(rotated_back(state["exp_avg"], state["bases"]), fresh)
            state["exp_avg_sq"] = reordered(state["exp_avg_sq"], order)
            state["bases"] = fresh
