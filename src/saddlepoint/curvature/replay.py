"""Evaluating a closure again at another point of the same step: same randomness, and buffers that move only once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Places = list[tuple[nn.Module, str, Tensor]]
"""module, name of its buffer, and the tensor there."""


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
        self._owners = [inner for module in modules for inner in module.modules()]
        self._generators = tuple(generators)
        self._cuda = cuda
        self._before = self._states()
        self._buffers_before = _copied(self._buffers())

    @property
    def knows_modules(self) -> bool:
        """Whether any module was named."""
        return bool(self._buffers_before)

    @contextmanager
    def again(self) -> Iterator[None]:
        """Draw what the first evaluation drew, from the buffers that it met; afterwards both are as they were before this."""
        states, buffers = self._states(), self._buffers()
        self._restore(self._before)
        _put(_copied(self._buffers_before))
        try:
            yield
        finally:
            self._restore(states)
            _put(buffers)

    def _buffers(self) -> Places:
        named = [(owner, owner.named_buffers(recurse=False, remove_duplicate=False)) for owner in self._owners]
        return [(owner, name, buffer) for owner, own in named for name, buffer in own]

    def _states(self) -> list[Tensor]:
        states = [torch.get_rng_state(), *(generator.get_state() for generator in self._generators)]
        return [*states, torch.cuda.get_rng_state()] if self._cuda else states

    def _restore(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        for generator, state in zip(self._generators, states[1:], strict=False):
            generator.set_state(state)
        if self._cuda:
            torch.cuda.set_rng_state(states[-1])


def _put(places: Places) -> None:
    """Put other tensors in the buffers' places: writing into the buffers would spoil the graphs that hold them, as BatchNorm's do."""
    for owner, name, buffer in places:
        setattr(owner, name, buffer)


def _copied(places: Places) -> Places:
    """Return copies; a buffer that two modules share stays one."""
    copies: dict[int, Tensor] = {}
    return [(owner, name, copies.setdefault(id(buffer), buffer.clone())) for owner, name, buffer in places]
