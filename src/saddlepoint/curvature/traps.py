"""Operations whose second derivative PyTorch refuses or gets wrong, recognised in the graph of a loss."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor

from saddlepoint.errors import DoubleBackwardError

# beginning of a graph node's name → (what it is, what to do)
_TRAPS = {
    "WeightNormInterface": (
        "torch.nn.utils.parametrizations.weight_norm, whose second derivative is silently wrong (value and gradient are right)",
        "write the weight as g * v / v.norm() in a parametrization of your own, or remove the parametrization",
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


def check_second_derivatives(losses: Iterable[Tensor]) -> None:
    """Raise DoubleBackwardError, naming operation and remedy, where a loss contains an operation without a right second derivative."""
    trap = find_trap(losses)
    if trap is not None:
        what, remedy = trap
        raise DoubleBackwardError(
            f"A network contains {what}. Curvature rules and Jacobian products need it. Remedy: {remedy}, or choose a first-order rule."
        )


def find_trap(losses: Iterable[Tensor]) -> tuple[str, str] | None:
    """Return (what it is, what to do) for the first operation without a right second derivative in the losses' graphs, or None."""
    for name in node_names(losses):
        for beginning, trap in _TRAPS.items():
            if name.startswith(beginning):
                return trap
    return None


def node_names(losses: Iterable[Tensor]) -> Iterator[str]:
    """Yield the name of every node of the losses' graphs, each once, without the "Backward" at its end."""
    waiting = [loss.grad_fn for loss in losses]
    seen = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node.name().rstrip("0123456789").removesuffix("Backward")
        waiting += [earlier for earlier, _ in node.next_functions]
