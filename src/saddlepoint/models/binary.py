"""Parts of generators with few parameters and binary outputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate


class BinaryOutput(nn.Module):
    """A network that returns logits, followed by a function that makes them binary.

    The noise of a sampled output is part of the input, in the columns after the network's own, so
    that the module is a deterministic function of its input.

    Args:
        logits: the network, from (N, inputs) to (N, *shape).
        inputs: number of input columns of the network.
        output: function of the logits, and of the other input columns in the shape of the logits if
            there are any.

    >>> sampled = lambda logits, uniform: (uniform < logits.sigmoid()) * 2.0 - 1
    >>> network = BinaryOutput(nn.Identity(), 2, sampled)
    >>> network(torch.tensor([[0.0, 0.0, 0.1, 0.9]])).tolist()
    [[1.0, -1.0]]
    """

    def __init__(self, logits: nn.Module, inputs: int, output: Callable[..., Tensor]) -> None:
        super().__init__()
        self.logits, self._inputs, self._output = logits, inputs, output

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (N, inputs), or (N, inputs + outputs) if the output is sampled, to (N, *shape)."""
        logits = torch.as_tensor(self.logits(inputs[:, : self._inputs]))
        noise = inputs[:, self._inputs :]
        if not noise.shape[1]:
            return self._output(logits)
        return self._output(logits, noise.reshape(logits.shape))


class BicubicUpsample(nn.Module):
    """Bicubic upsampling of square images as W x Wᵀ, faster than ``nn.Upsample(mode="bicubic")``.

    Args:
        coarse: rows and columns of the input.
        fine: rows and columns of the output.

    >>> BicubicUpsample(7, 28)(torch.ones(5, 1, 7, 7)).shape
    torch.Size([5, 1, 28, 28])
    """

    weights: Tensor

    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__()
        columns = torch.eye(coarse)[None, None]
        weights = interpolate(columns, size=(fine, coarse), mode="bicubic")[0, 0]
        self.register_buffer("weights", weights)

    def forward(self, images: Tensor) -> Tensor:
        """Map (…, coarse, coarse) to (…, fine, fine)."""
        return self.weights @ images @ self.weights.T
