"""Rules that wrap other rules."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from saddlepoint.errors import UsageError, did_you_mean
from saddlepoint.game import Players
from saddlepoint.rules.base import Rule, direction_method
from saddlepoint.rules.first_order import GradientDescent
from saddlepoint.rules.state import Entry, RuleState
from saddlepoint.rules.step import Step
from saddlepoint.vectors import Tensors, Vector


@dataclass(frozen=True)
class Wrapper(Rule):
    """A rule that changes the directions of another one, or the parameters between its steps.

    Its order, output and other declarations are those of the inner rule.

    Args:
        rule: the rule inside.
    """

    games = "those of the inner rule"

    rule: Rule = field(default_factory=GradientDescent)

    @property
    def order(self) -> int:
        return self.rule.order

    @property
    def needs_all_players(self) -> bool:
        return self.rule.needs_all_players

    @property
    def output(self) -> Literal["gradient", "update"]:
        return self.rule.output

    @property
    def evaluates_again(self) -> bool:
        return self.rule.evaluates_again

    def validate(self, players: Players) -> None:
        self.rule.validate(players)

    def pre_step(self, players: Players, state: RuleState) -> None:
        self.rule.pre_step(players, state.child("rule"))

    @abstractmethod
    def direction(self, step: Step) -> Vector:
        """Return the direction of every active player."""

    def partial_direction(self, step: Step) -> Vector:
        return self.direction(step)

    def post_step(self, step: Step) -> None:
        self.rule.post_step(step.scope("rule", self.rule))

    def _inner_direction(self, step: Step) -> Vector:
        view = step.scope("rule", self.rule)
        return direction_method(self.rule, view)(view)


@dataclass(frozen=True)
class Lookahead(Wrapper):
    """Lookahead–minmax: every k steps θ_slow ← θ_slow + α(θ − θ_slow), θ ← θ_slow.

    The slow weights of all players move together; they start at the first step's parameters. Nest
    it for a second, slower set: ``Lookahead(Lookahead(rule, k=5), k=5000)``. k counts calls of
    ``step``: in alternating training a round of two players is two.

    Args:
        rule: the rule that takes the fast steps.
        k: fast steps between two slow ones; 5 with alternating gradients and 5000 with
            extragradient in the paper.
        alpha: α in (0, 1]; 0.5 in the paper.

    Holds for: the games of the rule inside.
    Cost: that of the rule; memory: one more vector.
    Guarantee: simultaneous gradient descent with k = 5, α = 0.5 converges on a bilinear game x·s·y
    for h·s up to about 0.74.

    Reference: Chavdarova et al. (2021), Taming GANs with Lookahead–Minmax, arXiv:2006.14567.

    >>> Lookahead(k=6).alpha
    0.5
    """

    k: int = 5
    alpha: float = 0.5

    def __post_init__(self) -> None:
        if self.k < 1 or not 0 < self.alpha <= 1:
            raise UsageError(
                f"Lookahead: needs k ≥ 1 and 0 < alpha ≤ 1, not {self.k} and {self.alpha}."
            )

    def pre_step(self, players: Players, state: RuleState) -> None:
        super().pre_step(players, state)
        state.remember_if_new("slow", Vector(players))
        # parameters that were frozen when the others moved to their slow weights
        self._move_to_slow_weights(Vector(players), state)

    def direction(self, step: Step) -> Vector:
        return self._inner_direction(step)

    def post_step(self, step: Step) -> None:
        super().post_step(step)
        count = step.state.numbers["count"] = step.state.numbers.get("count", 0) + 1
        if count % self.k == 0:
            self._move_to_slow_weights(Vector(step.players), step.state)

    def _move_to_slow_weights(self, here: Vector, state: RuleState) -> None:
        """Update the slow weights, and move to them the parameters that have not moved yet."""
        returns = int(state.numbers.get("count", 0)) // self.k
        slow = state.recall("slow", default=here).tensors
        with torch.no_grad():
            for entry, fast, anchor in zip(state.entries(here), here.tensors, slow, strict=True):
                if entry.setdefault("returned", returns) < returns:
                    anchor.lerp_(fast, self.alpha)
                    fast.copy_(anchor)
                    entry["returned"] = returns


@dataclass(frozen=True)
class Averaged(Wrapper):
    """Average the iterates: uniform, θ̄_t = (1/t) Σ θ_s, or exponential, θ̄ ← d θ̄ + (1 − d) θ.

    The iterates themselves do not change. ``with optimizer.averaged():`` holds the parameters at
    the average, to evaluate there. The value of a frozen parameter counts in every step.

    Args:
        rule: the rule that moves.
        decay: d in [0, 1) for the exponential average; None for the uniform one, for which ergodic
            bounds are proved.

    Holds for: the games of the rule inside.
    Cost: that of the rule; memory: one more vector.
    Guarantee: the uniform average of simultaneous subgradient steps of size c/√t has a gap of
    O(1/√T) on convex–concave games.

    References: Nedić and Ozdaglar (2009), J. Optim. Theory Appl. 142; Yazıcı et al. (2019),
    arXiv:1806.04498, for the exponential one.

    >>> Averaged(decay=0.999).decay
    0.999
    """

    decay: float | None = None

    def __post_init__(self) -> None:
        if self.decay is not None and not 0 <= self.decay < 1:
            raise UsageError(
                f"Averaged: decay={self.decay} must be in [0, 1), or None for the uniform average."
            )

    def direction(self, step: Step) -> Vector:
        here = Vector(step.players)
        for entry, parameter in zip(step.state.entries(here), here.tensors, strict=True):
            self.catch_up(entry, parameter, step.state)
        return self._inner_direction(step)

    def post_step(self, step: Step) -> None:
        super().post_step(step)
        count = step.state.numbers["count"] = step.state.numbers.get("count", 0) + 1
        now = Vector(step.players).detach()
        weight = 1 / count if self.decay is None or count == 1 else 1 - self.decay
        torch._foreach_lerp_(step.state.recall("average", default=now).tensors, now.tensors, weight)
        for entry in step.state.entries(now):
            entry["averaged"] = count

    def catch_up(self, entry: Entry, parameter: Tensor, state: RuleState) -> None:
        """Add the steps in which a parameter was frozen or not yet in the game to its average.

        Each counts with the value that the parameter has now.
        """
        steps = int(state.numbers.get("count", 0))
        missed = steps - entry.get("averaged", 0)
        if "average" not in entry:
            entry["average"] = parameter.detach().clone()
        elif missed:
            weight = missed / steps if self.decay is None else 1 - self.decay**missed
            entry["average"] = entry["average"].to(parameter).lerp(parameter.detach(), weight)
        entry["averaged"] = steps

    def averages(
        self, state: RuleState, parameters: Mapping[str, Mapping[str, Tensor]]
    ) -> dict[str, dict[str, Tensor]]:
        """Return player → parameter's name → its average; empty before the first step."""
        found: dict[str, dict[str, Tensor]] = {}
        for player, own in state.parameters.items():
            for name, entry in own.items():
                if "average" in entry:
                    present = dict(entry)
                    self.catch_up(present, parameters[player][name], state)
                    found.setdefault(player, {})[name] = present["average"]
        return found


@dataclass(frozen=True)
class Clipped(Wrapper):
    """Clip the norm of each player's direction: d_i ← d_i · min(1, norm / ‖d_i‖).

    Args:
        rule: the rule whose directions are clipped.
        norm: the largest norm of a direction.

    Holds for: the games of the rule inside.
    Cost: that of the rule.
    Guarantee: near a solution, where directions are shorter than ``norm``, that of the rule.

    Reference: Pascanu, Mikolov and Bengio (2013), arXiv:1211.5063.

    >>> Clipped(norm=0.5)
    Clipped(rule=GradientDescent(), norm=0.5)
    """

    norm: float = 1.0

    def __post_init__(self) -> None:
        if not self.norm > 0:
            raise UsageError(f"Clipped: norm={self.norm} must be positive.")

    def direction(self, step: Step) -> Vector:
        parts = {}
        for player, own in self._inner_direction(step).items():
            d = Vector({player: own})
            length = d.length()
            if math.isfinite(length) and length > self.norm:
                d = d * (self.norm / length)
            parts[player] = d[player]
        return Vector(parts)


class TwoRules(Wrapper):
    """A wrapper of two rules, ``rule`` and ``fallback``; it needs what either of them needs."""

    games = "those of both inner rules"

    fallback: Rule

    @property
    def order(self) -> int:
        return max(self.rule.order, self.fallback.order)

    @property
    def needs_all_players(self) -> bool:
        return self.rule.needs_all_players or self.fallback.needs_all_players

    @property
    def output(self) -> Literal["gradient", "update"]:
        return "update" if "update" in (self.rule.output, self.fallback.output) else "gradient"

    @property
    def evaluates_again(self) -> bool:
        return self.rule.evaluates_again or self.fallback.evaluates_again


@dataclass(frozen=True)
class Every(TwoRules):
    """Use one rule in every k-th step, starting with the first, and a cheaper one in the others.

    k sets the cost of curvature. Each rule has a state of its own. Extra turns of some players
    (``step(closure, only=[...])``) are counted separately, with a period of their own. Where the
    output of one of the rules is an update, the inner optimizer must be plain SGD.

    Args:
        rule: the rule of every k-th step.
        k: the period.
        fallback: the rule of the other steps.

    Holds for: the games of both rules.
    Cost: (cost of ``rule`` + (k − 1) · cost of ``fallback``) / k.
    Guarantee: none of its own; on a quadratic game a period is the product of its k linear maps.

    Reference: Karras et al. (2020), Analyzing and improving the image quality of StyleGAN,
    arXiv:1912.04958, whose lazy regularisation does this with gradient penalties.

    >>> Every(Lookahead(), k=5).order
    1
    """

    k: int = 5
    fallback: Rule = field(default_factory=GradientDescent)

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UsageError(f"Every: k={self.k} must be at least 1.")

    def validate(self, players: Players) -> None:
        self.rule.validate(players)
        self.fallback.validate(players)

    def pre_step(self, players: Players, state: RuleState) -> None:
        super().pre_step(players, state)
        self.fallback.pre_step(players, state.child("fallback"))

    def direction(self, step: Step) -> Vector:
        count = self._counter(step)
        step.state.numbers[count] = step.state.numbers.get(count, -1) + 1
        if step.state.numbers[count] % self.k == 0:
            return self._inner_direction(step)
        view = step.scope("fallback", self.fallback)
        return direction_method(self.fallback, view)(view)

    def _counter(self, step: Step) -> str:
        """Return the name of the step counter; extra turns of some players have their own."""
        return "count" if step.only is None else f"count of {', '.join(step.only)}"

    def post_step(self, step: Step) -> None:
        if step.state.numbers[self._counter(step)] % self.k == 0:
            super().post_step(step)
        else:
            self.fallback.post_step(step.scope("fallback", self.fallback))


@dataclass(frozen=True)
class PerPlayer(TwoRules):
    """Move the named players by one rule and all others by another.

    For example, a generator whose output is quantised has a gradient of zero; it learns by
    ``RandomizedSmoothing`` while the discriminator follows its gradient. Each rule sees the game of
    its own players, with the others held fixed, and has a state of its own. A step in which only
    players of one rule move is a step of that rule alone: where it is of order 0, no gradient is
    computed.

    Args:
        rule: the rule of the named players.
        players: their names.
        fallback: the rule of all other players.

    Holds for: any game; each rule for the game of its own players.
    Cost: in alternating training that of the rule whose player moves; where players of both move at
    once that of both, and one more evaluation of the closure for each rule of order 1 or 2.
    Guarantee: none of its own; with the same rule twice, and one that does not couple the players,
    the iterates are those of that rule.

    Reference: Hjelm et al. (2018), Boundary-seeking generative adversarial networks,
    arXiv:1702.08431, train generators of discrete data by an estimate from the discriminator's
    values, and the discriminator by its gradient.

    >>> from saddlepoint.rules.zeroth_order import RandomizedSmoothing
    >>> PerPlayer(RandomizedSmoothing(), ("generator",)).order
    1
    """

    rule: Rule
    players: tuple[str, ...]
    fallback: Rule = field(default_factory=GradientDescent)

    def __post_init__(self) -> None:
        if not self.players or isinstance(self.players, str):
            raise UsageError(
                f"PerPlayer: players={self.players!r} must be a sequence of names, such as"
                ' ("generator",).'
            )

    @property
    def evaluates_again(self) -> bool:
        return True  # the closure is evaluated for each rule's game

    def validate(self, players: Players) -> None:
        for player in self.players:
            if player not in players:
                raise UsageError(
                    f'PerPlayer: no player "{player}".' + did_you_mean(player, players)
                )
        for _, rule, own in self._games(players):
            rule.validate({player: players[player] for player in own})

    def pre_step(self, players: Players, state: RuleState) -> None:
        for name, rule, own in self._games(players):
            rule.pre_step({player: players[player] for player in own}, state.child(name))

    def direction(self, step: Step) -> Vector:
        active = step.linearization.active
        views = self._active_views(step)
        # without this the StepResult would compute gradients that no rule needs
        if len(views) > 1 or views[0][0].order == 0:
            step.record_losses_only()
        parts: dict[str, Tensors] = {}
        for rule, view in views:
            parts.update(direction_method(rule, view)(view))
        return Vector(parts).only(active)

    def post_step(self, step: Step) -> None:
        for rule, view in self._active_views(step):
            rule.post_step(view)

    def _games(self, players: Iterable[str]) -> list[tuple[str, Rule, list[str]]]:
        """Return (name of its state, rule, its players) for each rule that has players."""
        named = [player for player in players if player in self.players]
        others = [player for player in players if player not in self.players]
        games = [("rule", self.rule, named), ("fallback", self.fallback, others)]
        return [game for game in games if game[2]]

    def _active_views(self, step: Step) -> list[tuple[Rule, Step]]:
        """Return each rule that has an active player, with the step as this rule sees it."""
        views = []
        for name, rule, own in self._games(step.players):
            if set(own) & set(step.active):
                views.append((rule, step.scope(name, rule, own)))
        return views
