"""Layers whose buffers move in a forward pass: running statistics, power iterations and others."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from saddlepoint.diagnostics.doctor.pair import DISCRIMINATOR, GENERATOR, Pair
from saddlepoint.diagnostics.doctor.remarks import Remark, layer_name, listed, module_at

_NAME_THEM = (
    "Name the networks in GameOptimizer(..., modules=[G, D]): then they move once per step, not"
    " once per evaluation."
)


def moving_layers(pair: Pair) -> dict[str, list[str]]:
    """Return player → layers with buffers of their own that training passes change; the buffers are put back.

    Spectral norm in training mode counts even where one pass does not change it: on a matrix of one
    row it has converged.

    >>> pair = Pair(nn.PReLU(), nn.Sequential(nn.BatchNorm1d(2), nn.PReLU()), torch.ones(3, 2), torch.ones(3, 2))
    >>> moving_layers(pair)
    {'discriminator': ['0'], 'generator': []}
    """
    with pair.replay().again(), torch.no_grad():
        before = {player: _own_buffers(network) for player, network in pair.networks.items()}
        pair.discriminator(pair.real.clone())
        pair.generator(pair.noise.clone())
        after = {player: _own_buffers(network) for player, network in pair.networks.items()}
    return {
        player: [
            name
            for name in layers
            if _differ(layers[name], after[player][name]) or _iterates(pair.networks[player], name)
        ]
        for player, layers in before.items()
    }


def buffer_remarks(pair: Pair, moving: dict[str, list[str]]) -> Iterator[Remark]:
    """Yield a caution for each player and kind of layer with moving buffers.

    Args:
        pair: the networks.
        moving: of ``moving_layers``.
    """
    for player, network in pair.networks.items():
        kinds: dict[str, list[str]] = {}
        for name in moving[player]:
            kinds.setdefault(_kind(network, name), []).append(name)
        yield from (_remark(player, network, kind, names) for kind, names in kinds.items())


def freeze(pair: Pair, moving: dict[str, list[str]]) -> None:
    """Put layers with moving buffers, except normalisation over the batch, into evaluation mode, in place.

    PyTorch's derivatives take such buffers for constants, so that finite differences must too.
    """
    for player, network in pair.networks.items():
        for name in moving[player]:
            if not isinstance(module_at(network, name), _NormBase):
                module_at(network, name).eval()


def _own_buffers(network: nn.Module) -> dict[str, list[Tensor]]:
    return {
        name: [b.clone() for b in module.buffers(recurse=False)]
        for name, module in network.named_modules()
    }


def _differ(before: list[Tensor], after: list[Tensor]) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def _iterates(network: nn.Module, name: str) -> bool:
    return module_at(network, name).training and _kind(network, name) == "spectral-norm"


def _kind(network: nn.Module, name: str) -> str:
    module = module_at(network, name)
    if isinstance(module, _BatchNorm):
        return "batch-norm"
    old_style = {"weight_u", "weight_v"} <= {key for key, _ in module.named_buffers(recurse=False)}
    return (
        "spectral-norm"
        if old_style or type(module).__name__ == "_SpectralNorm"
        else "moving-buffers"
    )


_WHY = {
    "batch-norm": (
        "running statistics, and they couple the samples of a batch, so that the loss is not a mean"
        " over samples"
    ),
    "spectral-norm": (
        "the vectors u, v of its power iteration, and second derivatives treat u and v as constants"
    ),
    "moving-buffers": "buffers",
}


def _remark(player: str, network: nn.Module, kind: str, names: list[str]) -> Remark:
    layers = listed(layer_name(network, name) for name in names)
    sentence = (
        f"{len(names)} layer(s) of the {player} move in every forward pass ({layers}):"
        f" {_WHY[kind]}. {_NAME_THEM}"
    )
    if kind == "batch-norm" and player == DISCRIMINATOR:
        sentence += " A gradient penalty needs LayerNorm, InstanceNorm or GroupNorm instead."
    if kind == "spectral-norm" and player == GENERATOR:
        sentence += (
            " In a generator it is rare; it bounds the Lipschitz constant of discriminators."
        )
    return Remark("caution", kind, player, layers, sentence, {"layers": float(len(names))})
