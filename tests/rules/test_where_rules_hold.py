"""Rules on games that are not the one their formula was made for: other forms, refusals, and
defaults on the textbook games."""

import math

import pytest
import torch

import saddlepoint as sp
from saddlepoint import registry, rules
from saddlepoint.games import bowl, cournot, quadratic, three_players, zero_sum
from saddlepoint.registry.build import load

HW = {"leader": "h", "follower": "w"}
LEADERS = {
    "follow-the-ridge": rules.FollowTheRidge(**HW),
    "gradient-newton": rules.GradientNewton(**HW),
    "total-gradient": rules.TotalGradient(**HW),
}


def played(rule, leader_loss, follower_loss, start=(3.0, 0.0), lrs=(0.1, 0.3), steps=120):
    """Return h and w after a leader h and a follower w have played, and the rule's memory."""
    h, w = (torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in start)
    optimizer = sp.GameOptimizer(
        {"h": torch.optim.SGD([h], lr=lrs[0]), "w": torch.optim.SGD([w], lr=lrs[1])}, rule
    )
    for _ in range(steps):
        optimizer.step(lambda: {"h": leader_loss(h, w).sum(), "w": follower_loss(h, w).sum()})
    return h.item(), w.item(), optimizer.rule_state.numbers


# name → (the leader's loss, the follower's, start, the leader's learning rate, the leader's minimum
# at the follower's best response)
BILEVEL = {
    "the answer copies": (
        lambda h, w: (w - 1) ** 2,
        lambda h, w: (w - h) ** 2,
        (3.0, 0.0),
        0.2,
        (1.0, 1.0),
    ),
    "the answer is twice as far": (
        lambda h, w: (h - 1) ** 2 + (w - 1) ** 2,
        lambda h, w: (w - 2 * h) ** 2,
        (3.0, 0.0),
        0.1,
        (0.6, 1.2),
    ),
    "Stackelberg's duopoly": (
        lambda h, w: -h * (9 - h - w),
        lambda h, w: -w * (9 - h - w),
        (1.0, 1.0),
        0.5,
        (4.5, 2.25),
    ),
    "weight decay is learned": (  # from w = 0, where neither player feels the other
        lambda h, w: (w - 1) ** 2,
        lambda h, w: (w - 2) ** 2 + h.exp() * w**2,
        (1.0, 0.0),
        0.8,
        (0.0, 1.0),
    ),
    "the answer does not see the leader at first": (
        lambda h, w: (w - 1) ** 2 + 0.5 * (h - 2) ** 2,
        lambda h, w: (w - h**2) ** 2,
        (0.0, 1.0),
        0.1,
        (1.0979116727, 1.2054100411),
    ),
}


@pytest.mark.parametrize("game", BILEVEL)
@pytest.mark.parametrize("name", LEADERS)
def test_leaders_of_games_that_are_not_zero_sum(name, game):
    *losses, start, lr, expected = BILEVEL[game]
    h, w, _ = played(
        LEADERS[name], *losses, start=start, lrs=(lr, 1.0 if name == "gradient-newton" else 0.2)
    )
    assert (h, w) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("game", BILEVEL)
def test_complete_newton_refuses_them(game):
    *losses, start, _, _ = BILEVEL[game]
    told = (
        r'CompleteNewton: the game of the leader "h" and the follower "w" is not zero-sum.* Use'
        r" TotalGradient, FollowTheRidge"
    )
    with pytest.raises(sp.UsageError, match=told):
        played(rules.CompleteNewton(**HW), *losses, start=start)


def test_complete_newton_cannot_be_told_that_a_game_is_not_zero_sum():
    with pytest.raises(
        sp.UsageError,
        match=r"CompleteNewton: zero_sum=False is not possible\. .* third derivatives",
    ):
        rules.CompleteNewton(**HW, zero_sum=False)


def test_a_bilevel_game_under_all_wrappers():
    rule = rules.Averaged(rules.Clipped(rules.Every(rules.FollowTheRidge(**HW), k=1)))
    h, w, _ = played(rule, *BILEVEL["the answer copies"][:2], lrs=(0.2, 0.2))
    assert (h, w) == pytest.approx((1.0, 1.0), abs=1e-5)


class TestTermsOfOnePlayerAlone:
    """f = (h − 2)² + hw − w²/2, of which each player's loss may leave out what it cannot move: the
    leader ends at 4/3."""

    LEFT_OUT = (lambda h, w: (h - 2) ** 2 + h * w, lambda h, w: w**2 / 2 - h * w)

    @pytest.mark.parametrize(
        "rule", [rules.FollowTheRidge, rules.GradientNewton, rules.CompleteNewton]
    )
    def test_do_not_matter_to_a_zero_sum_game(self, rule):
        whole = (
            lambda h, w: (h - 2) ** 2 + h * w - w**2 / 2,
            lambda h, w: w**2 / 2 - h * w - (h - 2) ** 2,
        )
        for losses in (whole, self.LEFT_OUT):
            h, w, numbers = played(rule(**HW), *losses, lrs=(0.3, 1.0))
            assert (h, w, numbers["zero_sum"]) == pytest.approx((4 / 3, 4 / 3, 1.0))

    @pytest.mark.parametrize("rule", [rules.FollowTheRidge, rules.GradientNewton])
    def test_matter_to_a_leader_whose_loss_is_taken_as_written(self, rule):
        """(h − 2)² + h² where w = h."""
        h, w, _ = played(rule(**HW, zero_sum=False), *self.LEFT_OUT, lrs=(0.1, 1.0))
        assert (h, w) == pytest.approx((1.0, 1.0))


def test_a_game_that_looks_zero_sum_at_its_start_only():
    """J_hw = 1 + 3w² and J_wh = −1: antisymmetric at w = 0. Looked at again in every tenth step."""
    losses = (lambda h, w: (h - 2) ** 2 + h * (w + w**3), lambda h, w: w**2 - h * w)
    expected = played(rules.TotalGradient(**HW), *losses, lrs=(0.1, 0.3), start=(1.0, 0.0))[:2]
    h, w, numbers = played(rules.FollowTheRidge(**HW), *losses, lrs=(0.1, 0.3), start=(1.0, 0.0))
    assert (h, w) == pytest.approx(expected, abs=2e-3)
    assert numbers["zero_sum"] == 0


def test_a_gan_with_a_hinge_loss_looks_zero_sum_until_a_logit_is_beyond_the_margin():
    """Beyond it the judge w no longer feels the generator h, which still feels the judge."""
    losses = (
        lambda h, w: -h * w,
        lambda h, w: torch.relu(1 + h * w) + torch.relu(1 - w) + 0.5 * w**2,
    )
    _, _, numbers = played(
        rules.FollowTheRidge(**HW), *losses, start=(-0.5, 1.5), lrs=(0.3, 0.3), steps=3
    )
    assert numbers["zero_sum"] == 1
    _, _, numbers = played(
        rules.FollowTheRidge(**HW), *losses, start=(-0.5, 3.0), lrs=(0.0, 0.0), steps=1
    )
    assert numbers["zero_sum"] == 0


def symplectic(x, y, strength=1.0):
    """ξ + λ Aᵀξ of the game below, by hand."""
    xi = torch.stack([2 * x + y + y**3, 2 * y - x])
    J = torch.tensor([[2.0, 1 + 3 * y**2], [-1.0, 2.0]], dtype=torch.float64)
    return xi + strength * (J - J.T).T @ xi / 2


def test_the_symplectic_adjustment_of_a_game_that_looks_zero_sum_at_its_start_only():
    x, y = (torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (1.0, 0.0))
    rule = rules.SymplecticGradientAdjustment(align=False)
    optimizer = sp.GameOptimizer(
        {"x": torch.optim.SGD([x], lr=0.01), "y": torch.optim.SGD([y], lr=0.01)}, rule
    )
    for step in range(13):
        before = torch.stack([x.detach(), y.detach()]).flatten()
        optimizer.step(lambda: {"x": (x**2 + x * (y + y**3)).sum(), "y": (y**2 - x * y).sum()})
        moved = before - torch.stack([x.detach(), y.detach()]).flatten()
        if step == 0 or step >= 10:
            torch.testing.assert_close(moved, 0.01 * symplectic(*before), rtol=1e-10, atol=1e-12)


def made(name, players):
    """The rule called ``name`` with the fewest options, the first player leading the second."""
    players = list(players)
    kind = load(registry.RULES[name].path)
    if kind.games.startswith("leader"):
        return kind(leader=players[0], follower=players[1] if len(players) > 1 else "another")
    return (
        kind(players=(players[0],), rule=sp.GradientDescent()) if name == "per-player" else kind()
    )


LEADER_RULES = [
    name for name, entry in registry.RULES.items() if load(entry.path).games.startswith("leader")
]
GAMES = {
    "one player": bowl,
    "zero-sum": lambda: zero_sum(1.0, 1.0, -1.0),
    "general-sum": lambda: cournot(2),
    "three players": three_players,
}


@pytest.mark.filterwarnings("ignore::saddlepoint.errors.SolverWarning")
@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("name", registry.RULES)
def test_the_table_says_where_a_rule_holds(name, game):
    """It steps where the table says so, and refuses elsewhere."""
    play, games = GAMES[game](), load(registry.RULES[name].path).games
    optimizers = {p: torch.optim.SGD(t, lr=0.1) for p, t in play.players.items()}
    rule = made(name, play.players)
    if games.startswith("leader") and len(play.players) != 2:
        with pytest.raises(sp.UsageError, match="It is defined for two players; name them"):
            sp.GameOptimizer(optimizers, rule)
        return
    optimizer = sp.GameOptimizer(optimizers, rule)
    if games.endswith(", zero-sum") and game == "general-sum":
        with pytest.raises(sp.UsageError, match="is not zero-sum"):
            optimizer.step(play.losses)
        return
    before = play.theta.detach()
    optimizer.step(play.losses)
    assert 0 < float((play.theta.detach() - before).norm()) < 10


def test_what_the_table_calls_games():
    assert {load(entry.path).games for entry in registry.RULES.values()} == {
        "any",
        "leader and follower",
        "leader and follower, zero-sum",
        "those of the inner rule",
        "those of both inner rules",
    }


WRAPPED = [
    lambda rule: rules.Lookahead(rule),
    lambda rule: rules.Averaged(rule),
    lambda rule: rules.Clipped(rule),
    lambda rule: rules.Every(rule),
    lambda rule: rules.Every(sp.GradientDescent(), k=2, fallback=rule),
]


@pytest.mark.parametrize("wrap", WRAPPED)
def test_wrappers_refuse_what_the_rule_inside_refuses(wrap):
    game = three_players()
    with pytest.raises(sp.UsageError, match="It is defined for two players; name them"):
        sp.GameOptimizer(
            {p: torch.optim.SGD(t) for p, t in game.players.items()},
            wrap(rules.Unrolled(leader="x", follower="y")),
        )


@pytest.mark.parametrize("wrap", WRAPPED)
def test_wrappers_pass_on_that_a_game_is_not_zero_sum(wrap):
    with pytest.raises(sp.UsageError, match="is not zero-sum"):
        played(wrap(rules.CompleteNewton(**HW)), *BILEVEL["the answer copies"][:2])


def test_leader_and_follower_among_others_by_a_rule_for_each_player():
    """The rule of the pair sees a game of two, the third held where it is."""
    game = three_players()
    optimizer = sp.GameOptimizer(
        {p: torch.optim.SGD(t, lr=0.1) for p, t in game.players.items()},
        rules.PerPlayer(
            sp.GradientDescent(), ("z",), fallback=rules.FollowTheRidge(leader="x", follower="y")
        ),
    )
    for _ in range(20):
        optimizer.step(game.losses)
    assert all(math.isfinite(value) for value in game.theta.tolist())


TEXTBOOK = {
    "bowl": bowl,
    "monotone": lambda: zero_sum(1.0, 1.0, -1.0),
    "three players": three_players,
    "cournot": cournot,
}


@pytest.mark.parametrize("game", TEXTBOOK)
@pytest.mark.parametrize("name", [name for name in registry.RULES if name not in LEADER_RULES])
def test_defaults_approach_the_equilibrium_of_textbook_games(name, game):
    """With plain steps of 0.1; opponent shaping leaves Cournot's equilibrium for one near it, but
    does not diverge."""
    play = TEXTBOOK[game]()
    start = play.distance()
    optimizer = sp.GameOptimizer(
        {p: torch.optim.SGD(t, lr=0.1) for p, t in play.players.items()}, made(name, play.players)
    )
    for _ in range(20):
        optimizer.step(play.losses)
    assert play.distance() < 0.8 * start


@pytest.mark.filterwarnings("ignore::saddlepoint.errors.SolverWarning")
@pytest.mark.parametrize("name", LEADER_RULES)
def test_defaults_of_leaders_approach_the_equilibrium_of_a_zero_sum_game(name):
    play = zero_sum(1.0, 1.0, -1.0)
    optimizer = sp.GameOptimizer(
        {p: torch.optim.SGD(t, lr=0.1) for p, t in play.players.items()}, made(name, play.players)
    )
    for _ in range(20):
        optimizer.step(play.losses)
    assert play.distance() < 0.8


@pytest.mark.parametrize("firms", [2, 5])
def test_look_ahead_and_sos_end_at_cournot_s_equilibrium(firms):
    for rule in (rules.LOLA(shaping=0.0), rules.StableOpponentShaping()):
        game = cournot(firms)
        optimizer = sp.GameOptimizer(
            {p: torch.optim.SGD(t, lr=0.1) for p, t in game.players.items()}, rule
        )
        for _ in range(100):
            optimizer.step(game.losses)
        assert game.distance() < 1e-2


SIZES = {1: {"x": 3}, 2: {"x": 2, "y": 3}, 3: {"x": 2, "y": 1, "z": 2}}
TIGHT = {"tol": 1e-14, "max_iter": 50}


class Dense:
    """A quadratic game f_i = ½ θᵀ A_i θ with random A_i, general-sum: ξ, J, its parts and χ entry
    by entry."""

    def __init__(self, players):
        sizes, generator = SIZES[players], torch.Generator().manual_seed(players)
        n = sum(sizes.values())
        halves = {p: torch.randn(n, n, generator=generator, dtype=torch.float64) for p in sizes}
        matrices = {p: half + half.T for p, half in halves.items()}
        self.game = quadratic(
            sizes, matrices, torch.randn(n, generator=generator, dtype=torch.float64), "monotone"
        )
        theta, self.J = self.game.theta.detach(), self.game.jacobian
        self.xi = self.J @ theta
        owner = torch.cat([torch.full((size,), i) for i, size in enumerate(sizes.values())])
        own = owner.unsqueeze(1) == owner.unsqueeze(0)
        self.own, self.across = self.J * own, self.J * ~own
        rows = torch.stack([A @ theta for A in matrices.values()])  # of player i in row i
        foreign = rows[owner].T * ~own  # ∂_j f_i, j down, i across
        self.chi = (self.J * foreign).sum(0)
        self.lrs = 0.05 * (1 + owner.double())
        self.eye = torch.eye(n, dtype=torch.float64)


def sos_of(g):
    ahead, shaping = g.xi - 0.1 * g.across @ g.xi, -0.1 * g.chi
    inner = shaping @ ahead
    return ahead + (1.0 if inner >= 0 else min(1.0, float(-0.5 * ahead @ ahead / inner))) * shaping


def sga_of(g):
    adjustment, transposed = (g.J - g.J.T).T @ g.xi / 2, g.J.T @ g.xi
    return (
        g.xi
        + torch.sign((g.xi @ transposed) * (adjustment @ transposed) / len(g.xi) + 0.1) * adjustment
    )


FORMULAS = {
    "consensus": (rules.Consensus(), lambda g: g.xi + 0.1 * g.J.T @ g.xi),
    "hamiltonian": (rules.Hamiltonian(), lambda g: g.J.T @ g.xi),
    "jare": (rules.JacobianRegularized(), lambda g: g.xi + 0.1 * g.across.T @ g.xi),
    "sga": (rules.SymplecticGradientAdjustment(), sga_of),
    "look-ahead": (
        rules.LOLA(shaping=0.0),
        lambda g: g.xi - g.across @ (g.lrs * g.xi),
    ),
    "lola": (
        rules.LOLA(alpha=0.1),
        lambda g: g.xi - 0.1 * g.across @ g.xi - 0.1 * g.chi,
    ),
    "sos": (rules.StableOpponentShaping(alpha=0.1), sos_of),
    "lcgd": (rules.LinearizedCompetitiveGradient(), lambda g: g.xi - g.across @ (g.lrs * g.xi)),
    "cgd": (
        sp.CompetitiveGradient(**TIGHT),
        lambda g: torch.linalg.solve(g.eye + g.across * g.lrs, g.xi),
    ),
    "proximal point": (
        rules.ProximalPoint(**TIGHT),
        lambda g: torch.linalg.solve(g.eye + g.J * g.lrs, g.xi),
    ),
    "newton full": (
        sp.Newton(part="full", damping=0.0, **TIGHT),
        lambda g: torch.linalg.solve(g.J, g.xi),
    ),
    "newton own": (
        sp.Newton(solver="minres", damping=20.0, adapt=False, **TIGHT),
        lambda g: torch.linalg.solve(g.own + 20 * g.eye, g.xi),
    ),
    "runge-kutta": (
        rules.RungeKutta(stages=2, regularization=0.5, regularized="x"),
        lambda g: g.xi - 0.5 * g.J @ (g.lrs * g.xi) + (g.across.T @ g.xi) * (g.lrs == 0.05),
    ),
}


@pytest.mark.parametrize("players", SIZES)
@pytest.mark.parametrize("name", FORMULAS)
def test_formulas_with_any_number_of_players(name, players):
    rule, formula = FORMULAS[name]
    dense = Dense(players)
    lrs = {p: 0.05 * (1 + i) for i, p in enumerate(dense.game.players)}
    optimizer = sp.GameOptimizer(
        {p: torch.optim.SGD(t, lr=lrs[p]) for p, t in dense.game.players.items()}, rule
    )
    expected = dense.game.theta.detach() - dense.lrs * formula(dense)
    optimizer.step(dense.game.losses)
    torch.testing.assert_close(dense.game.theta.detach(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "kind",
    [
        rules.FollowTheRidge,
        rules.TotalGradient,
        rules.GradientNewton,
        rules.CompleteNewton,
        rules.Unrolled,
    ],
)
def test_a_refusal_names_the_rule_the_players_and_the_remedy(kind):
    game = three_players()
    told = (
        rf'{kind.__name__} has the leader "x" and the follower "y", but the players are "x", "y",'
        r' "z"\. .* PerPlayer gives further players'
    )
    with pytest.raises(sp.UsageError, match=told):
        sp.GameOptimizer(
            {p: torch.optim.SGD(t) for p, t in game.players.items()}, kind(leader="x", follower="y")
        )


@pytest.mark.parametrize(
    "rule",
    [sp.CompetitiveGradient(tol=1e-12), sp.AdaptiveCompetitiveGradient(tol=1e-12)],
)
def test_competitive_gradient_of_players_that_do_not_feel_each_other_at_first(rule):
    """The general form from the second step on, as if it had been known from the first."""
    ends = []
    for known in ({}, {"zero_sum": 0.0}):
        x, y = (
            torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (1.0, 0.0)
        )
        optimizer = sp.GameOptimizer(
            {"x": torch.optim.SGD([x], lr=0.3), "y": torch.optim.SGD([y], lr=0.3)}, rule
        )
        optimizer.rule_state.numbers.update(known)
        for _ in range(4):
            optimizer.step(
                lambda x=x, y=y: {
                    "x": ((y - 1) ** 2 + x**2).sum(),
                    "y": ((y - 2) ** 2 + x.exp() * y**2).sum(),
                }
            )
        ends.append((x.item(), y.item()))
    assert ends[0] == pytest.approx(ends[1], abs=1e-9)
