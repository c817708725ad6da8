"""Multilayer perceptrons."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from saddlepoint.errors import UsageError, did_you_mean

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}
"""name → activation.

LeakyReLU (slope 0.2) and ReLU are piecewise linear, so that the own Hessian blocks contain the
curvature of the loss only; SiLU, softplus and tanh are smooth.
"""


class MLP(nn.Module):
    """Linear layers with an activation between them, and optionally one on the output.

    Weights and biases are initialised as in PyTorch, uniform in ±1/√(inputs), from ``generator``.

    Args:
        sizes: the widths, inputs first; (64, 128, 128, 784) has three linear layers.
        activation: a key of ``ACTIVATIONS``.
        output: an activation for the last layer, such as ``nn.Tanh()``, or None.
        shape: the shape of one output; flat by default.
        generator: the source of the initial weights.

    Raises:
        UsageError: an unknown activation.

    >>> generator = torch.Generator().manual_seed(0)
    >>> G = MLP((64, 128, 784), output=nn.Tanh(), shape=(1, 28, 28), generator=generator)
    >>> G(torch.zeros(5, 64)).shape
    torch.Size([5, 1, 28, 28])
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        activation: str = "leaky_relu",
        output: nn.Module | None = None,
        shape: Sequence[int] | None = None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise UsageError(
                f'activation="{activation}" is unknown.' + did_you_mean(activation, ACTIVATIONS)
            )
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in pairwise(sizes):
            layers += [_linear(inputs, outputs, generator), ACTIVATIONS[activation]()]
        layers[-1] = output if output is not None else nn.Identity()
        if shape is not None:
            layers.append(nn.Unflatten(1, tuple(shape)))
        self.layers = nn.Sequential(*layers)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (N, …) to (N, outputs) or (N, *shape)."""
        return torch.as_tensor(self.layers(inputs))


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    # on meta, so that PyTorch does not draw from the global generator
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
    bound = 1 / math.sqrt(inputs)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return layer
