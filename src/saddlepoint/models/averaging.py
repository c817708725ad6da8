"""The moving average of a network's weights over training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

_Tensors = tuple[Tensor, ...] | list[Tensor]


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """Return an exponential moving average of a network, θ̄ ← θ̄ + (1 − d_t)(θ − θ̄).

    After t updates d_t = min(decay, (1 + t) / (10 + t)): at first the average covers about a ninth
    of the updates, later about 1 / (1 − decay) of them, so that it is useful in short runs too.
    Call ``update_parameters(network)`` after each step; ``module`` is the averaged network.
    Parameters are averaged, buffers copied: BatchNorm's statistics are averages already.

    Args:
        network: the network to average.
        decay: in [0, 1); 0 copies the network.

    >>> network = nn.Linear(1, 1, bias=False, device="meta").to_empty(device="cpu")
    >>> _ = nn.init.zeros_(network.weight)
    >>> average = moving_average(network, 0.999)
    >>> average.update_parameters(network)
    >>> _ = nn.init.ones_(network.weight)
    >>> average.update_parameters(network)
    >>> round(average.module.weight.item(), 4)  # t = 1: 1 − 2/11
    0.8182
    """

    def update(averages: _Tensors, currents: _Tensors, t: Tensor | int) -> None:
        d = min(decay, (1 + float(t)) / (10 + float(t)))
        with torch.no_grad():
            torch._foreach_lerp_(averages, currents, 1 - d)

    return AveragedModel(network, multi_avg_fn=update)
