"""Dtypes of accumulators, such as running means and sums: single precision at least.

Half precision has 8 or 11 bits. An increment below 1/256 of a running mean is lost, a sum over many
entries stops growing, and squares of small gradients underflow to zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

import torch
from torch import Tensor

_HALF = (torch.float16, torch.bfloat16)


def widest(*dtypes: torch.dtype) -> torch.dtype:
    """Return the dtype to which all given dtypes promote, single precision at least.

    >>> widest(torch.bfloat16), widest(torch.float32, torch.float64)
    (torch.float32, torch.float64)
    """
    return reduce(torch.promote_types, dtypes, torch.float32)


def widen(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Convert tensors in half precision to single precision; return others unchanged.

    >>> half, double = torch.ones(1).half(), torch.ones(1).double()
    >>> [t.dtype for t in widen([half, double])]
    [torch.float32, torch.float64]
    """
    return [t.to(torch.float32) if t.dtype in _HALF else t for t in tensors]
