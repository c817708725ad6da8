"""Generators with few parameters and binary outputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate


class Binary(nn.Module):
    """A network whose outputs are logits, and what makes binary outputs of them.

    Noise that an output needs beyond the network's own input comes with the input, in the columns
    after the network's: the module is a function of its input, evaluated again it returns the same.

    Args:
        logits: the network, from (N, inputs) to (N, *shape).
        inputs: how many columns of the input are the network's.
        output: from the logits and the other columns, in the shape of the logits, to the output;
            without further columns from the logits.

    >>> network = Binary(nn.Identity(), 2, lambda logits, uniform: (uniform < logits.sigmoid()) * 2.0 - 1)
    >>> network(torch.tensor([[0.0, 0.0, 0.1, 0.9]])).tolist()
    [[1.0, -1.0]]
    """

    def __init__(self, logits: nn.Module, inputs: int, output: Callable[..., Tensor]) -> None:
        super().__init__()
        self.logits, self._inputs, self._output = logits, inputs, output

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (N, inputs), or (N, inputs + outputs) where the output is sampled, to (N, *shape)."""
        logits, noise = (
            torch.as_tensor(self.logits(inputs[:, : self._inputs])),
            inputs[:, self._inputs :],
        )
        return (
            self._output(logits, noise.reshape(logits.shape))
            if noise.shape[1]
            else self._output(logits)
        )


class Interpolated(nn.Module):
    """Cubic interpolation from one square grid to a finer one, W x Wᵀ: what ``nn.Upsample(mode="bicubic")`` does, several times quicker.

    Args:
        coarse: rows and columns of the input.
        fine: rows and columns of the output.

    >>> Interpolated(7, 28)(torch.ones(5, 1, 7, 7)).shape
    torch.Size([5, 1, 28, 28])
    """

    weights: Tensor

    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__()
        self.register_buffer(
            "weights",
            interpolate(torch.eye(coarse)[None, None], size=(fine, coarse), mode="bicubic")[0, 0],
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map (…, coarse, coarse) to (…, fine, fine)."""
        return self.weights @ images @ self.weights.T
