"""Evaluating a closure again at another point of the same step: same randomness, and buffers that move only once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Replay:
    """Remembers the random state before the first evaluation of a step, so that later ones draw the same numbers.

    Without it dropout masks and noise differ between the evaluations of one step, differences of losses measure the noise,
    and BatchNorm's running statistics and spectral norm's vectors move once per evaluation instead of once per step.

    Args:
        modules: modules whose buffers are to move once per step.
        generators: random generators that the closure draws from, besides torch's global one.
        cuda: whether to keep the state of the current CUDA device too.
    """

    # buffers are taken before the first evaluation too: spectral norm's vectors must be the same in all evaluations of a step

    def __init__(self, modules: Iterable[nn.Module] = (), generators: Iterable[torch.Generator] = (), *, cuda: bool = False) -> None:
        self._buffers = [buffer for module in modules for buffer in module.buffers()]
        self._generators = tuple(generators)
        self._cuda = cuda
        self._before = self._states()
        self._buffers_before = [buffer.clone() for buffer in self._buffers]

    @property
    def knows_modules(self) -> bool:
        """Whether any module was named."""
        return bool(self._buffers)

    @contextmanager
    def again(self) -> Iterator[None]:
        """Draw what the first evaluation drew, from the buffers that it met; afterwards both are as they were before this."""
        states, buffers = self._states(), [buffer.clone() for buffer in self._buffers]
        self._restore(self._before)
        self._put(self._buffers_before)
        try:
            yield
        finally:
            self._restore(states)
            self._put(buffers)

    def _put(self, values: list[Tensor]) -> None:
        with torch.no_grad():
            for buffer, value in zip(self._buffers, values, strict=True):
                buffer.copy_(value)

    def _states(self) -> list[Tensor]:
        states = [torch.get_rng_state(), *(generator.get_state() for generator in self._generators)]
        return [*states, torch.cuda.get_rng_state()] if self._cuda else states

    def _restore(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        for generator, state in zip(self._generators, states[1:], strict=False):
            generator.set_state(state)
        if self._cuda:
            torch.cuda.set_rng_state(states[-1])
