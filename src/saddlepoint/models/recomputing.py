"""Activations that are computed again when they are needed instead of being kept."""

from __future__ import annotations

import math
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint_sequential


def recompute_activations(network: nn.Module) -> None:
    """Keep, of every chain of n layers in a network, about √n activations, and compute the others again in the backward pass.

    The values stay the same, parameters and their names too. Second derivatives work: the layers
    are not re-entered as a function of their own, so that the backward pass can be differentiated.
    A layer that is evaluated twice must not change by it, as BatchNorm does.

    Args:
        network: whose ``nn.Sequential`` parts are changed, in place.

    Reference: Chen et al. (2016), Training deep nets with sublinear memory cost, arXiv:1604.06174.

    >>> network = nn.Sequential(nn.Linear(2, 2, device="meta"), nn.ReLU(), nn.Linear(2, 1, device="meta"))
    >>> recompute_activations(network)
    >>> list(network.state_dict())
    ['0.weight', '0.bias', '2.weight', '2.bias']
    """
    for chain in network.modules():
        if isinstance(chain, nn.Sequential) and len(chain) > 1:
            segments = math.ceil(math.sqrt(len(chain)))
            recomputing = partial(checkpoint_sequential, list(chain), segments, use_reentrant=False)
            chain.forward = recomputing  # type: ignore[method-assign]
