"""What the optimizers of this package share: closures, parameter groups, counting steps, states, and refusing what they cannot do."""

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
from saddlepoint.optim.identity import check_entries, checked, labels, signed
from saddlepoint.precision import widen, widest

Group = dict[str, Any]
Work = list[tuple[Group, list[Tensor], list[Tensor]]]
"""Parameter groups, each with those of its parameters that have a gradient, and these gradients."""

_BLOCK = 1 << 18
"""Elements of a block, 1 MiB in single precision: a temporary of this size stays in a core's cache."""


_NOT_OURS = ("maximize", "weight_decay", "momentum", "dampening", "nesterov", "betas", "amsgrad")
"""Options of torch's optimizers that a parameter group may set, and that an optimizer without them would ignore without a word."""


class GradientOptimizer(Optimizer):
    """A torch optimizer whose step is one method on a parameter group; closures, counting, states and checks are done here.

    Each group counts its steps in ``group["t"]``; options are plain values, so that a state_dict
    loads with ``weights_only=True``. A parameter without a gradient is left out of a step, as in
    torch. What is remembered of a parameter belongs to that parameter, in single precision at
    least.

    Raises:
        UsageError: a group has an option outside of its range, at construction, when it is added or
            loaded, or in the step after it was set; a complex parameter where the step is of real
            numbers; a sparse gradient; a state that belongs to another optimizer.
    """

    kept: ClassVar[tuple[str, ...]] = ()
    """Attributes that hold for all groups; torch copies and pickles defaults, state and groups only."""

    made_with: ClassVar[tuple[str, ...]] = ()
    """Those of ``kept`` that are options of the constructor; a state made with others is refused."""

    shaped: ClassVar[tuple[str, ...]] = ()
    """Names under which the state has tensors of their parameter's shape."""

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
                # torch adds it to the defaults here, and to no group
                if option != "differentiable":
                    group.setdefault(option, value)

    def add_param_group(self, param_group: Group) -> None:
        """Add a group of parameters; its options are checked."""
        super().add_param_group(param_group)
        try:
            self._check_group(self.param_groups[-1])
            _check_real(self, self.param_groups[-1])
        except UsageError:
            self.param_groups.pop()
            raise

    def state_dict(self) -> Group:
        """Return the state, with what it was saved by."""
        return signed(self, super().state_dict(), self._made_with())

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from what ``state_dict`` returned; parameters that have names are matched by name.

        Raises:
            UsageError: the state belongs to another optimizer, or to parameters of other shapes;
                nothing is changed then.
        """
        state = checked(self, state_dict, self._made_with())
        for saved in state["param_groups"]:
            self._check_group({**self.defaults, **saved})
        check_entries(self, state, self.shaped)
        super().load_state_dict(state)
        for group, saved in zip(self.param_groups, state["param_groups"], strict=True):
            for parameter, key in zip(group["params"], saved["params"], strict=True):
                # torch has rounded it to half precision
                if key in state["state"] and parameter.dtype != widest(parameter.dtype):
                    self.state[parameter].update(_copied(state["state"][key], parameter))

    def _made_with(self) -> dict[str, Any]:
        return {name.removeprefix("_"): getattr(self, name) for name in self.made_with}

    def _check_group(self, group: Group) -> None:
        """Raise UsageError where a group asks for what cannot be; at construction, and again in every step: options are set at any time."""
        name = type(self).__name__
        for option in _NOT_OURS:
            if option not in self.defaults and group.get(option):
                raise UsageError(
                    f"{name}: a parameter group sets {option}={group[option]}, which {name} does"
                    " not have and would ignore. "
                    + (
                        "Negate the loss instead."
                        if option == "maximize"
                        else "Leave it out, or use an optimizer that has it."
                    )
                )
        self._check_options(group)

    def _check_options(self, group: Group) -> None:
        """Raise UsageError where an option of a group is outside of its range."""
        return

    def takes_complex_in(self, group: Group) -> bool:
        """Whether complex parameters of a group move as the real numbers of ``torch.view_as_real`` would."""
        return False

    def _remembered(self, name: str, parameters: list[Tensor]) -> list[Tensor]:
        """Return what the state has of the parameters under ``name``, zeros at first."""
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
        """Take one step; a closure, if given, recomputes the loss and is evaluated first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        work: Work = []
        for group in self.param_groups:
            self._check_group(group)
            _check_real(self, group)
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                work.append((group, parameters, [p.grad for p in parameters]))
        check_dense(self, [p for _, parameters, _ in work for p in parameters])
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
        average: dict[Tensor, Tensor] = {}
        for group in self.param_groups:
            for p in group["params"]:
                if "average" in self.state.get(p, {}):
                    average[p] = self._average_of(group, p)
        if not average:
            raise UsageError(
                f"{type(self).__name__}: there is no average of the iterates. Ask for one at"
                " construction, and take a step first."
            )
        with held_at(list(average), list(average.values())):
            yield

    def _average_of(self, group: Group, parameter: Tensor) -> Tensor:
        """Return the average of one parameter's iterates that the state keeps."""
        kept: Tensor = self.state[parameter]["average"]
        return kept

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
    """Raise UsageError unless every option, given as name=(value, smallest), is at least its smallest value.

    Schedulers that end at zero reach it up to rounding. A tensor on another device than the CPU is
    not read back.
    """
    for option, (value, smallest) in minima.items():
        if isinstance(value, Tensor) and value.numel() == 1 and value.device.type != "cpu":
            continue
        if not isinstance(value, Real) and not (isinstance(value, Tensor) and value.dim() == 0):
            raise UsageError(f"{optimizer}: {option}={value!r} must be a number.")
        if not value >= smallest - 1e-12:
            raise UsageError(f"{optimizer}: {option}={value} must be at least {smallest:g}.")


def check_dense(optimizer: Optimizer, parameters: Iterable[Tensor]) -> None:
    """Raise UsageError where a gradient is sparse."""
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is not None and gradient.layout != torch.strided:
            raise UsageError(
                f"{type(optimizer).__name__}: the gradient of parameter"
                f" {labels(optimizer)[parameter]}, shape {tuple(parameter.shape)}, is sparse, and"
                " its step needs all entries. Make it dense: torch.nn.Embedding(...,"
                " sparse=False). No parameter was changed."
            )


def _check_real(optimizer: GradientOptimizer, group: Group) -> None:
    name = type(optimizer).__name__
    for parameter in group["params"]:
        if parameter.is_complex() and not optimizer.takes_complex_in(group):
            raise UsageError(
                f"{name}: parameter {labels(optimizer)[parameter]}, shape {tuple(parameter.shape)},"
                f" is complex ({parameter.dtype}); its step is defined for real numbers. Make the"
                " real and imaginary parts the parameter, torch.view_as_real(p), and use"
                " torch.view_as_complex of it in the network."
            )


def _copied(kept: Any, like: Tensor) -> Any:
    """Return a copy of what a state keeps, its numbers in the precision that running means have."""
    if isinstance(kept, Mapping):
        return {name: _copied(value, like) for name, value in kept.items()}
    if isinstance(kept, list):
        return [_copied(value, like) for value in kept]
    if isinstance(kept, Tensor):
        dtype = widest(like.dtype) if kept.is_floating_point() else kept.dtype
        return kept.detach().clone().to(device=like.device, dtype=dtype)
    return kept


def _real(gradients: Sequence[Tensor]) -> list[Tensor]:
    return [torch.view_as_real(g) if g.is_complex() else g for g in gradients]


def norms(gradients: Sequence[Tensor]) -> list[float]:
    """Return the Euclidean norm of each tensor, in float64: squares of vanishing gradients underflow in less."""
    found = torch._foreach_norm(_real(gradients), 2, torch.float64)
    return [
        float(value) for value in torch.stack([n.to(gradients[0].device) for n in found]).tolist()
    ]


def check_finite(optimizer: Optimizer, parameters: list[Tensor], why: str) -> None:
    """Raise DivergenceError where the gradient of one of the parameters is NaN or infinite."""
    if not parameters:
        return
    gradients = _real([cast(Tensor, p.grad) for p in parameters])
    flat = [g.reshape(-1) if g.is_contiguous() else g.flatten() for g in gradients]
    # the cheapest pass over memory that sees every entry
    squares = torch.stack([g.dot(g).to(flat[0].device, torch.float64) for g in flat])
    if bool(squares.isfinite().all()):
        return
    for parameter, gradient in zip(parameters, gradients, strict=True):  # squares also overflow
        if not bool(gradient.isfinite().all()):
            raise not_finite(optimizer, parameter, why)


def not_finite(optimizer: Optimizer, parameter: Tensor, why: str = "") -> DivergenceError:
    """Return the error for a parameter whose gradient is NaN or infinite."""
    return DivergenceError(
        f"{type(optimizer).__name__}: gradient {labels(optimizer)[parameter]}, shape"
        f" {tuple(parameter.shape)}, is not finite. {why + ' ' if why else ''}No parameter was"
        " changed; find the first non-finite loss, or lower the learning rate.",
        player="",
    )


def blocks(*lists: list[Tensor]) -> Iterator[tuple[list[Tensor], ...]]:
    """Yield matching pieces of matching lists of tensors, views of one memory, so small that temporaries of them stay in cache.

    Small tensors come first, in one piece; so do all where the device is not the CPU, which has no
    such use for blocks.
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
        for pieces in zip(*(torch.split(t.view(-1), _BLOCK) for t in tensors), strict=True):
            yield tuple([piece] for piece in pieces)


def step_along(
    parameters: list[Tensor], directions: list[Tensor] | tuple[Tensor, ...], rate: float | Tensor
) -> None:
    """θ ← θ − rate · direction, in place; a rate that is a tensor is not read on the host, one beyond half precision is none of it."""
    directions = widen(directions)
    if isinstance(rate, Tensor):
        torch._foreach_sub_(parameters, torch._foreach_mul(directions, rate))
    else:
        torch._foreach_add_(parameters, directions, alpha=-rate)
