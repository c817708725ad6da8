"""Base class of this package's optimizers: closures, parameter groups, step counts, checks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Real
from typing import Any, ClassVar, cast, overload

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from saddlepoint.errors import DivergenceError, UsageError
from saddlepoint.optim.state_dict import (
    check_shapes,
    mark_state_dict,
    parameter_labels,
    validate_state_dict,
)
from saddlepoint.precision import widen, widest

Group = dict[str, Any]
Work = list[tuple[Group, list[Tensor], list[Tensor]]]
"""Parameter groups, each with its parameters that have a gradient, and these gradients."""

_BLOCK = 1 << 18
"""Elements per block, 1 MiB in single precision: a temporary of this size stays in the cache."""

_TORCH_OPTIONS = (
    "maximize",
    "weight_decay",
    "momentum",
    "dampening",
    "nesterov",
    "betas",
    "amsgrad",
)
"""Options of torch's optimizers. An optimizer that lacks one would ignore it silently."""


class GradientOptimizer(Optimizer):
    """Base class of optimizers that define one update of a parameter group.

    A subclass implements ``update_group``, and overrides ``validate_group`` and ``prepare`` where
    it needs them; closures, step counts, state and checks are handled here. Each group counts its
    steps in ``group["t"]``. Options are plain values, so that a state_dict loads with
    ``weights_only=True``. A parameter without a gradient is skipped, as in torch. State is kept per
    parameter, in single precision at least.

    Raises:
        UsageError: an option of a group is out of range (checked at construction, when a group is
            added or loaded, and in every step, because options can be set at any time); a complex
            parameter where the update is defined for real numbers only; a sparse gradient; a state
            that belongs to another optimizer.
    """

    attributes: ClassVar[tuple[str, ...]] = ()
    """Attributes shared by all groups, to be copied and pickled; torch omits them."""

    constructor_options: ClassVar[tuple[str, ...]] = ()
    """Those of ``attributes`` that are constructor options; other values in a state are refused."""

    state_tensors: ClassVar[tuple[str, ...]] = ()
    """Keys of the state whose tensors have the shape of their parameter."""

    needs_loss = False
    """Whether a step depends on the value of the loss, not only on the gradient."""

    def __init__(self, params: ParamsT, defaults: Group) -> None:
        super().__init__(params, {**defaults, "t": 0})

    def __getstate__(self) -> Group:
        return {**super().__getstate__(), **{name: getattr(self, name) for name in self.attributes}}

    def __setstate__(self, state: Group) -> None:
        super().__setstate__(state)
        for group in self.param_groups:  # states of earlier versions lack newer options
            for option, value in self.defaults.items():
                # torch adds "differentiable" to the defaults here, but to no group
                if option != "differentiable":
                    group.setdefault(option, value)

    def add_param_group(self, param_group: Group) -> None:
        """Add a parameter group; its options are checked."""
        super().add_param_group(param_group)
        try:
            self._check_group(self.param_groups[-1])
        except UsageError:
            self.param_groups.pop()
            raise

    def state_dict(self) -> Group:
        """Return the state, marked with the class and the options of this optimizer."""
        return mark_state_dict(self, super().state_dict(), self.constructor_values())

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load a state returned by ``state_dict``. Named parameters are matched by name.

        Raises:
            UsageError: the state belongs to another optimizer, or to parameters of other shapes;
                nothing is loaded then.
        """
        state = validate_state_dict(self, state_dict, self.constructor_values())
        for saved in state["param_groups"]:
            self._check_group({**self.defaults, **saved, "params": []})
        check_shapes(self, state, self.state_tensors)
        super().load_state_dict(state)
        for group, saved in zip(self.param_groups, state["param_groups"], strict=True):
            for parameter, key in zip(group["params"], saved["params"], strict=True):
                # torch has rounded the state to half precision: take the saved values instead
                if key in state["state"] and parameter.dtype != widest(parameter.dtype):
                    self.state[parameter].update(_copy_widened(state["state"][key], parameter))

    def constructor_values(self) -> dict[str, Any]:
        """Return option → value of ``constructor_options``."""
        return {name.removeprefix("_"): getattr(self, name) for name in self.constructor_options}

    def _check_group(self, group: Group) -> None:
        name = type(self).__name__
        for option in _TORCH_OPTIONS:
            if option not in self.defaults and group.get(option):
                advice = (
                    "Negate the loss instead."
                    if option == "maximize"
                    else "Remove the option, or use an optimizer that has it."
                )
                raise UsageError(
                    f"{name}: a parameter group sets {option}={group[option]}, which {name} does"
                    f" not have and would ignore. {advice}"
                )

        self.validate_group(group)

        for parameter in group["params"]:
            if parameter.is_complex() and not self.supports_complex(group):
                raise UsageError(
                    f"{name}: parameter {parameter_labels(self)[parameter]}, shape"
                    f" {tuple(parameter.shape)}, is complex ({parameter.dtype}), but the update is"
                    " defined for real numbers. Use torch.view_as_real(p) as the parameter and"
                    " torch.view_as_complex of it in the network."
                )

    def validate_group(self, group: Group) -> None:
        """Raise UsageError if an option of the group is out of range."""
        return

    def supports_complex(self, group: Group) -> bool:
        """Whether complex parameters of a group are updated as ``torch.view_as_real`` of them."""
        return False

    def buffers(self, name: str, parameters: list[Tensor]) -> list[Tensor]:
        """Return the state tensor ``name`` of each parameter; it is initialized with zeros."""
        for parameter in parameters:
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros_like(
                    parameter, dtype=widest(parameter.dtype)
                )
        return [self.state[parameter][name] for parameter in parameters]

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step. A closure, if given, recomputes the loss and is evaluated first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()

        work: Work = []
        for group in self.param_groups:
            self._check_group(group)
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                check_dense(self, parameters)
                work.append((group, parameters, [p.grad for p in parameters]))
        self.prepare(work, None if loss is None else float(loss))

        for group, parameters, gradients in work:
            group["t"] += 1
            self.update_group(group, parameters, gradients)
        return loss

    @property
    def keeps_average(self) -> bool:
        """Whether the optimizer keeps an average of the iterates, see ``averaged``."""
        return False

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Set the parameters to the average of the iterates inside the context, then restore them.

        Raises:
            UsageError: the optimizer keeps no average, or took no step yet.
        """
        parameters: list[Tensor] = []
        averages: list[Tensor] = []
        for group in self.param_groups:
            for parameter in group["params"]:
                if "average" in self.state.get(parameter, {}):
                    parameters.append(parameter)
                    averages.append(self.average_of(group, parameter))
        if not averages:
            raise UsageError(
                f"{type(self).__name__}: there is no average of the iterates. Request one in the"
                " constructor, and take a step first."
            )
        with temporary_values(parameters, averages):
            yield

    def average_of(self, group: Group, parameter: Tensor) -> Tensor:
        """Return the average of one parameter's iterates, which the state contains."""
        average: Tensor = self.state[parameter]["average"]
        return average

    def prepare(self, work: Work, loss: float | None) -> None:
        """Inspect all groups before any of them is updated; raise errors here."""
        return

    @abstractmethod
    def update_group(self, group: Group, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        """Update the parameters of one group in place."""


@contextmanager
def temporary_values(tensors: list[Tensor], values: list[Tensor]) -> Iterator[None]:
    """Set the tensors to the values inside the context, then restore them."""
    saved = [tensor.detach().clone() for tensor in tensors]
    with torch.no_grad():
        torch._foreach_copy_(tensors, values)
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(tensors, saved)


def check_at_least(optimizer: str, **options: tuple[float | Tensor, float]) -> None:
    """Raise UsageError unless each option, name=(value, minimum), is at least its minimum.

    A tolerance of 1e-12 allows for schedulers that reach zero up to rounding. A tensor on another
    device than the CPU is not read.
    """
    for option, (value, minimum) in options.items():
        if isinstance(value, Tensor) and value.numel() == 1 and value.device.type != "cpu":
            continue
        if not isinstance(value, Real) and not (isinstance(value, Tensor) and value.dim() == 0):
            raise UsageError(f"{optimizer}: {option}={value!r} must be a number.")
        if not value >= minimum - 1e-12:
            raise UsageError(f"{optimizer}: {option}={value} must be at least {minimum:g}.")


def check_dense(optimizer: Optimizer, parameters: Iterable[Tensor]) -> None:
    """Raise UsageError if a gradient is sparse."""
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is not None and gradient.layout != torch.strided:
            raise UsageError(
                f"{type(optimizer).__name__}: the gradient of parameter"
                f" {parameter_labels(optimizer)[parameter]}, shape {tuple(parameter.shape)}, is"
                " sparse, but the update needs all entries. Use dense gradients:"
                " torch.nn.Embedding(..., sparse=False). No parameter was changed."
            )


def _copy_widened(value: Any, like: Tensor) -> Any:
    """Return a copy of a state's value on the device of ``like``, in single precision at least."""
    if isinstance(value, Mapping):
        return {name: _copy_widened(entry, like) for name, entry in value.items()}
    if isinstance(value, list):
        return [_copy_widened(entry, like) for entry in value]
    if isinstance(value, Tensor):
        dtype = widest(like.dtype) if value.is_floating_point() else value.dtype
        return value.detach().clone().to(device=like.device, dtype=dtype)
    return value


def _real(gradients: Sequence[Tensor]) -> list[Tensor]:
    return [torch.view_as_real(g) if g.is_complex() else g for g in gradients]


def norms(gradients: Sequence[Tensor]) -> list[float]:
    """Return the Euclidean norm of each tensor, in float64: small squares underflow in float32."""
    device = gradients[0].device
    found = [n.to(device) for n in torch._foreach_norm(_real(gradients), 2, torch.float64)]
    values: list[float] = torch.stack(found).tolist()
    return values


def check_finite(optimizer: Optimizer, parameters: list[Tensor], why: str) -> None:
    """Raise DivergenceError if the gradient of a parameter is NaN or infinite."""
    if not parameters:
        return
    gradients = _real([cast(Tensor, p.grad) for p in parameters])
    flat = [g.reshape(-1) if g.is_contiguous() else g.flatten() for g in gradients]
    # the cheapest pass over memory that reads every entry
    squares = torch.stack([g.dot(g).to(flat[0].device, torch.float64) for g in flat])
    if bool(squares.isfinite().all()):
        return
    for parameter, gradient in zip(parameters, gradients, strict=True):
        # a square may overflow although the gradient is finite
        if not bool(gradient.isfinite().all()):
            raise non_finite_error(optimizer, parameter, why)


def non_finite_error(optimizer: Optimizer, parameter: Tensor, why: str = "") -> DivergenceError:
    """Return the error for a parameter whose gradient is NaN or infinite."""
    return DivergenceError(
        f"{type(optimizer).__name__}: gradient {parameter_labels(optimizer)[parameter]}, shape"
        f" {tuple(parameter.shape)}, is not finite. {why + ' ' if why else ''}No parameter was"
        " changed; find the first non-finite loss, or lower the learning rate.",
        player="",
    )


def blocks(*lists: list[Tensor]) -> Iterator[tuple[list[Tensor], ...]]:
    """Yield matching pieces of matching lists of tensors, small enough to stay in the cache.

    The pieces are views of the tensors. Small tensors come first, in one piece. On other devices
    than the CPU, where blocks bring nothing, all tensors count as small.
    """
    small: list[tuple[Tensor, ...]] = []
    large: list[tuple[Tensor, ...]] = []
    for tensors in zip(*lists, strict=True):
        cut = (
            tensors[0].device.type == "cpu"
            and tensors[0].numel() > _BLOCK
            and all(t.is_contiguous() for t in tensors)
        )
        (large if cut else small).append(tensors)
    if small:
        yield tuple(list(tensors) for tensors in zip(*small, strict=True))
    for tensors in large:
        split = [torch.split(t.view(-1), _BLOCK) for t in tensors]
        for pieces in zip(*split, strict=True):
            yield tuple([piece] for piece in pieces)


def step_along(
    parameters: list[Tensor], directions: list[Tensor] | tuple[Tensor, ...], lr: float | Tensor
) -> None:
    """θ ← θ − lr · direction, in place.

    A learning rate that is a tensor is not read on the host. Directions in half precision are
    widened first, so that a large learning rate does not overflow.
    """
    directions = widen(directions)
    if isinstance(lr, Tensor):
        torch._foreach_sub_(parameters, torch._foreach_mul(directions, lr))
    else:
        torch._foreach_add_(parameters, directions, alpha=-lr)
