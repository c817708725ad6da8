"""The networks that are timed, with batches drawn beforehand, so that a step is derivatives and
updates and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from saddlepoint.models import ACTIVATIONS, MLP

Losses = dict[str, Tensor]
Networks = dict[str, nn.Module]
D, G = "discriminator", "generator"
LATENT = 64
# in turn: on a single one competitive gradient soon solves for a discriminator that knows it by
# heart
BATCHES = 8


@dataclass
class Pair:
    """Two networks with batches, and their losses on the present one.

    Args:
        networks: discriminator and generator.
        batches: samples, and noise for the generator.
        saturating: the minimax loss, zero-sum; otherwise the non-saturating one.
    """

    networks: Networks
    batches: list[tuple[Tensor, Tensor]]
    saturating: bool = True
    _draws: int = field(default=0, init=False)

    @property
    def real(self) -> Tensor:
        return self.batches[self._draws % len(self.batches)][0]

    @property
    def noise(self) -> Tensor:
        return self.batches[self._draws % len(self.batches)][1]

    def draw(self) -> None:
        """Go on to the next batch: once a step."""
        self._draws += 1

    def losses(self) -> Losses:
        fake = self.networks[D](self.networks[G](self.noise))
        played = softplus(fake).mean()
        return {
            D: softplus(-self.networks[D](self.real)).mean() + played,
            G: -played if self.saturating else softplus(-fake).mean(),
        }

    def only(self, player: str) -> Callable[[], Losses]:
        """Return the closure of one player's turn, without the work that the other's loss would
        need."""

        def discriminator() -> Losses:
            with torch.no_grad():
                generated = self.networks[G](self.noise)
            return {
                D: (
                    softplus(-self.networks[D](self.real)).mean()
                    + softplus(self.networks[D](generated)).mean()
                )
            }

        def generator() -> Losses:
            fake = self.networks[D](self.networks[G](self.noise))
            return {G: -softplus(fake).mean() if self.saturating else softplus(-fake).mean()}

        return discriminator if player == D else generator

    def parameters(self, player: str) -> list[nn.Parameter]:
        return list(self.networks[player].parameters())

    def flat(self) -> Tensor:
        return torch.cat(
            [
                p.detach().reshape(-1)
                for network in self.networks.values()
                for p in network.parameters()
            ]
        )


@dataclass(frozen=True)
class Kind:
    """A pair of networks of any width: called with a device it makes one, with its batches.

    Args:
        networks: (width, activation) → discriminator and generator.
        shape: of one sample.
        width: unless another is asked for.
        batch: likewise.
    """

    networks: Callable[[int, str], Networks]
    shape: tuple[int, ...]
    width: int
    batch: int

    def __call__(
        self,
        device: torch.device,
        *,
        batch: int | None = None,
        width: int | None = None,
        dtype: torch.dtype = torch.float32,
        saturating: bool = True,
        activation: str = "leaky_relu",
    ) -> Pair:
        made, size, source = (
            self.networks(width or self.width, activation),
            batch or self.batch,
            torch.Generator().manual_seed(1),
        )
        drawn = [
            (
                torch.rand(size, *self.shape, generator=source) * 2 - 1,
                torch.randn(size, LATENT, generator=source),
            )
            for _ in range(BATCHES)
        ]
        batches = [(real.to(device, dtype), noise.to(device, dtype)) for real, noise in drawn]
        placed = {player: network.to(device, dtype) for player, network in made.items()}
        return Pair(placed, batches, saturating)


def _mlp(width: int, activation: str) -> Networks:
    """64 → width → width → 784 and 784 → width → width → 1."""
    source = torch.Generator().manual_seed(0)
    return {
        D: MLP((784, width, width, 1), activation=activation, generator=source),
        G: MLP((LATENT, width, width, 784), activation=activation, generator=source),
    }


def _dcgan28(width: int, activation: str) -> Networks:
    """z → 7 × 7 × width → 14 × 14 × width/2 → 28 × 28 and back, 4 × 4 kernels of stride 2, no
    normalisation."""
    between, half = ACTIVATIONS[activation], max(width // 2, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {
            D: nn.Sequential(
                *(
                    nn.Conv2d(1, half, 4, 2, 1),
                    between(),
                    nn.Conv2d(half, width, 4, 2, 1),
                    between(),
                    nn.Flatten(),
                    nn.Linear(49 * width, 1),
                )
            ),
            G: nn.Sequential(
                *(nn.Linear(LATENT, 49 * width), nn.Unflatten(1, (width, 7, 7)), between()),
                *(
                    nn.ConvTranspose2d(width, half, 4, 2, 1),
                    between(),
                    nn.ConvTranspose2d(half, 1, 4, 2, 1),
                ),
            ),
        }


PAIRS = {
    "mlp": Kind(_mlp, (784,), width=128, batch=128),
    "dcgan28": Kind(_dcgan28, (1, 28, 28), width=64, batch=64),
}
