"""What a rule is, and what it sees during one step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from saddlepoint.curvature import SOLVERS, Accumulated, Cost, Evaluation, Solve, check_backward
from saddlepoint.curvature.batched import losses_in_batch
from saddlepoint.curvature.replay import Replay, displaced, restored
from saddlepoint.errors import UsageError
from saddlepoint.game import Closure, Losses, MicroBatches, Players
from saddlepoint.ranks import Ranks
from saddlepoint.rules.first_step import (
    Verified,
    check_all_move,
    check_movers,
    check_no_gradients,
    check_repeated,
)
from saddlepoint.rules.state import RuleState
from saddlepoint.vectors import Vector


class Inner(Protocol):
    """What a step may ask of the inner optimizers."""

    closure_differentiates: bool
    """Whether the closure was seen to call autograd itself, so that it needs a graph where only losses are asked for."""

    def rates(self) -> Mapping[str, Sequence[float]]:
        """Return player → the learning rate of each parameter."""

    def advance(self, direction: Vector, unused: Mapping[str, frozenset[int]]) -> None:
        """Move the players of ``direction`` by their inner optimizers, as the real update will; ``unused`` parameters are skipped."""

    def keeping_state(self) -> AbstractContextManager[None]:
        """Give the inner optimizers back the state that they had before."""


class Step:
    """One step as its rule sees it: what is known here, and what it may do.

    Attributes:
        players: player → parameters, of all players that the rule sees.
        state: what the rule keeps between steps.
        solves: the reports of the solves of this step, by name.
        only: the names of the players that the caller lets move alone, also under a rule that needs
            all of them; None where all may.
        verified: what was looked at already in earlier steps.
    """

    def __init__(
        self,
        players: Players,
        closure: Closure,
        *,
        rule: Rule,
        inner: Inner,
        state: RuleState,
        replay: Replay | None,
        cost: Cost,
        modules: Sequence[nn.Module] = (),
        only: Collection[str] | None = None,
        verified: Verified | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.players = players
        self.state = state
        self.solves: dict[str, Solve] = {}
        self.only = None if only is None or set(players) <= set(only) else tuple(sorted(only))
        self._closure = closure if only is None else _among(closure, only)
        self._inner, self._replay, self._cost = inner, replay, cost
        self._rule, self._modules = rule, tuple(modules)
        self.verified = Verified() if verified is None else verified
        self._ranks = Ranks() if ranks is None else ranks
        self._whole = True  # whether this view sees all players
        self._firsts: list[Evaluation] = []
        self._points: dict[int, Evaluation] = {}

    @property
    def point(self) -> Evaluation:
        """The evaluation at the current parameters, of the rule's order at least; taken when first asked for."""
        order = min(
            (known for known in self._points if known >= self._rule.order), default=self._rule.order
        )
        if order not in self._points:
            self._points[order] = self.evaluate(order)
        return self._points[order]

    @property
    def first(self) -> Evaluation:
        """The first evaluation of this step, whichever it was; the step's losses are those."""
        return self._firsts[0] if self._firsts else self.point

    @property
    def partial(self) -> bool:
        """Whether the caller lets some players move alone."""
        return self.only is not None

    @property
    def movers(self) -> tuple[str, ...]:
        """The players that move in this step, of those that the rule sees."""
        return tuple(player for player in self.first.movers if player in self.players)

    @property
    def learning_rates(self) -> Mapping[str, Sequence[float]]:
        """Player → the inner optimizer's learning rate of each parameter; for rules whose units are steps."""
        return self._inner.rates()

    def within(self, name: str, rule: Rule, players: Iterable[str] | None = None) -> Step:
        """Return this step as a rule inside the current one sees it: its own memory, its own order, the same evaluations.

        With ``players`` the rule sees the game of those alone, the others held where they are;
        evaluations in which others move too are not shared with it.
        """
        view = copy(self)
        view.state, view._rule = self.state.child(name), rule
        if players is not None:
            view.players = seen = {player: self.players[player] for player in players}
            view.only = None if set(seen) <= set(self.movers) else self.only
            view._closure, view._whole = _among(self._closure, seen), False
            view._points = {
                order: point
                for order, point in self._points.items()
                if set(point.movers) <= set(seen)
            }
        return view

    def record_losses_only(self) -> None:
        """Say that no rule takes gradients of the step's first evaluation: its record then has the losses and costs nothing more."""
        self._firsts[0] = copy(self.first)
        self._firsts[0].order = 0

    def evaluate(self, order: int, *, finite: bool = True, fresh: bool = False) -> Evaluation:
        """Evaluate the closure at the parameters as they are now.

        After the first evaluation of a step, later ones see the same randomness and move no
        buffers; ``fresh=True`` draws anew instead, for rules that need independent samples.
        ``finite=False`` lets a trial point have losses that are NaN.
        """
        if self._firsts and not fresh:
            self._check_repeatable()
        with self._same_randomness() if self._firsts and not fresh else nullcontext():
            found = self._evaluation(order, cost=self._cost, finite=finite)
        if self._rule.joint and not self.partial:
            check_all_move(type(self._rule).__name__, found, self.players)
            self._check_frozen()
        if not self._firsts:
            return self._begin(found)
        if order > 1 and self.verified.due("second derivatives", found.movers):
            found.check_second_derivatives()
        if not self._whole:
            # a part's gradients tell the whole step which parameters are unused
            found.unused = self._firsts[0].unused
        return found

    def _evaluation(self, order: int, *, cost: Cost | None, finite: bool = True) -> Evaluation:
        one_by_one = isinstance(self._closure, MicroBatches) and (
            order == 0 or self._rule.order < 2
        )
        kind = Accumulated if one_by_one else Evaluation
        build = partial(
            kind,
            self.players,
            self._closure,
            order=order,
            cost=cost,
            finite=finite,
            ranks=self._ranks,
        )
        if order > 0 or self._inner.closure_differentiates or self._replay is None:
            return build()
        try:
            return build(graph=False)
        except RuntimeError:  # of many texts: what fails with a graph too fails again below
            self._replay.rewind()
        found = build()
        self._inner.closure_differentiates = True
        return found

    def _begin(self, found: Evaluation) -> Evaluation:
        """Take the first evaluation of the step; where a player is new to it, look for what would be silently wrong."""
        self._firsts.append(found)
        check_movers(found)
        check_no_gradients(found)
        if found.order > 0 and self.verified.due("graph", found.movers):
            found.check_graph()
            self.verified.add("graph", found.movers)
        if found.order < 2 or not self.verified.due("second derivatives", found.movers):
            return found
        found.check_second_derivatives()
        self.verified.add("second derivatives", found.movers)
        if found.custom_functions():
            check_backward(found, self._trial_losses)
            # the check moved the parameters and put them back; the first graph is spoiled
            with self._same_randomness():
                self._firsts[0] = self._evaluation(2, cost=self._cost)
        return self._firsts[0]

    def _check_frozen(self) -> None:
        """Raise UsageError where a player that the rule names has nothing to move."""
        moving = {player: own for player, own in self.players.items() if own}
        if len(moving) == len(self.players):
            return
        try:
            self._rule.check(moving)
        except UsageError as error:
            frozen = next(player for player in self.players if player not in moving)
            raise UsageError(
                f'Player "{frozen}" is frozen, and {type(self._rule).__name__} needs it to move.'
                " Call requires_grad_(True) on its parameters, or let the others move alone:"
                " optimizer.step(closure, only=[...])."
            ) from error

    def _trial_losses(self, d: Vector) -> dict[str, float]:
        with self.displaced(d), self._same_randomness():
            return self._evaluation(0, cost=None, finite=False).losses

    def _same_randomness(self) -> AbstractContextManager[None]:
        if self._replay is None:
            raise RuntimeError(
                f"{type(self._rule).__name__} says evaluates_again = False, and evaluates the"
                " closure again in one step."
            )
        return self._replay.again()

    def losses_at(self, displacements: Vector, *, batched: bool = False) -> dict[str, Tensor]:
        """Return mover → the losses at θ − d for each displacement d of a stack, shape (n,), float64, with the step's randomness.

        Args:
            displacements: for each parameter of shape s a tensor of shape (n, *s); players that it
                leaves out stay where they are.
            batched: evaluate all n in one pass over the modules that the optimizer was given.

        Raises:
            UsageError: ``batched``, and the closure reads parameters past the modules or does what
                vmap refuses.
        """
        n, movers = len(displacements.tensors[0]), self.movers
        if not batched:
            trials = []
            for k in range(n):
                with self.displaced(_at(displacements, k)):
                    trials.append(self.evaluate(0, finite=False).losses)
            return {
                player: torch.tensor([losses[player] for losses in trials], dtype=torch.float64)
                for player in movers
            }
        with self._same_randomness():
            found = losses_in_batch(self._closure, self._modules, self.players, displacements)
        means = self._ranks.mean_numbers(torch.stack(list(found.values())))
        found = dict(zip(found, means, strict=True))
        self._cost.losses += n
        self._check_batch(displacements, found)
        return found

    def _check_batch(self, displacements: Vector, found: Mapping[str, Tensor]) -> None:
        """Where a player is new to it, compare the first loss of a batch with the same taken alone."""
        if not self.verified.due("batch", found):
            return
        self.verified.add("batch", found)
        one = _at(displacements, 0)
        with self.displaced(one), self._same_randomness():
            alone = self._evaluation(0, cost=None, finite=False).losses
        for player, loss in alone.items():
            off, moved = abs(loss - float(found[player][0])), abs(loss - self.first.losses[player])
            rounding = 1e3 * torch.finfo(one.tensors[0].dtype).eps * max(1.0, abs(loss))
            # a quantised output may flip a few entries by rounding, a missed parameter misses all
            if off > 0.05 * moved + rounding:
                raise UsageError(
                    f'batched=True: at a displaced point the loss of player "{player}" is'
                    f" {float(found[player][0]):.6g} in a batch and {loss:.6g} alone. The closure"
                    " reads parameters other than through the modules that were named, for example"
                    " from a list made before. Read them from the modules inside the closure, or"
                    " use batched=False."
                )

    @contextmanager
    def displaced(self, d: Vector) -> Iterator[None]:
        """Hold the parameters at θ − d. Products of earlier evaluations are not possible afterwards: PyTorch sees the changes."""
        self._check_repeatable()
        with displaced(self.players, d):
            yield

    @contextmanager
    def extrapolated(
        self, direction: Vector, *, keep_state: bool, fresh: bool = False
    ) -> Iterator[None]:
        """Hold the parameters where the inner optimizers would take them with ``direction``.

        With ``keep_state`` the optimizers' state has seen this trial step afterwards, otherwise it
        is as before. ``fresh`` says that other samples will be drawn there.
        """
        if not fresh:
            self._check_repeatable()
        unused = {}
        if self._firsts:
            unused = self._firsts[0].unused
            if self._firsts[0].order > 0:
                # taken before optimizers and their hooks may write to the gradient that they get
                _ = self._firsts[0].gradient_norms
        with restored(p for player in direction for p in self.players[player]):
            with nullcontext() if keep_state else self._inner.keeping_state():
                self._inner.advance(direction, unused)
            yield

    def _check_repeatable(self) -> None:
        """Where a player is new to it, say where a second evaluation at the same point is not the same."""
        if (
            not self._firsts
            or self._replay is None
            or not self.verified.due("repeatable", self._firsts[0].movers)
        ):
            return
        self.verified.add("repeatable", self._firsts[0].movers)
        first, frozen = self._firsts[0], self._replay.frozen
        before = [parameter.detach().clone() for _, parameter in frozen]
        with self._replay.again():
            # with a graph, in which BatchNorm can be seen
            second = self._evaluation(1, cost=None, finite=False)
        pairs = zip(frozen, before, strict=True)
        changed = [
            name for (name, parameter), earlier in pairs if not torch.equal(parameter, earlier)
        ]
        check_repeated(
            type(self._rule).__name__,
            first.losses,
            second.losses,
            moves_statistics=second.uses_batch_statistics() and not self._replay.knows_batch_norm,
            changed=changed,
        )

    def solve(
        self,
        name: str,
        method: str,
        product: Callable[[Vector], Vector],
        b: Vector,
        *,
        x0: Vector | None = None,
        shift: float = 0.0,
        tolerance: float,
        budget: int,
    ) -> tuple[Vector, Vector]:
        """Solve (A + shift·I) x = b with the solver called ``method``; return x and A x, and leave the report in ``solves``."""
        solution = SOLVERS[method](
            lambda v: product(b.unflatten(v)).flatten(),
            b.flatten(),
            x0=None if x0 is None else x0.flatten(),
            shift=shift,
            tolerance=tolerance,
            budget=budget,
        )
        self.solves[name] = solution.report
        return b.unflatten(solution.x), b.unflatten(solution.image)


def _at(stack: Vector, k: int) -> Vector:
    return Vector({player: [tensor[k] for tensor in tensors] for player, tensors in stack.items()})


def find_direction(rule: Rule, step: Step) -> Vector:
    """Return a rule's direction; under a rule that needs all players, that of an extra turn where only some of them move."""
    return rule.partial_direction(step) if step.partial and rule.joint else rule.direction(step)


def _among(closure: Closure, players: Collection[str]) -> Closure:
    """Return the closure without the losses of other players."""
    if isinstance(closure, MicroBatches):
        return MicroBatches([_among(part, players) for part in closure.parts])

    def losses() -> Losses:
        returned = closure()
        if not isinstance(returned, Mapping):
            return returned  # the evaluation says what is wrong with it
        found = {player: loss for player, loss in returned.items() if player in players}
        if not found:
            theirs, wanted = (
                ", ".join(f'"{player}"' for player in names) for names in (returned, players)
            )
            raise UsageError(
                f"The closure returned the losses of {theirs or 'no player'}, and {wanted} should"
                " move. Return their losses too."
            )
        return found

    return losses


class Rule(ABC):
    """Turns what is known at the current point into each player's update direction; the optimizer moves against it.

    A rule is an immutable description (a frozen dataclass): everything it remembers lives in
    ``step.state``, so one rule can serve several optimizers.

    Attributes:
        order: 0 uses losses only, 1 gradients, 2 Jacobian products.
        joint: whether it needs the losses of all players in every step.
        units: "gradient" when the direction is to be scaled by any inner optimizer; "step" when it
            is a step already, up to the learning rate, so that the inner optimizers must be plain
            SGD.
        evaluates_again: whether it may evaluate the closure more than once in a step. True costs
            little; False is an error in a rule that does.
    """

    @property
    def order(self) -> int:
        """0 for losses only, 1 for gradients, 2 for Jacobian products."""
        return 1

    @property
    def joint(self) -> bool:
        """Whether the rule needs the losses of all players in every step."""
        return False

    @property
    def units(self) -> str:
        """ "gradient" or "step"."""
        return "gradient"

    @property
    def evaluates_again(self) -> bool:
        """Whether the rule may evaluate the closure more than once in a step; random states are kept for it then."""
        return True

    @abstractmethod
    def direction(self, step: Step) -> Vector:
        """Return the direction of every mover, shaped like its parameters; θ moves towards θ − lr · direction."""

    def before(self, players: Players, state: RuleState) -> None:
        """Called before a step evaluates anything; for rules that anchor or move parameters there. A step that fails does not undo it."""
        return

    def partial_direction(self, step: Step) -> Vector:
        """Return the direction of players that move alone in an extra turn, under a rule that couples all players.

        By default their gradients; rules whose steps have another length have the one that belongs
        to it.
        """
        return step.point.gradient

    def after(self, step: Step) -> None:
        """Called when the inner optimizers have moved; for rules that look at where they went."""
        return

    def check(self, players: Players) -> None:
        """Raise UsageError where the rule does not fit the players; called once, at construction of the optimizer."""
        return


def check_limits(rule: str, tolerance: float, budget: int) -> None:
    """Raise UsageError unless the limits of a solve make sense."""
    if not tolerance >= 0 or budget < 1:
        raise UsageError(
            f"{rule}: needs tolerance ≥ 0 and budget ≥ 1, not {tolerance} and {budget}."
        )
