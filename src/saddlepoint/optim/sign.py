"""The sign subgradient method."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from saddlepoint.errors import UsageError
from saddlepoint.optim.base import (
    GradientOptimizer,
    Group,
    Work,
    blocks,
    check_finite,
    check_options,
    step_along,
)
from saddlepoint.optim.draws import uniforms
from saddlepoint.optim.identity import labels
from saddlepoint.precision import widen


class SignSubgradient(GradientOptimizer):
    """Move every parameter by a fixed amount against the sign of its gradient: T(θ) = ε · sign(∇L(θ)), θ ← θ − lr · T(θ).

    The step does not depend on the gradient's size, so it does not vanish with it: a saturated
    discriminator that sends back 1e-9 of the usual gradient moves the generator as far as a healthy
    one. The price: the step does not shrink near a solution, so constant steps end in a limit cycle
    of size lr · ε. Lower lr over time (any torch scheduler), or average the iterates.

    With momentum β it is Signum: m ← β m + (1 − β) g, T(θ) = ε · sign(m). Entries of the sign's
    argument below the dead zone τ count as 0. Randomised, an entry is +1 with probability ½ + g /
    (2 ‖g‖_∞) and −1 otherwise, with ‖g‖_∞ the largest entry of its tensor: the mean of T is then
    proportional to the gradient, which cures the bias of the sign under skewed noise, at the price
    of more variance.

    Works for either player and under any rule of this library whose units are gradients. sign(0) =
    0: a dead unit stays where it is.

    Args:
        params: parameters or groups, as for every torch optimizer.
        lr: the step α; sign methods want 3 to 10 times less than Adam.
        epsilon: ε, the size of the subgradient.
        momentum: β in [0, 1); 0.9 for Signum in the paper.
        dead_zone: τ; 0 for none. Not with ``randomized``.
        randomized: draw the signs; the draws of a step are a function of (seed, step).
        seed: of the randomised signs; draws are a function of (seed, parameter, step), the
            parameter known by its name or else its place.
        weight_decay: λ of the decoupled decay θ ← (1 − lr · λ) θ, before the step.
        capturable: never read a value back from the device, so that a step can be captured in a
            CUDA graph and lr be a tensor. A gradient that is not finite then turns its parameters
            NaN instead of raising.

    Raises:
        UsageError: an option is negative, momentum is not below 1, or options exclude each other; a
            complex parameter or a sparse gradient.
        DivergenceError: a gradient is NaN or infinite. Its sign would be 0 or ±1 and hide it. No
            parameter of any group moves.

    References: Bernstein et al. (2018), signSGD, arXiv:1802.04434, with Signum; Safaryan and
    Richtárik (2021), Stochastic sign descent methods, arXiv:1905.12938, for the randomised sign;
    Shor (1985), Minimization Methods for Non-Differentiable Functions.

    >>> x = torch.tensor([1.0, -2.0, 0.0], requires_grad=True)
    >>> optimizer = SignSubgradient([x], lr=0.5)
    >>> (1e-12 * (x**2).sum()).backward()
    >>> optimizer.step()
    >>> x.tolist()
    [0.5, -1.5, 0.0]
    """

    shaped = ("momentum_buffer",)

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor,
        epsilon: float = 1.0,
        *,
        momentum: float = 0.0,
        dead_zone: float = 0.0,
        randomized: bool = False,
        seed: int = 0,
        weight_decay: float = 0.0,
        capturable: bool = False,
    ) -> None:
        options = {
            "epsilon": epsilon,
            "momentum": momentum,
            "dead_zone": dead_zone,
            "weight_decay": weight_decay,
            "capturable": capturable,
        }
        super().__init__(params, {"lr": lr, **options, "randomized": randomized, "seed": seed})

    def _check_options(self, group: Group) -> None:
        positive = ("lr", "epsilon", "momentum", "dead_zone", "weight_decay", "seed")
        check_options("SignSubgradient", **{option: (group[option], 0) for option in positive})
        if not group["momentum"] < 1:
            raise UsageError(f"SignSubgradient: momentum={group['momentum']} must be below 1.")
        if group["randomized"] and (group["dead_zone"] or group["capturable"]):
            raise UsageError(
                "SignSubgradient: randomized excludes dead_zone and capturable. Leave one of them"
                " out."
            )
        if isinstance(group["lr"], Tensor) and not group["capturable"]:
            raise UsageError(
                "SignSubgradient: lr is a tensor, which would be read back in every step. Use a"
                " number, or capturable=True."
            )

    def _prepare(self, work: Work, loss: float | None) -> None:
        check_finite(
            self,
            [p for group, own, _ in work if not group["capturable"] for p in own],
            "Its sign would hide that.",
        )

    def _move(self, group: Group, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        rate = group["lr"] * group["epsilon"]
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        arguments = (
            self._momentum(parameters, gradients, group["momentum"])
            if group["momentum"]
            else gradients
        )
        if group["randomized"]:
            names = labels(self)
            step_along(
                parameters,
                [_drawn(g, group, names[p]) for p, g in zip(parameters, arguments, strict=True)],
                rate,
            )
            return
        for own, argument in blocks(parameters, arguments):
            signs = torch._foreach_sign(argument)
            if group["dead_zone"]:
                signs = tuple(
                    s * (a.abs() >= group["dead_zone"])
                    for s, a in zip(signs, argument, strict=True)
                )
            if group["capturable"]:  # what is not finite stays visible
                torch._foreach_add_(signs, torch._foreach_mul(argument, 0.0))
            step_along(own, signs, rate)

    def _momentum(
        self, parameters: list[Tensor], gradients: list[Tensor], beta: float
    ) -> list[Tensor]:
        buffers = self._remembered("momentum_buffer", parameters)
        torch._foreach_lerp_(buffers, widen(gradients), 1 - beta)
        return buffers


def _drawn(argument: Tensor, group: Group, label: str) -> Tensor:
    """Return signs that are the argument divided by its largest entry, in the mean."""
    if argument.numel() == 0:
        return argument
    (argument,) = widen([argument])
    largest = argument.abs().max()
    share = torch.where(largest > 0, argument / largest, 0.0)
    drawn = uniforms(argument, group["seed"], label, group["t"])
    return torch.where(drawn < (1 + share) / 2, 1.0, -1.0).to(argument.dtype) * (largest > 0)
