"""Random numbers that networks draw on their own, such as dropout's, kept apart from the rest of the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from saddlepoint.data import generator_for


class OwnRandomness:
    """A run's own state of torch's global generators: decided by the seed, saved with the run, invisible outside of it."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._cpu_state = generator_for(seed, "global").get_state()
        self._cuda_state: Tensor | None = None
        if self._cuda:
            self._cuda_state = torch.Generator(device).manual_seed(seed).get_state()

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Draw from the run's state inside, and find the process's state as it was afterwards."""
        outside = torch.get_rng_state(), torch.cuda.get_rng_state() if self._cuda else None
        self._install(self._cpu_state, self._cuda_state)
        try:
            yield
        finally:
            self._cpu_state = torch.get_rng_state()
            self._cuda_state = torch.cuda.get_rng_state() if self._cuda else None
            self._install(*outside)

    def state_dict(self) -> dict[str, Tensor | None]:
        """Return the states."""
        return {"cpu": self._cpu_state, "cuda": self._cuda_state}

    def load_state_dict(self, state: dict[str, Tensor | None]) -> None:
        """Continue from what ``state_dict`` returned; a state of CUDA is used only where the run is on CUDA."""
        cpu, cuda = state["cpu"], state["cuda"]
        assert cpu is not None
        self._cpu_state = cpu
        if self._cuda and cuda is not None:
            self._cuda_state = cuda

    def _install(self, cpu: Tensor, cuda: Tensor | None) -> None:
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda)
