"""A fine record of training between the lines of the log: losses and projections of the parameters, every few steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from saddlepoint.data import generator_for

_COORDINATES = 20_000
"""Coordinates of a tensor that its projection uses: enough to see it move, and cheap for large layers."""


class Projection:
    """⟨r, θ⟩ for one random direction r, ‖r‖ ≈ 1, fixed by the seed: a number that moves when the parameters do.

    A rotation of the parameters shows in it as an oscillation of the same period.

    >>> from saddlepoint.models import MLP
    >>> network = MLP((2, 3, 1), generator=torch.Generator().manual_seed(0))
    >>> Projection(network, seed=0).value() == Projection(network, seed=0).value()
    True
    """

    def __init__(self, network: nn.Module, *, seed: int) -> None:
        generator = generator_for(seed, "projection")
        self._parameters = [p for p in network.parameters() if p.requires_grad]
        heads = [_head(p) for p in self._parameters]
        size = sum(t.numel() for t in heads)
        scale = 1 / math.sqrt(max(size, 1))
        self._directions = [
            (torch.randn(t.numel(), generator=generator) * scale).to(t) for t in heads
        ]

    @torch.no_grad()
    def value(self) -> float:
        """Return the projection of the parameters as they are now."""
        parts = [r.dot(_head(p)) for r, p in zip(self._directions, self._parameters, strict=True)]
        return float(torch.stack(parts).double().sum())


class Trace:
    """Points of losses and projections since they were last taken.

    Args:
        networks: player → network.
        seed: fixes the projections.
    """

    def __init__(self, networks: Mapping[str, nn.Module], *, seed: int) -> None:
        self._projections = {
            player: Projection(network, seed=seed) for player, network in networks.items()
        }
        self._points: list[tuple[int, dict[str, float], dict[str, float]]] = []

    def sample(self, step: int, losses: Mapping[str, float]) -> None:
        """Add a point."""
        self._points.append(
            (
                step,
                dict(losses),
                {player: projection.value() for player, projection in self._projections.items()},
            )
        )

    def take(self) -> dict[str, Any]:
        """Return the points since the last call and forget them: steps, and for each player its losses and projections."""
        points, self._points = self._points, []
        players = list(self._projections)
        return {
            "steps": [step for step, _, _ in points],
            "losses": {
                player: [losses.get(player) for _, losses, _ in points] for player in players
            },
            "projections": {
                player: [projections[player] for _, _, projections in points] for player in players
            },
        }

    def state_dict(self) -> list[tuple[int, dict[str, float], dict[str, float]]]:
        """Return the points that were not taken yet."""
        return list(self._points)

    def load_state_dict(self, state: Sequence[Any]) -> None:
        """Continue from what ``state_dict`` returned."""
        self._points = [
            (step, dict(losses), dict(projections)) for step, losses, projections in state
        ]


def _head(parameter: Tensor) -> Tensor:
    return parameter.detach().reshape(-1)[:_COORDINATES]
