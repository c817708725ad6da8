"""The small convolutional networks of the stacked-digits problem."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

_DEVIATION = 0.02
"""Standard deviation of initial weights, as in Radford et al. (2016), DCGAN, arXiv:1511.06434."""


class SmallConvGenerator(nn.Module):
    """z → 4 × 4 × 64 → 7 × 7 × 32 → 14 × 14 × 16 → 28 × 28 × 8 → 28 × 28 × channels.

    Transposed convolutions 3 × 3 of stride 2, batch normalisation and ReLU after all but the last
    layer, tanh at the end: the generator of Metz et al. (2017), Unrolled GANs, arXiv:1611.02163,
    used in Table 3 of Lin et al. (2018), PacGAN, arXiv:1712.04086.

    Args:
        latent: dimension of z.
        channels: channels of the images.
        batch_norm: whether to normalise; without it the samples of a batch are independent.
        generator: source of the initial weights.

    >>> G = SmallConvGenerator(256, generator=torch.Generator().manual_seed(0))
    >>> G(torch.zeros(2, 256)).shape, sum(p.numel() for p in G.parameters())
    (torch.Size([2, 3, 28, 28]), 287875)
    """

    def __init__(
        self, latent: int, *, channels: int = 3, batch_norm: bool = True, generator: torch.Generator
    ) -> None:
        super().__init__()
        with torch.device("meta"):
            layers: list[nn.Module] = [
                nn.Linear(latent, 4 * 4 * 64),
                nn.Unflatten(1, (64, 4, 4)),
                *([nn.BatchNorm2d(64)] if batch_norm else []),
                nn.ReLU(),
            ]
            for inputs, outputs, extra in ((64, 32, 0), (32, 16, 1), (16, 8, 1)):
                up = nn.ConvTranspose2d(
                    inputs, outputs, 3, stride=2, padding=1, output_padding=extra
                )
                layers += [up, *([nn.BatchNorm2d(outputs)] if batch_norm else []), nn.ReLU()]
            self.layers = nn.Sequential(*layers, nn.Conv2d(8, channels, 3, padding=1), nn.Tanh())
        _initialise(self, generator)

    def forward(self, z: Tensor) -> Tensor:
        """Map (N, latent) to (N, channels, 28, 28)."""
        return torch.as_tensor(self.layers(z))


class SmallConvDiscriminator(nn.Module):
    """28 × 28 × channels → 14 × 14 × 8s → 7 × 7 × 16s → 4 × 4 × 32s → 1, with s = ``size``.

    Convolutions 3 × 3 of stride 2, each with batch normalisation and LeakyReLU (slope 0.3); sizes ¼
    and ½ are those of Tables 3 of Metz et al. (2017), arXiv:1611.02163, and Lin et al. (2018),
    arXiv:1712.04086.

    Args:
        size: channels relative to the generator's; ¼ gives 2, 4 and 8.
        channels: channels of the images.
        batch_norm: whether to normalise.
        generator: source of the initial weights.

    >>> D = SmallConvDiscriminator(0.25, generator=torch.Generator().manual_seed(0))
    >>> D(torch.zeros(2, 3, 28, 28)).shape, sum(p.numel() for p in D.parameters())
    (torch.Size([2, 1]), 585)
    """

    def __init__(
        self,
        size: float = 0.25,
        *,
        channels: int = 3,
        batch_norm: bool = True,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        widths = [channels, *(max(1, round(size * width)) for width in (8, 16, 32))]
        layers: list[nn.Module] = []
        with torch.device("meta"):
            for inputs, outputs in pairwise(widths):
                down = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
                layers += [down, *([nn.BatchNorm2d(outputs)] if batch_norm else [])]
                layers.append(nn.LeakyReLU(0.3))
            self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * widths[-1], 1))
        _initialise(self, generator)

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, channels, 28, 28) to (N, 1)."""
        return torch.as_tensor(self.layers(images))


def _initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Move a network from meta to the CPU and draw its parameters.

    Weights are from N(0, 0.02²), those of normalisations from N(1, 0.02²); biases are zero.
    """
    network.to_empty(device="cpu")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
            nn.init.normal_(module.weight, 1.0, _DEVIATION, generator=generator)
        elif isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, _DEVIATION, generator=generator)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
