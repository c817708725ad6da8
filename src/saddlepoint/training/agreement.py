"""Checks that processes which train together have the same code, data and parameters."""

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
from saddlepoint.training.trainer import Trainer

Facts = dict[str, str]
"""Name → value of what must be equal in all processes."""


def check_agreement(trainer: Trainer) -> None:
    """Check that the processes have the same code, configuration, data and networks.

    Raises:
        UsageError: in every process; it names the first difference.
    """
    if trainer.distributed.world_size == 1:
        return
    difference = _difference(trainer.distributed.all_gather(facts(trainer)))
    if difference:
        raise UsageError(
            f"{difference} Nothing was trained. Give all processes the same code, configuration and"
            " data."
        )


def check_parameters(trainer: Trainer) -> None:
    """Check that the processes have the same parameters; processors may round differently.

    Raises:
        DistributedError: in every process, if the parameters differ.
    """
    if trainer.distributed.world_size == 1:
        return
    sums = {}
    for player, network in trainer.networks.items():
        # they differ if a parameter does, and are cheaper than a hash of a large network
        flat = torch.cat([p.detach().reshape(-1).double() for p in network.parameters()])
        weights = torch.arange(1, len(flat) + 1, device=flat.device, dtype=flat.dtype)
        sums[f"the parameters of the {player}"] = (
            f"{flat.sum().item()!r}, {(flat * weights).sum().item()!r}"
        )
    difference = _difference(trainer.distributed.all_gather(sums))
    if difference:
        raise DistributedError(
            f"Step {trainer.step}: {difference} The checkpoint before it is good; resume from it"
            " on machines of one kind, where equal numbers stay equal."
        )


def facts(trainer: Trainer) -> Facts:
    """Return what must be equal in all processes."""
    config, problem = trainer.config, trainer.problem
    found = {
        "saddlepoint": saddlepoint.__version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "machine": platform.machine(),
    }
    waiting = [("", config.model_dump(mode="json"))]
    while waiting:
        above, tree = waiting.pop()
        for key, value in tree.items():
            if isinstance(value, Mapping):
                waiting.append((f"{above}{key}.", dict(value)))
            else:
                found[f"the configuration's {above}{key}"] = str(value)
    found["the source code"] = code_digest()
    found["the data"] = _hash([problem.batch(k, 512, config.seed).real for k in range(8)])
    for player, network in trainer.networks.items():
        found[f"the weights of the {player}"] = _hash(network.parameters())
    return found


def _difference(facts_of_all: list[Facts]) -> str | None:
    """Return a sentence about the first fact in which processes differ."""
    names: dict[str, None] = {}
    for own in facts_of_all:
        names |= dict.fromkeys(own)
    for name in names:
        values = [own.get(name, "nothing") for own in facts_of_all]
        other = next((rank for rank, value in enumerate(values) if value != values[0]), None)
        if other is not None:
            return (
                f"The processes differ in {name}: {values[0]} in process 0, {values[other]} in"
                f" process {other}."
            )
    return None


def _hash(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
