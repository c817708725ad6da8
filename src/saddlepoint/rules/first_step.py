"""What a step looks for before anything moves: programs that run, and whose numbers are not what the rule's formula says.

What costs something is looked for where a player is new to it only (``Verified``).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence

from saddlepoint.curvature import Evaluation
from saddlepoint.errors import CurvatureWarning, UsageError
from saddlepoint.game import Players


class Verified:
    """Which kinds of things were looked at already, and in steps of which players.

    >>> verified = Verified()
    >>> verified.add("graph", ["x"])
    >>> verified.due("graph", ["x"]), verified.due("graph", ["x", "y"])
    (False, True)
    """

    def __init__(self) -> None:
        self._players: dict[str, set[str]] = {}

    def due(self, kind: str, players: Iterable[str]) -> bool:
        """Say whether one of the players is new to this kind of check."""
        return not self._players.get(kind, set()).issuperset(players)

    def add(self, kind: str, players: Iterable[str]) -> None:
        """Keep that the players were looked at."""
        self._players.setdefault(kind, set()).update(players)

    def forget(self, player: str) -> None:
        """Look at a player again, whose parameters are others now."""
        for players in self._players.values():
            players.discard(player)


def check_movers(point: Evaluation) -> None:
    """Raise UsageError unless a player with parameters to move is among those whose losses the closure returned."""
    if not point.movers:
        names = ", ".join(f'"{player}"' for player in point.losses)
        raise UsageError(
            f"Nothing can move: all parameters of {names} are frozen (requires_grad=False). Call"
            " requires_grad_(True) on those that are to be trained, or return the loss of another"
            " player."
        )


def check_all_move(rule: str, point: Evaluation, players: Players) -> None:
    """Raise UsageError unless every player's loss is known; for rules that need all players at once."""
    missing = [
        player
        for player, parameters in players.items()
        if parameters and player not in point.losses
    ]
    if missing:
        raise UsageError(
            f'{rule} needs the losses of all players at once; the closure left out "{missing[0]}".'
            " Return every player's loss from one closure. For an extra turn of one player, such"
            " as a further step of a discriminator, name it: optimizer.step(closure,"
            ' only=["discriminator"]).'
        )


def check_no_gradients(point: Evaluation) -> None:
    """Raise UsageError where a parameter that is to move holds a gradient that this step did not compute."""
    for player in point.movers:
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


def check_dependence(point: Evaluation, *, rule: str, coupled: bool) -> None:
    """Warn where a player that moves has no gradient, or, under a rule that couples the players, meets no other player.

    Args:
        point: the first evaluation of an optimizer, when its rule has taken the gradients that it
            needs.
        rule: the name of the rule, for the message.
        coupled: whether the rule uses the interaction of the players.
    """
    reached = {player: point.reached(player) for player in point.movers}
    for player in point.unused:  # those whose gradient was taken
        by_any = any(player in others for others in reached.values())
        if not by_any or (not coupled and player not in reached[player]):
            warnings.warn(
                f'Player "{player}" does not move: no parameter of it takes part in'
                f" {'any loss' if coupled else 'its loss'}. A detach() or no_grad() on the way, or"
                " a loss computed with other networks than those of the optimizer, are the usual"
                " reasons. This is said once.",
                CurvatureWarning,
                stacklevel=2,
            )
        elif coupled and len(point.movers) > 1 and not set(reached[player]) - {player}:
            warnings.warn(
                f'The loss of player "{player}" does not depend on the parameters of any other'
                f" player, so the interaction that {rule} uses is zero in its row. If a detach() or"
                " no_grad() is left over from alternating training, remove it: the closure of a"
                " step needs none. This is said once.",
                CurvatureWarning,
                stacklevel=2,
            )


def check_repeated(
    rule: str,
    first: Mapping[str, float],
    second: Mapping[str, float],
    *,
    moves_statistics: bool,
    changed: Sequence[str],
) -> None:
    """Warn where evaluating a closure twice at one point is not the same.

    Args:
        rule: the name of the rule, for the message.
        first: player → loss.
        second: the same, evaluated again with the same randomness.
        moves_statistics: whether a BatchNorm layer outside of the named modules is in the graph.
        changed: the names of frozen parameters that the second evaluation changed.
    """
    moved = [
        player
        for player, loss in second.items()
        if not math.isclose(loss, first[player], rel_tol=1e-6)
    ]
    found = [f"{player}: {first[player]:.6g}, then {second[player]:.6g}" for player in moved]
    if moves_statistics:
        found.append("BatchNorm moves its statistics")
    found += [f"the frozen parameter {name} changes" for name in changed]
    if found:
        warnings.warn(
            f"{rule} evaluates the closure several times a step, and that changes something here"
            f" ({'; '.join(found)}). Draw the batch before the closure, not inside it. Name the"
            " networks as GameOptimizer(..., modules=[G, D]), and random generators as"
            " generators=[...]; register what a network changes by itself with register_buffer."
            " This is said once.",
            CurvatureWarning,
            stacklevel=2,
        )
