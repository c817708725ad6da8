"""What can be said about a pair without differentiating it: structure, and what one forward pass shows."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from saddlepoint.diagnostics.doctor.calls import CallTrace, traced
from saddlepoint.diagnostics.doctor.pair import DISCRIMINATOR, GENERATOR, Pair, compiled_layers
from saddlepoint.diagnostics.doctor.remarks import (
    BOTH,
    Remark,
    first_line,
    layer_name,
    listed,
    spoken,
)

_BOUNDED = ("Sigmoid", "Softmax", "LogSigmoid", "Hardsigmoid", "LogSoftmax")
_SHAPING = (
    "View",
    "UnsafeView",
    "ReshapeAlias",
    "Squeeze",
    "Unsqueeze",
    "Clone",
    "Alias",
    "Select",
    "Slice",
    "Permute",
    "T",
    "Transpose",
)


def structure(pair: Pair) -> Iterator[Remark]:
    """Yield remarks on how the networks are built; nothing is run.

    >>> pair = Pair(nn.PReLU(), nn.PReLU(), torch.ones(3, 1), torch.ones(3, 1))
    >>> list(structure(pair))
    []
    """
    for player, network in pair.networks.items():
        yield from _parameters(player, network)
        yield from _scripted(player, network)
        yield from (_compiled(player, network, name) for name, _ in compiled_layers(network))
    yield from _shared(pair)
    if pair.r1 > 0:
        yield from _batch_norm_under_a_penalty(pair)


def _parameters(player: str, network: nn.Module) -> Iterator[Remark]:
    lazy = [name for name, p in network.named_parameters() if is_lazy(p)]
    where = layer_name(network, "")
    if lazy:
        text = (
            f"The {player}'s parameters {listed(lazy)} have no shape yet. Run the network once on"
            " an example before training it."
        )
        yield Remark("error", "lazy-parameters", player, where, text)
    elif not any(p.requires_grad for p in network.parameters()):
        text = (
            f"The {player} has no parameters that require gradients, so it cannot be a player. Call"
            " requires_grad_() on those that move."
        )
        yield Remark("error", "no-parameters", player, where, text)


def _scripted(player: str, network: nn.Module) -> Iterator[Remark]:
    names = [
        name
        for name, module in network.named_modules()
        if isinstance(module, torch.jit.ScriptModule)
    ]
    if names:
        layer = layer_name(network, names[0])
        sentence = (
            f"In the {player}, {spoken(layer)} is scripted: copies of it are no leaves of a graph"
            " and its parts cannot be watched, so that nothing that runs the networks was checked."
            " Examine and train the Python module from before torch.jit."
        )
        yield Remark("error", "scripted", player, layer, sentence)


def _compiled(player: str, network: nn.Module, name: str) -> Remark:
    layer = f"{name or 'whole network'} (torch.compile)"
    sentence = (
        f"In the {player}, {spoken(layer)} is compiled, and what torch.compile gives has no second"
        " derivative: gradient penalties and curvature rules stop there. The uncompiled module was"
        " examined instead. Remedy: use the module before torch.compile, or choose a first-order"
        " rule."
    )
    return Remark("error", "compiled", player, layer, sentence)


def _shared(pair: Pair) -> Iterator[Remark]:
    owners = {
        p.data_ptr(): name
        for name, p in pair.discriminator.named_parameters()
        if p.requires_grad and _has_memory(p)
    }
    for name, p in pair.generator.named_parameters():
        if p.requires_grad and _has_memory(p) and p.data_ptr() in owners:
            layer = layer_name(pair.generator, name.rpartition(".")[0])
            sentence = (
                f'Parameter "{name}" of the generator, shape {tuple(p.shape)}, is the'
                f' discriminator\'s "{owners[p.data_ptr()]}" too: each player would undo the'
                " other's steps. Give it to one player, or copy the layer."
            )
            yield Remark(
                "error", "shared-parameter", BOTH, layer, sentence, {"entries": float(p.numel())}
            )


def _has_memory(p: Tensor) -> bool:
    return not is_lazy(p) and p.numel() > 0 and p.data_ptr() != 0


def _batch_norm_under_a_penalty(pair: Pair) -> Iterator[Remark]:
    for name, module in pair.discriminator.named_modules():
        if isinstance(module, _BatchNorm):
            layer = layer_name(pair.discriminator, name)
            sentence = (
                f"In the discriminator, {spoken(layer)} stands under a gradient penalty"
                f" (r1={pair.r1:g}). The penalty is on the gradient at each sample, but BatchNorm"
                " makes every output depend on the whole batch, so it penalises a mixture. Use"
                " LayerNorm, InstanceNorm or GroupNorm."
            )
            yield Remark(
                "error", "batch-norm-penalty", DISCRIMINATOR, layer, sentence, {"r1": pair.r1}
            )


def forward_pass(pair: Pair) -> Iterator[Remark]:
    """Run both networks on the example and yield remarks on exceptions, shapes, ranges and values that are not finite.

    >>> pair = Pair(nn.PReLU(), nn.PReLU(), torch.ones(3, 2), torch.ones(3, 1))
    >>> [(remark.check, remark.player) for remark in forward_pass(pair)]
    [('shapes', 'generator')]
    """
    replay = pair.replay()
    with replay.again():
        fake, trace, failures = _run(GENERATOR, pair.generator, pair.noise)
    yield from failures
    if fake is not None:
        yield from _not_finite(GENERATOR, pair.generator, trace)
    fits = fake is not None and fake.shape[1:] == pair.real.shape[1:]
    if fake is not None and not fits:
        yield _shapes(pair, fake)
    for batch in [pair.real, fake] if fits and fake is not None else [pair.real]:
        with replay.again():
            logits, trace, failures = _run(DISCRIMINATOR, pair.discriminator, batch)
        yield from failures
        found = [] if logits is None else list(_judge(pair, logits, trace))
        yield from found
        if failures or found:
            return  # the same would be said of the generated samples


def _run(
    player: str, network: nn.Module, batch: Tensor
) -> tuple[Tensor | None, CallTrace, list[Remark]]:
    with traced(network) as trace:
        try:
            returned: object = network(batch.detach().clone())
        except Exception as error:
            return None, trace, [_raised(player, network, trace, error)]
    if not isinstance(returned, Tensor) or not returned.is_floating_point():
        return None, trace, [_no_tensor(player, network, returned)]
    return returned, trace, []


def _raised(player: str, network: nn.Module, trace: CallTrace, error: Exception) -> Remark:
    layer = layer_name(network, trace.deepest)
    sentence = (
        f"In the {player}, {spoken(layer)} raised {type(error).__name__} on the example:"
        f" {first_line(error)} Correct the layer, or give an example of the right shape and type."
    )
    return Remark("error", "forward", player, layer, sentence)


def _no_tensor(player: str, network: nn.Module, returned: object) -> Remark:
    kind = (
        f"a tensor of {returned.dtype}"
        if isinstance(returned, Tensor)
        else f"a {type(returned).__name__}"
    )
    sentence = (
        f"The {player} returned {kind}; the losses need one floating tensor. Return the samples or"
        " logits alone."
    )
    return Remark("error", "output", player, layer_name(network, ""), sentence)


def _shapes(pair: Pair, fake: Tensor) -> Remark:
    sentence = (
        f"The generator's samples have shape {tuple(fake.shape[1:])}, the real ones"
        f" {tuple(pair.real.shape[1:])}; the discriminator would tell them apart by it, or fail."
        " Change the generator's last layer or the data."
    )
    return Remark("error", "shapes", GENERATOR, layer_name(pair.generator, ""), sentence)


def _not_finite(player: str, network: nn.Module, trace: CallTrace) -> Iterator[Remark]:
    bad = [
        call for call in trace.calls if not all(bool(torch.isfinite(t).all()) for t in call.outputs)
    ]
    if bad and not all(bool(torch.isfinite(t).all()) for t in trace.calls[-1].outputs):
        layer = layer_name(network, bad[0].name)
        share = float(
            torch.cat([(~torch.isfinite(t)).double().reshape(-1) for t in bad[0].outputs]).mean()
        )
        sentence = (
            f"{share:.0%} of what {spoken(layer)} of the {player} returns is NaN or infinite; it is"
            " the first such layer. Look at its parameters, the scale of its inputs, divisions and"
            " logarithms."
        )
        yield Remark("error", "not-finite", player, layer, sentence, {"share": share})


def _judge(pair: Pair, logits: Tensor, trace: CallTrace) -> Iterator[Remark]:
    yield from _not_finite(DISCRIMINATOR, pair.discriminator, trace)
    yield from _bounded(pair, logits, trace)
    if logits.dim() == 0 or logits.numel() != len(logits):
        sentence = (
            f"The discriminator returned shape {tuple(logits.shape)}, not (N,) or (N, 1). Every"
            " entry counts as a logit of its own: right for a discriminator of patches, otherwise"
            " end in one number per sample."
        )
        yield Remark(
            "caution", "logit-shape", DISCRIMINATOR, layer_name(pair.discriminator, ""), sentence
        )


def _bounded(pair: Pair, logits: Tensor, trace: CallTrace) -> Iterator[Remark]:
    node = _squashing_node(logits)
    if node is None:
        return
    makers = [
        call.name for call in trace.calls if any(_squashing_node(t) is node for t in call.outputs)
    ]
    layer, kind = layer_name(pair.discriminator, makers[0] if makers else ""), _kind(node)
    low, high = float(logits.detach().min()), float(logits.detach().max())
    sentence = (
        f"The discriminator ends in {kind}, {spoken(layer)}, with outputs from {low:.3g} to"
        f" {high:.3g}, but the {pair.loss} loss takes logits without bounds and applies what it"
        " needs itself: the gradients would be too flat, and the optimum out of reach. Remove it."
    )
    yield Remark(
        "error", "bounded-logits", DISCRIMINATOR, layer, sentence, {"lowest": low, "highest": high}
    )


def _squashing_node(output: Tensor) -> Node | None:
    """Return the sigmoid or softmax at the end of a graph, looking through changes of shape."""
    node = output.grad_fn
    while node is not None and _kind(node) in _SHAPING:
        node = node.next_functions[0][0]
    return node if node is not None and _kind(node) in _BOUNDED else None


def _kind(node: Node) -> str:
    return node.name().rstrip("0123456789").removesuffix("Backward")
