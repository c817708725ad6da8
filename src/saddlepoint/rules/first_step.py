"""Checks of a player's first step: programs that run, but whose numbers are not the rule's formula.

Nothing has moved when they run. Checks that cost something run only where a player is new to them
(``Verified``).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import torch

from saddlepoint.curvature.backward_check import check_backward
from saddlepoint.curvature.linearization import Linearization
from saddlepoint.curvature.replay import Replay
from saddlepoint.errors import CurvatureWarning, UsageError
from saddlepoint.game import Players
from saddlepoint.vectors import Vector

if TYPE_CHECKING:
    from saddlepoint.rules.base import Rule


class Verified:
    """Which kinds of checks were already made, and for which players.

    >>> verified = Verified()
    >>> verified.add("graph", ["x"])
    >>> verified.due("graph", ["x"]), verified.due("graph", ["x", "y"])
    (False, True)
    """

    def __init__(self) -> None:
        self._players: dict[str, set[str]] = {}

    def due(self, kind: str, players: Iterable[str]) -> bool:
        """Return whether one of the players is new to this kind of check."""
        return not self._players.get(kind, set()).issuperset(players)

    def add(self, kind: str, players: Iterable[str]) -> None:
        """Record that the check was made for these players."""
        self._players.setdefault(kind, set()).update(players)

    def forget(self, player: str) -> None:
        """Check a player again, whose parameters have changed."""
        for players in self._players.values():
            players.discard(player)


def check_active(point: Linearization) -> None:
    """Raise UsageError unless a player with parameters to move is among those whose losses the closure returned."""
    if not point.active:
        names = ", ".join(f'"{player}"' for player in point.players_with_losses)
        raise UsageError(
            f"Nothing can move: all parameters of {names} are frozen (requires_grad=False). Call"
            " requires_grad_(True) on those that are to be trained, or return the loss of another"
            " player."
        )


def check_all_active(rule: str, point: Linearization, players: Players) -> None:
    """Raise UsageError unless every player's loss is known; for rules that need all players at once."""
    missing = [
        player
        for player, parameters in players.items()
        if parameters and player not in point.players_with_losses
    ]
    if missing:
        raise UsageError(
            f'{rule} needs the losses of all players at once; the closure left out "{missing[0]}".'
            " Return every player's loss from one closure. For an extra turn of one player, such"
            " as a further step of a discriminator, name it: optimizer.step(closure,"
            ' only=["discriminator"]).'
        )


def check_no_gradients(point: Linearization) -> None:
    """Raise UsageError where a parameter that is to move holds a gradient that this step did not compute."""
    for player in point.active:
        for index, parameter in enumerate(point.players[player]):
            if parameter.grad is not None and bool(parameter.grad.ne(0).any()):
                raise UsageError(
                    f'Parameter {index} of player "{player}", shape {tuple(parameter.shape)}, has a'
                    " gradient in .grad already, from a backward() before this step or inside the"
                    " closure. A step computes its own gradients and would drop it. Add that loss"
                    " to the losses that the closure returns, call no backward() inside it, or"
                    " call zero_grad() before the step."
                )
            if parameter._backward_hooks and point.order > 1:
                raise UsageError(
                    f'Parameter {index} of player "{player}", shape {tuple(parameter.shape)}, has a'
                    " hook on its gradient (register_hook), which would act on every Jacobian"
                    " product too. Change the loss instead, wrap the rule in Clipped to bound the"
                    " update, or choose a first-order rule."
                )


def check_dependence(point: Linearization, *, rule: str, coupled: bool) -> None:
    """Warn where a player that moves has no gradient, or, under a rule that couples the players, meets no other player.

    Args:
        point: the first evaluation of an optimizer, when its rule has taken the gradients that it
            needs.
        rule: the name of the rule, for the message.
        coupled: whether the rule uses the interaction of the players.
    """
    reached = {player: point.reached(player) for player in point.active}
    for player in point.unused:  # those whose gradient was taken
        by_any = any(player in others for others in reached.values())
        if not by_any or (not coupled and player not in reached[player]):
            warnings.warn(
                f'Player "{player}" does not move: no parameter of it takes part in'
                f" {'any loss' if coupled else 'its loss'}. A detach() or no_grad() on the way, or"
                " a loss computed with other networks than those of the optimizer, are the usual"
                " reasons. This warning is given once.",
                CurvatureWarning,
                stacklevel=2,
            )
        elif coupled and len(point.active) > 1 and not set(reached[player]) - {player}:
            warnings.warn(
                f'The loss of player "{player}" does not depend on the parameters of any other'
                f" player, so the interaction that {rule} uses is zero in its row. If a detach() or"
                " no_grad() is left over from alternating training, remove it: the closure of a"
                " step needs none. This warning is given once.",
                CurvatureWarning,
                stacklevel=2,
            )


def check_repeatable(
    rule: str, first: Linearization, replay: Replay, again: Callable[[], Linearization]
) -> None:
    """Warn where evaluating a closure twice at one point is not the same.

    Args:
        rule: the name of the rule, for the message.
        first: the first linearization of the step.
        replay: the random states and buffers of the step.
        again: linearizes at the same point.
    """
    before = [parameter.detach().clone() for _, parameter in replay.frozen]
    with replay.again():
        second = again()  # with a graph, in which BatchNorm can be seen
    found = []
    for player, loss in second.losses.items():
        earlier_loss = first.losses[player]
        if not math.isclose(loss, earlier_loss, rel_tol=1e-6):
            found.append(f"{player}: {earlier_loss:.6g}, then {loss:.6g}")
    if second.uses_batch_statistics() and not replay.knows_batch_norm:
        found.append("BatchNorm moves its statistics")
    for (name, parameter), earlier in zip(replay.frozen, before, strict=True):
        if not torch.equal(parameter, earlier):
            found.append(f"the frozen parameter {name} changes")
    if found:
        warnings.warn(
            f"{rule} evaluates the closure several times a step, and that changes something here"
            f" ({'; '.join(found)}). Draw the batch before the closure, not inside it. Name the"
            " networks as GameOptimizer(..., modules=[G, D]), and random generators as"
            " generators=[...]; register what a network changes by itself with register_buffer."
            " This warning is given once.",
            CurvatureWarning,
            stacklevel=2,
        )


def check_first_linearization(
    found: Linearization,
    verified: Verified,
    losses_displaced_by: Callable[[Vector], Mapping[str, float]],
) -> bool:
    """Check the first linearization of a step; return whether its graph cannot be used any more."""
    check_active(found)
    check_no_gradients(found)
    if found.order > 0 and verified.due("graph", found.active):
        found.check_graph()
        verified.add("graph", found.active)
    if found.order < 2 or not verified.due("second derivatives", found.active):
        return False
    found.check_second_derivatives()
    verified.add("second derivatives", found.active)
    if not found.custom_functions():
        return False
    check_backward(found, losses_displaced_by)
    return True


def check_not_frozen(rule: Rule, players: Players) -> None:
    """Raise UsageError where a player that the rule names has no parameter to move."""
    moving = {player: own for player, own in players.items() if own}
    if len(moving) == len(players):
        return
    try:
        rule.validate(moving)
    except UsageError as error:
        frozen = next(player for player in players if player not in moving)
        raise UsageError(
            f'Player "{frozen}" is frozen, and {type(rule).__name__} needs it to move. Call'
            " requires_grad_(True) on its parameters, or let the others move alone:"
            " optimizer.step(closure, only=[...])."
        ) from error


def check_batch(
    batched: Mapping[str, torch.Tensor],
    alone: Mapping[str, float],
    undisplaced: Mapping[str, float],
    displacement: Vector,
) -> None:
    """Compare the first losses of a batched evaluation with the same evaluated alone.

    Args:
        batched: player → losses of the batch, shape (n,).
        alone: player → the loss at the first displacement, evaluated alone.
        undisplaced: player → the loss at the current parameters.
        displacement: the first displacement.
    """
    eps = torch.finfo(displacement.tensors[0].dtype).eps
    for player, loss in alone.items():
        in_batch = float(batched[player][0])
        moved = abs(loss - undisplaced[player])
        # a quantised output may flip a few entries by rounding, a missed parameter misses all
        if abs(loss - in_batch) > 0.05 * moved + 1e3 * eps * max(1.0, abs(loss)):
            raise UsageError(
                f'batched=True: at a displaced point the loss of player "{player}" is'
                f" {in_batch:.6g} in a batch and {loss:.6g} alone. The closure reads parameters"
                " other than through the modules that were named, for example from a list made"
                " before. Read them from the modules inside the closure, or use batched=False."
            )
