"""Checks of the whole game: gradients from both losses to both players, and the Jacobian J."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from saddlepoint.curvature import Linearization
from saddlepoint.doctor.findings import (
    BOTH,
    Finding,
    first_line,
    in_message,
    layer_name,
    shortened,
)
from saddlepoint.doctor.finite_differences import (
    TOLERANCE,
    RepeatableGame,
    product_error,
    random_direction,
)
from saddlepoint.doctor.networks import Call, traced
from saddlepoint.doctor.pair import DISCRIMINATOR, GENERATOR, Pair
from saddlepoint.vectors import Vector

_LINEAR = ("wasserstein", "hinge")
"""Losses that are linear or piecewise linear in the logits."""

_DETACH = (
    "Remove the detach(), no_grad(), .data, .item() or NumPy conversion there; the library"
    " separates the players' gradients itself."
)


def check_gradient_flow(pair: Pair) -> list[Finding]:
    """Return findings on gradients that are detached, zero or missing.

    >>> from torch import nn, ones
    >>> class Detached(nn.PReLU):
    ...     def forward(self, x):
    ...         return super().forward(x).detach()
    >>> pair = Pair(Detached(), nn.PReLU(), ones(3, 1), ones(3, 1))
    >>> [(f.level, f.check, f.player) for f in check_gradient_flow(pair)]
    [('error', 'detached', 'generator')]
    """
    with pair.replay().again():
        detached = list(_detached(pair))
    if detached:
        return detached
    try:
        with pair.replay().again():
            point = Linearization(pair.players, pair.losses, order=1, check_finite=False)
            gradient = point.gradient
    except Exception as error:
        message = (
            f"The losses have no gradient: {type(error).__name__}: {first_line(error)} Only rules"
            " of order 0 could train this pair. Correct the operation that PyTorch names."
        )
        where = f"both networks, {pair.loss} loss"
        return [Finding("error", "gradient", BOTH, where, message)]

    zero, missing = [], []
    for player, parts in gradient.items():
        network, unused = pair.networks[player], sorted(point.unused[player])
        if not any(bool(part.any()) for part in parts):
            message = (
                f"The {player}'s gradient is exactly zero in every entry: every unit on the way is"
                " dead, or its output passes a threshold or rounding. Change initialisation or"
                " activation, or use a straight-through estimator or a rule of order 0."
            )
            where = layer_name(network, "")
            zero.append(Finding("error", "zero-gradient", player, where, message, {"norm": 0.0}))
        elif unused:
            names = [name for name, p in network.named_parameters() if p.requires_grad]
            without = [names[index] for index in unused]
            layers = dict.fromkeys(layer_name(network, n.rpartition(".")[0]) for n in without)
            message = (
                f"{len(unused)} of {len(names)} parameters of the {player} have no gradient"
                f" ({shortened(without, 8)}); they never change. Use them in forward, or remove"
                " them."
            )
            numbers = {"parameters": float(len(unused))}
            missing.append(
                Finding("note", "no-gradient", player, shortened(layers), message, numbers)
            )
    return zero + missing


def _detached(pair: Pair) -> Iterator[Finding]:
    """Yield an error for each network that cuts the graph from loss to generator parameters."""
    with traced(pair.generator) as trace:
        fake = pair.generator(pair.noise.clone())
    if not fake.requires_grad:
        layer = layer_name(pair.generator, _detaching_layer(trace.calls))
        message = (
            "The generator's output does not depend on its parameters as autograd sees it:"
            f" {in_message(layer)} cuts the graph. The generator would not learn, and both"
            f" interaction blocks of J would be zero. {_DETACH}"
        )
        yield Finding("error", "detached", GENERATOR, layer, message)

    # with D's parameters frozen its output has a graph only through its input
    trainable = [p for p in pair.discriminator.parameters() if p.requires_grad]
    for p in trainable:
        p.requires_grad_(False)
    try:
        with traced(pair.discriminator) as trace:
            logits = pair.discriminator(pair.real.clone().requires_grad_().clone())
    finally:
        for p in trainable:
            p.requires_grad_(True)
    if not logits.requires_grad:
        layer = layer_name(pair.discriminator, _detaching_layer(trace.calls))
        message = (
            "The discriminator's output has no gradient with respect to its input:"
            f" {in_message(layer)} cuts the graph. The generator would get no gradient from"
            f" D(G(z)). {_DETACH}"
        )
        yield Finding("error", "detached", DISCRIMINATOR, layer, message)


def _detaching_layer(calls: list[Call]) -> str:
    """Return the deepest layer with an attached input or inner layer but no attached output.

    The empty name, of the whole network, where no layer is like that.
    """
    attached: list[str] = []
    for call in calls:
        if call.outputs and not any(t.requires_grad for t in call.outputs):
            inside = any(name.startswith(f"{call.name}.") or not call.name for name in attached)
            if call.attached or inside:
                return call.name
        elif call.outputs:
            attached.append(call.name)
    return ""


def check_jacobian(pair: Pair, *, explained: bool, seed: int = 0) -> list[Finding]:
    """Return findings on the Jacobian of the game: a note with its relative error if it is right.

    Args:
        pair: the networks in float64 with a few samples; parameters are displaced and restored.
        explained: whether a layer with wrong derivatives was found; then an error of the whole game
            is not reported again.
        seed: seed of the random directions.

    >>> from saddlepoint.models import MLP
    >>> g = torch.Generator().manual_seed(0)
    >>> z, x = (torch.randn(3, 2, generator=g, dtype=torch.float64) for _ in range(2))
    >>> G, D = (MLP((2, size), generator=g).double() for size in (2, 1))
    >>> [(f.level, f.check) for f in check_jacobian(Pair(G, D, z, x), explained=False)]
    [('note', 'jacobian')]
    """
    where = f"both networks, {pair.loss} loss" + (f", r1={pair.r1:g}" if pair.r1 > 0 else "")
    generator = torch.Generator().manual_seed(seed)
    game = RepeatableGame(pair.players, pair.losses, pair.replay())
    findings = []
    try:
        with game.replay.again():
            Linearization(game.players, game.closure).check_second_derivatives()
        error = product_error(game, generator=generator)
        numbers = {"relative_error": error}
        if error <= TOLERANCE:
            message = (
                "J @ v agrees with finite differences of the players' gradients to a relative error"
                f" of {error:.1e} in float64."
            )
            findings.append(Finding("note", "jacobian", BOTH, where, message, numbers))
        elif not explained:
            message = (
                "J @ v differs from finite differences of the players' gradients by a relative"
                f" error of {error:.1e}, though no layer alone does: look for state that one"
                " evaluation leaves to the next, conversions to a lower precision, or operations"
                " outside of layers. Until then use a first-order rule."
            )
            findings.append(Finding("error", "jacobian", BOTH, where, message, numbers))

        v = random_direction(game.players, generator)
        for i, j in ((DISCRIMINATOR, GENERATOR), (GENERATOR, DISCRIMINATOR)):
            with game.replay.again():
                product = Linearization(game.players, game.closure).jacobian[i, j] @ v.only([j])
            if not any(bool(part.any()) for part in product.tensors):
                message = (
                    f"The block of J that is the derivative of the {i}'s gradient with respect to"
                    f" the {j}'s parameters is exactly zero: rules that use the players'"
                    " interaction would have no effect. Look for a detach() or no_grad() between"
                    " the networks, or dead units."
                )
                findings.append(Finding("error", "interaction", i, where, message, {"norm": 0.0}))

        if pair.loss in _LINEAR:
            v = random_direction(game.players, generator)
            for player in game.players:
                zero, total = _zero_hessian_blocks(game, player, v)
                if zero:
                    message = (
                        f"The {player}'s own Hessian block is exactly zero for {zero} of"
                        f" {total} parameter tensors: piecewise linear networks under the"
                        f" {pair.loss} loss. For Newton-type rules use smooth activations (tanh,"
                        " softplus, SiLU), damping or weight decay."
                    )
                    numbers = {"zero": float(zero), "tensors": float(total)}
                    findings.append(
                        Finding("note", "zero-hessian", player, where, message, numbers)
                    )
    except Exception as failure:
        if explained:
            return []
        message = (
            f"The game ({where}) has no second derivatives: {type(failure).__name__}:"
            f" {first_line(failure)} Curvature rules and Jacobian products fail there. Replace the"
            " operation that PyTorch names, leave r1 out if it needs a third derivative, or choose"
            " a first-order rule."
        )
        return [Finding("error", "jacobian", BOTH, where, message)]
    return findings


def _zero_hessian_blocks(game: RepeatableGame, player: str, v: Vector) -> tuple[int, int]:
    """Return the number of diagonal blocks of J_ii that are exactly zero, and of all of them."""
    zero = 0  # one diagonal block for each parameter tensor
    with game.replay.again():
        hessian = Linearization(game.players, game.closure).jacobian[player, player]
        for index, part in enumerate(v[player]):
            alone = [torch.zeros_like(other) for other in v[player]]
            alone[index] = part
            zero += not bool((hessian @ Vector({player: alone}))[player][index].any())
    return zero, len(v[player])
