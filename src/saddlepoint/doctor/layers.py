"""Derivatives of every layer against finite differences: double backward and forward mode."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.utils import _pytree as pytree

from saddlepoint.curvature.double_backward import find_unsupported, node_names
from saddlepoint.curvature.replay import Replay
from saddlepoint.doctor.findings import Finding, first_line, in_message, layer_name, module_at
from saddlepoint.doctor.finite_differences import (
    STEPS,
    TOLERANCE,
    RepeatableGame,
    displaced,
    gradient_error,
    normal_like,
    product_error,
    random_direction,
    relative_error,
)
from saddlepoint.doctor.networks import Arguments, floating_tensors
from saddlepoint.game import Players

SECOND_ORDER_CHECKS = frozenset(
    {"double-backward", "surrogate-gradient", "precision", "not-reproducible"}
)
"""Checks whose findings say that second derivatives of a layer cannot be trusted."""

PARAMETERS, INPUTS = "parameters", "inputs"

_REMEDY = (
    "write the operation out with others that PyTorch differentiates twice (or give its"
    " autograd.Function a backward made of such operations), or choose a first-order rule"
)
_FORWARD_MODE_UNUSED = (
    "This library does not use forward mode; it matters only where your own code does"
    " (torch.func.jvp, jacfwd)."
)


def check_layers(
    player: str, network: nn.Module, arguments: dict[str, Arguments], *, seed: int = 0
) -> list[Finding]:
    """Return a finding for every layer whose derivatives PyTorch refuses or gets wrong.

    Only the deepest layer that fails a check is reported, not the layers that contain it.

    Args:
        player: the player that owns the network.
        network: the network in float64; its parameters are displaced and restored.
        arguments: layer → the arguments of its first call in a forward pass, from ``traced``.
        seed: seed of the random directions.

    >>> net = nn.Sequential(nn.PReLU(), nn.Tanh()).double()
    >>> x = torch.ones(4, 2, dtype=torch.float64)
    >>> check_layers("generator", net, {"": ((x,), {})})
    []
    """
    findings: list[Finding] = []
    failed_inside: dict[str, set[str]] = {}  # layer → checks that fail in a layer inside it
    generator = torch.Generator().manual_seed(seed)

    deepest_first = sorted(
        arguments, key=lambda name: name.count(".") if name else -1, reverse=True
    )
    for name in deepest_first:
        explained = failed_inside.get(name, set())
        if not explained.isdisjoint(SECOND_ORDER_CHECKS):
            continue
        layer, module = layer_name(network, name), module_at(network, name)
        for finding in _check_layer(player, layer, module, arguments[name], generator):
            if finding.check not in explained:
                findings.append(finding)
            outer = name
            while outer:
                outer = outer.rpartition(".")[0]
                failed_inside.setdefault(outer, set()).add(finding.check)
    return findings


def _check_layer(
    player: str, layer: str, module: nn.Module, arguments: Arguments, generator: torch.Generator
) -> Iterator[Finding]:
    """Yield at most one finding on double backward and one on forward mode."""
    try:
        probe = LayerProbe(module, arguments, generator)
        values = probe.values()
        if not all(bool(torch.isfinite(value).all()) for value in values):
            return
        with probe.replay.again():
            # indices and thresholds have no gradient
            if not any(output.requires_grad for output in probe.outputs()):
                return
        for a, b in zip(probe.values(), probe.values(), strict=True):
            if not torch.allclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True):
                message = (
                    f"In the {player}, {in_message(layer)} returns different outputs for the same"
                    " inputs, random state and buffers: its derivatives cannot be checked, and"
                    " rules that evaluate several times a step would measure the difference. Draw"
                    " from PyTorch's random state, or name the generator in GameOptimizer(...,"
                    " generators=[...])."
                )
                yield Finding("warning", "not-reproducible", player, layer, message)
                return
    except Exception as error:
        yield _not_checked(player, layer, error)
        return

    # second derivatives
    trap, casts = None, False
    try:
        with probe.replay.again():
            s = probe.scalar()
            trap, casts = find_unsupported([s]), "ToCopy" in set(node_names([s]))
        error_of_products = product_error(probe.game, generator=generator)
    except RuntimeError as refusal:
        what, remedy = ("an operation without a second derivative", _REMEDY)
        if trap is not None:
            what, remedy = trap[0], f"{trap[1]}, or choose a first-order rule"
        message = (
            f"In the {player}, {in_message(layer)} contains {what}. PyTorch says:"
            f" {first_line(refusal)} Gradient penalties, curvature rules and Jacobian products"
            f" through it fail there. Remedy: {remedy}."
        )
        yield Finding("error", "double-backward", player, layer, message)
    except Exception as failure:
        yield _not_checked(player, layer, failure)
    else:
        if trap is not None or error_of_products > TOLERANCE:
            yield _wrong_second_derivative(
                player,
                layer,
                trap,
                casts,
                error_of_products,
                gradient_error(probe.game, generator=generator),
            )
            if casts and trap is None:
                return  # finite differences say as little about forward mode

    # forward mode
    try:
        forward_error = probe.forward_error(generator)
    except Exception as refusal:
        message = (
            f"In the {player}, {in_message(layer)} has no forward-mode derivative. PyTorch says:"
            f" {first_line(refusal)} {_FORWARD_MODE_UNUSED}"
        )
        yield Finding("note", "forward-mode", player, layer, message)
        return
    if forward_error > TOLERANCE:
        message = (
            f"In the {player}, the forward-mode derivative of {in_message(layer)} has a relative"
            f" error of {forward_error:.1e}. {_FORWARD_MODE_UNUSED}"
        )
        numbers = {"relative_error": forward_error}
        yield Finding("warning", "forward-mode", player, layer, message, numbers)


def _wrong_second_derivative(
    player: str, layer: str, trap: tuple[str, str] | None, casts: bool, error: float, first: float
) -> Finding:
    """Return the finding for a relative error of the second derivative and one of the first."""
    numbers = {"relative_error": error, "gradient_error": first}
    difference = (
        "its Hessian-vector product differs from finite differences of its gradient by a relative"
        f" error of {error:.1e}"
    )
    if trap is not None:
        message = (
            f"In the {player}, {in_message(layer)} contains {trap[0]}: {difference}. Remedy:"
            f" {trap[1]}, or choose a first-order rule."
        )
        return Finding("error", "double-backward", player, layer, message, numbers)

    message = (
        f"In the {player}, {in_message(layer)} fails the second-derivative check: {difference}."
    )
    if casts:
        message += (
            " It converts to another precision inside, where finite differences say little. Examine"
            " it without the conversion."
        )
        return Finding("warning", "precision", player, layer, message, numbers)
    if first > TOLERANCE:
        message += (
            " Its gradient is not the derivative of its output either (relative error"
            f" {first:.1e}), as with straight-through estimators: curvature rules would use the"
            " surrogate's second derivative. If this is not intended, correct the backward;"
            " otherwise prefer a first-order rule."
        )
        return Finding("warning", "surrogate-gradient", player, layer, message, numbers)
    message += (
        " The gradient is right, the second derivative silently wrong; curvature rules would use"
        f" it. Remedy: {_REMEDY}."
    )
    return Finding("error", "double-backward", player, layer, message, numbers)


def _not_checked(player: str, layer: str, error: Exception) -> Finding:
    message = (
        f"In the {player}, {in_message(layer)} could not be checked alone in float64:"
        f" {type(error).__name__}: {first_line(error)} Its derivatives were checked only as part of"
        " the layers around it. Remedy: avoid fixed types, devices and state of other layers in"
        " its forward."
    )
    return Finding("warning", "not-checked", player, layer, message)


class LayerProbe:
    """A layer in float64 with fixed arguments and the scalar s = Σ ⟨w, output⟩ + ½ ‖output‖².

    The weights w are random and fixed. The square gives linear layers a second derivative too.

    Args:
        module: the layer.
        arguments: positional and keyword arguments; finite floating tensors among them are
            differentiated.
        generator: draws w.

    Attributes:
        players: "parameters" and "inputs" → the tensors that are differentiated.
        replay: restores random state and the layer's buffers before each evaluation.

    >>> x = torch.ones(3, 2, dtype=torch.float64)
    >>> probe = LayerProbe(nn.PReLU().double(), ((x,), {}), torch.Generator().manual_seed(0))
    >>> [tuple(t.shape) for t in probe.players["inputs"]], len(probe.outputs())
    ([(3, 2)], 1)
    """

    def __init__(self, module: nn.Module, arguments: Arguments, generator: torch.Generator) -> None:
        self.module = module
        leaves, self._spec = pytree.tree_flatten(arguments)
        self._leaves: list[object] = []
        inputs = []
        for leaf in leaves:
            if isinstance(leaf, Tensor):
                # a mask of −∞ is not a variable
                variable = leaf.is_floating_point() and bool(torch.isfinite(leaf).all())
                leaf = leaf.detach().clone().requires_grad_(variable)
                if variable:
                    inputs.append(leaf)
            self._leaves.append(leaf)
        self._names = [name for name, p in module.named_parameters() if p.requires_grad]
        parameters = tuple(p for p in module.parameters() if p.requires_grad)
        self.players: Players = {PARAMETERS: parameters, INPUTS: tuple(inputs)}

        self.replay = Replay([module], cuda=any(t.is_cuda for t in (*inputs, *parameters)))
        self._weights = [normal_like(output, generator) for output in self.values()]

    @property
    def game(self) -> RepeatableGame:
        """The layer as a one-player game: its parameters and inputs together minimise s."""
        variables = (*self.players[PARAMETERS], *self.players[INPUTS])
        return RepeatableGame({"layer": variables}, lambda: {"layer": self.scalar()}, self.replay)

    def outputs(self) -> tuple[Tensor, ...]:
        """Return the layer's floating outputs."""
        return floating_tensors(self._call(self._leaves))

    def values(self) -> list[Tensor]:
        """Return copies of the outputs under the randomness and buffers of every evaluation."""
        with self.replay.again(), torch.no_grad():
            return [output.clone() for output in self.outputs()]

    def scalar(self) -> Tensor:
        """Return s."""
        parts = []
        for output, weight in zip(self.outputs(), self._weights, strict=True):
            parts.append((output * weight).sum() + output.square().sum() / 2)
        return torch.stack(parts).sum()

    def forward_error(self, generator: torch.Generator) -> float:
        """Return the relative error of the forward-mode derivative against finite differences.

        Raises:
            RuntimeError: PyTorch refuses forward mode for an operation in the layer.
        """
        make_dual: Callable[[Tensor, Tensor], Tensor] = forward_ad.make_dual
        # the first use makes PyTorch warn of deprecated parts of its own
        with warnings.catch_warnings(), forward_ad.dual_level():
            warnings.simplefilter("ignore")
            make_dual(torch.zeros(1), torch.ones(1))

        v = random_direction(self.players, generator)
        tangents = []
        with self.replay.again(), torch.no_grad(), forward_ad.dual_level():
            directions = iter(v[INPUTS])
            leaves: list[object] = []
            for leaf in self._leaves:
                if isinstance(leaf, Tensor) and leaf.requires_grad:
                    leaf = make_dual(leaf.detach().clone(), next(directions))
                leaves.append(leaf)
            state = {}
            for name, p, direction in zip(
                self._names, self.players[PARAMETERS], v[PARAMETERS], strict=True
            ):
                state[name] = make_dual(p.detach().clone(), direction)
            state |= {name: buffer.clone() for name, buffer in self.module.named_buffers()}
            for output in floating_tensors(self._call(leaves, state)):
                primal, tangent = forward_ad.unpack_dual(output)  # type: ignore[no-untyped-call]
                tangents.append(torch.zeros_like(primal) if tangent is None else tangent)

        best = float("inf")
        for step in STEPS:
            with displaced(self.players, v, step):
                above = _flat(self.values())
            with displaced(self.players, v, -step):
                below = _flat(self.values())
            noise = 50 * torch.finfo(torch.float64).eps * float(above.norm()) / step
            difference = (above - below) / (2 * step)
            best = min(best, relative_error(_flat(tangents), difference, noise=noise))
        return best

    def _call(self, leaves: list[object], state: dict[str, Tensor] | None = None) -> object:
        """Call the layer on copies of its arguments, which it may overwrite."""
        copies = [x.clone() if isinstance(x, Tensor) else x for x in leaves]
        args, kwargs = pytree.tree_unflatten(copies, self._spec)
        if state is None:
            return self.module(*args, **kwargs)
        return functional_call(self.module, state, args, kwargs)


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors]) if tensors else torch.zeros(0)
