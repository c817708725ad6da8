import gc

import pytest
import torch

import saddlepoint as sp
from saddlepoint import rules
from saddlepoint.games import zero_sum
from saddlepoint.testing import ANALYTIC_GAMES, check_rule

TIGHT = {"tol": 1e-13, "max_iter": 50}
RULES = {
    "gradient": sp.GradientDescent(),
    "newton": sp.Newton(**TIGHT),
    "newton undamped": sp.Newton(damping=0.5, adapt=False, **TIGHT),
    "newton cg": sp.Newton(solver="cg", **TIGHT),
    "newton minres": sp.Newton(solver="minres", **TIGHT),
    "newton scaled": sp.Newton(preconditioner=sp.RMSPreconditioner(), **TIGHT),
    "newton full scaled": sp.Newton(part="full", preconditioner=sp.RMSPreconditioner(), **TIGHT),
    "newton full": sp.Newton(part="full", **TIGHT),
    "optimistic": rules.Optimistic(),
    "extragradient": rules.Extragradient(),
    "past extragradient": rules.PastExtragradient(),
    "runge-kutta": rules.RungeKutta(),
    "runge-kutta 2": rules.RungeKutta(stages=2),
    "consensus": rules.Consensus(gamma=0.5),
    "sga": rules.SymplecticGradientAdjustment(),
    "hamiltonian": rules.Hamiltonian(),
    "stochastic hamiltonian": rules.StochasticHamiltonian(),
    "jare": rules.JacobianRegularized(gamma=0.5),
    "lola": rules.LOLA(alpha=0.5),
    "look-ahead": rules.LOLA(alpha=0.5, shaping=0.0),
    "sos": rules.StableOpponentShaping(alpha=0.5),
    "lcgd": rules.LinearizedCompetitiveGradient(),
    "proximal point": rules.ProximalPoint(**TIGHT),
    "lookahead": rules.Lookahead(k=2),
    "lookahead twice": rules.Lookahead(rules.Lookahead(rules.Optimistic(), k=2), k=3),
    "averaged": rules.Averaged(rules.Extragradient()),
    "clipped": rules.Clipped(rules.Consensus(gamma=0.5), norm=0.5),
    "every": rules.Every(rules.Consensus(gamma=0.5), k=2, fallback=rules.Optimistic()),
    "smoothing": rules.RandomizedSmoothing(samples=2),
    "smoothing on the sphere, shared": rules.RandomizedSmoothing(
        samples=2, noise="sphere", shared=True
    ),
    "smoothing one-sided": rules.RandomizedSmoothing(samples=2, antithetic=False),
    "spsa": rules.SimultaneousPerturbation(),
    "averaged spsa": rules.Averaged(rules.SimultaneousPerturbation()),
    "cgd": sp.CompetitiveGradient(**TIGHT),
    "cgd warm": sp.CompetitiveGradient(warm_start=True, **TIGHT),
    "kronecker cgd": sp.CompetitiveGradient(
        preconditioner=sp.KroneckerPreconditioner(), warm_start=True, **TIGHT
    ),
    "kronecker proximal point": rules.ProximalPoint(
        preconditioner=sp.KroneckerPreconditioner(), **TIGHT
    ),
    "acgd": sp.AdaptiveCompetitiveGradient(**TIGHT),
    "acgd warm": sp.AdaptiveCompetitiveGradient(warm_start=True, **TIGHT),
}


XY = {"leader": "x", "follower": "y"}
PER_PLAYER = {
    "per player": rules.PerPlayer(rules.Optimistic(), ("x",)),
    "per player, order 0": rules.PerPlayer(
        rules.RandomizedSmoothing(samples=2), ("x",), rules.SimultaneousPerturbation()
    ),
    "per player, order 0 and 1": rules.PerPlayer(rules.RandomizedSmoothing(samples=2), ("y",)),
    "per player, wrapped": rules.PerPlayer(
        rules.Lookahead(sp.Newton(**TIGHT), k=2), ("y",), rules.Extragradient()
    ),
}
STACKELBERG = {
    "follow the ridge": rules.FollowTheRidge(**XY, damping=0.5, **TIGHT),
    "total gradient": rules.TotalGradient(**XY, damping=0.5, **TIGHT),
    "gradient newton": rules.GradientNewton(**XY, damping=0.5, **TIGHT),
    "complete newton": rules.CompleteNewton(**XY, damping=0.5, **TIGHT),
    "unrolled": rules.Unrolled(**XY, unroll=3, lr=0.1),
}
"""They take two players."""


TWO_PLAYERS = [name for name, make in ANALYTIC_GAMES.items() if set(make().players) == {"x", "y"}]


@pytest.mark.parametrize("game", TWO_PLAYERS)
@pytest.mark.parametrize("name", [*STACKELBERG, *PER_PLAYER])
def test_rules_that_name_players_on_every_game_of_two(name, game):
    check_rule({**STACKELBERG, **PER_PLAYER}[name], [game])


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
        xi = step.linearization.gradient
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


@pytest.fixture
def few_objects():
    """Set aside what lived before, so that counting is quick."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.filterwarnings("ignore::saddlepoint.errors.SolverWarning")
@pytest.mark.parametrize("name", [*RULES, *STACKELBERG, *PER_PLAYER])
def test_memory_is_constant_over_200_steps(name, few_objects):
    game = zero_sum(1.0, 1.0, -1.0)
    rule = {**RULES, **STACKELBERG, **PER_PLAYER}[name]
    optimizer = sp.GameOptimizer(
        {p: torch.optim.SGD(t, lr=0.01) for p, t in game.players.items()}, rule
    )

    def alive_after(steps):
        for _ in range(steps):
            optimizer.step(game.losses)
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    assert alive_after(200) <= alive_after(10)


REDUCED = {
    "consensus γ = 0": rules.Consensus(gamma=0.0),
    "jare γ = 0": rules.JacobianRegularized(gamma=0.0),
    "sga λ = 0": rules.SymplecticGradientAdjustment(strength=0.0),
    "lola α = 0": rules.LOLA(alpha=0.0),
    "sos α = 0": rules.StableOpponentShaping(alpha=0.0),
    "unrolled K = 0": rules.Unrolled(leader="x", follower="y", unroll=0),
    "lookahead α = 1": rules.Lookahead(k=1, alpha=1.0),
    "clipped at a large norm": rules.Clipped(norm=1e9),
    "averaged": rules.Averaged(),
    "every, gradient and gradient": rules.Every(rules.GradientDescent(), k=2),
    "per player, gradient and gradient": rules.PerPlayer(rules.GradientDescent(), ("x",)),
}


@pytest.mark.parametrize("name", REDUCED)
def test_rules_that_reduce_to_the_gradient(name):
    """Where theory says so, the path is that of Gradient."""
    paths = []
    for rule in (sp.GradientDescent(), REDUCED[name]):
        game = zero_sum(-6.0, 4.0, -2.0)
        optimizer = sp.GameOptimizer(
            {p: torch.optim.SGD(t, lr=0.1) for p, t in game.players.items()}, rule
        )
        for _ in range(5):
            optimizer.step(game.losses)
        paths.append(game.theta.detach())
    torch.testing.assert_close(*paths, rtol=1e-12, atol=1e-12)


VANISHING = [
    "cgd",
    "lcgd",
    "proximal point",
    "extragradient",
    "runge-kutta",
    "runge-kutta 2",
    "past extragradient",
    "optimistic",
]


@pytest.mark.parametrize("name", VANISHING)
def test_rules_that_reduce_to_the_gradient_as_the_step_vanishes(name):
    game = zero_sum(-6.0, 4.0, -2.0)
    xi = game.jacobian @ game.theta.detach()
    optimizer = sp.GameOptimizer(
        {p: torch.optim.SGD(t, lr=1e-8) for p, t in game.players.items()}, RULES[name]
    )
    before = game.theta.detach()
    optimizer.step(game.losses)
    torch.testing.assert_close((before - game.theta.detach()) / 1e-8, xi, rtol=1e-6, atol=1e-6)
