"""The whole game in float64: J against finite differences of ξ, its interaction blocks, and blocks that are exactly zero."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from saddlepoint.curvature import Linearization
from saddlepoint.diagnostics.doctor.derivatives import (
    TOLERANCE,
    Subject,
    product_error,
    random_direction,
)
from saddlepoint.diagnostics.doctor.pair import DISCRIMINATOR, GENERATOR, Pair
from saddlepoint.diagnostics.doctor.remarks import BOTH, Remark, first_line
from saddlepoint.vectors import Vector

_LINEAR = ("wasserstein", "hinge")
"""Losses that are linear in the logits, or piecewise linear."""


def check_game(pair: Pair, *, explained: bool, seed: int = 0) -> list[Remark]:
    """Return remarks on the Jacobian of the game: a note with its relative error where it is right.

    Args:
        pair: the networks in float64 with a few samples; parameters are displaced and put back.
        explained: whether a layer was found whose derivatives are wrong; then it is not said again
            of the game.
        seed: the random directions are a function of it.

    >>> from saddlepoint.models import MLP
    >>> g = torch.Generator().manual_seed(0)
    >>> z, x = (torch.randn(3, 2, generator=g, dtype=torch.float64) for _ in range(2))
    >>> G, D = (MLP((2, size), generator=g).double() for size in (2, 1))
    >>> [(remark.level, remark.check) for remark in check_game(Pair(G, D, z, x), explained=False)]
    [('note', 'jacobian')]
    """
    generator = torch.Generator().manual_seed(seed)
    subject = Subject(pair.players, pair.losses, pair.replay())
    try:
        with subject.replay.again():
            Linearization(pair.players, pair.losses).check_second_derivatives()
        error = product_error(subject, generator=generator)
        return [
            *_error(pair, error, explained),
            *_cut(pair, subject, generator),
            *_flat(pair, subject, generator),
        ]
    except Exception as failure:
        return [] if explained else [_refused(pair, failure)]


def _where(pair: Pair) -> str:
    return f"both networks, {pair.loss} loss" + (f", r1={pair.r1:g}" if pair.r1 > 0 else "")


def _refused(pair: Pair, failure: Exception) -> Remark:
    sentence = (
        f"The game ({_where(pair)}) has no second derivatives: {type(failure).__name__}:"
        f" {first_line(failure)} Curvature rules and Jacobian products stop there. Replace the"
        " operation that PyTorch names, leave r1 out if it needs a third derivative, or choose a"
        " first-order rule."
    )
    return Remark("error", "jacobian", BOTH, _where(pair), sentence)


def _error(pair: Pair, error: float, explained: bool) -> Iterator[Remark]:
    numbers = {"relative_error": error}
    if error <= TOLERANCE:
        sentence = (
            "J @ v agrees with finite differences of the players' gradients to a relative error of"
            f" {error:.1e} in float64."
        )
        yield Remark("note", "jacobian", BOTH, _where(pair), sentence, numbers)
    elif not explained:
        sentence = (
            "J @ v differs from finite differences of the players' gradients by a relative error"
            f" of {error:.1e}, though no layer alone does: look for state that one evaluation"
            " leaves to the next, conversions to a lower precision, or operations outside of"
            " layers. Until then use a first-order rule."
        )
        yield Remark("error", "jacobian", BOTH, _where(pair), sentence, numbers)


def _cut(pair: Pair, subject: Subject, generator: torch.Generator) -> Iterator[Remark]:
    """Yield an error for each interaction block that is exactly zero."""
    v = random_direction(pair.players, generator)
    for i, j in ((DISCRIMINATOR, GENERATOR), (GENERATOR, DISCRIMINATOR)):
        with subject.replay.again():
            product = Linearization(pair.players, pair.losses).jacobian[i, j] @ v.only([j])
        if not any(bool(part.any()) for part in product.tensors):
            sentence = (
                f"The block of J that says how the {i}'s gradient depends on the {j}'s parameters"
                " is exactly zero: rules that use the players' interaction would do nothing. Look"
                " for a detach() or no_grad() between the networks, or dead units."
            )
            yield Remark("error", "interaction", i, _where(pair), sentence, {"norm": 0.0})


def _flat(pair: Pair, subject: Subject, generator: torch.Generator) -> Iterator[Remark]:
    """Yield a note for each player whose loss is linear in some of its parameter tensors, the others held fixed."""
    if pair.loss not in _LINEAR:
        return
    v = random_direction(pair.players, generator)
    for player in pair.players:
        zero, total = _zero_blocks(pair, subject, player, v)
        if zero:
            sentence = (
                f"The {player}'s own Hessian block is exactly zero for {zero} of {total} parameter"
                f" tensors: piecewise linear networks under the {pair.loss} loss. For Newton-type"
                " rules use smooth activations (tanh, softplus, SiLU), damping or weight decay."
            )
            yield Remark(
                "note",
                "zero-hessian",
                player,
                _where(pair),
                sentence,
                {"zero": float(zero), "tensors": float(total)},
            )


def _zero_blocks(pair: Pair, subject: Subject, player: str, v: Vector) -> tuple[int, int]:
    """Return how many of the Hessian's diagonal blocks, one per parameter tensor, are exactly zero, and how many there are."""
    with subject.replay.again():
        own = Linearization(pair.players, pair.losses).jacobian[player, player]
        zero = 0
        for index, part in enumerate(v[player]):
            alone = [
                part if k == index else torch.zeros_like(other) for k, other in enumerate(v[player])
            ]
            zero += not bool((own @ Vector({player: alone}))[player][index].any())
    return zero, len(v[player])
