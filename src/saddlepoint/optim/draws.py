"""The random numbers of optimizers: functions of (seed, tensor, step), so that there is no generator's state to save."""

from __future__ import annotations

import torch
from torch import Tensor

from saddlepoint.data.stream import generator_for
from saddlepoint.precision import widest


def uniforms(like: Tensor, seed: int, label: str, step: int) -> Tensor:
    """Return uniform numbers in [0, 1) of the shape of ``like``, on its device, for the tensor called ``label`` in step ``step``.

    They are in single precision at least: a number in half precision is 0 once in 256 times. They
    do not depend on strides.
    """
    source = generator_for(seed, f"optimizer.{label}", step)
    generator = (
        source
        if like.device.type == "cpu"
        else torch.Generator(like.device).manual_seed(source.initial_seed())
    )
    return torch.rand(like.shape, generator=generator, dtype=widest(like.dtype), device=like.device)
