"""The subgradient method with step size rules, averages, projections and proximal maps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from saddlepoint.errors import UsageError, did_you_mean
from saddlepoint.optim.base import (
    GradientOptimizer,
    Group,
    Work,
    check_at_least,
    check_finite,
    norms,
    step_along,
)
from saddlepoint.optim.proximal import ProximalMap, from_config, to_config
from saddlepoint.precision import widen

StepSize = Literal["constant", "inverse_root", "inverse", "polyak"]
Average = Literal["ergodic", "suffix", "best"]


class Subgradient(GradientOptimizer):
    """The projected and proximal subgradient method: θ ← P_h(θ − h_t g_t) with step size h_t.

    Step sizes, with c = lr and t = 1, 2, …: "constant" c; "inverse_root" c / √t, for convex losses;
    "inverse" c / t, for strongly convex ones; "polyak" c (f(θ_t) − f*) / ‖g‖², where ‖g‖ is the
    norm over the whole player and f* the optimal value ``target``. If ``target`` is None, f* is
    estimated as the least loss so far minus ``slack`` / √t.

    Last iterates of subgradient methods oscillate; averages converge. They are kept beside the
    iterates and used inside of ``with optimizer.averaged():``. "ergodic": θ̄ = Σ h_t θ_t / Σ h_t,
    for which theory proves O(1/√T). "suffix": the mean of about the last half (of the iterates
    since the power of two before the last one), which forgets the start. "best": the iterate of
    least loss, for a single player whose loss is computed on all data; in games and under noise
    the least loss is not the best iterate.

    Args:
        params: parameters or groups.
        lr: c.
        step_size: one of the four step sizes.
        target: f* of Polyak's step size, or None to estimate it.
        slack: distance of the first estimate of f* below the least loss.
        proximal: a map of ``saddlepoint.optim.proximal``, or its name with options, {"name": "box",
            "low": -0.01, "high": 0.01}; also an option of parameter groups.
        average: one of the three averages, or None.

    Raises:
        UsageError: an unknown name or a negative option; a state saved with another step_size,
            target, slack or average; a sparse gradient; a complex parameter with a proximal map
            (without one, it is updated as its real and imaginary parts); or a step with "polyak" or
            "best" without the loss: call ``step(closure)``, or use ``GameOptimizer``, which passes
            the player's loss under rules whose direction is the gradient itself.
        DivergenceError: a gradient is NaN or infinite; no parameter is changed.

    References: Shor (1985); Polyak (1969), USSR Comput. Math. Math. Phys. 9; Nedić and Ozdaglar
    (2009), Subgradient methods for saddle-point problems, J. Optim. Theory Appl. 142, for games;
    Rakhlin, Shamir and Sridharan (2012), arXiv:1109.5647, for suffix averages; Boyd, Xiao and
    Mutapcic (2003), Subgradient methods, for the estimated target.

    >>> x = torch.tensor([3.0], requires_grad=True)
    >>> optimizer = Subgradient([x], lr=1.0, step_size="polyak", target=0.0)
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = x.abs().sum()
    ...     loss.backward()
    ...     return loss
    >>> optimizer.step(closure).item(), x.item()
    (3.0, 0.0)
    """

    attributes = ("_step_size", "_average", "_slack", "_target", "_polyak")
    constructor_options = ("_step_size", "_average", "_slack", "_target")
    state_tensors = ("average", "recent")

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.1,
        *,
        step_size: StepSize = "inverse_root",
        target: float | None = None,
        slack: float = 1.0,
        proximal: ProximalMap | Mapping[str, Any] | str | None = None,
        average: Average | None = None,
    ) -> None:
        check_at_least("Subgradient", slack=(slack, 0))
        if step_size not in get_args(StepSize):
            raise UsageError(
                f'Subgradient: step_size="{step_size}" is unknown.'
                + did_you_mean(str(step_size), get_args(StepSize))
            )
        if average is not None and average not in get_args(Average):
            raise UsageError(
                f'Subgradient: average="{average}" is unknown.'
                + did_you_mean(str(average), get_args(Average))
            )
        self._step_size: StepSize = step_size
        self._average: Average | None = average
        self._slack, self._target = slack, target
        self._polyak = 0.0
        defaults = {
            "lr": lr,
            "proximal": to_config(proximal),
            "least_loss": math.inf,
            "weight": 0.0,
        }
        super().__init__(params, defaults)

    def __setstate__(self, state: Group) -> None:
        super().__setstate__(state)
        if self._average not in ("ergodic", "suffix"):
            return
        for group in self.param_groups:
            until = group["weight" if self._average == "ergodic" else "t"]
            for parameter in group["params"]:
                # states of earlier versions lack "until"
                if "average" in self.state.get(parameter, {}):
                    self.state[parameter].setdefault("until", until)

    @property
    def needs_loss(self) -> bool:  # type: ignore[override]
        """Whether a step depends on the value of the loss, not only on the gradient."""
        return self._step_size == "polyak" or self._average == "best"

    @property
    def keeps_average(self) -> bool:
        """Whether the optimizer keeps an average of the iterates, see ``averaged``."""
        return self._average is not None

    def supports_complex(self, group: Group) -> bool:
        """Whether the group has no proximal map; these are defined for real numbers."""
        return group["proximal"] is None

    def validate_group(self, group: Group) -> None:
        check_at_least("Subgradient", lr=(group["lr"], 0))
        # may be set, also later, to a proximal map or to a name with options
        group["proximal"] = to_config(group["proximal"])
        if group["proximal"] is not None:
            proximal = from_config(group["proximal"])
            for parameter in group["params"]:
                proximal.check(parameter)

    def prepare(self, work: Work, loss: float | None) -> None:
        parameters: list[Tensor] = []
        gradients: list[Tensor] = []
        for _, own_parameters, own_gradients in work:
            parameters += own_parameters
            gradients += own_gradients
        if not gradients:
            return
        check_finite(self, parameters, "")
        if not self.needs_loss:
            return
        if loss is None or not math.isfinite(loss):
            polyak = self._step_size == "polyak"
            option = 'step_size="polyak"' if polyak else 'average="best"'
            raise UsageError(
                f"Subgradient: {option} needs the loss of every step, a finite number, not {loss}."
                " Call step(closure) with a closure."
            )

        # groups may differ in both: one may be frozen, another added later
        t = max(group["t"] for group in self.param_groups) + 1
        least_before = min(group["least_loss"] for group in self.param_groups)
        least = min(loss, least_before)
        for group in self.param_groups:
            group["least_loss"] = least
        if loss < least_before and self._average == "best":
            # all parameters, also those without a gradient in this step
            everything = [p for group in self.param_groups for p in group["params"]]
            torch._foreach_copy_(self.buffers("average", everything), everything)

        if self._step_size == "polyak":
            target = least - self._slack / math.sqrt(t) if self._target is None else self._target
            square = sum(norm**2 for norm in norms(gradients))
            self._polyak = max(loss - target, 0.0) / square if square > 0 else 0.0

    def update_group(self, group: Group, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        # a schedule that ends at zero may end at a negative number by rounding
        h = max(float(group["lr"]), 0.0)
        if self._step_size == "inverse_root":
            h *= 1 / math.sqrt(group["t"])
        elif self._step_size == "inverse":
            h *= 1 / group["t"]
        elif self._step_size == "polyak":
            h *= self._polyak

        if self._average == "ergodic":
            group["weight"] += h
        if self._average in ("ergodic", "suffix"):
            for parameter in parameters:
                self.state[parameter].update(self._updated_average(group, parameter))

        step_along(parameters, gradients, h)
        if group["proximal"] is not None:
            proximal = from_config(group["proximal"])
            torch._foreach_copy_(parameters, [proximal.apply(p, h) for p in parameters])

    def average_of(self, group: Group, parameter: Tensor) -> Tensor:
        if self._average == "best":
            return super().average_of(group, parameter)
        average: Tensor = self._updated_average(group, parameter)["average"]
        return average

    def _updated_average(self, group: Group, parameter: Tensor) -> dict[str, Any]:
        """Return the entries of a parameter's state that average its iterates, up to now.

        A parameter that had no gradient in some steps did not move; these steps count with its
        present value.
        """
        state = self.state[parameter]
        (point,) = widen([parameter.detach()])
        if self._average != "suffix":
            if "average" not in state or group["weight"] <= 0:
                return {"average": point.clone(), "until": group["weight"]}
            weight = 1 - state["until"] / group["weight"]
            average = torch.lerp(state["average"], point, weight)
            return {"average": average, "until": group["weight"]}

        # "average": mean of the iterates since the power of two before t's; "recent": mean since
        # the power of two at or before t, which replaces "average" at the next one
        t = group["t"]
        if "average" not in state:
            return {"average": point.clone(), "recent": point.clone(), "until": t}
        until, average, recent = state["until"], state["average"], state["recent"]
        start = 1 << (t.bit_length() - 1)
        if start > until:  # the parameter has not moved since ``until``
            average = recent if start // 2 <= until else point
            recent = point
        return {
            "average": torch.lerp(average, point, (t - until) / (t - start // 2 + 1)),
            "recent": torch.lerp(recent, point, (t - until) / (t - start + 1)),
            "until": t,
        }
