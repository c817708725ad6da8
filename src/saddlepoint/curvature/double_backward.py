"""Operations whose second derivative PyTorch refuses or gets wrong, recognised in the graph of a loss."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor
from torch.autograd.graph import Node

from saddlepoint.errors import DoubleBackwardError

# beginning of a graph node's name → (what it is, what to do)
_TRAPS = {
    "WeightNormInterface": (
        (
            "torch.nn.utils.parametrizations.weight_norm, whose second derivative is silently wrong"
            " (value and gradient are right)"
        ),
        (
            "write the weight as g * v / v.norm() in a parametrization of your own, or remove the"
            " parametrization"
        ),
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

_ONCE = (
    (
        "a torch.autograd.Function whose backward is marked once_differentiable, so that its second"
        " derivative is refused or silently zero"
    ),
    "write its backward with differentiable operations and without once_differentiable",
)


def check_second_derivatives(losses: Iterable[Tensor]) -> None:
    """Raise DoubleBackwardError, naming operation and remedy, where a loss contains an operation without a right second derivative."""
    trap = find_trap(losses)
    if trap is not None:
        what, remedy = trap
        raise DoubleBackwardError(
            f"A network contains {what}. Curvature rules and Jacobian products need it. Remedy:"
            f" {remedy}, or choose a first-order rule."
        )


def find_trap(losses: Iterable[Tensor]) -> tuple[str, str] | None:
    """Return (what it is, what to do) for the first operation without a right second derivative in the losses' graphs, or None."""
    for node in _nodes(losses):
        if _once_differentiable(node):
            return _ONCE
        name = _name(node)
        for beginning, trap in _TRAPS.items():
            if name.startswith(beginning):
                return trap
    return None


def node_names(losses: Iterable[Tensor]) -> Iterator[str]:
    """Yield the name of every node of the losses' graphs, each once, without the "Backward" at its end."""
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
    """Return the nodes that belong to ``torch.autograd.Function`` classes, each once."""
    return [node for node in _nodes(losses) if hasattr(node, "_forward_cls")]


def _name(node: Node) -> str:
    return node.name().rstrip("0123456789").removesuffix("Backward")


def _once_differentiable(node: Node) -> bool:
    """Say whether a Function's backward has PyTorch's wrapper, which keeps the Function's name and is known by where it was written."""
    backward = getattr(getattr(node, "_forward_cls", None), "backward", None)
    while backward is not None:
        if getattr(backward, "__globals__", {}).get("__name__") == "torch.autograd.function":
            return True
        backward = getattr(backward, "__wrapped__", None)
    return False


def _nodes(losses: Iterable[Tensor]) -> Iterator[Node]:
    waiting = [loss.grad_fn for loss in losses]
    seen = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        waiting += [earlier for earlier, _ in node.next_functions]
