"""The examination of a pair of networks before training: all checks in their order."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from saddlepoint.doctor.costs import CostEstimate, estimate
from saddlepoint.doctor.findings import BOTH, Finding, first_line, in_message, layer_name, ranked
from saddlepoint.doctor.game import check_gradient_flow, check_jacobian
from saddlepoint.doctor.layers import SECOND_ORDER_CHECKS, check_layers
from saddlepoint.doctor.networks import (
    check_buffers,
    check_forward_pass,
    check_structure,
    freeze_buffers,
    moving_layers,
    traced,
)
from saddlepoint.doctor.pair import DISCRIMINATOR, GENERATOR, Pair

_SEED = 0


@dataclass(frozen=True)
class Examination:
    """The findings of the doctor.

    Attributes:
        findings: errors first, then warnings, then notes.
        cost: time and memory on the example.
    """

    findings: tuple[Finding, ...]
    cost: CostEstimate

    @property
    def healthy(self) -> bool:
        """Whether there is no error."""
        return not any(finding.level == "error" for finding in self.findings)


def examine(
    generator: nn.Module,
    discriminator: nn.Module,
    noise: Tensor,
    real: Tensor,
    *,
    loss: str = "non-saturating",
    r1: float = 0.0,
) -> Examination:
    """Check a pair of networks before training: derivatives, gradient flow, buffers and costs.

    Works on copies; the networks, their modes and buffers, and random states do not change.
    Derivatives are checked in float64 on the first four samples, time and memory are measured on
    the whole example. Networks are examined in the mode that they are in.

    Args:
        generator: maps ``noise`` to samples.
        discriminator: maps samples to logits.
        noise: an example batch of the generator's input.
        real: an example batch of data.
        loss: a key of ``GAN_LOSSES``.
        r1: weight of the gradient penalty on real data, 0 for none.

    Raises:
        UsageError: a network is not an ``nn.Module``, an example is not a non-empty batch, the loss
            is unknown, or r1 is negative or infinite.

    >>> from saddlepoint.models import MLP
    >>> g = torch.Generator().manual_seed(0)
    >>> G = MLP((2, 8, 2), activation="leaky_relu", generator=g)
    >>> D = MLP((2, 8, 1), activation="leaky_relu", generator=g)
    >>> found = examine(G, D, torch.randn(16, 2, generator=g), torch.randn(16, 2, generator=g))
    >>> found.healthy, [(finding.level, finding.check) for finding in found.findings]
    (True, [('note', 'jacobian')])
    """
    pair = Pair(generator, discriminator, noise, real, loss, r1)
    devices = [torch.cuda.current_device()] if pair.on_cuda else []
    with torch.random.fork_rng(devices), torch.enable_grad():
        # dropout and noise in the networks: the result must not depend on the random state
        torch.manual_seed(_SEED)
        findings, cost = _examine(pair)
    return Examination(ranked(findings), cost)


def _examine(original: Pair) -> tuple[list[Finding], CostEstimate]:
    findings = list(check_structure(original))
    for player, network in original.networks.items():
        if not network.training:
            message = (
                f"The {player} was examined in evaluation mode, as it was given; call train() first"
                " to examine it as in training."
            )
            where = layer_name(network, "")
            findings.append(Finding("note", "evaluation-mode", player, where, message))

    # each stage needs networks that have passed the one before
    unusable = ("lazy-parameters", "no-parameters", "scripted")
    failed = [finding for finding in findings if finding.check in unusable]
    if not failed:
        try:
            pair = original.copied()
        except Exception as error:
            message = (
                f"The networks cannot be copied: {type(error).__name__}: {first_line(error)} No"
                " check that runs them was done, because they must not change. Do not keep open"
                " files, locks or tensors with a history in their attributes."
            )
            where = layer_name(original.generator, "")
            failed = [Finding("error", "not-copied", BOTH, where, message)]
            findings += failed
    if not failed:
        findings += check_forward_pass(pair)
        unusable_outputs = ("forward", "output", "shapes", "not-finite")
        failed = [finding for finding in findings if finding.check in unusable_outputs]
    if failed:
        reason = f"Not measured. {failed[0].message}"
        return findings, CostEstimate(batch=len(original.real), reason=reason)

    moving = moving_layers(pair)
    findings += check_buffers(pair, moving)
    flow = check_gradient_flow(pair)
    layers, double = _check_layers_in_double(original, moving)
    findings += flow + layers
    # J means nothing where a gradient is cut or both players own the same tensor
    meaningful = not any(finding.level == "error" for finding in flow) and not any(
        finding.check == "shared-parameter" for finding in findings
    )
    if double is not None and meaningful:
        explained = any(finding.check in SECOND_ORDER_CHECKS for finding in layers)
        findings += check_jacobian(double, explained=explained)

    refused = [finding for finding in layers if finding.check == "double-backward"]
    reason_against_second = None
    if refused:
        reason_against_second = (
            f"Second derivatives of {in_message(refused[0].layer)} of the {refused[0].player} are"
            " refused or wrong."
        )
    return findings, estimate(pair, refused=reason_against_second)


def _check_layers_in_double(
    original: Pair, moving: dict[str, dict[str, str]]
) -> tuple[list[Finding], Pair | None]:
    """Check the layers of both networks in float64; return that pair too where both run in it."""
    pair = original.in_double()
    freeze_buffers(pair, moving)
    findings: list[Finding] = []
    both_run = True
    for player, batch in ((GENERATOR, pair.noise), (DISCRIMINATOR, pair.real)):
        network = pair.networks[player]
        with traced(network, arguments=True) as trace, pair.replay().again(), torch.no_grad():
            try:
                network(batch.clone())
            except Exception as error:
                both_run = False
                layer = layer_name(network, trace.deepest)
                message = (
                    f"In the {player}, {in_message(layer)} does not run in float64 on"
                    f" {len(batch)} samples: {type(error).__name__}: {first_line(error)} The"
                    " derivatives of this network were not checked. Avoid fixed types and batch"
                    " sizes in forward."
                )
                findings.append(Finding("warning", "not-checked", player, layer, message))
                continue
        findings += check_layers(player, network, trace.arguments, seed=_SEED)
    return findings, pair if both_run else None
