"""Conformance checks that every rule must pass, for this library's rules and for yours."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from saddlepoint.errors import SolverWarning
from saddlepoint.game import Closure
from saddlepoint.game_optimizer import GameOptimizer
from saddlepoint.games import (
    AnalyticGame,
    bilinear,
    bilinear_matrix,
    bowl,
    cournot,
    dirac_gan,
    matching_pennies,
    ridge,
    three_players,
    zero_sum,
)
from saddlepoint.rules import Rule

_LR, _STEPS, _CLOSE = 0.1, 4, 1e-9

ANALYTIC_GAMES: dict[str, Callable[[], AnalyticGame]] = {
    "bowl": bowl,
    "bilinear": bilinear,
    "monotone": lambda: zero_sum(1.0, 1.0, -1.0),
    "local minimax": lambda: zero_sum(-6.0, 4.0, -2.0),
    "not minimax": lambda: zero_sum(6.0, 4.0, 2.0),
    "ridge": ridge,
    "dirac": lambda: dirac_gan(r1=0.5),
    "bilinear 5 x 5": lambda: bilinear_matrix(
        [0.2, 0.5, 1.0, 1.5, 2.0], torch.Generator().manual_seed(0)
    ),
    "matching pennies": matching_pennies,
    "cournot": lambda: cournot(3, slope=0.5),
    "three players": three_players,
}
"""name → a fresh game with one, two or three players."""


def check_rule(rule: Rule, games: Iterable[str] = tuple(ANALYTIC_GAMES)) -> None:
    """Raise AssertionError, saying what failed on which game, unless ``rule`` behaves as a rule must.

    On each game of ``ANALYTIC_GAMES``: directions are finite and shaped like the parameters;
    trajectories reproduce bit for bit, also through ``state_dict`` in the middle; they do not
    depend on the order of the players, on how a parameter is split into tensors or on zeros in
    ``.grad``; an unused parameter stays where it is; no graph and no tensor outlives a step;
    gradients that the user holds are not written to. A rule of order 0 sees losses only and cannot
    know that a parameter is unused: it displaces and moves it, so that check is left out for rules
    that are or hold one of order 0.

    Args:
        rule: the rule, with any options.
        games: the games to check on; leave out those that the rule's mathematics forbids.

    >>> from saddlepoint.rules import GradientDescent
    >>> check_rule(GradientDescent())
    """
    checks = (
        _reproduces,
        _survives_state_dict,
        _ignores_player_order,
        _ignores_splitting,
        _leaves_unused_parameters,
        _keeps_nothing,
        _respects_user_gradients,
        _ignores_leftover_gradients,
    )
    blind = _uses_losses_only(rule)
    for game in games:
        for check in checks:
            if check is _leaves_unused_parameters and blind:
                continue
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", SolverWarning)
                    check(rule, ANALYTIC_GAMES[game])
            except AssertionError as error:
                raise AssertionError(f"{rule} on the game {game!r}: {error}") from error


def _uses_losses_only(rule: Rule) -> bool:
    held = list(vars(rule).values())
    return rule.order == 0 or any(
        isinstance(inside, Rule) and _uses_losses_only(inside) for inside in held
    )


def _optimizer(rule: Rule, players: dict[str, list[Tensor]]) -> GameOptimizer:
    return GameOptimizer(
        {name: torch.optim.SGD(tensors, lr=_LR) for name, tensors in players.items()}, rule
    )


def _lists(game: AnalyticGame) -> dict[str, list[Tensor]]:
    return {name: list(tensors) for name, tensors in game.players.items()}


def _run(optimizer: GameOptimizer, closure: Closure, steps: int = _STEPS) -> None:
    for _ in range(steps):
        optimizer.step(closure)


def _final(rule: Rule, game: AnalyticGame) -> Tensor:
    _run(_optimizer(rule, _lists(game)), game.losses)
    return game.theta.detach()


def _reproduces(rule: Rule, make: Callable[[], AnalyticGame]) -> None:
    first, second = _final(rule, make()), _final(rule, make())
    assert bool(first.isfinite().all()), "parameters became non-finite"
    assert torch.equal(first, second), "two runs from the same start differ"


def _survives_state_dict(rule: Rule, make: Callable[[], AnalyticGame]) -> None:
    straight = _final(rule, make())
    game = make()
    before = _optimizer(rule, _lists(game))
    _run(before, game.losses, _STEPS // 2)
    after = _optimizer(rule, _lists(game))
    after.load_state_dict(before.state_dict())
    _run(after, game.losses, _STEPS - _STEPS // 2)
    assert torch.equal(game.theta.detach(), straight), (
        "a run through state_dict differs from a straight one"
    )


def _ignores_player_order(rule: Rule, make: Callable[[], AnalyticGame]) -> None:
    straight, game = _final(rule, make()), make()
    players = dict(reversed(_lists(game).items()))
    _run(
        _optimizer(rule, players),
        lambda: {player: losses[player] for losses in [game.losses()] for player in players},
    )
    assert torch.allclose(game.theta.detach(), straight, rtol=_CLOSE, atol=_CLOSE), (
        "the order of the players matters"
    )


def _ignores_splitting(rule: Rule, make: Callable[[], AnalyticGame]) -> None:
    """Give the first player its parameter in two tensors whose sum along the whole is the parameter."""
    straight, game = _final(rule, make()), make()
    name = next(iter(game.players))
    (whole,) = game.players[name]
    pieces = [
        piece.detach().clone().reshape(1, -1).requires_grad_() for piece in torch.split(whole, 1)
    ]

    def losses() -> Any:
        others = [tensors[0] for player, tensors in game.players.items() if player != name]
        return game.losses_at(torch.cat([*(piece.reshape(-1) for piece in pieces), *others]))

    _run(_optimizer(rule, {**_lists(game), name: pieces}), losses)
    found = torch.cat([piece.detach().reshape(-1) for piece in pieces])
    assert torch.allclose(found, straight[: len(found)], rtol=_CLOSE, atol=_CLOSE), (
        "splitting a parameter into tensors matters"
    )


def _leaves_unused_parameters(rule: Rule, make: Callable[[], AnalyticGame]) -> None:
    straight, game = _final(rule, make()), make()
    players, unused = _lists(game), torch.ones(2, dtype=torch.float64, requires_grad=True)
    players[next(iter(players))].append(unused)
    _run(_optimizer(rule, players), game.losses)
    assert unused.tolist() == [1.0, 1.0], "an unused parameter moved"
    assert torch.allclose(game.theta.detach(), straight, rtol=_CLOSE, atol=_CLOSE), (
        "an unused parameter changes the others"
    )


def _keeps_nothing(rule: Rule, make: Callable[[], AnalyticGame]) -> None:
    gc.freeze()  # sets aside what lived before, so that counting looks at few objects
    try:
        game = make()
        optimizer = _optimizer(rule, _lists(game))
        _run(optimizer, game.losses, 3)
        before = _live_tensors()
        _run(optimizer, game.losses, 5)
        grown = _live_tensors() - before
    finally:
        gc.unfreeze()
    assert grown <= 0, f"{grown} tensors more are alive after five further steps"
    for own in optimizer.rule_state.parameters.values():
        for entry in own.values():
            kept = [value for value in entry.values() if isinstance(value, Tensor)]
            assert not any(value.requires_grad for value in kept), "the rule's state keeps a graph"
    assert all(p.grad is None for tensors in game.players.values() for p in tensors), (
        "a gradient is left behind"
    )


def _live_tensors() -> int:
    gc.collect()
    # isinstance would wake lazy proxies
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())


def _respects_user_gradients(rule: Rule, make: Callable[[], AnalyticGame]) -> None:
    game = make()
    held = {}
    for tensors in game.players.values():
        for parameter in tensors:
            parameter.grad = held[parameter] = torch.zeros_like(parameter)
    _run(_optimizer(rule, _lists(game)), game.losses, 2)
    assert not any(bool(gradient.any()) for gradient in held.values()), (
        "a gradient tensor of the user's was written to"
    )


def _ignores_leftover_gradients(rule: Rule, make: Callable[[], AnalyticGame]) -> None:
    straight, game = _final(rule, make()), make()
    optimizer = _optimizer(rule, _lists(game))
    for _ in range(_STEPS):
        for inner in optimizer.optimizers.values():
            for parameter in (p for group in inner.param_groups for p in group["params"]):
                parameter.grad = torch.ones_like(parameter)
            inner.zero_grad(set_to_none=False)
        optimizer.step(game.losses)
    assert torch.equal(game.theta.detach(), straight), (
        "zero_grad(set_to_none=False) before a step matters"
    )
