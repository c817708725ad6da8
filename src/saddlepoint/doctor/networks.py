"""Checks of the networks without derivatives: structure, buffers, and one traced forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from saddlepoint.doctor.findings import (
    BOTH,
    Finding,
    first_line,
    in_message,
    layer_name,
    module_at,
    shortened,
)
from saddlepoint.doctor.pair import DISCRIMINATOR, GENERATOR, Pair, compiled_layers

Arguments = tuple[tuple[Any, ...], dict[str, Any]]

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
_BUFFERS = {
    "batch-norm": (
        "running statistics, and they couple the samples of a batch, so that the loss is not a mean"
        " over samples"
    ),
    "spectral-norm": (
        "the vectors u, v of its power iteration, and second derivatives treat u and v as constants"
    ),
    "moving-buffers": "buffers",
}


# Structure: nothing is run


def check_structure(pair: Pair) -> Iterator[Finding]:
    """Yield findings on parameters, scripted and compiled layers; nothing is run.

    >>> pair = Pair(nn.PReLU(), nn.PReLU(), torch.ones(3, 1), torch.ones(3, 1))
    >>> list(check_structure(pair))
    []
    """
    for player, network in pair.networks.items():
        lazy = [name for name, p in network.named_parameters() if is_lazy(p)]
        where = layer_name(network, "")
        if lazy:
            message = (
                f"The {player}'s parameters {shortened(lazy)} have no shape yet. Run the network"
                " once on an example before training it."
            )
            yield Finding("error", "lazy-parameters", player, where, message)
        elif not any(p.requires_grad for p in network.parameters()):
            message = (
                f"The {player} has no parameters that require gradients, so it cannot be a player."
                " Call requires_grad_() on those that should be trained."
            )
            yield Finding("error", "no-parameters", player, where, message)

        modules = network.named_modules()
        scripted = [name for name, m in modules if isinstance(m, torch.jit.ScriptModule)]
        if scripted:
            layer = layer_name(network, scripted[0])
            message = (
                f"In the {player}, {in_message(layer)} is scripted. Its copies are not leaves of a"
                " graph and its submodules cannot be traced, so no check that runs the networks was"
                " done. Examine and train the Python module from before torch.jit."
            )
            yield Finding("error", "scripted", player, layer, message)

        for name, _ in compiled_layers(network):
            layer = f"{name or 'whole network'} (torch.compile)"
            message = (
                f"In the {player}, {in_message(layer)} is compiled, and the output of torch.compile"
                " has no second derivative: gradient penalties and curvature rules fail there. The"
                " uncompiled module was examined instead. Remedy: use the module before"
                " torch.compile, or choose a first-order rule."
            )
            yield Finding("error", "compiled", player, layer, message)

    yield from _shared_parameters(pair)
    for name, module in pair.discriminator.named_modules():
        if isinstance(module, _BatchNorm) and pair.r1 > 0:
            layer = layer_name(pair.discriminator, name)
            message = (
                f"In the discriminator, {in_message(layer)} is used with a gradient penalty"
                f" (r1={pair.r1:g}). The penalty is on the gradient at each sample, but BatchNorm"
                " makes every output depend on the whole batch, so it penalises a mixture. Use"
                " LayerNorm, InstanceNorm or GroupNorm."
            )
            yield Finding(
                "error", "batch-norm-penalty", DISCRIMINATOR, layer, message, {"r1": pair.r1}
            )


def _shared_parameters(pair: Pair) -> Iterator[Finding]:
    owned: dict[int, str] = {}  # address → the discriminator's parameter
    for player, network in pair.networks.items():
        for name, p in network.named_parameters():
            # lazy, empty and meta tensors have no memory that could be shared
            if is_lazy(p) or not p.requires_grad or p.numel() == 0 or p.data_ptr() == 0:
                continue
            if player == DISCRIMINATOR:
                owned[p.data_ptr()] = name
            elif p.data_ptr() in owned:
                layer = layer_name(network, name.rpartition(".")[0])
                message = (
                    f'Parameter "{name}" of the generator, shape {tuple(p.shape)}, is also'
                    f' "{owned[p.data_ptr()]}" of the discriminator: each player would undo the'
                    " steps of the other. Give it to one player, or copy the layer."
                )
                numbers = {"entries": float(p.numel())}
                yield Finding("error", "shared-parameter", BOTH, layer, message, numbers)


# Tracing a forward pass


@dataclass(frozen=True)
class Call:
    """A completed call of a layer.

    Attributes:
        name: the layer's dotted name.
        attached: whether an input required gradients.
        outputs: the floating tensors in the output.
    """

    name: str
    attached: bool
    outputs: tuple[Tensor, ...]


@dataclass
class CallTrace:
    """The calls of a network's layers in a forward pass.

    Attributes:
        calls: the completed calls in order of completion: inner layers before outer ones.
        arguments: layer → copies of the arguments of its first call, if they were requested.
        entered: (layer, attached) of calls that have not completed, the deepest last; not empty
            after an exception.
    """

    calls: list[Call] = field(default_factory=list)
    arguments: dict[str, Arguments] = field(default_factory=dict)
    entered: list[tuple[str, bool]] = field(default_factory=list)

    @property
    def deepest(self) -> str:
        """The deepest layer that did not complete: where an exception was raised."""
        return self.entered[-1][0] if self.entered else ""


@contextmanager
def traced(network: nn.Module, *, arguments: bool = False) -> Iterator[CallTrace]:
    """Trace the calls of every layer of ``network`` inside the block.

    Args:
        network: the network.
        arguments: whether to keep copies of the arguments.

    >>> net = nn.Sequential(nn.PReLU(), nn.Tanh())
    >>> with traced(net) as trace:
    ...     _ = net(torch.ones(1, 2))
    >>> [call.name for call in trace.calls]
    ['0', '1', '']
    """
    trace = CallTrace()

    def enter(name: str, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs = pytree.tree_leaves((args, kwargs))
        attached = any(isinstance(x, Tensor) and x.requires_grad for x in inputs)
        trace.entered.append((name, attached))
        if arguments and name not in trace.arguments:
            trace.arguments[name] = pytree.tree_map_only(
                Tensor, lambda t: t.detach().clone(), (args, kwargs)
            )

    def leave(_: nn.Module, __: object, returned: object) -> None:
        trace.calls.append(Call(*trace.entered.pop(), floating_tensors(returned)))

    hooks = []
    for name, module in network.named_modules():
        hooks.append(module.register_forward_pre_hook(partial(enter, name), with_kwargs=True))
        hooks.append(module.register_forward_hook(leave))
    try:
        yield trace
    finally:
        for hook in hooks:
            hook.remove()


def floating_tensors(returned: object) -> tuple[Tensor, ...]:
    """Return the floating tensors in a nest of containers; complex ones as pairs of reals.

    >>> floating_tensors({"a": (torch.ones(2), 3), "b": torch.arange(2)})
    (tensor([1., 1.]),)
    """
    tensors = [t for t in pytree.tree_leaves(returned) if isinstance(t, Tensor)]
    real = [torch.view_as_real(t) if t.is_complex() else t for t in tensors]
    return tuple(t for t in real if t.is_floating_point())


# Buffers that change in a forward pass


def moving_layers(pair: Pair) -> dict[str, dict[str, str]]:
    """Return player → layer → kind, for layers whose own buffers a training pass changes.

    The kinds are "batch-norm", "spectral-norm" and "moving-buffers". Spectral norm in training mode
    is included even where one pass does not change it: for a matrix of one row the power iteration
    has converged. The buffers are restored.

    >>> D = nn.Sequential(nn.BatchNorm1d(2), nn.PReLU())
    >>> moving_layers(Pair(nn.PReLU(), D, torch.ones(3, 2), torch.ones(3, 2)))
    {'discriminator': {'0': 'batch-norm'}, 'generator': {}}
    """
    with pair.replay().again(), torch.no_grad():
        before = _own_buffers(pair)
        pair.discriminator(pair.real.clone())
        pair.generator(pair.noise.clone())
        after = _own_buffers(pair)
    moving: dict[str, dict[str, str]] = {player: {} for player in pair.networks}
    for (player, name), old in before.items():
        module = module_at(pair.networks[player], name)
        buffers = {key for key, _ in module.named_buffers(recurse=False)}
        kind = "moving-buffers"
        if isinstance(module, _BatchNorm):
            kind = "batch-norm"
        elif type(module).__name__ == "_SpectralNorm" or {"weight_u", "weight_v"} <= buffers:
            kind = "spectral-norm"
        new = after[player, name]
        changed = not all(torch.equal(a, b) for a, b in zip(old, new, strict=True))
        if changed or (module.training and kind == "spectral-norm"):
            moving[player][name] = kind
    return moving


def check_buffers(pair: Pair, moving: dict[str, dict[str, str]]) -> Iterator[Finding]:
    """Yield a warning for each player and kind of layer with moving buffers.

    Args:
        pair: the networks.
        moving: player → layer → kind, from ``moving_layers``.
    """
    for player, network in pair.networks.items():
        kinds: dict[str, list[str]] = {}
        for name, kind in moving[player].items():
            kinds.setdefault(kind, []).append(name)
        for kind, names in kinds.items():
            layers = shortened(layer_name(network, name) for name in names)
            message = (
                f"{len(names)} layer(s) of the {player} change in every forward pass ({layers}):"
                f" {_BUFFERS[kind]}. Name the networks in GameOptimizer(..., modules=[G, D]): then"
                " they change once per step, not once per evaluation."
            )
            if kind == "batch-norm" and player == DISCRIMINATOR:
                message += " A gradient penalty needs LayerNorm, InstanceNorm or GroupNorm instead."
            if kind == "spectral-norm" and player == GENERATOR:
                message += (
                    " It is rare in a generator; its purpose is to bound the Lipschitz constant of"
                    " a discriminator."
                )
            yield Finding("warning", kind, player, layers, message, {"layers": float(len(names))})


def freeze_buffers(pair: Pair, moving: dict[str, dict[str, str]]) -> None:
    """Put layers with moving buffers, batch normalisation excepted, into evaluation mode.

    PyTorch's derivatives treat these buffers as constants, so finite differences must too.
    """
    for player, network in pair.networks.items():
        for name in moving[player]:
            if not isinstance(module_at(network, name), _NormBase):
                module_at(network, name).eval()


def _own_buffers(pair: Pair) -> dict[tuple[str, str], list[Tensor]]:
    """Return (player, layer) → copies of the layer's own buffers."""
    found = {}
    for player, network in pair.networks.items():
        for name, module in network.named_modules():
            found[player, name] = [buffer.clone() for buffer in module.buffers(recurse=False)]
    return found


# One forward pass on the example


def check_forward_pass(pair: Pair) -> Iterator[Finding]:
    """Run both networks on the example; yield findings on exceptions, shapes, ranges and NaNs.

    >>> pair = Pair(nn.PReLU(), nn.PReLU(), torch.ones(3, 2), torch.ones(3, 1))
    >>> [(finding.check, finding.player) for finding in check_forward_pass(pair)]
    [('shapes', 'generator')]
    """
    replay = pair.replay()
    with replay.again():
        fake, trace, failures = _run(GENERATOR, pair.generator, pair.noise)
    yield from failures
    batches = [pair.real]
    if fake is not None:
        yield from _nonfinite_outputs(GENERATOR, pair.generator, trace)
        if fake.shape[1:] == pair.real.shape[1:]:
            batches.append(fake)
        else:
            message = (
                f"The generator's samples have shape {tuple(fake.shape[1:])}, the real ones"
                f" {tuple(pair.real.shape[1:])}: the discriminator fails, or separates them by"
                " their shape. Change the generator's last layer or the data."
            )
            yield Finding("error", "shapes", GENERATOR, layer_name(pair.generator, ""), message)

    for batch in batches:
        with replay.again():
            logits, trace, findings = _run(DISCRIMINATOR, pair.discriminator, batch)
        if logits is not None:
            findings += _nonfinite_outputs(DISCRIMINATOR, pair.discriminator, trace)
            findings += _bounded_logits(pair, logits, trace)
            if logits.dim() == 0 or logits.numel() != len(logits):
                where = layer_name(pair.discriminator, "")
                message = (
                    f"The discriminator returned shape {tuple(logits.shape)}, not (N,) or (N, 1)."
                    " Every entry counts as a logit: right for a discriminator of patches,"
                    " otherwise return one number per sample."
                )
                findings.append(Finding("warning", "logit-shape", DISCRIMINATOR, where, message))
        yield from findings
        if findings:
            return  # the generated samples would give the same findings


def _run(
    player: str, network: nn.Module, batch: Tensor
) -> tuple[Tensor | None, CallTrace, list[Finding]]:
    """Return the output, None where there is none to use, with the trace and what went wrong."""
    with traced(network) as trace:
        try:
            returned: object = network(batch.detach().clone())
        except Exception as error:
            layer = layer_name(network, trace.deepest)
            message = (
                f"In the {player}, {in_message(layer)} raised {type(error).__name__} on the"
                f" example: {first_line(error)} Correct the layer, or give an example of the right"
                " shape and type."
            )
            return None, trace, [Finding("error", "forward", player, layer, message)]
    if isinstance(returned, Tensor) and returned.is_floating_point():
        return returned, trace, []
    kind = f"a {type(returned).__name__}"
    if isinstance(returned, Tensor):
        kind = f"a tensor of {returned.dtype}"
    message = (
        f"The {player} returned {kind}; the losses need one floating tensor. Return the samples or"
        " logits alone."
    )
    return None, trace, [Finding("error", "output", player, layer_name(network, ""), message)]


def _nonfinite_outputs(player: str, network: nn.Module, trace: CallTrace) -> Iterator[Finding]:
    """Yield an error for the first layer with a NaN where the network's output has one too."""
    bad: list[tuple[Call, Tensor]] = []
    for call in trace.calls:
        entries = [~torch.isfinite(t).reshape(-1) for t in call.outputs]
        if any(bool(part.any()) for part in entries):
            bad.append((call, torch.cat(entries)))
    if bad and bad[-1][0] is trace.calls[-1]:
        first, entries_of_first = bad[0]
        layer, share = layer_name(network, first.name), float(entries_of_first.double().mean())
        message = (
            f"{share:.0%} of the output of {in_message(layer)} of the {player} is NaN or infinite;"
            " it is the first such layer. Look at its parameters, the scale of its inputs,"
            " divisions and logarithms."
        )
        yield Finding("error", "not-finite", player, layer, message, {"share": share})


def _bounded_logits(pair: Pair, logits: Tensor, trace: CallTrace) -> Iterator[Finding]:
    found = _squashing_node(logits)
    if found is None:
        return
    layers = [call.name for call in trace.calls if found in map(_squashing_node, call.outputs)]
    layer = layer_name(pair.discriminator, layers[0] if layers else "")
    low, high = float(logits.detach().min()), float(logits.detach().max())
    message = (
        f"The last operation of the discriminator is {found[1]}, {in_message(layer)}, with outputs"
        f" from {low:.3g} to {high:.3g}, but the {pair.loss} loss takes unbounded logits and"
        " applies such functions itself: the gradients would be too flat, and the optimum out of"
        " reach. Remove it."
    )
    numbers = {"lowest": low, "highest": high}
    yield Finding("error", "bounded-logits", DISCRIMINATOR, layer, message, numbers)


def _squashing_node(output: Tensor) -> tuple[Node, str] | None:
    """Return the sigmoid or softmax that ends a graph, and its name; shape changes are skipped."""
    node = output.grad_fn
    while node is not None:
        kind = node.name().rstrip("0123456789").removesuffix("Backward")
        if kind not in _SHAPING:
            return (node, kind) if kind in _BOUNDED else None
        node = node.next_functions[0][0]
    return None
