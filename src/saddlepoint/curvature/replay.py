"""Repeated evaluation of a closure in one step, with the same random numbers and buffers."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from saddlepoint.game import Players
from saddlepoint.vectors import Vector

Buffers = list[tuple[nn.Module, str, Tensor]]
"""module, name of its buffer, and the tensor there."""


class Replay:
    """Saves random states and buffers before the first evaluation of a step, for later ones.

    The states are those of torch, of NumPy's and Python's global generators, and of the given
    generators. Without it, dropout masks and noise would differ between the evaluations of one
    step, differences of losses would measure the noise, and the running statistics of BatchNorm and
    the vectors of spectral norm would change once per evaluation instead of once per step.

    Args:
        modules: modules whose buffers are to change once per step.
        generators: random generators that the closure draws from, besides torch's global one.
        cuda: whether to save the state of the current CUDA device too.
    """

    def __init__(
        self,
        modules: Iterable[nn.Module] = (),
        generators: Iterable[torch.Generator] = (),
        *,
        cuda: bool = False,
    ) -> None:
        self._owners = [inner for module in modules for inner in module.modules()]
        self._generators = tuple(generators)
        self._cuda = cuda
        self._before = self._states()
        self._host_before = _HostStates.now()
        # whether an evaluation drew from NumPy's or Python's generator; unknown before the second
        self._host_drawn: bool | None = None
        # spectral norm's vectors too must be the same in all evaluations of a step
        self._buffers_before = _copied(self._buffers())

    @contextmanager
    def again(self) -> Iterator[None]:
        """Repeat the random numbers and buffers of the first evaluation within the block.

        Afterwards random states and buffers are as they were before the block.
        """
        states, buffers = self._states(), self._buffers()
        # read and set only where they matter, because this takes as long as a small network
        host = None if self._host_drawn is False else _HostStates.now()
        if self._host_drawn is None and host is not None:
            self._host_drawn = not host.same(self._host_before)
        self._set_states(self._before)
        if self._host_drawn:
            self._host_before.restore()
        _set_buffers(_copied(self._buffers_before))
        try:
            yield
        finally:
            self._set_states(states)
            if self._host_drawn and host is not None:
                host.restore()
            _set_buffers(buffers)

    def rewind(self) -> None:
        """Restore random states and buffers to those before the first evaluation, which failed."""
        self._set_states(self._before)
        self._host_before.restore()
        for owner, name, buffer in self._buffers_before:
            getattr(owner, name).copy_(buffer)

    def _buffers(self) -> Buffers:
        found = []
        for owner in self._owners:
            for name, buffer in owner.named_buffers(recurse=False, remove_duplicate=False):
                found.append((owner, name, buffer))
        return found

    @property
    def frozen(self) -> list[tuple[str, Tensor]]:
        """(name, parameter) of each parameter that does not require gradients."""
        found: list[tuple[str, Tensor]] = []
        for owner in self._owners:
            for name, parameter in owner.named_parameters(recurse=False):
                if not parameter.requires_grad:
                    found.append((name, parameter))
        return found

    @property
    def knows_batch_norm(self) -> bool:
        """Whether a batch normalisation layer is among the modules."""
        return any(isinstance(owner, nn.modules.batchnorm._BatchNorm) for owner in self._owners)

    def _states(self) -> _RandomStates:
        return _RandomStates(
            torch.get_rng_state(),
            [generator.get_state() for generator in self._generators],
            torch.cuda.get_rng_state() if self._cuda else None,
        )

    def _set_states(self, states: _RandomStates) -> None:
        torch.set_rng_state(states.torch)
        for generator, state in zip(self._generators, states.generators, strict=True):
            generator.set_state(state)
        if states.cuda is not None:
            torch.cuda.set_rng_state(states.cuda)


class _RandomStates(NamedTuple):
    torch: Tensor
    generators: list[Tensor]
    cuda: Tensor | None


class _HostStates(NamedTuple):
    """The states of NumPy's and Python's global generators, which users' closures draw from."""

    numpy: Any
    python: Any

    @staticmethod
    def now() -> _HostStates:
        return _HostStates(np.random.get_state(legacy=False), random.getstate())  # noqa: NPY002

    def restore(self) -> None:
        np.random.set_state(self.numpy)  # noqa: NPY002
        random.setstate(self.python)

    def same(self, other: _HostStates) -> bool:
        ours, theirs = self.numpy["state"], other.numpy["state"]
        if ours["pos"] != theirs["pos"] or self.numpy["has_gauss"] != other.numpy["has_gauss"]:
            return False
        return np.array_equal(ours["key"], theirs["key"]) and self.python == other.python


def _set_buffers(buffers: Buffers) -> None:
    """Replace the modules' buffers.

    Writing into them would invalidate the graphs that hold them, such as those of BatchNorm.
    """
    for owner, name, buffer in buffers:
        setattr(owner, name, buffer)


def _copied(buffers: Buffers) -> Buffers:
    """Return copies; a buffer that two modules share is copied once."""
    copies: dict[int, Tensor] = {}
    copied = []
    for owner, name, buffer in buffers:
        if id(buffer) not in copies:
            copies[id(buffer)] = buffer.clone()
        copied.append((owner, name, copies[id(buffer)]))
    return copied


@contextmanager
def restored(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Restore the values of the tensors when the block ends."""
    kept = list(tensors)
    saved = [tensor.detach().clone() for tensor in kept]
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(kept, saved)


@contextmanager
def displaced(players: Players, d: Vector) -> Iterator[None]:
    """Hold the parameters of the players of ``d`` at θ − d; restore them when the block ends."""
    tensors: list[Tensor] = []
    for player in d:
        tensors += players[player]
    with restored(tensors):
        with torch.no_grad():
            torch._foreach_sub_(tensors, d.tensors)
        yield
