"""Normalized subgradient steps, and steps of the length of another optimizer's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.optim import LBFGS, Adam
from torch.optim.optimizer import Optimizer, ParamsT

from saddlepoint.errors import UsageError
from saddlepoint.optim.base import (
    GradientOptimizer,
    Group,
    Work,
    check_at_least,
    check_dense,
    non_finite_error,
    norms,
    step_along,
)
from saddlepoint.optim.state_dict import mark_state_dict, validate_state_dict
from saddlepoint.precision import widen

Per = Literal["player", "tensor"]


class NormalizedSubgradient(GradientOptimizer):
    """Normalized gradient descent (nSGDA): θ ← θ − lr · g / ‖g‖, a step of fixed length.

    The norm is taken over the player or over each tensor. As with the sign, the step does not
    vanish with the gradient, but it keeps the gradient's direction. Both players of a GAN then move
    at the same pace; in the paper's model, the generator then finds all modes where plain gradient
    steps of any size collapse. Constant steps do not converge: decrease lr over time.

    Args:
        params: parameters or groups; with per="player" the norm is taken over all groups together.
        lr: the length of a step; with per="tensor" of each tensor's step.
        per: "player" or "tensor".

    Raises:
        UsageError: lr is negative, or per is neither of the two; a sparse gradient, or a state
            saved with another ``per``.
        DivergenceError: a gradient is NaN or infinite; no parameter is changed.

    A gradient that is exactly zero has no direction and gives no update. Norms are computed in
    float64: in float32 squares of entries below 1e-22 underflow. Complex parameters are updated as
    their real and imaginary parts.

    Reference: Jelassi et al. (2022), Dissecting adaptive methods in GANs, arXiv:2210.04319.

    >>> x = torch.tensor([3.0, 4.0], requires_grad=True)
    >>> optimizer = NormalizedSubgradient([x], lr=1.0)
    >>> (1e-30 * (x**2).sum()).backward()
    >>> optimizer.step()
    >>> [round(value, 4) for value in x.tolist()]
    [2.4, 3.2]
    """

    attributes = constructor_options = ("_per",)

    def __init__(self, params: ParamsT, lr: float, *, per: Per = "player") -> None:
        _check_per("NormalizedSubgradient", per)
        self._per: Per = per
        self._norms: Iterator[float] = iter(())
        super().__init__(params, {"lr": lr})

    def supports_complex(self, group: Group) -> bool:
        """Return True: complex numbers count as pairs of real ones, the norm is the same."""
        return True

    def validate_group(self, group: Group) -> None:
        check_at_least("NormalizedSubgradient", lr=(group["lr"], 0))

    def prepare(self, work: Work, loss: float | None) -> None:
        parameters: list[Tensor] = []
        gradients: list[Tensor] = []
        for _, own_parameters, own_gradients in work:
            parameters += own_parameters
            gradients += own_gradients
        self._norms = iter(finite_norms(self, parameters, gradients, self._per))

    def update_group(self, group: Group, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            norm = next(self._norms)
            # for norms below 1e-38 · lr the factor would overflow in single precision; the limit
            # makes the step shorter
            if norm > 0:
                step_along([parameter], [gradient], min(float(group["lr"]) / norm, 1e38))


class Grafted(Optimizer):
    """Take steps of another optimizer's length along the gradient: θ ← θ − ‖Δ‖ · g / ‖g‖.

    Δ is the inner optimizer's step. With Adam as the inner optimizer this is the paper's AdaDir:
    the length of Adam's step, the direction of gradient descent. Parameter groups, schedulers and
    state are those of the inner optimizer. Complex parameters are updated as their real and
    imaginary parts.

    Args:
        params: parameters or groups.
        lr: learning rate of the inner optimizer.
        magnitude: class of the inner optimizer, called as ``magnitude(params, lr=lr, **options)``.
        options: further options of the inner optimizer.
        per: whether lengths are taken over the "player" or over each "tensor".

    Raises:
        UsageError: per is neither of the two, the inner optimizer refuses its options or has
            maximize=True; a sparse gradient; a state that belongs to another inner optimizer or to
            parameters of other shapes.
        DivergenceError: a gradient is NaN or infinite; no parameter is changed.

    References: Agarwal et al. (2020), Disentangling adaptive gradient methods from learning rates,
    arXiv:2002.11803; Jelassi et al. (2022), arXiv:2210.04319.

    >>> x = torch.tensor([3.0, 4.0], requires_grad=True)
    >>> optimizer = Grafted([x], lr=0.1)  # Adam's first step has length √2 / 10
    >>> (x**2).sum().backward()
    >>> optimizer.step()
    >>> [round(value, 4) for value in x.tolist()]
    [2.9151, 3.8869]
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        *,
        magnitude: Callable[..., Optimizer] = Adam,
        options: Mapping[str, Any] | None = None,
        per: Per = "player",
    ) -> None:
        _check_per("Grafted", per)
        try:
            inner = magnitude(params, lr=lr, **(options or {}))
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"Grafted: the inner optimizer refuses its options: {error}"
            ) from error
        self._per: Per = per
        super().__init__(inner.param_groups, inner.defaults)
        self._inner = inner
        # groups and state are shared, so that learning rates of schedulers reach the inner one
        self.param_groups, self.state = inner.param_groups, inner.state
        self._check_inner()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_inner": self._inner, "_per": self._per}

    def _check_inner(self) -> None:
        """Raise UsageError if the inner optimizer does what the length of its step cannot express.

        This is checked in every step, because options can be set at any time.
        """
        if isinstance(self._inner, LBFGS):
            raise UsageError(
                "Grafted: LBFGS evaluates a closure of its own, which is not available here. Use"
                " another magnitude."
            )
        if any(group.get("maximize") for group in self.param_groups):
            raise UsageError(
                "Grafted: the inner optimizer has maximize=True, which the length of its step does"
                " not express. Negate the loss instead."
            )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group to the inner optimizer; it may have the inner one's options."""
        if hasattr(self, "_inner"):
            self._inner.add_param_group(param_group)
        else:  # construction: the groups are those of the inner optimizer
            super().add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """Return the inner optimizer's state, marked with the class and options of this one."""
        return mark_state_dict(self, self._inner.state_dict(), self.constructor_values())

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load a state returned by ``state_dict``.

        Raises:
            UsageError: the state belongs to another optimizer, or to parameters of other shapes;
                nothing is loaded then.
        """
        state = validate_state_dict(self, state_dict, self.constructor_values())
        self._inner.load_state_dict(state)
        self.param_groups, self.state = self._inner.param_groups, self._inner.state

    def constructor_values(self) -> dict[str, Any]:
        """Return option → value of the constructor's options that no parameter group contains."""
        values = {"magnitude": type(self._inner).__name__, "per": self._per}
        if isinstance(self._inner, GradientOptimizer):
            return {**self._inner.constructor_values(), **values}
        return values

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step. A closure, if given, recomputes the loss and is evaluated first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        parameters = [
            p for group in self.param_groups for p in group["params"] if p.grad is not None
        ]
        if not parameters:
            return loss
        self._check_inner()
        check_dense(self, parameters)
        gradients = widen([cast(Tensor, p.grad) for p in parameters])
        # before the inner optimizer, which may write to the gradients
        gradient_norms = finite_norms(self, parameters, gradients, self._per)
        directions = [
            g / norm if norm > 0 else torch.zeros_like(g)
            for g, norm in zip(gradients, gradient_norms, strict=True)
        ]
        before = [p.detach().clone() for p in parameters]
        self._inner.step()
        steps = torch._foreach_sub(parameters, before)
        lengths = finite_norms(self, parameters, steps, self._per)
        torch._foreach_copy_(parameters, before)
        torch._foreach_sub_(parameters, torch._foreach_mul(directions, lengths))
        return loss


def finite_norms(
    optimizer: Optimizer, parameters: list[Tensor], tensors: Sequence[Tensor], per: Per
) -> list[float]:
    """Return one norm for each parameter's tensor: its own, or the norm over all of them.

    Raises:
        DivergenceError: a norm is not finite.
    """
    if not tensors:
        return []
    own = norms(tensors)
    for parameter, norm in zip(parameters, own, strict=True):
        if not math.isfinite(norm):
            raise non_finite_error(optimizer, parameter)
    return own if per == "tensor" else [math.hypot(*own)] * len(own)


def _check_per(optimizer: str, per: str) -> None:
    if per not in ("player", "tensor"):
        raise UsageError(f'{optimizer}: per="{per}" must be "player" or "tensor".')
