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
    check_at_least,
    check_finite,
    step_along,
)
from saddlepoint.optim.random import uniform_like
from saddlepoint.optim.state_dict import parameter_labels
from saddlepoint.precision import widen


class SignSubgradient(GradientOptimizer):
    """The sign subgradient method: T(θ) = ε · sign(∇L(θ)), θ ← θ − lr · T(θ).

    The update does not depend on the size of the gradient, so it does not vanish with it: if a
    saturated discriminator returns 1e-9 of the usual gradient, the generator still moves by the
    usual amount. The disadvantage: the update does not shrink near a solution, so constant steps
    end in a limit cycle of size lr · ε. Decrease lr over time (with any torch scheduler), or
    average the iterates.

    With momentum β this is Signum: m ← β m + (1 − β) g, T(θ) = ε · sign(m). Entries of the sign's
    argument below the dead zone τ count as 0. If randomized, an entry is +1 with probability ½ + g
    / (2 ‖g‖_∞) and −1 otherwise, where ‖g‖_∞ is the largest absolute entry of its tensor: the mean
    of T is then proportional to the gradient, which removes the bias of the sign under skewed
    noise but increases the variance.

    The method works for either player, under any rule of this library that outputs gradients.
    sign(0) = 0: a dead unit does not move.

    Args:
        params: parameters or groups, as for every torch optimizer.
        lr: the learning rate; sign methods need one 3 to 10 times smaller than Adam's.
        epsilon: ε, the size of the subgradient.
        momentum: β in [0, 1); 0.9 for Signum in the paper.
        dead_zone: τ; 0 for none. Cannot be combined with ``randomized``.
        randomized: draw the signs at random.
        seed: seed of the random signs. They are a function of (seed, parameter, step), where a
            parameter is identified by its name, or by its index if it has none.
        weight_decay: λ of the decoupled decay θ ← (1 − lr · λ) θ, applied before the update.
        capturable: never read a value from the device, so that a step can be captured in a CUDA
            graph and lr can be a tensor. A non-finite gradient then makes its parameters NaN
            instead of raising an error.

    Raises:
        UsageError: an option is negative, momentum is not less than 1, or options exclude each
            other; a complex parameter or a sparse gradient.
        DivergenceError: a gradient is NaN or infinite, which its sign would hide. No parameter of
            any group is changed.

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

    state_tensors = ("momentum_buffer",)

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

    def validate_group(self, group: Group) -> None:
        non_negative = ("lr", "epsilon", "momentum", "dead_zone", "weight_decay", "seed")
        check_at_least("SignSubgradient", **{option: (group[option], 0) for option in non_negative})
        if not group["momentum"] < 1:
            raise UsageError(f"SignSubgradient: momentum={group['momentum']} must be less than 1.")
        if group["randomized"] and (group["dead_zone"] or group["capturable"]):
            raise UsageError(
                "SignSubgradient: randomized cannot be combined with dead_zone or capturable."
                " Remove one of them."
            )
        if isinstance(group["lr"], Tensor) and not group["capturable"]:
            raise UsageError(
                "SignSubgradient: lr is a tensor, which would be read from the device in every"
                " step. Use a number, or capturable=True."
            )

    def prepare(self, work: Work, loss: float | None) -> None:
        checked: list[Tensor] = []
        for group, parameters, _ in work:
            if not group["capturable"]:
                checked += parameters
        check_finite(self, checked, "Its sign would hide that.")

    def update_group(self, group: Group, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        lr = group["lr"] * group["epsilon"]
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])

        arguments = gradients
        if group["momentum"]:
            arguments = self.buffers("momentum_buffer", parameters)
            torch._foreach_lerp_(arguments, widen(gradients), 1 - group["momentum"])

        if group["randomized"]:
            labels = parameter_labels(self)
            directions = []
            for parameter, mean in zip(parameters, widen(arguments), strict=True):
                if mean.numel() == 0:
                    directions.append(mean)
                    continue
                largest = mean.abs().max()
                expected = torch.where(largest > 0, mean / largest, 0.0)
                uniform = uniform_like(mean, group["seed"], labels[parameter], group["t"])
                drawn = torch.where(uniform < (1 + expected) / 2, 1.0, -1.0)
                directions.append(drawn.to(mean.dtype) * (largest > 0))
            step_along(parameters, directions, lr)
            return

        for own, argument in blocks(parameters, arguments):
            signs = torch._foreach_sign(argument)
            if group["dead_zone"]:
                outside = [a.abs() >= group["dead_zone"] for a in argument]
                signs = tuple(s * o for s, o in zip(signs, outside, strict=True))
            if group["capturable"]:  # non-finite gradients must make the parameters NaN
                torch._foreach_add_(signs, torch._foreach_mul(argument, 0.0))
            step_along(own, signs, lr)
