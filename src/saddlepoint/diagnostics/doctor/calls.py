"""Watching a forward pass: which layer got what, gave what, and where it stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Call:
    """One call of a layer that ended.

    Attributes:
        name: the layer's dotted name.
        attached: whether an input required gradients.
        outputs: the floating tensors in what it returned.
    """

    name: str
    attached: bool
    outputs: tuple[Tensor, ...]


@dataclass
class CallTrace:
    """What the layers of a network did in a forward pass.

    Attributes:
        calls: the calls in the order in which they ended: inner layers before the outer ones.
        arguments: layer → copies of the arguments of its first call, where they were asked for.
        entered: the layers that began and did not end, the deepest last; not empty after an
            exception.
    """

    calls: list[Call] = field(default_factory=list)
    arguments: dict[str, Arguments] = field(default_factory=dict)
    entered: list[tuple[str, bool]] = field(default_factory=list)

    @property
    def deepest(self) -> str:
        """The deepest layer that did not end: where an exception came from."""
        return self.entered[-1][0] if self.entered else ""


@contextmanager
def traced(network: nn.Module, *, arguments: bool = False) -> Iterator[CallTrace]:
    """Watch every layer of ``network`` until the block ends.

    Args:
        network: the network.
        arguments: whether to keep copies of the arguments.

    >>> net = nn.Sequential(nn.PReLU(), nn.Tanh())
    >>> with traced(net) as trace:
    ...     _ = net(torch.ones(1, 2))
    >>> [call.name for call in trace.calls]
    ['0', '1', '']
    """
    trace = CallTrace()
    hooks = [
        hook
        for name, module in network.named_modules()
        for hook in _hooks(module, name, trace, arguments)
    ]
    try:
        yield trace
    finally:
        for hook in hooks:
            hook.remove()


def _hooks(module: nn.Module, name: str, trace: CallTrace, arguments: bool) -> list[Any]:
    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        trace.entered.append(
            (
                name,
                any(
                    isinstance(t, Tensor) and t.requires_grad
                    for t in pytree.tree_leaves((args, kwargs))
                ),
            )
        )
        if arguments and name not in trace.arguments:
            trace.arguments[name] = pytree.tree_map_only(
                Tensor, lambda t: t.detach().clone(), (args, kwargs)
            )

    def leave(_: nn.Module, __: object, returned: object) -> None:
        trace.calls.append(Call(*trace.entered.pop(), floating_tensors(returned)))

    return [
        module.register_forward_pre_hook(enter, with_kwargs=True),
        module.register_forward_hook(leave),
    ]


def floating_tensors(returned: object) -> tuple[Tensor, ...]:
    """Return the floating tensors in a tensor, tuple, dict or nest of them, complex ones as pairs of real numbers.

    >>> floating_tensors({"a": (torch.ones(2), 3), "b": torch.arange(2)})
    (tensor([1., 1.]),)
    """
    tensors = [t for t in pytree.tree_leaves(returned) if isinstance(t, Tensor)]
    return tuple(
        torch.view_as_real(t) if t.is_complex() else t
        for t in tensors
        if t.is_complex() or t.is_floating_point()
    )
