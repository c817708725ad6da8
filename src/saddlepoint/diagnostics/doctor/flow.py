"""Whether gradients flow where the game needs them: from both losses to both players' parameters."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from saddlepoint.curvature import Linearization
from saddlepoint.diagnostics.doctor.calls import Call, traced
from saddlepoint.diagnostics.doctor.pair import DISCRIMINATOR, GENERATOR, Pair
from saddlepoint.diagnostics.doctor.remarks import (
    BOTH,
    Remark,
    first_line,
    layer_name,
    listed,
    spoken,
)

_DETACH = (
    "Remove the detach(), no_grad(), .data, .item() or NumPy conversion there; the library"
    " separates the players' gradients itself."
)


def gradient_flow(pair: Pair) -> list[Remark]:
    """Return remarks on gradients that are cut, zero or missing.

    >>> from torch import ones
    >>> class Cut(nn.PReLU):
    ...     def forward(self, x):
    ...         return super().forward(x).detach()
    >>> pair = Pair(Cut(), nn.PReLU(), ones(3, 1), ones(3, 1))
    >>> [(r.level, r.check, r.player) for r in gradient_flow(pair)]
    [('error', 'detached', 'generator')]
    """
    with pair.replay().again():
        cuts = [*_generator_cut(pair), *_discriminator_cut(pair)]
    if cuts:
        return cuts
    try:
        with pair.replay().again():
            point = Linearization(pair.players, pair.losses, order=1, check_finite=False)
            gradient = point.gradient
    except Exception as error:
        return [_no_gradient(pair, error)]
    dead = [
        _zero(pair, player)
        for player, parts in gradient.items()
        if all(not bool(part.any()) for part in parts)
    ]
    silent = {remark.player for remark in dead}
    return dead + [
        _unused(pair, player, unused)
        for player, unused in point.unused.items()
        if unused and player not in silent
    ]


def _generator_cut(pair: Pair) -> Iterator[Remark]:
    with traced(pair.generator) as trace:
        fake = pair.generator(pair.noise.clone())
    if not fake.requires_grad:
        layer = layer_name(pair.generator, _cutter(trace.calls))
        sentence = (
            "The generator's output does not depend on its parameters as autograd sees it:"
            f" {spoken(layer)} cuts the graph. The generator would not learn, and both interaction"
            f" blocks of J would be zero. {_DETACH}"
        )
        yield Remark("error", "detached", GENERATOR, layer, sentence)


def _discriminator_cut(pair: Pair) -> Iterator[Remark]:
    """Freeze D's parameters for one pass: then its output has a graph only through its input."""
    movable = [p for p in pair.discriminator.parameters() if p.requires_grad]
    for p in movable:
        p.requires_grad_(False)
    try:
        with traced(pair.discriminator) as trace:
            logits = pair.discriminator(pair.real.clone().requires_grad_().clone())
    finally:
        for p in movable:
            p.requires_grad_(True)
    if not logits.requires_grad:
        layer = layer_name(pair.discriminator, _cutter(trace.calls))
        sentence = (
            f"The discriminator's output has no gradient with respect to its input: {spoken(layer)}"
            f" cuts the graph. The generator would get nothing from D(G(z)). {_DETACH}"
        )
        yield Remark("error", "detached", DISCRIMINATOR, layer, sentence)


def _cutter(calls: list[Call]) -> str:
    """Return the deepest layer that got or made something attached and gave something detached; the whole network if none did."""
    attached: list[str] = []
    for call in calls:
        if call.outputs and not any(t.requires_grad for t in call.outputs):
            inside = any(name.startswith(f"{call.name}.") or not call.name for name in attached)
            if call.attached or inside:
                return call.name
        elif call.outputs:
            attached.append(call.name)
    return ""


def _no_gradient(pair: Pair, error: Exception) -> Remark:
    sentence = (
        f"The losses have no gradient: {type(error).__name__}: {first_line(error)} No rule but"
        " those of order 0 could train this pair. Correct the operation that PyTorch names."
    )
    return Remark("error", "gradient", BOTH, f"both networks, {pair.loss} loss", sentence)


def _zero(pair: Pair, player: str) -> Remark:
    sentence = (
        f"The {player}'s gradient is exactly zero in every entry: every unit on the way is dead, or"
        " its output passes a threshold or rounding. Change initialisation or activation, or use a"
        " straight-through estimator or a rule of order 0."
    )
    return Remark(
        "error",
        "zero-gradient",
        player,
        layer_name(pair.networks[player], ""),
        sentence,
        {"norm": 0.0},
    )


def _unused(pair: Pair, player: str, unused: frozenset[int]) -> Remark:
    network: nn.Module = pair.networks[player]
    names = [name for name, p in network.named_parameters() if p.requires_grad]
    silent = [names[index] for index in sorted(unused)]
    sentence = (
        f"{len(silent)} of {len(names)} parameters of the {player} have no gradient"
        f" ({listed(silent, 8)}); they never move. Use them in forward, or remove them."
    )
    layers = listed(dict.fromkeys(layer_name(network, name.rpartition(".")[0]) for name in silent))
    return Remark(
        "note", "no-gradient", player, layers, sentence, {"parameters": float(len(silent))}
    )
