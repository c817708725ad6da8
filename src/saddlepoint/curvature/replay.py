"""Evaluating a closure again at another point of the same step: same randomness, and buffers that move only once."""

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

Places = list[tuple[nn.Module, str, Tensor]]
"""module, name of its buffer, and the tensor there."""


class Replay:
    """Remembers the random state before the first evaluation of a step, so that later ones draw the same numbers.

    The states are those of torch, of NumPy's and Python's global generators, and of the generators
    that are named. Without it dropout masks and noise differ between the evaluations of one step,
    differences of losses measure the noise, and BatchNorm's running statistics and spectral norm's
    vectors move once per evaluation instead of once per step.

    Args:
        modules: modules whose buffers are to move once per step.
        generators: random generators that the closure draws from, besides torch's global one.
        cuda: whether to keep the state of the current CUDA device too.
    """

    # buffers are taken before the first evaluation too: spectral norm's vectors must be the same in
    # all evaluations of a step

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
        self._buffers_before = _copied(self._buffers())

    @contextmanager
    def again(self) -> Iterator[None]:
        """Draw what the first evaluation drew, from the buffers that it met; afterwards both are as they were before this."""
        states, buffers = self._states(), self._buffers()
        # reading and setting them takes as long as a small network
        host = None if self._host_drawn is False else _HostStates.now()
        if self._host_drawn is None and host is not None:
            self._host_drawn = not host.same(self._host_before)
        self._restore(self._before)
        if self._host_drawn:
            self._host_before.put_back()
        _put(_copied(self._buffers_before))
        try:
            yield
        finally:
            self._restore(states)
            if self._host_drawn and host is not None:
                host.put_back()
            _put(buffers)

    def rewind(self) -> None:
        """Make it as if the evaluation that just failed had not begun."""
        self._restore(self._before)
        self._host_before.put_back()
        for owner, name, buffer in self._buffers_before:
            getattr(owner, name).copy_(buffer)

    def _buffers(self) -> Places:
        named = [
            (owner, owner.named_buffers(recurse=False, remove_duplicate=False))
            for owner in self._owners
        ]
        return [(owner, name, buffer) for owner, own in named for name, buffer in own]

    @property
    def frozen(self) -> list[tuple[str, Tensor]]:
        """The parameters of the modules that do not require gradients, each with its name in the module that owns it."""
        own = [named for owner in self._owners for named in owner.named_parameters(recurse=False)]
        return [(name, parameter) for name, parameter in own if not parameter.requires_grad]

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

    def _restore(self, states: _RandomStates) -> None:
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

    def put_back(self) -> None:
        np.random.set_state(self.numpy)  # noqa: NPY002
        random.setstate(self.python)

    def same(self, other: _HostStates) -> bool:
        ours, theirs = self.numpy["state"], other.numpy["state"]
        drawn = ours["pos"] != theirs["pos"] or self.numpy["has_gauss"] != other.numpy["has_gauss"]
        return (
            not drawn
            and bool(np.array_equal(ours["key"], theirs["key"]))
            and self.python == other.python
        )


def _put(places: Places) -> None:
    """Put other tensors in the buffers' places: writing into the buffers would spoil the graphs that hold them, as BatchNorm's do."""
    for owner, name, buffer in places:
        setattr(owner, name, buffer)


def _copied(places: Places) -> Places:
    """Return copies; a buffer that two modules share stays one."""
    copies: dict[int, Tensor] = {}
    return [
        (owner, name, copies.setdefault(id(buffer), buffer.clone()))
        for owner, name, buffer in places
    ]


@contextmanager
def restored(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Put the values of the tensors back afterwards."""
    kept = list(tensors)
    saved = [tensor.detach().clone() for tensor in kept]
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(kept, saved)


@contextmanager
def displaced(players: Players, d: Vector) -> Iterator[None]:
    """Hold the parameters of the players of ``d`` at θ − d, and put them back afterwards."""
    tensors = [p for player in d for p in players[player]]
    with restored(tensors):
        with torch.no_grad():
            torch._foreach_sub_(tensors, d.tensors)
        yield
