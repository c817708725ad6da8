"""Random generators and the order of batches, as pure functions of a seed and a step.

Resuming therefore needs no stored position.
"""

from __future__ import annotations

from zlib import crc32

import numpy as np
import torch
from torch import Tensor


def generator_for(seed: int, stream: str, step: int = 0) -> torch.Generator:
    """Return a CPU generator seeded by (seed, stream, step); different streams are independent.

    >>> a, b = (torch.rand(1, generator=generator_for(0, "noise", 7)) for _ in range(2))
    >>> bool(a == b), bool(a == torch.rand(1, generator=generator_for(0, "noise", 8)))
    (True, False)
    """
    entropy = np.random.SeedSequence([seed, crc32(stream.encode()), step])
    return torch.Generator().manual_seed(
        int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1))
    )


class BatchOrder:
    """The samples of each batch: shuffled epochs are concatenated and cut into batches.

    Every sample appears once per epoch and none is dropped: a batch may contain the end of one
    epoch and the start of the next.

    Args:
        size: the number of samples.
        batch_size: the number of samples of a batch.
        seed: seed of the shuffling.

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
            # a batch needs at most the last two epochs at a time
            for known in [known for known in self._permutations if known != epoch - 1]:
                del self._permutations[known]
            generator = generator_for(self.seed, "order", epoch)
            self._permutations[epoch] = torch.randperm(self.size, generator=generator)
        return self._permutations[epoch]
