"""The networks that are timed: one batch, drawn once, so that a step is derivatives and updates and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from saddlepoint.models import MLP

Losses = dict[str, Tensor]
D, G = "discriminator", "generator"


@dataclass
class Pair:
    """Two networks with a batch, and their losses.

    Args:
        networks: discriminator and generator.
        real: a batch of samples.
        noise: the generator's.
        saturating: the minimax loss, zero-sum; otherwise the non-saturating one.
    """

    networks: dict[str, nn.Module]
    real: Tensor
    noise: Tensor
    saturating: bool = True
    calls: int = field(default=0, init=False)

    def losses(self) -> Losses:
        fake = self.networks[D](self.networks[G](self.noise))
        played = softplus(fake).mean()
        return {D: softplus(-self.networks[D](self.real)).mean() + played, G: -played if self.saturating else softplus(-fake).mean()}

    def only(self, player: str) -> Callable[[], Losses]:
        """Return the closure of one player's turn, without the work that the other's loss would need."""

        def discriminator() -> Losses:
            with torch.no_grad():
                generated = self.networks[G](self.noise)
            return {D: softplus(-self.networks[D](self.real)).mean() + softplus(self.networks[D](generated)).mean()}

        def generator() -> Losses:
            fake = self.networks[D](self.networks[G](self.noise))
            return {G: -softplus(fake).mean() if self.saturating else softplus(-fake).mean()}

        return discriminator if player == D else generator

    def parameters(self, player: str) -> list[nn.Parameter]:
        return list(self.networks[player].parameters())

    def flat(self) -> Tensor:
        return torch.cat([p.detach().reshape(-1) for network in self.networks.values() for p in network.parameters()])


def mlp(
    device: torch.device,
    *,
    batch: int = 128,
    width: int = 128,
    dtype: torch.dtype = torch.float32,
    saturating: bool = True,
    activation: str = "leaky-relu",
) -> Pair:
    """64 → 128 → 128 → 784 and 784 → 128 → 128 → 1 with LeakyReLU, batches of 128."""
    source = torch.Generator().manual_seed(0)
    networks: dict[str, nn.Module] = {
        D: MLP((784, width, width, 1), activation=activation, generator=source),
        G: MLP((64, width, width, 784), activation=activation, generator=source),
    }
    return _pair(networks, (784,), batch, device, dtype, saturating)


def dcgan28(
    device: torch.device,
    *,
    batch: int = 64,
    width: int = 64,
    dtype: torch.dtype = torch.float32,
    saturating: bool = True,
    activation: str = "leaky-relu",
) -> Pair:
    """z → 7 × 7 × 64 → 14 × 14 × 32 → 28 × 28 and back, 4 × 4 kernels of stride 2, LeakyReLU, no normalisation, batches of 64."""
    smooth = nn.Tanh if activation == "tanh" else lambda: nn.LeakyReLU(0.2)
    half = max(width // 2, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        networks: dict[str, nn.Module] = {
            D: nn.Sequential(
                *(nn.Conv2d(1, half, 4, 2, 1), smooth(), nn.Conv2d(half, width, 4, 2, 1), smooth(), nn.Flatten(), nn.Linear(49 * width, 1))
            ),
            G: nn.Sequential(
                *(nn.Linear(64, 49 * width), nn.Unflatten(1, (width, 7, 7)), smooth()),
                *(nn.ConvTranspose2d(width, half, 4, 2, 1), smooth(), nn.ConvTranspose2d(half, 1, 4, 2, 1)),
            ),
        }
    return _pair(networks, (1, 28, 28), batch, device, dtype, saturating)


def _pair(
    networks: dict[str, nn.Module], shape: tuple[int, ...], batch: int, device: torch.device, dtype: torch.dtype, saturating: bool
) -> Pair:
    source = torch.Generator().manual_seed(1)
    real, noise = torch.rand(batch, *shape, generator=source) * 2 - 1, torch.randn(batch, 64, generator=source)
    placed = {player: network.to(device, dtype) for player, network in networks.items()}
    return Pair(placed, real.to(device, dtype), noise.to(device, dtype), saturating)


PAIRS: dict[str, Callable[..., Pair]] = {"mlp": mlp, "dcgan28": dcgan28}
