"""Checks of a player's first step, for code that runs but does not compute the rule's formula.

No parameter has moved when they run. Checks that cost time run only for players that are new to
them (``Verified``).
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

    A kind is a name: "graph", "second derivatives", "repeatable", "batch", "coupling", "gradient".

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
        """Make all checks of this player again, because its parameters have changed."""
        for players in self._players.values():
            players.discard(player)


def check_active(found: Linearization) -> None:
    """Raise UsageError where every player whose loss was returned is frozen."""
    if not found.active:
        names = ", ".join(f'"{player}"' for player in found.players_with_losses)
        raise UsageError(
            f"Nothing can move: all parameters of {names} are frozen (requires_grad=False). Call"
            " requires_grad_(True) on those that are to be trained, or return the loss of another"
            " player."
        )


def check_all_active(rule: str, found: Linearization, players: Players) -> None:
    """Raise UsageError where a player's loss is missing, under a rule that needs all players."""
    missing = [
        player
        for player, parameters in players.items()
        if parameters and player not in found.players_with_losses
    ]
    if missing:
        raise UsageError(
            f'{rule} needs the losses of all players at once; the closure left out "{missing[0]}".'
            " Return every player's loss from one closure. For an extra turn of one player, such"
            " as a further step of a discriminator, name it: optimizer.step(closure,"
            ' only=["discriminator"]).'
        )


def check_no_gradients(found: Linearization) -> None:
    """Raise UsageError where a parameter of an active player has a gradient or a gradient hook."""
    for player in found.active:
        for index, parameter in enumerate(found.players[player]):
            if parameter.grad is not None and bool(parameter.grad.ne(0).any()):
                raise UsageError(
                    f'Parameter {index} of player "{player}", shape {tuple(parameter.shape)}, has a'
                    " gradient in .grad already, from a backward() before this step or inside the"
                    " closure. A step computes its own gradients and would discard it. Add that"
                    " loss to the losses that the closure returns, call no backward() inside it,"
                    " or call zero_grad() before the step."
                )
            if parameter._backward_hooks and found.order > 1:
                raise UsageError(
                    f'Parameter {index} of player "{player}", shape {tuple(parameter.shape)}, has a'
                    " hook on its gradient (register_hook), which would act on every Jacobian"
                    " product too. Change the loss instead, wrap the rule in Clipped to bound the"
                    " update, or choose a first-order rule."
                )


def check_dependence(found: Linearization, *, rule: str, coupled: bool) -> None:
    """Warn where a loss does not depend on its own player or, if ``coupled``, on any other player.

    Args:
        found: the first linearization of a step, after its rule has taken the gradients that it
            needs.
        rule: the name of the rule, for the message.
        coupled: whether the rule uses the interaction of the players.
    """
    reached = {player: found.reached(player) for player in found.active}
    for player in found.unused:  # those whose gradient was taken
        by_any = any(player in others for others in reached.values())
        if not by_any or (not coupled and player not in reached[player]):
            warnings.warn(
                f'Player "{player}" does not move:'
                f" {'no loss depends' if coupled else 'its loss does not depend'} on its"
                " parameters. The usual reasons are a detach() or no_grad() between them and the"
                " loss, or a loss computed with other networks than those of the optimizer. This"
                " warning is given once.",
                CurvatureWarning,
                stacklevel=2,
            )
        elif coupled and len(found.active) > 1 and not set(reached[player]) - {player}:
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
    """Warn where a second evaluation of the closure at the same point differs from the first.

    Args:
        rule: the name of the rule, for the message.
        first: the first linearization of the step.
        replay: the random states and buffers of the step.
        again: linearizes at the same found.
    """
    before = [parameter.detach().clone() for _, parameter in replay.frozen]
    with replay.again():
        second = again()  # with a graph, which shows whether BatchNorm is used
    differences = []
    for player, loss in second.losses.items():
        earlier_loss = first.losses[player]
        if not math.isclose(loss, earlier_loss, rel_tol=1e-6):
            differences.append(f"loss of {player}: {earlier_loss:.6g}, then {loss:.6g}")
    if second.uses_batch_statistics() and not replay.knows_batch_norm:
        differences.append("BatchNorm updates its statistics")
    for (name, parameter), earlier in zip(replay.frozen, before, strict=True):
        if not torch.equal(parameter, earlier):
            differences.append(f"the frozen parameter {name} changes")
    if differences:
        warnings.warn(
            f"{rule} evaluates the closure several times a step, and a second evaluation at the"
            f" same point differs ({'; '.join(differences)}). Draw the batch before the closure,"
            " not inside it. Name the networks as GameOptimizer(..., modules=[G, D]), and random"
            " generators as generators=[...]; make tensors that a network changes by itself buffers"
            " (register_buffer). This warning is given once.",
            CurvatureWarning,
            stacklevel=2,
        )


def check_first_linearization(
    found: Linearization,
    verified: Verified,
    losses_displaced_by: Callable[[Vector], Mapping[str, float]],
) -> bool:
    """Check the first linearization of a step; return whether its graph has become unusable."""
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
    """Raise UsageError where a player that the rule names is frozen."""
    trainable = {player: own for player, own in players.items() if own}
    if len(trainable) == len(players):
        return
    try:
        rule.validate(trainable)
    except UsageError as error:
        frozen = next(player for player in players if player not in trainable)
        raise UsageError(
            f'Player "{frozen}" is frozen, and {type(rule).__name__} needs it to move. Call'
            " requires_grad_(True) on its parameters, or move the others alone:"
            " optimizer.step(closure, only=[...])."
        ) from error


def check_batch(
    batched: Mapping[str, torch.Tensor],
    alone: Mapping[str, float],
    undisplaced: Mapping[str, float],
    displacement: Vector,
) -> None:
    """Raise UsageError where a batched evaluation differs from one without a batch.

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
        # rounding flips a few entries of a quantised output; a parameter that the batch does not
        # displace changes all of them
        if abs(loss - in_batch) > 0.05 * moved + 1e3 * eps * max(1.0, abs(loss)):
            raise UsageError(
                f'batched=True: at a displaced point the loss of player "{player}" is'
                f" {in_batch:.6g} in a batch and {loss:.6g} alone. The closure reads parameters"
                " other than through the modules that were named, for example from a list made"
                " before. Read them from the modules inside the closure, or use batched=False."
            )
