"""The random numbers of optimizers: functions of (seed, tensor, step), so that there is no generator's state to save."""

from __future__ import annotations

import torch
from torch import Tensor

from saddlepoint.data.stream import generator_for


def uniforms(like: Tensor, seed: int, index: int, step: int) -> Tensor:
    """Return uniform numbers in [0, 1) of the shape of ``like``, on its device, for the tensor number ``index`` in step ``step``."""
    source = generator_for(seed, f"optimizer.{index}", step)
    generator = source if like.device.type == "cpu" else torch.Generator(like.device).manual_seed(source.initial_seed())
    return torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device)
