"""What the optimizers of this package share: closures, parameter groups, counting steps, and refusing what is not finite."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, overload

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from saddlepoint.errors import DivergenceError, UsageError

Group = dict[str, Any]
Work = list[tuple[Group, list[Tensor], list[Tensor]]]
"""Parameter groups, each with those of its parameters that have a gradient, and these gradients."""

_BLOCK = 1 << 18
"""Elements of a block, 1 MiB in single precision: a temporary of this size stays in a core's cache."""


class GradientOptimizer(Optimizer):
    """A torch optimizer whose step is one method on a parameter group; closures, counting and checks are done here.

    Each group counts its steps in ``group["t"]``; options are plain values, so that a state_dict loads with ``weights_only=True``.
    """

    kept: ClassVar[tuple[str, ...]] = ()
    """Attributes that hold for all groups; torch copies and pickles defaults, state and groups only."""

    needs_loss = False
    """Whether a step depends on the value of the loss, not only on the gradient."""

    def __init__(self, params: ParamsT, defaults: Group) -> None:
        super().__init__(params, {**defaults, "t": 0})

    def __getstate__(self) -> Group:
        return {**super().__getstate__(), **{name: getattr(self, name) for name in self.kept}}

    def __setstate__(self, state: Group) -> None:
        super().__setstate__(state)
        for group in self.param_groups:  # states of earlier versions lack what was added since
            for option, value in self.defaults.items():
                if option != "differentiable":  # torch adds it to the defaults here, and to no group
                    group.setdefault(option, value)

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
        work: Work = []
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                work.append((group, parameters, [p.grad for p in parameters]))
        self._prepare(work, None if loss is None else float(loss))
        for group, parameters, gradients in work:
            group["t"] += 1
            self._move(group, parameters, gradients)
        return loss

    @property
    def keeps_average(self) -> bool:
        """Whether there is an average of the iterates to go to with ``averaged``."""
        return False

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Hold the parameters at the average of the iterates that the optimizer keeps, and put them back afterwards.

        Raises:
            UsageError: it keeps none, or took no step yet.
        """
        average = {p: self.state[p]["average"] for group in self.param_groups for p in group["params"] if "average" in self.state[p]}
        if not average:
            raise UsageError(
                f"{type(self).__name__}: there is no average of the iterates. Ask for one at construction, and take a step first."
            )
        with held_at(list(average), list(average.values())):
            yield

    def _prepare(self, work: Work, loss: float | None) -> None:
        """Look at all groups before any of them moves; errors belong here."""
        return

    @abstractmethod
    def _move(self, group: Group, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        """Move one group's parameters in place."""


@contextmanager
def held_at(tensors: list[Tensor], values: list[Tensor]) -> Iterator[None]:
    """Hold the tensors at the values, and put them back afterwards."""
    saved = [tensor.detach().clone() for tensor in tensors]
    with torch.no_grad():
        torch._foreach_copy_(tensors, values)
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(tensors, saved)


def check_options(optimizer: str, **minima: tuple[float | Tensor, float]) -> None:
    """Raise UsageError unless every option, given as name=(value, smallest), is at least its smallest value."""
    for option, (value, smallest) in minima.items():
        if not value >= smallest:
            raise UsageError(f"{optimizer}: {option}={value} must be at least {smallest:g}.")


def norms(gradients: list[Tensor]) -> list[float]:
    """Return the Euclidean norm of each tensor, in float64: squares of vanishing gradients underflow in less."""
    found = torch._foreach_norm(gradients, 2, torch.float64)
    return [float(value) for value in torch.stack([n.to(gradients[0].device) for n in found]).tolist()]


def check_finite(optimizer: str, gradients: list[Tensor], why: str) -> None:
    """Raise DivergenceError where a gradient is NaN or infinite."""
    if not gradients:
        return
    flat = [g.reshape(-1) if g.is_contiguous() else g.flatten() for g in gradients]
    squares = torch.stack([g.dot(g).to(flat[0].device, torch.float64) for g in flat])  # the cheapest pass over memory that sees every entry
    if bool(squares.isfinite().all()):
        return
    for index, gradient in enumerate(gradients):  # squares also overflow
        if not bool(gradient.isfinite().all()):
            raise DivergenceError(
                f"{optimizer}: gradient {index}, shape {tuple(gradient.shape)}, is not finite. {why} No parameter was changed; "
                "find the first non-finite loss, or lower the learning rate.",
                player="",
            )


def blocks(*lists: list[Tensor]) -> Iterator[tuple[list[Tensor], ...]]:
    """Yield matching pieces of matching lists of tensors, views of one memory, so small that temporaries of them stay in cache.

    Small tensors come first, in one piece; so do all where the device is not the CPU, which has no such use for blocks.
    """
    small: list[tuple[Tensor, ...]] = []
    large: list[tuple[Tensor, ...]] = []
    for tensors in zip(*lists, strict=True):
        cut = tensors[0].device.type == "cpu" and tensors[0].numel() > _BLOCK and all(t.is_contiguous() for t in tensors)
        (large if cut else small).append(tensors)
    if small:
        yield tuple(list(tensors) for tensors in zip(*small, strict=True))
    for tensors in large:
        for pieces in zip(*(torch.split(t.view(-1), _BLOCK) for t in tensors), strict=True):
            yield tuple([piece] for piece in pieces)


def step_along(parameters: list[Tensor], directions: list[Tensor] | tuple[Tensor, ...], rate: float | Tensor) -> None:
    """θ ← θ − rate · direction, in place; a rate that is a tensor is not read on the host."""
    if isinstance(rate, Tensor):
        torch._foreach_sub_(parameters, torch._foreach_mul(directions, rate))
    else:
        torch._foreach_add_(parameters, directions, alpha=-rate)
