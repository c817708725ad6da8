"""The base class of rules."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal

from saddlepoint.errors import UsageError
from saddlepoint.game import Players
from saddlepoint.rules.state import RuleState
from saddlepoint.rules.step import Step
from saddlepoint.vectors import Vector

Cross = bool | Literal["unless_zero_sum"]
"""Whether a rule computes J @ v across players; see ``Rule.cross``."""


class Rule(ABC):
    """Turns losses, gradients and curvature at the current point into each player's direction.

    A rule is an immutable description (a frozen dataclass): what it remembers between steps lives
    in ``step.state``, so one rule can serve several optimizers. A subclass declares what it needs
    as class attributes or properties, and implements ``direction``.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Damped(Rule):
    ...     gamma: float = 0.1
    ...     order = 2
    ...     needs_all_players = True
    ...     def direction(self, step):
    ...         xi = step.linearization.gradient
    ...         return xi + self.gamma * (step.linearization.jacobian.T @ xi)
    """

    games: ClassVar[str] = "any"
    """The games that the rule holds for; "any" is any number of players, zero-sum or not."""

    @property
    def order(self) -> int:
        """0 for losses only, 1 (default) for gradients, 2 for Jacobian products."""
        return 1

    @property
    def cross(self) -> Cross:
        """Whether the rule computes (J @ v)_i with v_j ≠ 0 for a player j ≠ i; False by default.

        Such a product differentiates ∂_j f_i. With True, the pass that gives the gradient of f_i
        differentiates with respect to the parameters of all players, and the product needs no
        further gradient; with False it costs one gradient more per player. J.T @ v and the blocks
        J[i, i] need ∂_i f_i only. "unless_zero_sum" is for rules that take such products only where
        ``rules.zero_sum.interacts_as_zero_sum`` tests the game or returns False.
        """
        return False

    @property
    def needs_all_players(self) -> bool:
        """Whether the rule needs the losses of all players in every step; False by default."""
        return False

    @property
    def output(self) -> Literal["gradient", "update"]:
        """What ``direction`` returns: "gradient" (default) or "update".

        Any inner optimizer may rescale a gradient. An update is a complete step up to the learning
        rate, so the inner optimizers must be plain SGD.
        """
        return "gradient"

    @property
    def evaluates_again(self) -> bool:
        """Whether the rule may evaluate the closure more than once in a step; True by default.

        The step then saves random states and buffers first. A rule that declares False and
        evaluates the closure again raises RuntimeError.
        """
        return True

    @abstractmethod
    def direction(self, step: Step) -> Vector:
        """Return the direction d of every active player; plain SGD moves θ to θ − lr · d."""

    def partial_direction(self, step: Step) -> Vector:
        """Return the direction of players that move alone, under a rule that needs all players.

        It is called in place of ``direction`` in steps with ``only=[...]``. By default it is the
        gradient; a rule with a preconditioner applies it.
        """
        return step.linearization.gradient

    def pre_step(self, players: Players, state: RuleState) -> None:
        """Called before a step evaluates the closure; may move parameters.

        A step that fails does not undo it.
        """
        return

    def post_step(self, step: Step) -> None:
        """Called after the inner optimizers have moved the parameters."""
        return

    def validate(self, players: Players) -> None:
        """Raise UsageError where the rule does not fit the players.

        Called when an optimizer is built, and when its parameters change.
        """
        return


def direction_method(rule: Rule, step: Step) -> Callable[[Step], Vector]:
    """Return ``rule.direction``, or ``rule.partial_direction`` where only some players move."""
    if step.is_extra_turn and rule.needs_all_players:
        return rule.partial_direction
    return rule.direction


def check_limits(rule: str, tol: float, max_iter: int) -> None:
    """Raise UsageError unless tol ≥ 0 and max_iter ≥ 1."""
    if not tol >= 0 or max_iter < 1:
        raise UsageError(f"{rule}: needs tol ≥ 0 and max_iter ≥ 1, not {tol} and {max_iter}.")
