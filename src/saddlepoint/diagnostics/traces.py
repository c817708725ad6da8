"""Losses and parameter projections every few steps, between the lines of the log."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from saddlepoint.data import generator_for

_COORDINATES = 20_000
"""Entries of a tensor in its projection: enough to see it change, and cheap for large layers."""


class Projection:
    """⟨r, θ⟩ for one random direction r with ‖r‖ ≈ 1: a number that changes with the parameters.

    A rotation of the parameters shows in it as an oscillation of the same period.

    Args:
        network: the network with the parameters θ.
        seed: determines r.

    >>> from saddlepoint.models import MLP
    >>> network = MLP((2, 3, 1), generator=torch.Generator().manual_seed(0))
    >>> Projection(network, seed=0).value() == Projection(network, seed=0).value()
    True
    """

    def __init__(self, network: nn.Module, *, seed: int) -> None:
        generator = generator_for(seed, "projection")
        self._parameters = [p for p in network.parameters() if p.requires_grad]
        heads = [p.detach().reshape(-1)[:_COORDINATES] for p in self._parameters]
        scale = 1 / math.sqrt(max(sum(t.numel() for t in heads), 1))
        self._directions = [
            (torch.randn(t.numel(), generator=generator) * scale).to(t) for t in heads
        ]

    @torch.no_grad()
    def value(self) -> float:
        """Return the projection of the present parameters."""
        parts = []
        for direction, p in zip(self._directions, self._parameters, strict=True):
            parts.append(direction.dot(p.reshape(-1)[:_COORDINATES]))
        return float(torch.stack(parts).double().sum())


class Trace:
    """Losses and projections since the last ``take``.

    Args:
        networks: player → network.
        seed: determines the projections.
    """

    def __init__(self, networks: Mapping[str, nn.Module], *, seed: int) -> None:
        self._projections = {
            player: Projection(network, seed=seed) for player, network in networks.items()
        }
        self._points: list[tuple[int, dict[str, float], dict[str, float]]] = []

    def sample(self, step: int, losses: Mapping[str, float]) -> None:
        """Add a point."""
        projections = {player: own.value() for player, own in self._projections.items()}
        self._points.append((step, dict(losses), projections))

    def take(self) -> dict[str, Any]:
        """Return the points since the last call and forget them.

        The result has the "steps", and under "losses" and "projections" player → values.
        """
        points, self._points = self._points, []
        steps, losses, projections = zip(*points, strict=True) if points else ((), (), ())
        taken: dict[str, Any] = {"steps": list(steps), "losses": {}, "projections": {}}
        for player in self._projections:
            taken["losses"][player] = [values.get(player) for values in losses]
            taken["projections"][player] = [values[player] for values in projections]
        return taken

    def state_dict(self) -> list[tuple[int, dict[str, float], dict[str, float]]]:
        """Return the points that were not taken yet."""
        return list(self._points)

    def load_state_dict(self, state: Sequence[Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._points = [
            (step, dict(losses), dict(projections)) for step, losses, projections in state
        ]
