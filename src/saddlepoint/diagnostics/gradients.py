"""What the players' gradients look like: size, zeros, and how much of them is noise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from saddlepoint.curvature import Linearization
from saddlepoint.curvature.replay import Replay
from saddlepoint.errors import UsageError
from saddlepoint.game import Closure, Players


@dataclass(frozen=True)
class GradientHealth:
    """The gradients ξ_i of K mini-batches at one point.

    Attributes:
        norms: player → mean of ‖ξ_i‖ over the mini-batches.
        layers: player → parameter → mean norm of its part.
        zeros: player → share of entries that are exactly zero in every mini-batch: dead units, or
            outputs that cannot be differentiated.
        signal_to_noise: player → ‖E ξ_i‖ / √(E‖ξ_i − E ξ_i‖²), estimated without bias and cut at 0;
            below 1 a mini-batch says less about the gradient than about itself. NaN for K = 1.
    """

    norms: dict[str, float]
    layers: dict[str, dict[str, float]]
    zeros: dict[str, float]
    signal_to_noise: dict[str, float]


def gradient_health(
    players: Mapping[str, nn.Module], closures: Iterable[Closure]
) -> GradientHealth:
    """Measure the gradients of every player at the current parameters; nothing moves, neither buffers nor random states.

    It costs one joint gradient per mini-batch, without second derivatives.

    Args:
        players: player → its network.
        closures: one for each mini-batch, as for ``GameOptimizer.step``; each returns the losses of
            all players. Four to eight will do.

    Raises:
        UsageError: no closure, or one that leaves out a player.

    Reference: for the signal-to-noise ratio, Rainforth et al. (2018), Tighter variational bounds
    are not necessarily better, arXiv:1802.04537.

    >>> unit = nn.PReLU(init=0.5)  # one weight
    >>> health = gradient_health({"unit": unit}, [lambda: {"unit": unit.weight.sum()}, lambda: {"unit": 3 * unit.weight.sum()}])
    >>> health.norms["unit"], round(health.signal_to_noise["unit"], 4)  # mean 2, variance 2: √((4 − 2/2) / 2)
    (2.0, 1.2247)
    """
    names = {
        player: [name for name, p in network.named_parameters() if p.requires_grad]
        for player, network in players.items()
    }
    parameters: Players = {
        player: tuple(p for p in network.parameters() if p.requires_grad)
        for player, network in players.items()
    }
    replay = Replay(
        players.values(), cuda=any(p.is_cuda for own in parameters.values() for p in own)
    )
    gradients: list[dict[str, list[Tensor]]] = []
    for closure in closures:
        with replay.again():
            point = Linearization(parameters, closure, order=1, check_finite=False)
            missing = [player for player in players if player not in point.active]
            if missing:
                raise UsageError(
                    f'gradient_health: a closure left out the loss of player "{missing[0]}". Return'
                    " the losses of all players."
                )
            gradients.append(
                {
                    player: [g.detach().double() for g in point.gradient[player]]
                    for player in players
                }
            )
    if not gradients:
        raise UsageError("gradient_health: needs at least one closure, one for each mini-batch.")
    layers = {
        player: {
            name: _mean([float(batch[player][i].norm()) for batch in gradients])
            for i, name in enumerate(own)
        }
        for player, own in names.items()
    }
    return GradientHealth(
        norms={player: _mean([_norm(batch[player]) for batch in gradients]) for player in players},
        layers=layers,
        zeros={player: _zeros([batch[player] for batch in gradients]) for player in players},
        signal_to_noise={
            player: _signal_to_noise([batch[player] for batch in gradients]) for player in players
        },
    )


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def _norm(tensors: list[Tensor]) -> float:
    return math.hypot(*(float(t.norm()) for t in tensors))


def _zeros(batches: list[list[Tensor]]) -> float:
    total = sum(t.numel() for t in batches[0])
    alive = sum(
        int(torch.stack([t != 0 for t in parts]).any(dim=0).sum())
        for parts in zip(*batches, strict=True)
    )
    return 1 - alive / total


def _signal_to_noise(batches: list[list[Tensor]]) -> float:
    """√(max(0, ‖ḡ‖² − s²/K) / s²) with the mean ḡ and the variance s² of K gradients."""
    k = len(batches)
    if k == 1:
        return math.nan
    means = [torch.stack(parts).mean(dim=0) for parts in zip(*batches, strict=True)]
    variance = sum(
        float((t - mean).square().sum())
        for batch in batches
        for t, mean in zip(batch, means, strict=True)
    ) / (k - 1)
    signal = _norm(means) ** 2 - variance / k
    if variance == 0:
        return math.inf if signal > 0 else math.nan
    return math.sqrt(max(signal, 0.0) / variance)
