import pytest
import torch

import saddlepoint as sp
from saddlepoint import rules
from saddlepoint.testing import ANALYTIC_GAMES, check_rule

TIGHT = {"tolerance": 1e-13, "budget": 50}
RULES = {
    "gradient": sp.Gradient(),
    "newton": sp.Newton(**TIGHT),
    "newton undamped": sp.Newton(damping=0.5, adapt=False, **TIGHT),
    "newton cg": sp.Newton(solver="cg", **TIGHT),
    "newton minres": sp.Newton(solver="minres", **TIGHT),
    "newton scaled": sp.Newton(scaling=sp.RMS(), **TIGHT),
    "newton full scaled": sp.Newton(part="full", scaling=sp.RMS(), **TIGHT),
    "newton full": sp.Newton(part="full", **TIGHT),
    "optimistic": rules.Optimistic(),
    "extragradient": rules.Extragradient(),
    "past extragradient": rules.PastExtragradient(),
    "runge-kutta": rules.RungeKutta(),
    "runge-kutta 2": rules.RungeKutta(stages=2),
    "consensus": rules.Consensus(gamma=0.5),
    "sga": rules.SymplecticAdjustment(),
    "hamiltonian": rules.Hamiltonian(),
    "stochastic hamiltonian": rules.StochasticHamiltonian(),
    "jare": rules.JacobianRegularized(gamma=0.5),
    "lola": rules.OpponentShaping(alpha=0.5),
    "look-ahead": rules.OpponentShaping(alpha=0.5, shaping=0.0),
    "sos": rules.StableOpponentShaping(alpha=0.5),
    "lcgd": rules.LinearizedCompetitiveGradient(),
    "proximal point": rules.ProximalPoint(**TIGHT),
    "lookahead": rules.Lookahead(k=2),
    "lookahead twice": rules.Lookahead(rules.Lookahead(rules.Optimistic(), k=2), k=3),
    "averaged": rules.Averaged(rules.Extragradient()),
    "clipped": rules.Clipped(rules.Consensus(gamma=0.5), norm=0.5),
    "every": rules.Every(rules.Consensus(gamma=0.5), k=2, otherwise=rules.Optimistic()),
    "cgd": sp.CompetitiveGradient(**TIGHT),
    "cgd warm": sp.CompetitiveGradient(warm_start=True, **TIGHT),
    "acgd": sp.AdaptiveCompetitiveGradient(**TIGHT),
    "acgd warm": sp.AdaptiveCompetitiveGradient(warm_start=True, **TIGHT),
}


XY = {"leader": "x", "follower": "y"}
STACKELBERG = {
    "follow the ridge": rules.FollowTheRidge(**XY, damping=0.5, **TIGHT),
    "total gradient": rules.TotalGradient(**XY, damping=0.5, **TIGHT),
    "gradient newton": rules.GradientNewton(**XY, damping=0.5, **TIGHT),
    "complete newton": rules.CompleteNewton(**XY, damping=0.5, **TIGHT),
    "unrolled": rules.Unrolled(**XY, unroll=3, rate=0.1),
}
"""They take two players."""


@pytest.mark.parametrize("game", ["bilinear", "monotone", "local minimax"])
@pytest.mark.parametrize("name", STACKELBERG)
def test_stackelberg_rules_on_every_game_of_two(name, game):
    check_rule(STACKELBERG[name], [game])


@pytest.mark.parametrize("game", ANALYTIC_GAMES)
@pytest.mark.parametrize("name", RULES)
def test_every_rule_on_every_game(name, game):
    check_rule(RULES[name], [game])


class Sloppy(sp.Rule):
    """Does one thing wrong at a time, to show that the checks can fail."""

    order = 2

    def __init__(self, fault):
        self.fault = fault

    def direction(self, step):
        xi = step.point.gradient
        if self.fault == "order":
            first = next(iter(xi))
            return sp.Vector({p: t if p != first else [2 * g for g in t] for p, t in xi.items()})
        if self.fault == "splitting":
            return sp.Vector({p: [g / (g.norm() + 1e-3) for g in t] for p, t in xi.items()})
        if self.fault == "state":
            self.calls = getattr(self, "calls", 0) + 1
            return xi * float(self.calls)
        if self.fault == "unused":
            return sp.Vector({p: [g + 1.0 for g in t] for p, t in xi.items()})
        if self.fault == "leak":
            self.kept = [*getattr(self, "kept", []), xi.clone()]
        return xi


@pytest.mark.parametrize(
    ("fault", "game", "text"),
    [
        ("order", "bilinear", "the order of the players matters"),
        ("splitting", "bowl", "splitting a parameter into tensors matters"),
        ("state", "bowl", "two runs from the same start differ"),
        ("unused", "bowl", "an unused parameter"),
        ("leak", "bowl", "tensors more are alive"),
    ],
)
def test_the_checks_can_fail(fault, game, text):
    with pytest.raises(AssertionError, match=text):
        check_rule(Sloppy(fault), [game])


def test_documented_games_have_the_jacobian_they_claim():
    for make in ANALYTIC_GAMES.values():
        game = make()
        point = sp.linearize(game)
        torch.testing.assert_close(point.jacobian.dense(), game.jacobian)
        torch.testing.assert_close(point.gradient.flatten(), game.jacobian @ game.theta.detach())
