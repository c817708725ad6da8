"""Random numbers of optimizers: functions of (seed, parameter, step), without generator state."""

from __future__ import annotations

import torch
from torch import Tensor

from saddlepoint.data.stream import generator_for
from saddlepoint.precision import widest


def uniform_like(like: Tensor, seed: int, label: str, step: int) -> Tensor:
    """Return uniform numbers in [0, 1) of the shape and on the device of ``like``.

    They are a function of (seed, label, step) and do not depend on strides. They have single
    precision at least: a uniform number in half precision is 0 once in 256 times.
    """
    generator = generator_for(seed, f"optimizer.{label}", step)
    if like.device.type != "cpu":
        generator = torch.Generator(like.device).manual_seed(generator.initial_seed())
    return torch.rand(like.shape, generator=generator, dtype=widest(like.dtype), device=like.device)
