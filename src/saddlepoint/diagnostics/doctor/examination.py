"""The examination of a pair of networks before training: all checks in their order."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from saddlepoint.diagnostics.doctor.buffers import buffer_remarks, freeze, moving_layers
from saddlepoint.diagnostics.doctor.calls import Arguments, traced
from saddlepoint.diagnostics.doctor.costs import CostEstimate, estimate
from saddlepoint.diagnostics.doctor.flow import gradient_flow
from saddlepoint.diagnostics.doctor.lints import forward_pass, structure
from saddlepoint.diagnostics.doctor.modules import SECOND, check_layers
from saddlepoint.diagnostics.doctor.pair import DISCRIMINATOR, GENERATOR, Pair
from saddlepoint.diagnostics.doctor.remarks import (
    BOTH,
    Remark,
    first_line,
    layer_name,
    ranked,
    spoken,
)
from saddlepoint.diagnostics.doctor.whole_game import check_game

_SEED = 0


@dataclass(frozen=True)
class Examination:
    """What the doctor found.

    Attributes:
        remarks: errors first, then cautions, then notes.
        cost: time and memory on the example.
    """

    remarks: tuple[Remark, ...]
    cost: CostEstimate

    @property
    def healthy(self) -> bool:
        """Whether there is no error."""
        return not any(remark.level == "error" for remark in self.remarks)


def examine(
    generator: nn.Module,
    discriminator: nn.Module,
    noise: Tensor,
    real: Tensor,
    *,
    loss: str = "non-saturating",
    r1: float = 0.0,
) -> Examination:
    """Check a pair of networks before training: derivatives layer by layer, gradient flow, buffers, and what a step will cost.

    Works on copies; the networks, their modes and buffers, and random states are the same
    afterwards. Derivatives are checked in float64 on the first four samples, time and memory are
    measured on the whole example. Networks are examined in the mode that they are in.

    Args:
        generator: takes ``noise``, returns samples.
        discriminator: takes samples, returns logits.
        noise: an example batch of the generator's input.
        real: an example batch of data.
        loss: a key of ``GAN_LOSSES``.
        r1: weight of the gradient penalty on real data, 0 for none.

    Raises:
        UsageError: something that is no network or no batch, an unknown loss, or a negative or
            infinite r1.

    >>> from saddlepoint.models import MLP
    >>> g = torch.Generator().manual_seed(0)
    >>> G, D = (MLP(sizes, activation="leaky_relu", generator=g) for sizes in ((2, 8, 2), (2, 8, 1)))
    >>> found = examine(G, D, torch.randn(16, 2, generator=g), torch.randn(16, 2, generator=g))
    >>> found.healthy, [(remark.level, remark.check) for remark in found.remarks]
    (True, [('note', 'jacobian')])
    """
    pair = Pair(generator, discriminator, noise, real, loss, r1)
    devices = [torch.cuda.current_device()] if pair.on_cuda else []
    with torch.random.fork_rng(devices), torch.enable_grad():
        # dropout and noise in the networks: an examination does not depend on chance
        torch.manual_seed(_SEED)
        remarks, cost = _examine(pair)
    return Examination(ranked(remarks), cost)


def _examine(original: Pair) -> tuple[list[Remark], CostEstimate]:
    remarks = [*structure(original), *_modes(original)]
    unfit = [
        remark
        for remark in remarks
        if remark.check in ("lazy-parameters", "no-parameters", "scripted")
    ]
    if unfit:
        return remarks, _no_cost(original, unfit[0].sentence)
    try:
        pair = original.copied()
    except Exception as error:
        remarks.append(_uncopied(original, error))
        return remarks, _no_cost(original, remarks[-1].sentence)
    remarks += forward_pass(pair)
    failed = [
        remark
        for remark in remarks
        if remark.check in ("forward", "output", "shapes", "not-finite")
    ]
    if failed:
        return remarks, _no_cost(original, failed[0].sentence)
    return _derivatives(original, pair, remarks)


def _derivatives(
    original: Pair, pair: Pair, remarks: list[Remark]
) -> tuple[list[Remark], CostEstimate]:
    moving = moving_layers(pair)
    remarks += buffer_remarks(pair, moving)
    flow = gradient_flow(pair)
    layers, tiny = _layers(original, moving)
    remarks += [*flow, *layers]
    cut = any(remark.level == "error" for remark in flow)
    # J of a game whose players own the same tensor means nothing
    shared = any(remark.check == "shared-parameter" for remark in remarks)
    if tiny is not None and not cut and not shared:
        remarks += check_game(tiny, explained=any(remark.check in SECOND for remark in layers))
    refusals = [remark for remark in layers if remark.check == "double-backward"]
    return remarks, estimate(pair, refused=_refusal(refusals))


def _refusal(remarks: list[Remark]) -> str | None:
    return (
        f"Second derivatives of {spoken(remarks[0].layer)} of the {remarks[0].player} are refused"
        " or wrong."
        if remarks
        else None
    )


def _layers(original: Pair, moving: dict[str, list[str]]) -> tuple[list[Remark], Pair | None]:
    """Check every layer of both networks in float64; return the pair in float64 too, where both networks run in it."""
    tiny = original.in_double()
    freeze(tiny, moving)
    remarks: list[Remark] = []
    runs = True
    for player, batch in ((GENERATOR, tiny.noise), (DISCRIMINATOR, tiny.real)):
        arguments, refusal = _arguments(player, tiny, batch)
        remarks += (
            [refusal]
            if refusal
            else check_layers(player, tiny.networks[player], arguments, seed=_SEED)
        )
        runs = runs and refusal is None
    return remarks, tiny if runs else None


def _arguments(
    player: str, tiny: Pair, batch: Tensor
) -> tuple[dict[str, Arguments], Remark | None]:
    network = tiny.networks[player]
    with traced(network, arguments=True) as trace, tiny.replay().again(), torch.no_grad():
        try:
            network(batch.clone())
        except Exception as error:
            layer = layer_name(network, trace.deepest)
            sentence = (
                f"In the {player}, {spoken(layer)} does not run in float64 on {len(batch)} samples:"
                f" {type(error).__name__}: {first_line(error)} The derivatives of this network were"
                " not checked. Avoid fixed types and batch sizes in forward."
            )
            return {}, Remark("caution", "not-checked", player, layer, sentence)
    return trace.arguments, None


def _modes(pair: Pair) -> list[Remark]:
    return [
        Remark(
            "note",
            "evaluation-mode",
            player,
            layer_name(network, ""),
            f"The {player} was examined in evaluation mode, as it was given; call train() first to"
            " see what training will see.",
        )
        for player, network in pair.networks.items()
        if not network.training
    ]


def _uncopied(pair: Pair, error: Exception) -> Remark:
    sentence = (
        f"The networks cannot be copied: {type(error).__name__}: {first_line(error)} Nothing that"
        " runs them was checked, because they must not change. Keep open files, locks and tensors"
        " with a history out of their attributes."
    )
    return Remark("error", "not-copied", BOTH, layer_name(pair.generator, ""), sentence)


def _no_cost(pair: Pair, reason: str) -> CostEstimate:
    return CostEstimate(batch=len(pair.real), reason=f"Not measured. {reason}")
