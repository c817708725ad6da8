"""Probes of a run, and the updates that they compare."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from saddlepoint.curvature.replay import Replay
from saddlepoint.diagnostics import (
    Probe,
    accuracy,
    cosine,
    gradient_health,
    mean_pairwise_distance,
    membership_auc,
    rotation,
    saturation,
)
from saddlepoint.errors import DivergenceError, DoubleBackwardError
from saddlepoint.games import GAN_LOSSES
from saddlepoint.problems.base import DISCRIMINATOR, GENERATOR
from saddlepoint.vectors import Vector

if TYPE_CHECKING:
    from saddlepoint.training.trainer import Trainer

PROBE_BATCHES = 4
"""Mini-batches of a probe: enough for a signal-to-noise ratio, at a small share of the time."""

PLAYERS = (DISCRIMINATOR, GENERATOR)


def take_probe(trainer: Trainer) -> Probe:
    """Measure a trainer at its present parameters, which are not changed.

    Gradients, saturation, accuracy and diversity are measured on the next mini-batches, the
    rotation of the field on the first of them.
    """
    networks, problem = trainer.networks, trainer.problem
    batches = [trainer.batch(k) for k in range(PROBE_BATCHES)]
    closures = [partial(problem.losses, networks, batch, PLAYERS) for batch in batches]
    replay = Replay(networks.values(), cuda=trainer.device.type == "cuda")
    unmeasured: dict[str, str] = {}
    with trainer.rng.scope(), replay.again():
        health = gradient_health(networks, closures)
        antisymmetric = None
        try:
            antisymmetric = rotation(networks, closures[0]).antisymmetric
        except (DoubleBackwardError, DivergenceError) as error:
            unmeasured["antisymmetric"] = str(error)

        discriminator, generator = networks[DISCRIMINATOR], networks[GENERATOR]
        with torch.no_grad():
            generated = [generator(batch.noise) for batch in batches]
            held_out = problem.held_out(
                sum(len(batch.real) for batch in batches), trainer.config.seed
            )
            unseen = None
            if held_out is not None:
                parts = torch.split(held_out, len(batches[0].real))
                unseen = torch.cat([discriminator(part.to(trainer.device)) for part in parts])
            real = torch.cat([discriminator(batch.real) for batch in batches])
            fake = torch.cat([discriminator(samples) for samples in generated])
    if unseen is None:
        unmeasured["membership_auc"] = "the data is not a finite set"
    cosines = trainer.updates.cosine()
    if cosines is None:
        unmeasured["update_cosine"] = "the last two updates were not kept"
    distance_in_data = mean_pairwise_distance(torch.cat([batch.real for batch in batches]))
    return Probe(
        gradients=health,
        saturated=saturation(GAN_LOSSES[problem.loss], real, fake),
        accuracy=accuracy(real, fake),
        membership_auc=None if unseen is None else membership_auc(real, unseen),
        antisymmetric=antisymmetric,
        update_cosine=cosines,
        diversity=mean_pairwise_distance(torch.cat(generated)) / max(distance_in_data, 1e-30),
        unmeasured=unmeasured,
    )


class LastUpdates:
    """The parameters after three successive steps, for the angle between the last two updates."""

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        self._players = {
            player: [p for p in network.parameters() if p.requires_grad]
            for player, network in networks.items()
        }
        self._kept: list[tuple[int, dict[str, list[Tensor]]]] = []

    def keep(self, step: int) -> None:
        """Store the parameters after ``step``, and drop those of more than two steps before."""
        now = {}
        for player, parameters in self._players.items():
            now[player] = [p.detach().clone() for p in parameters]
        recent = [(before, kept) for before, kept in self._kept if step - before <= 2]
        self._kept = [*recent, (step, now)]

    def cosine(self) -> dict[str, float] | None:
        """Return player → cosine between θ_t − θ_{t−1} and θ_{t−1} − θ_{t−2}.

        None unless the last three steps are stored.
        """
        if len(self._kept) < 3:
            return None
        first, second, third = (Vector(kept) for _, kept in self._kept)
        return cosine(second - first, third - second).players

    def forget(self) -> None:
        """Drop the stored parameters."""
        self._kept = []

    def state_dict(self) -> list[tuple[int, dict[str, list[Tensor]]]]:
        """Return (step, player → parameters); empty except in the two steps before a probe."""
        return list(self._kept)

    def load_state_dict(self, state: list[tuple[int, dict[str, list[Tensor]]]]) -> None:
        """Restore what ``state_dict`` returned."""
        self._kept = []
        for step, stored in state:
            moved = {}
            for player, parameters in self._players.items():
                pairs = zip(stored[player], parameters, strict=True)
                moved[player] = [t.to(p.device) for t, p in pairs]
            self._kept.append((step, moved))
