"""In which type numbers are kept that many others are added to: single precision at least.

Numbers in half precision have 8 or 11 bits. What is added to a running mean is lost below 1/256 of
it, a sum over many entries stalls, and squares of small gradients are zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

import torch
from torch import Tensor

_HALF = (torch.float16, torch.bfloat16)


def widest(*types: torch.dtype) -> torch.dtype:
    """Return the type that holds numbers of all these types, single precision at least.

    >>> widest(torch.bfloat16), widest(torch.float32, torch.float64)
    (torch.float32, torch.float64)
    """
    return reduce(torch.promote_types, types, torch.float32)


def widen(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Return each tensor in single precision at least; those that are stay as they are.

    >>> [t.dtype for t in widen([torch.ones(1, dtype=torch.float16), torch.ones(1, dtype=torch.float64)])]
    [torch.float32, torch.float64]
    """
    return [t.to(torch.float32) if t.dtype in _HALF else t for t in tensors]
