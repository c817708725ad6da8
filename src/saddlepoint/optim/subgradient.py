"""The subgradient method with its step rules, averages, projections and proximal maps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from saddlepoint.errors import UsageError, did_you_mean
from saddlepoint.optim.base import GradientOptimizer, Group, Work, check_finite, check_options, norms, step_along
from saddlepoint.optim.maps import Map, build, plain

StepSize = Literal["constant", "inverse-root", "inverse", "polyak"]
Average = Literal["ergodic", "suffix", "best"]
_STEPS, _AVERAGES = ("constant", "inverse-root", "inverse", "polyak"), ("ergodic", "suffix", "best")


class Subgradient(GradientOptimizer):
    """The projected and proximal subgradient method: θ ← P_h(θ − h_t g_t) with a step h_t that theory allows.

    Step sizes, with c = lr and t = 1, 2, …: "constant" c; "inverse-root" c / √t, for convex losses; "inverse" c / t, for strongly convex
    ones; "polyak" c (f(θ_t) − f*) / ‖g‖², with ‖g‖ over the whole player and f* the known optimal value ``target``, or, where that is None,
    estimated as the least loss so far less ``slack`` / √t.

    Last iterates of subgradient methods oscillate; what converges is an average, kept beside them and entered by ``with
    optimizer.averaged():``. "ergodic": θ̄ = Σ h_t θ_t / Σ h_t, which theory's O(1/√T) is about. "suffix": the mean of the last half or so
    (of the iterates since the power of two before the last), which forgets the start. "best": the iterate of least loss, for one player's
    loss on all data; in games and under noise least is not best.

    Args:
        params: parameters or groups.
        lr: c.
        step: one of the four step sizes.
        target: f* of Polyak's step, or None to estimate it.
        slack: how far below the least loss the estimate begins.
        proximal: a map of ``saddlepoint.optim.maps``, or its name with options, {"name": "box", "low": -0.01, "high": 0.01}; also an option
            of parameter groups.
        average: one of the three averages, or None.

    Raises:
        UsageError: an unknown name or a negative option; or a step under "polyak" or "best" without the loss: call ``step(closure)``, or
            use ``GameOptimizer`` with a rule that follows the gradient itself, which hands the player's loss on.
        DivergenceError: a gradient is NaN or infinite; no parameter moves.

    References: Shor (1985); Polyak (1969), USSR Comput. Math. Math. Phys. 9; Nedić and Ozdaglar (2009), Subgradient methods for
    saddle-point problems, J. Optim. Theory Appl. 142, for games; Rakhlin, Shamir and Sridharan (2012), arXiv:1109.5647, for suffix
    averages; Boyd, Xiao and Mutapcic (2003), Subgradient methods, for the estimated target.

    >>> x = torch.tensor([3.0], requires_grad=True)
    >>> optimizer = Subgradient([x], lr=1.0, step="polyak", target=0.0)
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = x.abs().sum()
    ...     loss.backward()
    ...     return loss
    >>> optimizer.step(closure).item(), x.item()
    (3.0, 0.0)
    """

    kept = ("_step", "_average", "_slack", "_target", "_polyak")

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.1,
        *,
        step: StepSize = "inverse-root",
        target: float | None = None,
        slack: float = 1.0,
        proximal: Map | Mapping[str, Any] | str | None = None,
        average: Average | None = None,
    ) -> None:
        check_options("Subgradient", lr=(lr, 0), slack=(slack, 0))
        for option, value, known in (("step", step, _STEPS), ("average", average, (*_AVERAGES, None))):
            if value not in known:
                raise UsageError(f'Subgradient: {option}="{value}" is unknown.' + did_you_mean(str(value), [k for k in known if k]))
        self._step: StepSize = step
        self._average: Average | None = average
        self._slack, self._target = slack, target
        self._polyak = 0.0
        super().__init__(params, {"lr": lr, "proximal": plain(proximal), "least_loss": math.inf, "weight": 0.0})

    @property
    def needs_loss(self) -> bool:  # type: ignore[override]
        """Whether a step depends on the value of the loss, not only on the gradient."""
        return self._step == "polyak" or self._average == "best"

    @property
    def keeps_average(self) -> bool:
        """Whether there is an average of the iterates to go to with ``averaged``."""
        return self._average is not None

    def add_param_group(self, param_group: Group) -> None:
        """Add a group; its ``proximal`` may be a map or a name with options."""
        if "proximal" in param_group:
            param_group["proximal"] = plain(param_group["proximal"])
        super().add_param_group(param_group)

    def _prepare(self, work: Work, loss: float | None) -> None:
        gradients = [gradient for _, _, own in work for gradient in own]
        if not gradients:
            return
        check_finite("Subgradient", gradients, "")
        if not self.needs_loss:
            return
        if loss is None or not math.isfinite(loss):
            what = f'step="{self._step}"' if self._step == "polyak" else 'average="best"'
            raise UsageError(
                f"Subgradient: {what} needs the loss of every step, a finite number, not {loss}. Call step(closure) with a closure."
            )
        t = work[0][0]["t"] + 1
        better = loss < work[0][0]["least_loss"]
        for group in self.param_groups:
            group["least_loss"] = min(loss, group["least_loss"])
        if better and self._average == "best":
            self._keep([p for _, own, _ in work for p in own])
        target = work[0][0]["least_loss"] - self._slack / math.sqrt(t) if self._target is None else self._target
        square = sum(norm**2 for norm in norms(gradients)) if self._step == "polyak" else 0.0
        self._polyak = max(loss - target, 0.0) / square if square > 0 else 0.0

    def _keep(self, parameters: list[Tensor]) -> None:
        averages = [self.state[p].setdefault("average", torch.empty_like(p)) for p in parameters]
        torch._foreach_copy_(averages, parameters)

    def _move(self, group: Group, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        h = float(group["lr"]) * self._length(group["t"])
        if self._average == "ergodic":
            group["weight"] += h
            self._weigh("average", parameters, h / group["weight"] if group["weight"] > 0 else 1.0)
        elif self._average == "suffix":
            self._weigh_suffix(group["t"], parameters)
        step_along(parameters, gradients, h)
        if group["proximal"] is not None:
            proximal = build(group["proximal"])
            torch._foreach_copy_(parameters, [proximal.apply(p, h) for p in parameters])

    def _length(self, t: int) -> float:
        lengths = {"constant": 1.0, "inverse-root": 1 / math.sqrt(t), "inverse": 1 / t, "polyak": self._polyak}
        return lengths[self._step]

    def _weigh(self, name: str, parameters: list[Tensor], weight: float) -> None:
        """Move the average called ``name`` towards the parameters; it begins at them."""
        averages = [self.state[p].setdefault(name, p.detach().clone()) for p in parameters]
        torch._foreach_lerp_(averages, parameters, weight)

    def _weigh_suffix(self, t: int, parameters: list[Tensor]) -> None:
        """Keep the mean since the last power of two, and the mean since the one before, which becomes the average."""
        power = 1 << (t.bit_length() - 1)
        if t == power and t > 1:
            for p in parameters:
                self.state[p]["average"] = self.state[p].pop("recent", p.detach().clone())
        self._weigh("average", parameters, 1 / (t - power // 2 + 1))
        self._weigh("recent", parameters, 1 / (t - power + 1))
