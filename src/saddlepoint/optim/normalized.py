"""Subgradient steps of a given length: normalised, or as long as another optimizer's."""

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
    check_dense,
    check_options,
    norms,
    not_finite,
    step_along,
)
from saddlepoint.optim.identity import checked, signed
from saddlepoint.precision import widen

Per = Literal["player", "tensor"]


class NormalizedSubgradient(GradientOptimizer):
    """Move by a fixed length against the gradient: θ ← θ − lr · g / ‖g‖, with ‖g‖ over the player or over each tensor (nSGDA).

    As with the sign, the step does not vanish with the gradient, but its direction is the
    gradient's own. Both players of a GAN then move at the same pace, which in the paper's model is
    what makes the generator find all modes where plain steps of any size collapse. Constant steps
    do not settle: lower lr over time.

    Args:
        params: parameters or groups; with per="player" all groups together make one norm.
        lr: the length of a step; with per="tensor" of each tensor's step.
        per: "player" or "tensor".

    Raises:
        UsageError: lr is negative, or per is neither; a sparse gradient, or a state made with
            another ``per``.
        DivergenceError: a gradient is NaN or infinite; no parameter moves.

    A gradient that is exactly zero has no direction and does not move. Norms are taken in float64:
    in float32 squares of entries below 1e-22 vanish. Complex parameters move as their real and
    imaginary parts.

    Reference: Jelassi et al. (2022), Dissecting adaptive methods in GANs, arXiv:2210.04319.

    >>> x = torch.tensor([3.0, 4.0], requires_grad=True)
    >>> optimizer = NormalizedSubgradient([x], lr=1.0)
    >>> (1e-30 * (x**2).sum()).backward()
    >>> optimizer.step()
    >>> [round(value, 4) for value in x.tolist()]
    [2.4, 3.2]
    """

    kept = made_with = ("_per",)

    def __init__(self, params: ParamsT, lr: float, *, per: Per = "player") -> None:
        _check_per("NormalizedSubgradient", per)
        self._per: Per = per
        self._lengths: Iterator[float] = iter(())
        super().__init__(params, {"lr": lr})

    def takes_complex_in(self, group: Group) -> bool:
        """Whether complex parameters move as their real and imaginary parts; the norm is the same."""
        return True

    def _check_options(self, group: Group) -> None:
        check_options("NormalizedSubgradient", lr=(group["lr"], 0))

    def _prepare(self, work: Work, loss: float | None) -> None:
        parameters = [p for _, own, _ in work for p in own]
        self._lengths = iter(
            lengths(self, parameters, [g for _, _, gradients in work for g in gradients], self._per)
        )

    def _move(self, group: Group, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            length = next(self._lengths)
            # below 1e-38 · lr the factor would overflow in single precision, and the step is
            # shorter
            if length > 0:
                step_along([parameter], [gradient], min(float(group["lr"]) / length, 1e38))


class Grafted(Optimizer):
    """Go as far as another optimizer would, but along the gradient: θ ← θ − ‖Δ‖ · g / ‖g‖, with Δ the other optimizer's step.

    With Adam inside this is the paper's AdaDir: the length of Adam's step, the direction of
    gradient descent. Parameter groups, schedulers and state are those of the optimizer inside.
    Complex parameters move as their real and imaginary parts.

    Args:
        params: parameters or groups.
        lr: learning rate of the optimizer inside.
        magnitude: class of the optimizer inside, called as ``magnitude(params, lr=lr, **options)``.
        options: its further options.
        per: whether lengths are taken over the "player" or over each "tensor".

    Raises:
        UsageError: per is neither, the optimizer inside refuses its options or has maximize=True; a
            sparse gradient, or a state that belongs to another optimizer inside or to parameters of
            other shapes.
        DivergenceError: a gradient is NaN or infinite; no parameter moves.

    References: Agarwal et al. (2020), Disentangling adaptive gradient methods from learning rates,
    arXiv:2002.11803; Jelassi et al. (2022), arXiv:2210.04319.

    >>> x = torch.tensor([3.0, 4.0], requires_grad=True)
    >>> optimizer = Grafted([x], lr=0.1)  # Adam's first step is 0.1 in each coordinate, √2 / 10 in all
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
            inside = magnitude(params, lr=lr, **(options or {}))
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"Grafted: the optimizer inside refuses its options: {error}"
            ) from error
        self._per: Per = per
        super().__init__(inside.param_groups, inside.defaults)
        self._inside = inside
        self._share()
        self._check_inside()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_inside": self._inside, "_per": self._per}

    def _share(self) -> None:
        """Groups and state are those of the optimizer inside, so that a schedule's new rates reach it."""
        self.param_groups, self.state = self._inside.param_groups, self._inside.state

    def _check_inside(self) -> None:
        """Raise UsageError where the optimizer inside does what a length does not show; its options can be set at any time."""
        if isinstance(self._inside, LBFGS):
            raise UsageError(
                "Grafted: LBFGS evaluates a closure of its own, which a step here does not have."
                " Use another magnitude."
            )
        if any(group.get("maximize") for group in self.param_groups):
            raise UsageError(
                "Grafted: the optimizer inside has maximize=True, of which its length says nothing."
                " Negate the loss instead."
            )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters to the optimizer inside, whose options it may have."""
        if hasattr(self, "_inside"):
            self._inside.add_param_group(param_group)
        else:  # construction: the groups are those of the optimizer inside
            super().add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the optimizer inside, with what it was saved by."""
        return signed(self, self._inside.state_dict(), self._made_with())

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from what ``state_dict`` returned.

        Raises:
            UsageError: the state belongs to another optimizer, or to parameters of other shapes;
                nothing is changed then.
        """
        self._inside.load_state_dict(checked(self, state_dict, self._made_with()))
        self._share()

    def _made_with(self) -> dict[str, Any]:
        inside = self._inside._made_with() if isinstance(self._inside, GradientOptimizer) else {}
        return {**inside, "magnitude": type(self._inside).__name__, "per": self._per}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step; a closure, if given, recomputes the loss and is evaluated first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        parameters = [
            p for group in self.param_groups for p in group["params"] if p.grad is not None
        ]
        if not parameters:
            return loss
        self._check_inside()
        check_dense(self, parameters)
        gradients = widen([cast(Tensor, p.grad) for p in parameters])
        # before the optimizer inside may write to the gradients
        own = lengths(self, parameters, gradients, self._per)
        directions = [
            g / length if length > 0 else torch.zeros_like(g)
            for g, length in zip(gradients, own, strict=True)
        ]
        before = [p.detach().clone() for p in parameters]
        self._inside.step()
        goals = lengths(self, parameters, torch._foreach_sub(parameters, before), self._per)
        torch._foreach_copy_(parameters, before)
        torch._foreach_sub_(parameters, torch._foreach_mul(directions, goals))
        return loss


def lengths(
    optimizer: Optimizer, parameters: list[Tensor], tensors: Sequence[Tensor], per: Per
) -> list[float]:
    """Return for each of the parameters' tensors the norm to divide it by: its own, or that of all of them.

    Raises:
        DivergenceError: a norm is not finite.
    """
    if not tensors:
        return []
    own = norms(tensors)
    for parameter, norm in zip(parameters, own, strict=True):
        if not math.isfinite(norm):
            raise not_finite(optimizer, parameter)
    return own if per == "tensor" else [math.hypot(*own)] * len(own)


def _check_per(optimizer: str, per: str) -> None:
    if per not in ("player", "tensor"):
        raise UsageError(f'{optimizer}: per="{per}" must be "player" or "tensor".')
