"""One step of a game, as its rule sees it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from saddlepoint.curvature.batched import losses_in_batch
from saddlepoint.curvature.linearization import Cost, Linearization
from saddlepoint.curvature.replay import Replay, displaced, restored
from saddlepoint.curvature.solvers import SOLVERS, SolveInfo
from saddlepoint.distributed import SingleProcess
from saddlepoint.game import Closure, Players
from saddlepoint.rules.first_step import (
    Verified,
    check_all_active,
    check_batch,
    check_first_linearization,
    check_not_frozen,
    check_repeatable,
)
from saddlepoint.rules.state import RuleState
from saddlepoint.rules.zero_sum import may_need_general_form
from saddlepoint.vectors import Vector

if TYPE_CHECKING:
    from saddlepoint.rules.base import Rule


class InnerOptimizers(Protocol):
    """What a step needs of the players' optimizers; a GameOptimizer provides it."""

    closure_differentiates: bool
    """Whether the closure calls autograd itself, so that it needs a graph even for losses alone."""

    def lrs(self) -> Mapping[str, Sequence[float]]:
        """Return player → the learning rate of each parameter."""

    def advance(self, direction: Vector, unused: Mapping[str, frozenset[int]]) -> None:
        """Move the players of ``direction`` as the real update will; skip ``unused`` parameters."""

    def restoring_state(self) -> AbstractContextManager[None]:
        """Restore the optimizers' state when the block ends."""


class Step:
    """One step as its rule sees it.

    A rule reads ``linearization`` (losses, gradient ξ and Jacobian J at the current parameters) and
    returns a direction. Where it needs more, it calls ``linearize`` inside ``displaced`` or
    ``extrapolated``, ``solve`` for a linear system, and keeps what it must remember in ``state``.

    Attributes:
        players: player → parameters, of all players that the rule sees.
        state: what the rule remembers between steps.
        solves: the reports of this step's linear solves, by name.
        only: the players that ``step(closure, only=[...])`` named, or None where all may move.
    """

    def __init__(
        self,
        players: Players,
        closure: Closure,
        *,
        rule: Rule,
        inner: InnerOptimizers,
        state: RuleState,
        replay: Replay | None,
        cost: Cost,
        modules: Sequence[nn.Module] = (),
        only: Collection[str] | None = None,
        verified: Verified | None = None,
        distributed: SingleProcess | None = None,
    ) -> None:
        self.players = players
        self.state = state
        self.solves: dict[str, SolveInfo] = {}
        self.only = None if only is None or set(players) <= set(only) else tuple(sorted(only))
        self._closure = closure
        # the players whose losses are used, where the closure may return others too
        self._wanted = None if only is None else tuple(only)
        self._inner, self._replay, self._cost = inner, replay, cost
        self._rule, self._modules = rule, tuple(modules)
        self._verified = Verified() if verified is None else verified
        self._distributed = SingleProcess() if distributed is None else distributed
        self._sees_all_players = True
        # lists, which ``scope`` shares between all views of the step; ``_first`` has one entry at
        # most, the step's first linearization
        self._first: list[Linearization] = []
        self._unchecked: list[Linearization] = []
        self._linearizations: dict[int, Linearization] = {}
        self._cross: bool | None = None

    @property
    def linearization(self) -> Linearization:
        """Losses, gradient and (order 2) Jacobian at the current parameters; computed once."""
        known = [order for order in self._linearizations if order >= self._rule.order]
        order = min(known, default=self._rule.order)
        if order not in self._linearizations:
            self._linearizations[order] = self.linearize(order)
        found = self._linearizations[order]
        if self._cross is None:
            cross = self._rule.cross
            if cross == "unless_zero_sum":
                cross = may_need_general_form(self.state, found.active)
            self._cross = bool(cross)
        found.cross = found.cross or self._cross
        return found

    @property
    def first_linearization(self) -> Linearization:
        """The first linearization of this step; its losses are those of the StepResult."""
        return self._first[0] if self._first else self.linearization

    @property
    def is_extra_turn(self) -> bool:
        """Whether only some of the players move, as in ``step(closure, only=[...])``."""
        return self.only is not None

    @property
    def active(self) -> tuple[str, ...]:
        """The players that move in this step, of those that the rule sees."""
        first = self.first_linearization
        return tuple(player for player in first.active if player in self.players)

    @property
    def lrs(self) -> Mapping[str, Sequence[float]]:
        """Player → the inner optimizer's learning rate of each parameter."""
        return self._inner.lrs()

    def scope(self, name: str, rule: Rule, players: Iterable[str] | None = None) -> Step:
        """Return a view of this step for a rule inside the current one, with its own state.

        Args:
            name: the name of the inner rule's state.
            rule: the inner rule.
            players: the players of the game that the inner rule sees, with the others held fixed;
                all by default. With it, linearizations in which the others move are not shared.
        """
        view = copy(self)
        view.state, view._rule, view._cross = self.state.child(name), rule, None
        if players is not None:
            view.players = seen = {player: self.players[player] for player in players}
            view.only = None if set(seen) <= set(self.active) else self.only
            view._sees_all_players = False
            view._wanted = tuple(seen)
            if self._wanted is not None and set(seen) & set(self._wanted):
                view._wanted = tuple(player for player in seen if player in self._wanted)
            view._linearizations = {}
            for order, found in self._linearizations.items():
                if set(found.active) <= set(seen):
                    view._linearizations[order] = found
        return view

    def record_losses_only(self) -> None:
        """Declare that no rule takes gradients of the first linearization.

        The StepResult then has no gradient norms.
        """
        self._first[0] = copy(self.first_linearization)
        self._first[0].order = 0

    def linearize(
        self, order: int, *, check_finite: bool = True, fresh: bool = False
    ) -> Linearization:
        """Evaluate the closure at the current values of the parameters.

        Args:
            order: 0 for losses, 1 for gradients, 2 for Jacobian products.
            check_finite: whether a loss that is NaN or infinite is an error; False for trial
                points.
            fresh: whether to draw new random numbers. By default every evaluation after the first
                one sees the same randomness and leaves buffers as they are.
        """
        again = bool(self._first) and not fresh
        if again:
            self._check_repeatable()
        with self._same_randomness() if again else nullcontext():
            found = self._evaluate(order, cost=self._cost)
        if check_finite:
            self._unchecked.append(found)
        if self._rule.needs_all_players and not self.is_extra_turn:
            check_all_active(type(self._rule).__name__, found, self.players)
            check_not_frozen(self._rule, self.players)
        if not self._first:
            self._first.append(found)
            if check_first_linearization(found, self._verified, self._losses_displaced_by):
                # the check changed the parameters and restored them, which invalidates the graph
                with self._same_randomness():
                    self._first[0] = self._evaluate(2, cost=self._cost)
            return self._first[0]
        if order > 1 and self._verified.due("second derivatives", found.active):
            found.check_second_derivatives()
        if not self._sees_all_players:
            # the whole step must know the unused parameters of all players
            found.unused = self._first[0].unused
        return found

    def check_finite(self) -> None:
        """Raise DivergenceError where a loss of this step is NaN or infinite."""
        for found in self.take_unchecked():
            found.check_finite()

    def take_unchecked(self) -> list[Linearization]:
        """Return the linearizations whose losses were not checked yet, and clear the list."""
        unchecked = list(self._unchecked)
        self._unchecked.clear()
        return unchecked

    def _evaluate(self, order: int, *, cost: Cost | None) -> Linearization:
        """Evaluate the closure, without a graph where losses alone are needed and it allows it."""
        options: dict[str, Any] = {
            "order": order,
            "cost": cost,
            "check_finite": False,
            "distributed": self._distributed,
            "only": self._wanted,
            "accumulate": order == 0 or self._rule.order < 2,
        }
        if order == 0 and self._replay is not None and not self._inner.closure_differentiates:
            try:
                return Linearization(self.players, self._closure, graph=False, **options)
            except RuntimeError:  # if the graph was not the reason, it is raised again below
                self._replay.rewind()
            found = Linearization(self.players, self._closure, **options)
            self._inner.closure_differentiates = True
            return found
        return Linearization(self.players, self._closure, **options)

    def _losses_displaced_by(self, d: Vector) -> dict[str, float]:
        """Return player → loss at θ − d, with the step's randomness; not counted as cost."""
        with displaced(self.players, d), self._same_randomness():
            return self._evaluate(0, cost=None).losses

    def _same_randomness(self) -> AbstractContextManager[None]:
        if self._replay is None:
            raise RuntimeError(
                f"{type(self._rule).__name__} declares evaluates_again = False, but evaluates the"
                " closure more than once in a step."
            )
        return self._replay.again()

    def losses_at(self, displacements: Vector, *, batched: bool = False) -> dict[str, Tensor]:
        """Return player → the losses at θ − d for each d of a stack, shape (n,), float64.

        Args:
            displacements: for each parameter of shape s a tensor of shape (n, *s); players that it
                leaves out are not displaced. All n evaluations see the step's randomness.
            batched: whether to evaluate all n in one pass over the modules that the optimizer was
                given.

        Raises:
            UsageError: ``batched``, and the closure reads parameters other than through the modules
                or contains an operation that vmap refuses.
        """
        n = len(displacements.tensors[0])
        if not batched:
            trials = []
            for k in range(n):
                with self.displaced(_entry(displacements, k)):
                    trials.append(self.linearize(0, check_finite=False).losses)
            found = {}
            for player in self.active:
                losses = [trial[player] for trial in trials]
                found[player] = torch.tensor(losses, dtype=torch.float64)
            return found
        with self._same_randomness():
            found = losses_in_batch(
                self._closure, self._modules, self.players, displacements, only=self._wanted
            )
        means = self._distributed.all_reduce_mean(torch.stack(list(found.values())))
        found = dict(zip(found, means, strict=True))
        self._cost.losses += n
        if self._verified.due("batch", found):
            self._verified.add("batch", found)
            first = _entry(displacements, 0)
            alone = self._losses_displaced_by(first)
            check_batch(found, alone, self.first_linearization.losses, first)
        return found

    @contextmanager
    def displaced(self, d: Vector) -> Iterator[None]:
        """Hold the parameters at θ − d within the block.

        Afterwards, Jacobian products of earlier linearizations raise an error, because PyTorch
        notices that the parameters were changed.
        """
        self._check_repeatable()
        with displaced(self.players, d):
            yield

    @contextmanager
    def extrapolated(
        self, direction: Vector, *, keep_state: bool, fresh: bool = False
    ) -> Iterator[None]:
        """Hold the parameters where the inner optimizers would move them, within the block.

        Args:
            direction: the direction of the trial step.
            keep_state: whether the trial step's change of the optimizers' state is kept; otherwise
                the state is restored.
            fresh: whether the block draws new samples at the trial point.
        """
        if not fresh:
            self._check_repeatable()
        unused = {}
        if self._first:
            unused = self._first[0].unused
            if self._first[0].order > 0:
                # now, because optimizers and their hooks may write to the gradient that they get
                self._first[0].take_gradient_norms()
        if keep_state:
            self.check_finite()  # a step that fails must not change the optimizers' state
        with restored(p for player in direction for p in self.players[player]):
            with nullcontext() if keep_state else self._inner.restoring_state():
                self._inner.advance(direction, unused)
            yield

    def _check_repeatable(self) -> None:
        """Where a player is new, warn if a second evaluation at the same point differs."""
        if not self._first or self._replay is None:
            return
        first = self._first[0]
        if not self._verified.due("repeatable", first.active):
            return
        self._verified.add("repeatable", first.active)
        rule = type(self._rule).__name__
        check_repeatable(rule, first, self._replay, lambda: self._evaluate(1, cost=None))

    def solve(
        self,
        name: str,
        method: str,
        product: Callable[[Vector], Vector],
        b: Vector,
        *,
        x0: Vector | None = None,
        shift: float = 0.0,
        tol: float,
        max_iter: int,
    ) -> tuple[Vector, Vector]:
        """Solve (A + shift·I) x = b; return x and A x.

        Args:
            name: the name under which ``solves`` reports the solve.
            method: one of ``curvature.SOLVERS``: "cg", "minres", "gmres" or "saddle_free".
            product: applies A.
            b: the right-hand side.
            x0: a first guess; zero by default.
            shift: a multiple of the identity that is added to A.
            tol: relative residual at which the solve stops.
            max_iter: the largest number of products.
        """
        self.check_finite()
        solution = SOLVERS[method](
            lambda v: product(b.unflatten(v)).flatten(),
            b.flatten(),
            x0=None if x0 is None else x0.flatten(),
            shift=shift,
            tol=tol,
            max_iter=max_iter,
        )
        self.solves[name] = solution.info
        return b.unflatten(solution.x), b.unflatten(solution.image)


def _entry(stack: Vector, k: int) -> Vector:
    """Return entry k of a vector whose tensors have a further first dimension."""
    parts = {}
    for player, tensors in stack.items():
        parts[player] = [tensor[k] for tensor in tensors]
    return Vector(parts)
