"""Whether processes that are to train together have the same code, configuration, data and networks."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Mapping

import numpy
import torch
from torch import Tensor

import saddlepoint
from saddlepoint.errors import DistributedError, UsageError
from saddlepoint.training.environment import code_digest
from saddlepoint.training.training import Training

Facts = dict[str, str]
"""What was looked at → what it is."""


def check_agreement(training: Training) -> None:
    """Raise UsageError, in every process, where the processes differ in anything that decides the trajectory; the message names it."""
    difference = (
        _difference(training.distributed.all_gather(facts(training)))
        if training.distributed.world_size > 1
        else None
    )
    if difference:
        raise UsageError(
            f"{difference} Nothing was trained. Give all of them the same code, configuration and"
            " data."
        )


def check_parameters(training: Training) -> None:
    """Raise DistributedError, in every process, where their parameters are no longer the same, as with processors that round differently."""
    if training.distributed.world_size == 1:
        return
    own = {
        f"the parameters of the {player}": _sums(network.parameters())
        for player, network in training.networks.items()
    }
    difference = _difference(training.distributed.all_gather(own))
    if difference:
        raise DistributedError(
            f"Step {training.step}: {difference} The checkpoint before it is good; resume from it"
            " on machines of one kind, where equal numbers stay equal."
        )


def facts(training: Training) -> Facts:
    """Return what must be the same everywhere."""
    config, problem = training.config, training.problem
    tree = _flat(config.model_dump(mode="json"))
    return {
        "saddlepoint": saddlepoint.__version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "machine": platform.machine(),
        **{f"the configuration's {key}": value for key, value in tree.items()},
        "the source code": code_digest(),
        "the data": _hash([problem.batch(k, 512, config.seed).real for k in range(8)]),
        **{
            f"the weights of the {player}": _hash(network.parameters())
            for player, network in training.networks.items()
        },
    }


def _difference(every: list[Facts]) -> str | None:
    """Return a sentence about the first thing in which processes differ."""
    for name in dict.fromkeys(key for own in every for key in own):
        values = [own.get(name, "nothing") for own in every]
        other = next((rank for rank, value in enumerate(values) if value != values[0]), None)
        if other is not None:
            return (
                f"The processes differ in {name}: {values[0]} in process 0, {values[other]} in"
                f" process {other}."
            )
    return None


def _flat(tree: Mapping[str, object], above: str = "") -> Facts:
    found: Facts = {}
    for key, value in tree.items():
        found |= (
            _flat(value, f"{above}{key}.")
            if isinstance(value, Mapping)
            else {above + key: str(value)}
        )
    return found


def _hash(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _sums(parameters: Iterable[Tensor]) -> str:
    """Return sums that differ where a parameter does: cheaper than a hash of a large network."""
    flat = torch.cat([p.detach().reshape(-1).double() for p in parameters])
    weights = torch.arange(1, len(flat) + 1, device=flat.device, dtype=flat.dtype)
    return f"{flat.sum().item()!r}, {(flat * weights).sum().item()!r}"
