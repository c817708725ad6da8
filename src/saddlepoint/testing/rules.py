"""Conformance checks that every rule must pass, the library's rules as well as your own."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from saddlepoint.errors import SolverWarning
from saddlepoint.game import Closure, Losses
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

_LR = 0.1
_STEPS = 4
_TOL = 1e-9

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
"""name → function that returns a new game with one, two or three players."""


def check_rule(rule: Rule, games: Iterable[str] = tuple(ANALYTIC_GAMES)) -> None:
    """Check that a rule conforms to what the library requires of rules.

    On each game of ``ANALYTIC_GAMES``: directions are finite and have the shapes of the parameters;
    trajectories are reproducible bit for bit, also through ``state_dict``; they do not depend on
    the order of the players, on how a parameter is split into tensors or on zeros in ``.grad``;
    unused parameters do not change; no graph and no tensor stays alive after a step; gradients that
    the user holds are not written to. A rule of order 0 uses losses only and cannot know that a
    parameter is unused, so this check is omitted for rules that are or contain one of order 0.

    Args:
        rule: the rule, with any options.
        games: names of the games to check on; omit those for which the rule is not defined.

    Raises:
        AssertionError: a check failed; the message names the check and the game.

    >>> from saddlepoint.rules import GradientDescent
    >>> check_rule(GradientDescent())
    """
    for game in games:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SolverWarning)
                _check_on_game(rule, ANALYTIC_GAMES[game])
        except AssertionError as error:
            raise AssertionError(f"{rule} on the game {game!r}: {error}") from error


def _check_on_game(rule: Rule, make: Callable[[], AnalyticGame]) -> None:
    game, again = make(), make()
    _train(rule, _parameters(game), game.losses)
    _train(rule, _parameters(again), again.losses)
    reference = game.theta.detach()
    assert bool(reference.isfinite().all()), "parameters became non-finite"
    assert torch.equal(reference, again.theta.detach()), "two runs from the same start differ"

    # a run that is saved and loaded in the middle
    game = make()
    before = _train(rule, _parameters(game), game.losses, _STEPS // 2)
    after = _train(rule, _parameters(game), game.losses, steps=0)
    after.load_state_dict(before.state_dict())
    for _ in range(_STEPS - _STEPS // 2):
        after.step(game.losses)
    assert torch.equal(game.theta.detach(), reference), (
        "a run through state_dict differs from a straight one"
    )

    # another order of the players
    game = make()
    reordered = dict(reversed(_parameters(game).items()))

    def losses_in_order() -> Losses:
        losses = game.losses()
        return {player: losses[player] for player in reordered}

    _train(rule, reordered, losses_in_order)
    assert torch.allclose(game.theta.detach(), reference, rtol=_TOL, atol=_TOL), (
        "the order of the players matters"
    )

    # the first player's parameter split into one tensor per entry
    game = make()
    first, *others = game.players
    entries = torch.split(game.players[first][0].detach().clone(), 1)
    pieces = [entry.clone().reshape(1, -1).requires_grad_() for entry in entries]

    def losses_of_pieces() -> dict[str, Tensor]:
        whole = [piece.reshape(-1) for piece in pieces]
        return game.losses_at(torch.cat(whole + [game.players[name][0] for name in others]))

    _train(rule, {**_parameters(game), first: pieces}, losses_of_pieces)
    joined = torch.cat([piece.detach().reshape(-1) for piece in pieces])
    assert torch.allclose(joined, reference[: len(joined)], rtol=_TOL, atol=_TOL), (
        "splitting a parameter into tensors matters"
    )

    if not _uses_losses_only(rule):
        game = make()
        parameters = _parameters(game)
        unused = torch.ones(2, dtype=torch.float64, requires_grad=True)
        parameters[first].append(unused)
        _train(rule, parameters, game.losses)
        assert unused.tolist() == [1.0, 1.0], "an unused parameter moved"
        assert torch.allclose(game.theta.detach(), reference, rtol=_TOL, atol=_TOL), (
            "an unused parameter changes the others"
        )

    # tensors and graphs that stay alive after a step
    gc.freeze()  # ignores existing objects, so that counting is fast
    try:
        game = make()
        optimizer = _train(rule, _parameters(game), game.losses, steps=0)
        counts = []
        for steps in (3, 5):
            for _ in range(steps):
                optimizer.step(game.losses)
            gc.collect()
            # isinstance would trigger lazy proxies
            counts.append(sum(issubclass(type(thing), Tensor) for thing in gc.get_objects()))
    finally:
        gc.unfreeze()
    grown = counts[1] - counts[0]
    assert grown <= 0, f"{grown} tensors more are alive after five further steps"
    for own in optimizer.rule_state.parameters.values():
        for entry in own.values():
            tensors = [value for value in entry.values() if isinstance(value, Tensor)]
            assert not any(t.requires_grad for t in tensors), "the rule's state keeps a graph"
    for own_parameters in game.players.values():
        assert all(p.grad is None for p in own_parameters), "a gradient is left behind"

    # gradient tensors that the user holds
    game = make()
    held = {}
    for own_parameters in game.players.values():
        for parameter in own_parameters:
            parameter.grad = held[parameter] = torch.zeros_like(parameter)
    _train(rule, _parameters(game), game.losses, steps=2)
    assert not any(bool(gradient.any()) for gradient in held.values()), (
        "a gradient tensor of the user's was written to"
    )

    # gradients that are zero instead of None before a step
    game = make()
    optimizer = _train(rule, _parameters(game), game.losses, steps=0)
    for _ in range(_STEPS):
        for own_parameters in game.players.values():
            for parameter in own_parameters:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step(game.losses)
    assert torch.equal(game.theta.detach(), reference), (
        "zero_grad(set_to_none=False) before a step matters"
    )


def _parameters(game: AnalyticGame) -> dict[str, list[Tensor]]:
    return {player: list(tensors) for player, tensors in game.players.items()}


def _train(
    rule: Rule, parameters: dict[str, list[Tensor]], closure: Closure, steps: int = _STEPS
) -> GameOptimizer:
    inner = {name: torch.optim.SGD(tensors, lr=_LR) for name, tensors in parameters.items()}
    optimizer = GameOptimizer(inner, rule)
    for _ in range(steps):
        optimizer.step(closure)
    return optimizer


def _uses_losses_only(rule: Rule) -> bool:
    inner = [value for value in vars(rule).values() if isinstance(value, Rule)]
    return rule.order == 0 or any(_uses_losses_only(value) for value in inner)
