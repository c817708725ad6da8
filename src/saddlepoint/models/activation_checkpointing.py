"""Activation checkpointing: activations are recomputed in the backward pass instead of stored."""

from __future__ import annotations

import math
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint_sequential


def recompute_activations(network: nn.Module) -> None:
    """Store about √n activations of every ``nn.Sequential`` of n layers and recompute the others.

    Values, parameters and their names do not change. Non-reentrant checkpointing is used, so that
    the backward pass can be differentiated. A layer must not change when it is evaluated twice, as
    BatchNorm does.

    Args:
        network: the network, whose ``nn.Sequential`` modules are changed in place.

    Reference: Chen et al. (2016), Training deep nets with sublinear memory cost, arXiv:1604.06174.

    >>> linear = partial(nn.Linear, device="meta")
    >>> network = nn.Sequential(linear(2, 2), nn.ReLU(), linear(2, 1))
    >>> recompute_activations(network)
    >>> list(network.state_dict())
    ['0.weight', '0.bias', '2.weight', '2.bias']
    """
    for chain in network.modules():
        if isinstance(chain, nn.Sequential) and len(chain) > 1:
            segments = math.ceil(math.sqrt(len(chain)))
            forward = partial(checkpoint_sequential, list(chain), segments, use_reentrant=False)
            chain.forward = forward  # type: ignore[method-assign]
