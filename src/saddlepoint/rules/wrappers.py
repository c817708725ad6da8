"""Rules around other rules."""

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
from saddlepoint.rules.base import Rule, find_direction
from saddlepoint.rules.first_order import GradientDescent
from saddlepoint.rules.state import Entry, RuleState
from saddlepoint.rules.step import Step
from saddlepoint.vectors import Vector


@dataclass(frozen=True)
class Wrapper(Rule):
    """A rule that changes what another one does, and has that one's order, units and needs.

    Args:
        rule: the rule inside.
    """

    games = "those of the rule inside"

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
        """Return the direction of every mover."""

    def partial_direction(self, step: Step) -> Vector:
        return self.direction(step)

    def post_step(self, step: Step) -> None:
        self.rule.post_step(step.scope("rule", self.rule))

    def _inside(self, step: Step) -> Vector:
        return find_direction(self.rule, step.scope("rule", self.rule))


@dataclass(frozen=True)
class Lookahead(Wrapper):
    """Lookahead–minmax: every k steps all players return part of the way, θ_slow ← θ_slow + α(θ − θ_slow), θ ← θ_slow.

    All players' slow weights move jointly, anchored at the start. Nest it for slower weights still:
    ``Lookahead(Lookahead(rule, k=5), k=5000)``. k counts calls of ``step``: in alternating training
    a round of two players is two.

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
        state.begin("slow", Vector(players))
        self._return(Vector(players), state)  # of what was frozen when the others returned

    def direction(self, step: Step) -> Vector:
        return self._inside(step)

    def post_step(self, step: Step) -> None:
        super().post_step(step)
        count = step.state.numbers["count"] = step.state.numbers.get("count", 0) + 1
        if count % self.k == 0:
            self._return(Vector(step.players), step.state)

    def _return(self, here: Vector, state: RuleState) -> None:
        """Take the parameters that owe a return part of the way back."""
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
    """Keep the average of the iterates beside them: uniform, θ̄_t = (1/t) Σ θ_s, or exponential, θ̄ ← d θ̄ + (1 − d) θ.

    The rule's own path does not change. ``with optimizer.averaged():`` holds the parameters at the
    average, to evaluate there. While a parameter is frozen, its value counts as its iterates.

    Args:
        rule: the rule that moves.
        decay: d in [0, 1) for the exponential average; None for the uniform one, which theory's
            ergodic bounds are about.

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
        return self._inside(step)

    def post_step(self, step: Step) -> None:
        super().post_step(step)
        count = step.state.numbers["count"] = step.state.numbers.get("count", 0) + 1
        now = Vector(step.players).detach()
        weight = 1 / count if self.decay is None or count == 1 else 1 - self.decay
        torch._foreach_lerp_(step.state.recall("average", default=now).tensors, now.tensors, weight)
        for entry in step.state.entries(now):
            entry["averaged"] = count

    def catch_up(self, entry: Entry, parameter: Tensor, state: RuleState) -> None:
        """Count the steps in which a parameter was frozen, or not in the game yet, at the value that it has now."""
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
        """Return player → name → average as of now, of the parameters that have one; empty before the first step."""
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
    """Shorten a player's direction to a norm, d_i ← d_i · min(1, norm / ‖d_i‖), each player by itself.

    Args:
        rule: the rule whose directions are clipped.
        norm: the longest direction.

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
        d = self._inside(step)
        return Vector({player: self._shortened(d.only([player]))[player] for player in d})

    def _shortened(self, d: Vector) -> Vector:
        length = d.length()
        return d * (self.norm / length) if math.isfinite(length) and length > self.norm else d


class TwoRules(Wrapper):
    """A wrapper of two rules, of which ``fallback`` is the second; it needs what either of them needs."""

    games = "those of both rules inside"

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
    """Use one rule every k-th step, from the first on, and a cheap one between: the cost of curvature becomes a dial.

    Each rule keeps a memory of its own. Extra turns of some players (``step(closure, only=…)``) are
    counted apart, with a period of their own. Where one of them is in units of steps, the inner
    optimizer must be plain SGD.

    Args:
        rule: the rule of every k-th step.
        k: the period.
        otherwise: the rule of the other steps.

    Holds for: the games of both rules.
    Cost: (cost of ``rule`` + (k − 1) · cost of ``fallback``) / k.
    Guarantee: none of its own; on a quadratic game a period multiplies the maps of its k steps.

    Reference: the lazy regularisation of Karras et al. (2020), Analyzing and improving the image
    quality of StyleGAN, arXiv:1912.04958, is this for gradient penalties.

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
            return self._inside(step)
        return find_direction(self.fallback, step.scope("fallback", self.fallback))

    def _counter(self, step: Step) -> str:
        """Return where steps are counted: turns of some players alone have a period of their own."""
        return "count" if step.only is None else f"count of {', '.join(step.only)}"

    def post_step(self, step: Step) -> None:
        if step.state.numbers[self._counter(step)] % self.k == 0:
            super().post_step(step)
        else:
            self.fallback.post_step(step.scope("fallback", self.fallback))


@dataclass(frozen=True)
class PerPlayer(TwoRules):
    """Move the named players by one rule and all others by another, for players that need different treatment.

    A generator whose output is quantised has a gradient of zero; it learns by
    ``RandomizedSmoothing`` while the discriminator follows its gradient. Each rule plays the game
    of its own players, the others held where they are, and keeps a memory of its own. A turn in
    which only players of one rule move is that rule's alone: where it is of order 0, no gradient is
    taken.

    Args:
        rule: the rule of the named players.
        players: their names.
        otherwise: the rule of all other players.

    Holds for: any game; each rule for the game of its own players.
    Cost: in alternating training that of the rule whose player moves; where players of both move at
    once that of both, and one evaluation
        of the closure more for each rule of order 1 or 2.
    Guarantee: none of its own; with the same rule twice, and one that does not couple the players,
    that rule's path.

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
        return True  # each rule evaluates the game of its own players

    def validate(self, players: Players) -> None:
        for player in self.players:
            if player not in players:
                raise UsageError(
                    f'PerPlayer: no player "{player}".' + did_you_mean(player, players)
                )
        for _, rule, own in self._parts(players):
            rule.validate({player: players[player] for player in own})

    def pre_step(self, players: Players, state: RuleState) -> None:
        for name, rule, own in self._parts(players):
            rule.pre_step({player: players[player] for player in own}, state.child(name))

    def direction(self, step: Step) -> Vector:
        active = step.linearization.active
        views = self._moving(step)
        # otherwise the record would take gradients that no rule asks for
        if len(views) > 1 or views[0][0].order == 0:
            step.record_losses_only()
        found = Vector(
            {
                player: part
                for rule, view in views
                for player, part in find_direction(rule, view).items()
            }
        )
        return found.only(active)

    def post_step(self, step: Step) -> None:
        for rule, view in self._moving(step):
            rule.post_step(view)

    def _parts(self, players: Iterable[str]) -> list[tuple[str, Rule, list[str]]]:
        named = [player for player in players if player in self.players]
        others = [player for player in players if player not in self.players]
        return [
            part
            for part in (("rule", self.rule, named), ("fallback", self.fallback, others))
            if part[2]
        ]

    def _moving(self, step: Step) -> list[tuple[Rule, Step]]:
        """Return each rule of which a player moves, with the step as it sees it."""
        parts = self._parts(step.players)
        return [
            (rule, step.scope(name, rule, own))
            for name, rule, own in parts
            if set(own) & set(step.active)
        ]
