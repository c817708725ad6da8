"""The order of data and the source of noise: pure functions of a seed and a step, so that resuming needs no position."""

from __future__ import annotations

from zlib import crc32

import numpy as np
import torch
from torch import Tensor


def generator_for(seed: int, stream: str, step: int = 0) -> torch.Generator:
    """Return a CPU generator that depends on nothing but (seed, stream, step); different streams are independent.

    >>> a, b = (torch.rand(1, generator=generator_for(0, "noise", 7)) for _ in range(2))
    >>> bool(a == b), bool(a == torch.rand(1, generator=generator_for(0, "noise", 8)))
    (True, False)
    """
    entropy = np.random.SeedSequence([seed, crc32(stream.encode()), step])
    return torch.Generator().manual_seed(
        int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1))
    )


class BatchOrder:
    """Which samples form the batch of a step: shuffled epochs laid end to end and cut into batches.

    Every sample appears once per epoch, and no sample is dropped: a batch may end one epoch and
    begin the next.

    Args:
        size: the number of samples.
        batch_size: the number of samples of a batch.
        seed: the shuffling is a function of the seed and the epoch.

    >>> order = BatchOrder(size=3, batch_size=2, seed=0)
    >>> sorted(torch.cat([order.indices(step) for step in range(3)]).tolist())
    [0, 0, 1, 1, 2, 2]
    """

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self._permutations: dict[int, Tensor] = {}

    def indices(self, step: int) -> Tensor:
        """Return the indices of the batch of ``step`` (from 0), shape (batch_size,)."""
        first, parts, missing = step * self.batch_size, [], self.batch_size
        while missing:
            epoch, position = divmod(first + self.batch_size - missing, self.size)
            parts.append(self._permutation(epoch)[position : position + missing])
            missing -= len(parts[-1])
        return torch.cat(parts)

    def _permutation(self, epoch: int) -> Tensor:
        if epoch not in self._permutations:
            self._permutations = {
                known: kept for known, kept in self._permutations.items() if known == epoch - 1
            }
            self._permutations[epoch] = torch.randperm(
                self.size, generator=generator_for(self.seed, "order", epoch)
            )
        return self._permutations[epoch]
