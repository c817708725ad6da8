"""Probing a training: the numbers of ``Probe`` at its present point. Nothing changes by it."""

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
from saddlepoint.problems.base import DISCRIMINATOR, GENERATOR, Batch
from saddlepoint.vectors import Vector

if TYPE_CHECKING:
    from saddlepoint.training.training import Training

PROBE_BATCHES = 4
"""Mini-batches of a probe: enough for a signal-to-noise ratio, a small share of the time at the default of 12 probes a run."""

EVERYONE = (DISCRIMINATOR, GENERATOR)


def take_probe(training: Training) -> Probe:
    """Measure on the next mini-batches: gradients, saturation, separation, diversity on all of them, the field's rotation on the first."""
    networks, problem = training.networks, training.problem
    batches = [training.batch(k) for k in range(PROBE_BATCHES)]
    replay = Replay(networks.values(), cuda=training.device.type == "cuda")
    unmeasured: dict[str, str] = {}
    with training.own_randomness(), replay.again():
        health = gradient_health(
            networks, [partial(problem.losses, networks, batch, EVERYONE) for batch in batches]
        )
        antisymmetric = _antisymmetric(training, batches[0], unmeasured)
        real, fake, unseen, generated = _outputs(training, batches)
    if unseen is None:
        unmeasured["membership_auc"] = "the data is not a finite set"
    cosines = training.updates.cosine()
    if cosines is None:
        unmeasured["update_cosine"] = "the last two updates were not kept"
    return Probe(
        gradients=health,
        saturated=saturation(GAN_LOSSES[problem.loss], real, fake),
        accuracy=accuracy(real, fake),
        membership_auc=None if unseen is None else membership_auc(real, unseen),
        antisymmetric=antisymmetric,
        update_cosine=cosines,
        diversity=mean_pairwise_distance(generated)
        / max(mean_pairwise_distance(torch.cat([batch.real for batch in batches])), 1e-30),
        unmeasured=unmeasured,
    )


def _antisymmetric(training: Training, batch: Batch, unmeasured: dict[str, str]) -> float | None:
    try:
        return rotation(
            training.networks, partial(training.problem.losses, training.networks, batch, EVERYONE)
        ).antisymmetric
    except (DoubleBackwardError, DivergenceError) as error:
        unmeasured["antisymmetric"] = str(error)
        return None


@torch.no_grad()
def _outputs(
    training: Training, batches: list[Batch]
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Return the discriminator's outputs on training, generated and held-out samples, and the generated samples."""
    discriminator, generator = training.networks[DISCRIMINATOR], training.networks[GENERATOR]
    generated = [generator(batch.noise) for batch in batches]
    held_out = training.problem.held_out(
        sum(len(batch.real) for batch in batches), training.config.seed
    )
    unseen = (
        None
        if held_out is None
        else torch.cat(
            [
                discriminator(part.to(training.device))
                for part in torch.split(held_out, len(batches[0].real))
            ]
        )
    )
    real = torch.cat([discriminator(batch.real) for batch in batches])
    return (
        real,
        torch.cat([discriminator(samples) for samples in generated]),
        unseen,
        torch.cat(generated),
    )


class LastUpdates:
    """The parameters of three successive steps, kept where a probe will ask for the angle between the last two updates."""

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        self._players = {
            player: [p for p in network.parameters() if p.requires_grad]
            for player, network in networks.items()
        }
        self._kept: list[tuple[int, dict[str, list[Tensor]]]] = []

    def keep(self, step: int) -> None:
        """Remember the parameters as they are after ``step``; of an interrupted sequence only its end."""
        now = {
            player: [p.detach().clone() for p in parameters]
            for player, parameters in self._players.items()
        }
        self._kept = [(before, kept) for before, kept in self._kept if step - before <= 2] + [
            (step, now)
        ]

    def cosine(self) -> dict[str, float] | None:
        """Return player → cosine between θ_t − θ_{t−1} and θ_{t−1} − θ_{t−2}; None unless the last three steps are kept."""
        if len(self._kept) < 3:
            return None
        first, second, third = (Vector(kept) for _, kept in self._kept)
        return cosine(second - first, third - second).players

    def forget(self) -> None:
        """Drop what is kept."""
        self._kept = []

    def state_dict(self) -> list[tuple[int, dict[str, list[Tensor]]]]:
        """Return what is kept: nothing, but in the two steps before a probe."""
        return list(self._kept)

    def load_state_dict(self, state: list[tuple[int, dict[str, list[Tensor]]]]) -> None:
        """Continue from what ``state_dict`` returned."""
        self._kept = [
            (
                step,
                {
                    player: [t.to(p.device) for t, p in zip(kept[player], own, strict=True)]
                    for player, own in self._players.items()
                },
            )
            for step, kept in state
        ]
