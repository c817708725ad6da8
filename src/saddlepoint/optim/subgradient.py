"""The subgradient method with its step rules, averages, projections and proximal maps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from saddlepoint.errors import UsageError, did_you_mean
from saddlepoint.optim.base import (
    GradientOptimizer,
    Group,
    Work,
    check_finite,
    check_options,
    norms,
    step_along,
)
from saddlepoint.optim.maps import Map, build, plain
from saddlepoint.precision import widen

StepSize = Literal["constant", "inverse-root", "inverse", "polyak"]
Average = Literal["ergodic", "suffix", "best"]
_STEPS, _AVERAGES = ("constant", "inverse-root", "inverse", "polyak"), ("ergodic", "suffix", "best")


class Subgradient(GradientOptimizer):
    """The projected and proximal subgradient method: θ ← P_h(θ − h_t g_t) with a step h_t that theory allows.

    Step sizes, with c = lr and t = 1, 2, …: "constant" c; "inverse-root" c / √t, for convex losses;
    "inverse" c / t, for strongly convex ones; "polyak" c (f(θ_t) − f*) / ‖g‖², with ‖g‖ over the
    whole player and f* the known optimal value ``target``, or, where that is None, estimated as the
    least loss so far less ``slack`` / √t.

    Last iterates of subgradient methods oscillate; what converges is an average, kept beside them
    and entered by ``with optimizer.averaged():``. "ergodic": θ̄ = Σ h_t θ_t / Σ h_t, which theory's
    O(1/√T) is about. "suffix": the mean of the last half or so (of the iterates since the power of
    two before the last), which forgets the start. "best": the iterate of least loss, for one
    player's loss on all data; in games and under noise least is not best.

    Args:
        params: parameters or groups.
        lr: c.
        step: one of the four step sizes.
        target: f* of Polyak's step, or None to estimate it.
        slack: how far below the least loss the estimate begins.
        proximal: a map of ``saddlepoint.optim.maps``, or its name with options, {"name": "box",
            "low": -0.01, "high": 0.01}; also an option of parameter groups.
        average: one of the three averages, or None.

    Raises:
        UsageError: an unknown name or a negative option; a state made with another step, target,
            slack or average; a sparse gradient; a complex parameter with a map (without one, it
            moves as its real and imaginary parts); or a step under "polyak" or "best" without the
            loss: call ``step(closure)``, or use ``GameOptimizer`` with a rule that follows the
                gradient itself, which hands the player's loss on.
        DivergenceError: a gradient is NaN or infinite; no parameter moves.

    References: Shor (1985); Polyak (1969), USSR Comput. Math. Math. Phys. 9; Nedić and Ozdaglar
    (2009), Subgradient methods for saddle-point problems, J. Optim. Theory Appl. 142, for games;
    Rakhlin, Shamir and Sridharan (2012), arXiv:1109.5647, for suffix averages; Boyd, Xiao and
    Mutapcic (2003), Subgradient methods, for the estimated target.

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
    made_with = ("_step", "_average", "_slack", "_target")
    shaped = ("average", "recent")

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
        check_options("Subgradient", slack=(slack, 0))
        for option, value, known in (
            ("step", step, _STEPS),
            ("average", average, (*_AVERAGES, None)),
        ):
            if value not in known:
                raise UsageError(
                    f'Subgradient: {option}="{value}" is unknown.'
                    + did_you_mean(str(value), [k for k in known if k])
                )
        self._step: StepSize = step
        self._average: Average | None = average
        self._slack, self._target = slack, target
        self._polyak = 0.0
        super().__init__(
            params, {"lr": lr, "proximal": plain(proximal), "least_loss": math.inf, "weight": 0.0}
        )

    def __setstate__(self, state: Group) -> None:
        super().__setstate__(state)
        if self._average not in ("ergodic", "suffix"):
            return
        for group in self.param_groups:
            until = group["weight" if self._average == "ergodic" else "t"]
            for parameter in group["params"]:
                # states of earlier versions do not say until when
                if "average" in self.state.get(parameter, {}):
                    self.state[parameter].setdefault("until", until)

    @property
    def needs_loss(self) -> bool:  # type: ignore[override]
        """Whether a step depends on the value of the loss, not only on the gradient."""
        return self._step == "polyak" or self._average == "best"

    @property
    def keeps_average(self) -> bool:
        """Whether there is an average of the iterates to go to with ``averaged``."""
        return self._average is not None

    def takes_complex_in(self, group: Group) -> bool:
        """Whether complex parameters move as their real and imaginary parts; maps are of real numbers."""
        return group["proximal"] is None

    def _check_options(self, group: Group) -> None:
        check_options("Subgradient", lr=(group["lr"], 0))
        # may be given, also later, as a map or as a name with options
        group["proximal"] = plain(group["proximal"])
        if group["proximal"] is None:
            return
        proximal = build(group["proximal"])
        for parameter in group["params"]:
            if isinstance(parameter, Tensor):  # in a state to be loaded it is a number
                proximal.check(parameter)

    def _prepare(self, work: Work, loss: float | None) -> None:
        gradients = [gradient for _, _, own in work for gradient in own]
        if not gradients:
            return
        check_finite(self, [p for _, own, _ in work for p in own], "")
        if not self.needs_loss:
            return
        if loss is None or not math.isfinite(loss):
            what = f'step="{self._step}"' if self._step == "polyak" else 'average="best"'
            raise UsageError(
                f"Subgradient: {what} needs the loss of every step, a finite number, not {loss}."
                " Call step(closure) with a closure."
            )
        # one group may be frozen, and another added later
        t = max(group["t"] for group in self.param_groups) + 1
        least = min(group["least_loss"] for group in self.param_groups)
        for group in self.param_groups:
            group["least_loss"] = min(loss, least)
        if loss < least and self._average == "best":
            self._keep([p for group in self.param_groups for p in group["params"]])
        target = (
            min(loss, least) - self._slack / math.sqrt(t) if self._target is None else self._target
        )
        square = sum(norm**2 for norm in norms(gradients)) if self._step == "polyak" else 0.0
        self._polyak = max(loss - target, 0.0) / square if square > 0 else 0.0

    def _keep(self, parameters: list[Tensor]) -> None:
        """Keep an iterate, those parameters included that do not move in this step."""
        torch._foreach_copy_(self._remembered("average", parameters), parameters)

    def _move(self, group: Group, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        # a schedule's zero may be negative by rounding
        h = max(float(group["lr"]), 0.0) * self._length(group["t"])
        if self._average == "ergodic":
            group["weight"] += h
        for parameter in parameters if self._average in ("ergodic", "suffix") else ():
            self.state[parameter].update(self._means(group, parameter))
        step_along(parameters, gradients, h)
        if group["proximal"] is not None:
            proximal = build(group["proximal"])
            torch._foreach_copy_(parameters, [proximal.apply(p, h) for p in parameters])

    def _length(self, t: int) -> float:
        lengths = {
            "constant": 1.0,
            "inverse-root": 1 / math.sqrt(t),
            "inverse": 1 / t,
            "polyak": self._polyak,
        }
        return lengths[self._step]

    def _average_of(self, group: Group, parameter: Tensor) -> Tensor:
        kept: Tensor = (
            self.state[parameter]["average"]
            if self._average == "best"
            else self._means(group, parameter)["average"]
        )
        return kept

    def _means(self, group: Group, parameter: Tensor) -> dict[str, Any]:
        """Return what the state keeps of a parameter's iterates, with those up to now.

        A parameter that had no gradient for some steps stayed where it is, and these steps count
        with that point.
        """
        state = self.state[parameter]
        (point,) = widen([parameter.detach()])
        if self._average == "suffix":
            return _suffix(state, point, group["t"])
        if "average" not in state or group["weight"] <= 0:
            return {"average": point.clone(), "until": group["weight"]}
        share = 1 - state["until"] / group["weight"]
        return {"average": torch.lerp(state["average"], point, share), "until": group["weight"]}


def _suffix(state: Mapping[str, Any], point: Tensor, t: int) -> dict[str, Any]:
    """Return the mean of the iterates since the power of two before t's, the mean since t's, which takes its place, and t."""
    if "average" not in state:
        return {"average": point.clone(), "recent": point.clone(), "until": t}
    last, average, recent = state["until"], state["average"], state["recent"]
    start = 1 << (t.bit_length() - 1)
    if start > last:  # the point has not moved since ``last``
        average = recent if start // 2 <= last else point
        recent = point
    share, share_of_recent = (t - last) / (t - start // 2 + 1), (t - last) / (t - start + 1)
    return {
        "average": torch.lerp(average, point, share),
        "recent": torch.lerp(recent, point, share_of_recent),
        "until": t,
    }
