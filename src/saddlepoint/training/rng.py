"""The random numbers that networks draw themselves, such as dropout masks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from saddlepoint.data import generator_for


class RngState:
    """A run's own state of torch's global generators.

    The seed decides it, a checkpoint saves it, and code outside the run does not see it.

    Args:
        seed: seed of the run.
        device: device of the networks; on CUDA the state of its generator is kept too.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._cpu = generator_for(seed, "global").get_state()
        self._cuda: Tensor | None = None
        if device.type == "cuda":
            self._cuda = torch.Generator(device).manual_seed(seed).get_state()

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Use the run's state inside, and restore the process's state afterwards."""
        cpu_before = torch.get_rng_state()
        cuda_before = None if self._cuda is None else torch.cuda.get_rng_state()
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda)
        try:
            yield
        finally:
            self._cpu = torch.get_rng_state()
            torch.set_rng_state(cpu_before)
            if cuda_before is not None:
                self._cuda = torch.cuda.get_rng_state()
                torch.cuda.set_rng_state(cuda_before)

    def state_dict(self) -> dict[str, Tensor | None]:
        """Return the states."""
        return {"cpu": self._cpu, "cuda": self._cuda}

    def load_state_dict(self, state: dict[str, Tensor | None]) -> None:
        """Restore what ``state_dict`` returned; a CUDA state is used only if the run is on CUDA."""
        cpu, cuda = state["cpu"], state["cuda"]
        assert cpu is not None
        self._cpu = cpu
        if self._cuda is not None and cuda is not None:
            self._cuda = cuda
