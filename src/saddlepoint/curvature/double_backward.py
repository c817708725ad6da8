"""Operations without a correct second derivative in PyTorch, found in the graph of a loss."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor
from torch.autograd.graph import Node

from saddlepoint.errors import DoubleBackwardError

# beginning of a graph node's name → (what it is, what to do)
_UNSUPPORTED = {
    "WeightNormInterface": (
        "torch.nn.utils.parametrizations.weight_norm, whose second derivative is silently wrong"
        " (value and gradient are right)",
        "write the weight as g * v / v.norm() in a parametrization of your own, or remove the"
        " parametrization",
    ),
    "ScaledDotProduct": (
        "fused attention, which has no second derivative",
        "run it under torch.nn.attention.sdpa_kernel(SDPBackend.MATH)",
    ),
    "Cdist": (
        "torch.cdist, which has no second derivative",
        "write the distances out: (x[:, None] - y).square().sum(-1).add(1e-12).sqrt()",
    ),
    "CompiledFunction": (
        "a module compiled with torch.compile, which has no second derivative",
        "use the module before torch.compile",
    ),
}

_ONCE_DIFFERENTIABLE = (
    "a torch.autograd.Function whose backward is marked once_differentiable, so that its second"
    " derivative raises an error or is silently zero",
    "write its backward with differentiable operations and without once_differentiable",
)


def check_second_derivatives(losses: Iterable[Tensor]) -> None:
    """Raise DoubleBackwardError where a loss contains one of these operations."""
    found = find_unsupported(losses)
    if found is not None:
        what, remedy = found
        raise DoubleBackwardError(
            f"A network contains {what}. Curvature rules and Jacobian products need it. Remedy:"
            f" {remedy}, or choose a first-order rule."
        )


def find_unsupported(losses: Iterable[Tensor]) -> tuple[str, str] | None:
    """Return (description, remedy) of the first of these operations in the losses' graphs."""
    for node in _nodes(losses):
        backward = getattr(getattr(node, "_forward_cls", None), "backward", None)
        while backward is not None:
            # PyTorch's wrapper has the name of the wrapped function, but its own module's globals
            if getattr(backward, "__globals__", {}).get("__name__") == "torch.autograd.function":
                return _ONCE_DIFFERENTIABLE
            backward = getattr(backward, "__wrapped__", None)
        name = _name(node)
        for beginning, entry in _UNSUPPORTED.items():
            if name.startswith(beginning):
                return entry
    return None


def node_names(losses: Iterable[Tensor]) -> Iterator[str]:
    """Yield the name of every node of the losses' graphs, without "Backward" at its end."""
    return map(_name, _nodes(losses))


def reached_leaves(loss: Tensor) -> set[int]:
    """Return the identities of the leaf tensors in the graph of a loss."""
    leaves = {id(loss)} if loss.is_leaf and loss.requires_grad else set()
    for node in _nodes([loss]):
        variable = getattr(node, "variable", None)
        if variable is not None:
            leaves.add(id(variable))
    return leaves


def custom_functions(losses: Iterable[Tensor]) -> list[Node]:
    """Return the nodes that belong to ``torch.autograd.Function`` classes."""
    return [node for node in _nodes(losses) if hasattr(node, "_forward_cls")]


def _name(node: Node) -> str:
    return node.name().rstrip("0123456789").removesuffix("Backward")


def _nodes(losses: Iterable[Tensor]) -> Iterator[Node]:
    """Yield every node of the losses' graphs once."""
    waiting = [loss.grad_fn for loss in losses]
    seen = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        waiting += [earlier for earlier, _ in node.next_functions]
