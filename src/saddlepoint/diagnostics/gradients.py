"""Statistics of the players' gradients: size, zeros, and signal-to-noise ratio."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from saddlepoint.curvature import Linearization
from saddlepoint.curvature.replay import Replay
from saddlepoint.errors import UsageError
from saddlepoint.game import Closure
from saddlepoint.vectors import Vector


@dataclass(frozen=True)
class GradientHealth:
    """Statistics of the gradients ξ_i of K mini-batches at one point.

    Attributes:
        norms: player → mean of ‖ξ_i‖ over the mini-batches.
        layers: player → parameter → mean norm of its part.
        zeros: player → share of entries that are exactly zero in every mini-batch: dead units, or
            outputs that cannot be differentiated.
        signal_to_noise: player → ‖E ξ_i‖ / √(E‖ξ_i − E ξ_i‖²), estimated without bias and truncated
            at 0; below 1 the noise of a mini-batch exceeds the gradient. NaN for K = 1.
    """

    norms: dict[str, float]
    layers: dict[str, dict[str, float]]
    zeros: dict[str, float]
    signal_to_noise: dict[str, float]


def gradient_health(
    players: Mapping[str, nn.Module], closures: Iterable[Closure]
) -> GradientHealth:
    """Measure the gradients of every player; parameters, buffers and random states do not change.

    Costs one joint gradient per mini-batch, without second derivatives.

    Args:
        players: player → its network.
        closures: one for each mini-batch, as for ``GameOptimizer.step``; each returns the losses of
            all players. Four to eight are enough.

    Raises:
        UsageError: there is no closure, or a closure leaves out a player.

    Reference: for the signal-to-noise ratio, Rainforth et al. (2018), Tighter variational bounds
    are not necessarily better, arXiv:1802.04537.

    >>> unit = nn.PReLU(init=0.5)  # one weight
    >>> closures = [lambda: {"unit": unit.weight.sum()}, lambda: {"unit": 3 * unit.weight.sum()}]
    >>> health = gradient_health({"unit": unit}, closures)  # mean 2, variance 2: √((4 − 2/2) / 2)
    >>> health.norms["unit"], round(health.signal_to_noise["unit"], 4)
    (2.0, 1.2247)
    """
    names: dict[str, list[str]] = {}
    parameters: dict[str, tuple[Tensor, ...]] = {}
    for player, network in players.items():
        trainable = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
        names[player] = [name for name, _ in trainable]
        parameters[player] = tuple(p for _, p in trainable)
    on_cuda = any(p.is_cuda for p in Vector(parameters).tensors)
    replay = Replay(players.values(), cuda=on_cuda)

    gradients: list[dict[str, list[Tensor]]] = []
    for closure in closures:
        with replay.again():
            point = Linearization(parameters, closure, order=1, check_finite=False)
            require_all_losses(point, "gradient_health")
            batch = {}
            for player in players:
                batch[player] = [g.detach().double() for g in point.gradient[player]]
            gradients.append(batch)
    if not gradients:
        raise UsageError("gradient_health: needs at least one closure, one for each mini-batch.")

    health = GradientHealth(norms={}, layers={}, zeros={}, signal_to_noise={})
    for player in players:
        batches = [batch[player] for batch in gradients]
        health.norms[player] = math.fsum(_norm(batch) for batch in batches) / len(batches)
        layers, nonzero, size = {}, 0, 0
        for name, parts in zip(names[player], zip(*batches, strict=True), strict=True):
            layers[name] = math.fsum(float(part.norm()) for part in parts) / len(parts)
            nonzero += int((torch.stack(parts) != 0).any(dim=0).sum())
            size += parts[0].numel()
        health.layers[player] = layers
        health.zeros[player] = 1 - nonzero / size
        health.signal_to_noise[player] = _signal_to_noise(batches)
    return health


def require_all_losses(point: Linearization, caller: str) -> None:
    """Raise a ``UsageError`` that names ``caller`` where the closure left out a player's loss."""
    missing = [player for player in point.players if player not in point.active]
    if missing:
        raise UsageError(
            f'{caller}: the closure left out the loss of player "{missing[0]}". Return the losses'
            " of all players."
        )


def _signal_to_noise(batches: list[list[Tensor]]) -> float:
    """Return √(max(0, ‖ḡ‖² − s²/K) / s²) with the mean ḡ and the variance s² of K gradients."""
    k = len(batches)
    if k == 1:
        return math.nan
    means = [torch.stack(parts).mean(dim=0) for parts in zip(*batches, strict=True)]
    squares = 0.0
    for batch in batches:
        for part, mean in zip(batch, means, strict=True):
            squares += float((part - mean).square().sum())
    variance = squares / (k - 1)
    signal = _norm(means) ** 2 - variance / k
    if variance == 0:
        return math.inf if signal > 0 else math.nan
    return math.sqrt(max(signal, 0.0) / variance)


def _norm(tensors: Iterable[Tensor]) -> float:
    return math.hypot(*(float(t.norm()) for t in tensors))
