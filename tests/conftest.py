from __future__ import annotations

import os

# before torch; tiny networks gain nothing from threads, child processes inherit it
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from saddlepoint.models import MLP

# time never decides a test, and a run must not depend on chance
settings.register_profile(
    "saddlepoint", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("saddlepoint")

MNIST = Path(
    os.environ.get("SADDLEPOINT_MNIST", Path(__file__).parents[2] / "shared" / "data" / "mnist")
)


@pytest.fixture(scope="session")
def mnist_directory() -> Path:
    if not (MNIST / "t10k-images-idx3-ubyte.gz").is_file():
        pytest.skip(
            f"the full MNIST is not in {MNIST}; set SADDLEPOINT_MNIST to the directory of its IDX"
            " files"
        )
    return MNIST


@pytest.fixture(autouse=True)
def untouched_global_generator() -> Iterator[None]:
    """No part of the library may seed or use torch's global generator."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before), "the global random state changed"


class TinyGan:
    """A two-layer GAN in float64 with smooth activations: small enough for dense Jacobians."""

    def __init__(self, seed: int = 0, activation: str = "tanh", zero_sum: bool = True) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.G = MLP((2, 3, 2), activation=activation, generator=generator).double()
        self.D = MLP((2, 3, 1), activation=activation, generator=generator).double()
        self.z = torch.randn(5, 2, generator=generator, dtype=torch.float64)
        self.real = torch.randn(5, 2, generator=generator, dtype=torch.float64)
        self.zero_sum = zero_sum
        self.players = {
            "discriminator": tuple(self.D.parameters()),
            "generator": tuple(self.G.parameters()),
        }

    def losses(self) -> dict[str, torch.Tensor]:
        softplus = torch.nn.functional.softplus
        fake = self.D(self.G(self.z))
        f = softplus(-self.D(self.real)).mean() + softplus(fake).mean()
        return {"discriminator": f, "generator": -f if self.zero_sum else softplus(-fake).mean()}

    def theta(self) -> torch.Tensor:
        return torch.cat(
            [p.detach().reshape(-1) for tensors in self.players.values() for p in tensors]
        )

    def move(self, step: torch.Tensor) -> None:
        """Add ``step``, shape (dimension,), to all parameters."""
        with torch.no_grad():
            for p in (p for tensors in self.players.values() for p in tensors):
                p += step[: p.numel()].view_as(p)
                step = step[p.numel() :]

    def dense(self) -> tuple[torch.Tensor, torch.Tensor]:
        """ξ and J entry by entry, by plain autograd: the reference that shares no code with the
        library."""
        losses = self.losses()
        flat = [p for tensors in self.players.values() for p in tensors]
        xi = torch.cat(
            [
                g.reshape(-1)
                for player, tensors in self.players.items()
                for g in torch.autograd.grad(losses[player], tensors, create_graph=True)
            ]
        )
        rows = [
            torch.cat(
                [
                    (torch.zeros_like(p) if g is None else g).reshape(-1)
                    for p, g in zip(flat, found, strict=True)
                ]
            )
            for found in (
                torch.autograd.grad(entry, flat, retain_graph=True, allow_unused=True)
                for entry in xi
            )
        ]
        return xi.detach(), torch.stack(rows)

    def rows(self) -> dict[str, torch.Tensor]:
        """Each loss's gradient with respect to all parameters, shape (dimension,)."""
        flat = [p for tensors in self.players.values() for p in tensors]
        found = {}
        for player, loss in self.losses().items():
            gradients = torch.autograd.grad(loss, flat, allow_unused=True, retain_graph=True)
            found[player] = torch.cat(
                [
                    (torch.zeros_like(p) if g is None else g).reshape(-1)
                    for p, g in zip(flat, gradients, strict=True)
                ]
            )
        return found

    def xi(self) -> torch.Tensor:
        """The joint gradient, shape (dimension,)."""
        rows = self.rows()
        return torch.cat([rows[player][where] for player, where in self.sizes().items()])

    def xi_at(self, step: torch.Tensor) -> torch.Tensor:
        """The joint gradient at θ + step."""
        self.move(step)
        found = self.xi()
        self.move(-step)
        return found

    def sizes(self) -> dict[str, slice]:
        n = sum(p.numel() for p in self.D.parameters())
        return {"discriminator": slice(0, n), "generator": slice(n, None)}


@pytest.fixture
def tiny_gan() -> type[TinyGan]:
    return TinyGan
