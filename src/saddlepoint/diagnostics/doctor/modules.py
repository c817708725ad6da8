"""Every layer's derivatives: second ones by double backward, and forward mode, against finite differences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import nn

from saddlepoint.curvature.double_backward import find_trap, node_names
from saddlepoint.diagnostics.doctor.calls import Arguments
from saddlepoint.diagnostics.doctor.derivatives import TOLERANCE, gradient_error, product_error
from saddlepoint.diagnostics.doctor.layer_probe import LayerProbe
from saddlepoint.diagnostics.doctor.remarks import (
    Level,
    Remark,
    first_line,
    layer_name,
    module_at,
    spoken,
)

_REMEDY = (
    "write the operation out with others that PyTorch differentiates twice (or give its"
    " autograd.Function a backward made of such operations), or choose a first-order rule"
)

SECOND = ("double-backward", "surrogate-gradient", "precision", "not-reproducible")
"""Checks that say that second derivatives of a layer are not to be trusted."""


def check_layers(
    player: str, network: nn.Module, arguments: dict[str, Arguments], *, seed: int = 0
) -> list[Remark]:
    """Return a remark for every layer whose derivatives PyTorch refuses or gets wrong: the deepest layer that fails, not those around it.

    Args:
        player: whose network it is.
        network: the network in float64; it is displaced and put back.
        arguments: layer → the arguments of its first call in a forward pass, of ``traced``.
        seed: the random directions are a function of it.

    >>> net, x = nn.Sequential(nn.PReLU(), nn.Tanh()).double(), torch.ones(4, 2, dtype=torch.float64)
    >>> check_layers("generator", net, {"": ((x,), {})})
    []
    """
    remarks: list[Remark] = []
    # check → layers; a layer around one of them does not repeat it
    failed: dict[str, set[str]] = {}
    generator = torch.Generator().manual_seed(seed)
    for name in sorted(arguments, key=lambda name: -_depth(name)):
        explained = any(_holds(name, failed.get(check, ())) for check in SECOND)
        checks = _check_layer(
            player, layer_name(network, name), module_at(network, name), arguments[name], generator
        )
        for remark in () if explained else checks:
            if not _holds(name, failed.get(remark.check, ())):
                remarks.append(remark)
            failed.setdefault(remark.check, set()).add(name)
    return remarks


def _depth(name: str) -> int:
    return name.count(".") + 1 if name else 0


def _holds(name: str, failed: Iterable[str]) -> bool:
    return any(other != name and (not name or other.startswith(f"{name}.")) for other in failed)


def _check_layer(
    player: str, layer: str, module: nn.Module, arguments: Arguments, generator: torch.Generator
) -> Iterator[Remark]:
    """Yield at most one remark on double backward and one on forward mode."""
    try:
        probe = LayerProbe(module, arguments, generator)
        if not all(
            bool(torch.isfinite(value).all()) for value in probe.values()
        ) or not _differentiable(probe):
            return
        if _irreproducible(probe):
            yield _unequal(player, layer)
            return
    except Exception as error:
        yield _unchecked(player, layer, error)
        return
    second = list(_second(player, layer, probe, generator))
    yield from second
    if not any(remark.check == "precision" for remark in second):
        yield from _forward(player, layer, probe, generator)


def _differentiable(probe: LayerProbe) -> bool:
    """Whether an output depends on a parameter or input in a way that autograd sees; indices and thresholds do not."""
    with probe.replay.again():
        return any(output.requires_grad for output in probe.outputs())


def _irreproducible(probe: LayerProbe) -> bool:
    pairs = zip(probe.values(), probe.values(), strict=True)
    return any(not torch.allclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True) for a, b in pairs)


def _second(
    player: str, layer: str, probe: LayerProbe, generator: torch.Generator
) -> Iterator[Remark]:
    trap, casts = None, False
    try:
        with probe.replay.again():
            s = probe.scalar()
            trap, casts = find_trap([s]), "ToCopy" in set(node_names([s]))
        error = product_error(probe.subject, generator=generator)
    except RuntimeError as refusal:
        yield _refused(player, layer, trap, first_line(refusal))
        return
    except Exception as failure:
        yield _unchecked(player, layer, failure)
        return
    if trap is not None or error > TOLERANCE:
        first = gradient_error(probe.subject, generator=generator)
        yield _wrong(player, layer, trap, casts, error, first)


def _refused(player: str, layer: str, trap: tuple[str, str] | None, text: str) -> Remark:
    what, remedy = trap or ("an operation without a second derivative", _REMEDY)
    sentence = (
        f"In the {player}, {spoken(layer)} contains {what}. PyTorch says: {text} Gradient"
        " penalties, curvature rules and Jacobian products through it stop there. Remedy:"
        f" {remedy}{'' if trap is None else ', or choose a first-order rule'}."
    )
    return Remark("error", "double-backward", player, layer, sentence)


def _wrong(
    player: str, layer: str, trap: tuple[str, str] | None, casts: bool, error: float, first: float
) -> Remark:
    numbers = {"relative_error": error, "gradient_error": first}
    off = (
        "its Hessian-vector product differs from finite differences of its gradient by a relative"
        f" error of {error:.1e}"
    )
    if trap is not None:
        what, remedy = trap
        sentence = (
            f"In the {player}, {spoken(layer)} contains {what}: {off}. Remedy: {remedy}, or choose"
            " a first-order rule."
        )
        return Remark("error", "double-backward", player, layer, sentence, numbers)
    level, check, why = _judged(casts, first)
    return Remark(
        level,
        check,
        player,
        layer,
        f"In the {player}, {spoken(layer)} is at fault: {off}. {why}",
        numbers,
    )


def _judged(casts: bool, first: float) -> tuple[Level, str, str]:
    if casts:
        why = (
            "It converts to another precision inside, where finite differences say little. Examine"
            " it without the conversion."
        )
        return "caution", "precision", why
    if first > TOLERANCE:
        why = (
            f"Its gradient is not the derivative of its output either (relative error {first:.1e}),"
            " as with straight-through estimators: curvature rules would use the surrogate's"
            " second derivative. If that is not meant, correct the backward; otherwise prefer a"
            " first-order rule."
        )
        return "caution", "surrogate-gradient", why
    why = (
        "The gradient is right, the second derivative silently wrong; curvature rules would go"
        f" astray. Remedy: {_REMEDY}."
    )
    return "error", "double-backward", why


def _forward(
    player: str, layer: str, probe: LayerProbe, generator: torch.Generator
) -> Iterator[Remark]:
    unused = (
        "This library does not use forward mode; it matters only where your own code does"
        " (torch.func.jvp, jacfwd)."
    )
    try:
        error = probe.forward_error(generator)
    except Exception as refusal:
        sentence = (
            f"In the {player}, {spoken(layer)} has no forward-mode derivative. PyTorch says:"
            f" {first_line(refusal)} {unused}"
        )
        yield Remark("note", "forward-mode", player, layer, sentence)
        return
    if error > TOLERANCE:
        sentence = (
            f"In the {player}, the forward-mode derivative of {spoken(layer)} has a relative error"
            f" of {error:.1e}. {unused}"
        )
        yield Remark("caution", "forward-mode", player, layer, sentence, {"relative_error": error})


def _unequal(player: str, layer: str) -> Remark:
    sentence = (
        f"In the {player}, {spoken(layer)} gives different outputs for the same inputs, random"
        " state and buffers: its derivatives cannot be checked, and rules that evaluate several"
        " times a step would measure the difference. Draw from PyTorch's random state, or name the"
        " generator in GameOptimizer(..., generators=[...])."
    )
    return Remark("caution", "not-reproducible", player, layer, sentence)


def _unchecked(player: str, layer: str, error: Exception) -> Remark:
    sentence = (
        f"In the {player}, {spoken(layer)} could not be checked alone in float64:"
        f" {type(error).__name__}: {first_line(error)} Its derivatives were checked only as part of"
        " the layers around it. Remedy: avoid fixed types, devices and state of other layers in"
        " its forward."
    )
    return Remark("caution", "not-checked", player, layer, sentence)
