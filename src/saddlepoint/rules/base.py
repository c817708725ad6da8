"""What a rule is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from saddlepoint.errors import UsageError
from saddlepoint.game import Players
from saddlepoint.rules.state import RuleState
from saddlepoint.rules.step import Step
from saddlepoint.vectors import Vector

Cross = bool | Literal["unless_zero_sum"]


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
        """Whether the rule computes J @ v across players; False by default.

        Each loss is then differentiated with respect to all players at once, and the gradient costs
        nothing more. "unless_zero_sum" is for rules that need it only where
        ``interacts_as_zero_sum`` answers no. J.T @ v does not need it.
        """
        return False

    @property
    def needs_all_players(self) -> bool:
        """Whether the rule needs the losses of all players in every step; False by default."""
        return False

    @property
    def output(self) -> Literal["gradient", "update"]:
        """ "gradient" (default) for what any inner optimizer may scale, "update" for a whole step.

        An update is complete up to the learning rate, so the inner optimizers must be plain SGD.
        """
        return "gradient"

    @property
    def evaluates_again(self) -> bool:
        """Whether the rule may evaluate the closure more than once in a step; True by default.

        Random states are kept for it then. False is an error in a rule that does.
        """
        return True

    @abstractmethod
    def direction(self, step: Step) -> Vector:
        """Return the direction of every active player; θ moves towards θ − lr · direction."""

    def partial_direction(self, step: Step) -> Vector:
        """Return the direction of players that move alone, under a rule that needs all players.

        By default it is their gradient; rules whose steps have another length return the step that
        belongs to it.
        """
        return step.linearization.gradient

    def pre_step(self, players: Players, state: RuleState) -> None:
        """Called before a step evaluates anything; for rules that move parameters there.

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


def find_direction(rule: Rule, step: Step) -> Vector:
    """Return a rule's direction, or its partial direction where only some players move."""
    if step.is_extra_turn and rule.needs_all_players:
        return rule.partial_direction(step)
    return rule.direction(step)


def check_limits(rule: str, tol: float, max_iter: int) -> None:
    """Raise UsageError unless the limits of a solve make sense."""
    if not tol >= 0 or max_iter < 1:
        raise UsageError(f"{rule}: needs tol ≥ 0 and max_iter ≥ 1, not {tol} and {max_iter}.")
