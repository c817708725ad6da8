"""The loop that a GAN script would have: what the library is measured against."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import softplus

from saddlepoint.models import moving_average
from saddlepoint.problems import Digits


def alternating_adam(problem: Digits, lr: float, seed: int) -> tuple[Callable[[], None], nn.Module, nn.Module]:
    """Return one step of alternating Adam on the digits GAN, the generator, and its moving average.

    Non-saturating loss, betas (0.5, 0.999), batch 64, moving average 0.999; the library's networks and data.
    """
    D, G = problem.networks(seed).values()
    optimizer_D, optimizer_G = (torch.optim.Adam(net.parameters(), lr=lr, betas=(0.5, 0.999), fused=True) for net in (D, G))
    average, steps = moving_average(G, 0.999), iter(range(10**9))

    def step() -> None:
        batch = problem.batch(next(steps), 64, seed)
        with torch.no_grad():
            fake = G(batch.noise)
        optimizer_D.zero_grad()
        (softplus(-D(batch.real)).mean() + softplus(D(fake)).mean()).backward()
        optimizer_D.step()
        optimizer_G.zero_grad()
        softplus(-D(G(batch.noise))).mean().backward()
        optimizer_G.step()
        average.update_parameters(G)

    return step, G, average.module
