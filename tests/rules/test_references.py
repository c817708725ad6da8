"""Two or more steps of every rule on a two-layer GAN against its published formula, written with
dense matrices in float64."""

import copy

import pytest
import torch

import saddlepoint as sp
from saddlepoint import rules
from saddlepoint.optim import SOAP

H = 0.3
CLOSE = {"rtol": 0.0, "atol": 1e-10}
GAN = {"leader": "generator", "follower": "discriminator"}
TIGHT = {"tol": 1e-14, "max_iter": 200}


def sgd(gan, rule, lr=H):
    return sp.GameOptimizer(
        {p: torch.optim.SGD(tensors, lr=lr) for p, tensors in gan.players.items()}, rule
    )


def off_diagonal(gan, J):
    J = J.clone()
    for where in gan.sizes().values():
        J[where, where] = 0
    return J


def consensus(gan, h):
    xi, J = gan.dense()
    return xi + 0.7 * J.T @ xi


def symplectic(gan, h):
    xi, J = gan.dense()
    A = (J - J.T) / 2
    sign = torch.sign((xi @ J.T @ xi) * ((A.T @ xi) @ (J.T @ xi)) / len(xi) + 0.1)
    return xi + 0.7 * sign * A.T @ xi


def symplectic_unaligned(gan, h):
    xi, J = gan.dense()
    return xi + 0.7 * ((J - J.T) / 2).T @ xi


def hamiltonian(gan, h):
    xi, J = gan.dense()
    return J.T @ xi


def jare(gan, h):
    xi, J = gan.dense()
    return xi + 0.7 * off_diagonal(gan, J).T @ xi


def influence(gan, J):
    """χ_i = Σ_{j≠i} J_jiᵀ ∂_j f_i."""
    rows, sizes = gan.rows(), gan.sizes()
    return torch.cat(
        [sum(J[sizes[j], sizes[i]].T @ rows[i][sizes[j]] for j in sizes if j != i) for i in sizes]
    )


def look_ahead(gan, h):
    xi, J = gan.dense()
    return xi - 0.7 * off_diagonal(gan, J) @ xi


def lola(gan, h):
    _, J = gan.dense()
    return look_ahead(gan, h) - 0.7 * influence(gan, J)


def sos(gan, h):
    xi, J = gan.dense()
    ahead, shaping = look_ahead(gan, h), -0.7 * influence(gan, J)
    inner = shaping @ ahead
    p1 = 1.0 if inner >= 0 else min(1.0, float(-0.5 * ahead @ ahead / inner))
    p2 = float(xi @ xi) if xi.norm() < 0.1 else 1.0
    return ahead + min(p1, p2) * shaping


def lcgd(gan, h):
    xi, J = gan.dense()
    return xi - h * off_diagonal(gan, J) @ xi


def proximal(gan, h):
    xi, J = gan.dense()
    return torch.linalg.solve(torch.eye(len(xi), dtype=xi.dtype) + h * J, xi)


def extragradient(gan, h):
    return gan.xi_at(-h * gan.xi())


def runge_kutta_4(gan, h):
    k1 = gan.xi()
    k2 = gan.xi_at(-h / 2 * k1)
    k3 = gan.xi_at(-h / 2 * k2)
    return (k1 + 2 * k2 + 2 * k3 + gan.xi_at(-h * k3)) / 6


def runge_kutta_2_regularized(gan, h):
    xi, J = gan.dense()
    d, g = gan.sizes().values()
    direction = (xi + gan.xi_at(-h * xi)) / 2
    direction[d] += 0.05 * 2 * J[g, d].T @ xi[g]  # ∂_φ ‖ξ_θ‖²
    return direction


def follow_the_ridge(gan, h):
    """With the leader's total derivative where the game is not zero-sum."""
    xi, J = gan.dense()
    f, leader = gan.sizes().values()
    direction = xi.clone() if gan.zero_sum else total_gradient(gan, h)
    direction[f] -= torch.linalg.solve(
        J[f, f] + 0.5 * torch.eye(f.stop, dtype=xi.dtype), J[f, leader] @ direction[leader]
    )
    return direction


def follow_the_ridge_as_written(gan, h):
    """The general form in any game."""
    xi, J = gan.dense()
    f, leader = gan.sizes().values()
    direction = total_gradient(gan, h)
    direction[f] -= torch.linalg.solve(
        J[f, f] + 0.5 * torch.eye(f.stop, dtype=xi.dtype), J[f, leader] @ direction[leader]
    )
    return direction


def total_gradient(gan, h):
    xi, J = gan.dense()
    f, leader = gan.sizes().values()
    direction = xi.clone()
    answer = torch.linalg.solve(
        J[f, f] + 0.5 * torch.eye(f.stop, dtype=xi.dtype), gan.rows()["generator"][f]
    )
    direction[leader] -= J[f, leader].T @ answer
    return direction


def newton_at(gan, step, f, damping):
    gan.move(step)
    xi, J = gan.dense()
    gan.move(-step)
    return torch.linalg.solve(J[f, f] + damping * torch.eye(f.stop, dtype=xi.dtype), xi[f])


def gradient_newton(gan, h):
    direction = gan.xi() if gan.zero_sum else total_gradient(gan, h)
    f, leader = gan.sizes().values()
    step = torch.zeros_like(direction)
    step[leader] = -h * direction[leader]
    direction[f] = newton_at(gan, step, f, 0.5)
    return direction


def complete_newton(gan, h):
    xi, J = gan.dense()
    f, leader = gan.sizes().values()
    J = J + 0.5 * torch.eye(len(xi), dtype=xi.dtype)
    schur = J[leader, leader] - J[leader, f] @ torch.linalg.solve(J[f, f], J[f, leader])
    direction, step = torch.zeros_like(xi), torch.zeros_like(xi)
    direction[leader] = torch.linalg.solve(schur, xi[leader])
    step[leader] = -h * direction[leader]
    direction[f] = newton_at(gan, step, f, 0.5)
    return direction


def unrolled(gan, h):
    """Through torch.func, which shares no code with the rule: f_L(θ_L, three follower steps)."""
    G, D = dict(gan.G.named_parameters()), dict(gan.D.named_parameters())
    G, D = ({n: p.detach() for n, p in net.items()} for net in (G, D))
    call, softplus = torch.func.functional_call, torch.nn.functional.softplus

    def f(G, D):
        fake = call(gan.D, D, (call(gan.G, G, (gan.z,)),))
        return softplus(-call(gan.D, D, (gan.real,))).mean() + softplus(fake).mean(), fake

    def leader_loss(G):
        followers = D
        for _ in range(3):
            slopes = torch.func.grad(lambda D: f(G, D)[0])(followers)
            followers = {n: p - 0.4 * slopes[n] for n, p in followers.items()}
        total, fake = f(G, followers)
        return -total if gan.zero_sum else softplus(-fake).mean()

    direction = gan.xi()
    slopes = torch.func.grad(leader_loss)(G)
    direction[gan.sizes()["generator"]] = torch.cat([s.reshape(-1) for s in slopes.values()])
    return direction


CASES = {
    "consensus": (rules.Consensus(gamma=0.7), consensus),
    "sga": (rules.SymplecticGradientAdjustment(strength=0.7), symplectic),
    "sga without alignment": (
        rules.SymplecticGradientAdjustment(strength=0.7, align=False),
        symplectic_unaligned,
    ),
    "hamiltonian": (rules.Hamiltonian(), hamiltonian),
    "stochastic hamiltonian, same samples": (rules.StochasticHamiltonian(), hamiltonian),
    "jare": (rules.JacobianRegularized(gamma=0.7), jare),
    "look-ahead": (rules.LOLA(alpha=0.7, shaping=0.0), look_ahead),
    "lola": (rules.LOLA(alpha=0.7), lola),
    "sos": (rules.StableOpponentShaping(alpha=0.7), sos),
    "lcgd": (rules.LinearizedCompetitiveGradient(), lcgd),
    "proximal point": (rules.ProximalPoint(**TIGHT), proximal),
    "extragradient": (rules.Extragradient(), extragradient),
    "runge-kutta 4": (rules.RungeKutta(), runge_kutta_4),
    "runge-kutta 2": (
        rules.RungeKutta(stages=2, regularization=0.05, regularized="discriminator"),
        runge_kutta_2_regularized,
    ),
    "follow the ridge": (rules.FollowTheRidge(**GAN, damping=0.5, **TIGHT), follow_the_ridge),
    "follow the ridge as written": (
        rules.FollowTheRidge(**GAN, zero_sum=False, damping=0.5, **TIGHT),
        follow_the_ridge_as_written,
    ),
    "total gradient": (rules.TotalGradient(**GAN, damping=0.5, **TIGHT), total_gradient),
    "gradient newton": (rules.GradientNewton(**GAN, damping=0.5, **TIGHT), gradient_newton),
    "complete newton": (rules.CompleteNewton(**GAN, damping=0.5, **TIGHT), complete_newton),
    "unrolled": (rules.Unrolled(**GAN, unroll=3, lr=0.4), unrolled),
}
ZERO_SUM_ONLY = {"complete newton"}


@pytest.mark.parametrize(
    ("name", "zero_sum"),
    [
        (name, zero_sum)
        for name in CASES
        for zero_sum in (True, False)
        if zero_sum or name not in ZERO_SUM_ONLY
    ],
)
def test_twenty_steps_of_the_published_formula(tiny_gan, name, zero_sum):
    rule, formula = CASES[name]
    gan, reference = tiny_gan(zero_sum=zero_sum), tiny_gan(zero_sum=zero_sum)
    optimizer = sgd(gan, rule)
    for step in range(20):
        reference.move(-H * formula(reference, H))
        optimizer.step(gan.losses)
        torch.testing.assert_close(
            gan.theta(), reference.theta(), rtol=0, atol=1e-10 if step < 2 else 1e-7
        )


@pytest.mark.parametrize("rule", [rules.LOLA(), rules.StableOpponentShaping(a=1e9, b=0.0)])
def test_opponents_are_expected_to_take_their_own_rates(tiny_gan, rule):
    """ξ − J_o L ξ − χ with χ_i = Σ_{j≠i} h_j J_jiᵀ ∂_j f_i; with these a and b, SOS has all of the
    shaping."""
    gan, reference = tiny_gan(zero_sum=False), tiny_gan(zero_sum=False)
    lrs = {"discriminator": 0.5, "generator": 0.1}
    optimizer = sp.GameOptimizer(
        {p: torch.optim.SGD(t, lr=lrs[p]) for p, t in gan.players.items()}, rule
    )
    for _ in range(3):
        xi, J = reference.dense()
        rows, (d, g) = reference.rows(), reference.sizes().values()
        L = torch.zeros_like(xi)
        L[d], L[g] = lrs["discriminator"], lrs["generator"]
        direction = xi - off_diagonal(reference, J) @ (L * xi)
        direction[d] -= lrs["generator"] * J[g, d].T @ rows["discriminator"][g]
        direction[g] -= lrs["discriminator"] * J[d, g].T @ rows["generator"][d]
        reference.move(-L * direction)
        optimizer.step(gan.losses)
    torch.testing.assert_close(gan.theta(), reference.theta(), **CLOSE)


def test_optimistic(tiny_gan):
    gan, reference = tiny_gan(), tiny_gan()
    optimizer, past = sgd(gan, rules.Optimistic()), None
    for _ in range(20):
        xi = reference.xi()
        reference.move(-H * (2 * xi - (xi if past is None else past)))
        past = xi
        optimizer.step(gan.losses)
    torch.testing.assert_close(gan.theta(), reference.theta(), rtol=0, atol=1e-7)


def test_optimistic_remembers_each_player_s_last_move(tiny_gan):
    gan, reference = tiny_gan(), tiny_gan()
    optimizer, past = sgd(gan, rules.Optimistic()), {}
    for turn in range(6):
        player = ("discriminator", "generator")[turn % 2]
        where, step = reference.sizes()[player], torch.zeros_like(reference.theta())
        xi = reference.xi()[where]
        step[where] = -H * (2 * xi - past.get(player, xi))
        past[player] = xi
        reference.move(step)
        optimizer.step(lambda player=player: {player: gan.losses()[player]})
    torch.testing.assert_close(gan.theta(), reference.theta(), **CLOSE)


def test_past_extragradient(tiny_gan):
    gan, reference = tiny_gan(), tiny_gan()
    optimizer, past = sgd(gan, rules.PastExtragradient()), None
    for _ in range(20):
        past = reference.xi() if past is None else reference.xi_at(-H * past)
        reference.move(-H * past)
        optimizer.step(gan.losses)
    torch.testing.assert_close(gan.theta(), reference.theta(), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("kind", "options", "steps", "atol"),
    [
        (torch.optim.Adam, {"lr": 0.01, "betas": (0.5, 0.9)}, 20, 1e-7),
        (SOAP, {"lr": 0.05, "frequency": 2}, 6, 1e-10),
    ],
)
@pytest.mark.parametrize("keep_state", [True, False])
def test_extragradient_with_an_adaptive_optimizer_inside(
    tiny_gan, keep_state, kind, options, steps, atol
):
    """With keep_state this is ExtraAdam: the moments see both gradients, otherwise the second."""

    def made(gan):
        return {p: kind(t, **options) for p, t in gan.players.items()}

    gan, reference = tiny_gan(), tiny_gan()
    optimizer = sp.GameOptimizer(made(gan), rules.Extragradient(keep_state=keep_state))
    inner = made(reference)

    def advance(xi):
        for player, where in reference.sizes().items():
            flat = xi[where]
            for p in reference.players[player]:
                p.grad, flat = flat[: p.numel()].view_as(p).clone(), flat[p.numel() :]
            inner[player].step()

    for _ in range(steps):
        before, saved = (
            reference.theta(),
            {p: copy.deepcopy(o.state_dict()) for p, o in inner.items()},
        )
        advance(reference.xi())
        xi = reference.xi()
        reference.move(before - reference.theta())
        if not keep_state:
            for player, state in saved.items():
                inner[player].load_state_dict(state)
        advance(xi)
        optimizer.step(gan.losses)
    torch.testing.assert_close(gan.theta(), reference.theta(), rtol=0, atol=atol)


def test_extragradient_on_fresh_samples_draws_twice():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x = torch.zeros(1, requires_grad=True)
        drawn = []

        def losses():
            drawn.append(torch.rand(1))
            return {"x": (x * drawn[-1]).sum()}

        for fresh in (False, True):
            drawn.clear()
            sp.GameOptimizer(
                {"x": torch.optim.SGD([x], lr=0.1)}, rules.Extragradient(fresh_samples=fresh)
            ).step(losses)
            assert (drawn[0] != drawn[-1]).item() == fresh


def test_stochastic_hamiltonian_uses_two_independent_samples():
    """f = s·x·y with s drawn anew: ½(J_aᵀ ξ_b + J_bᵀ ξ_a) = s_a s_b θ, unbiased for (E s)² θ; one
    sample would give s² θ."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x, y = (torch.ones(1, dtype=torch.float64, requires_grad=True) for _ in range(2))
        drawn = []

        def losses():
            drawn.append(torch.rand(1, dtype=torch.float64))
            f = (drawn[-1] * x * y).sum()
            return {"x": f, "y": -f}

        optimizer = sp.GameOptimizer(
            {n: torch.optim.SGD([p], lr=0.1) for n, p in (("x", x), ("y", y))},
            rules.StochasticHamiltonian(),
        )
        optimizer.step(losses)
    expected = 1 - 0.1 * (drawn[0] * drawn[1]).item()
    assert (x.item(), y.item()) == (pytest.approx(expected), pytest.approx(expected))


class TestWrappers:
    def test_lookahead(self, tiny_gan):
        gan, reference = tiny_gan(), tiny_gan()
        optimizer = sgd(gan, rules.Lookahead(k=2, alpha=0.3))
        slow = reference.theta()
        for t in range(1, 7):
            reference.move(-H * reference.xi())
            if t % 2 == 0:
                slow = slow + 0.3 * (reference.theta() - slow)
                reference.move(slow - reference.theta())
            optimizer.step(gan.losses)
        torch.testing.assert_close(gan.theta(), reference.theta(), **CLOSE)

    def test_nested_lookahead_with_a_rule_that_remembers(self, tiny_gan):
        gan, reference = tiny_gan(), tiny_gan()
        optimizer = sgd(gan, rules.Lookahead(rules.Lookahead(rules.Optimistic(), k=2), k=4))
        slow = slower = reference.theta()
        past = None
        for t in range(1, 9):
            xi = reference.xi()
            reference.move(-H * (2 * xi - (xi if past is None else past)))
            past = xi
            if t % 2 == 0:
                slow = (slow + reference.theta()) / 2
                reference.move(slow - reference.theta())
            if t % 4 == 0:
                slower = (slower + reference.theta()) / 2
                reference.move(slower - reference.theta())
            optimizer.step(gan.losses)
        torch.testing.assert_close(gan.theta(), reference.theta(), **CLOSE)

    @pytest.mark.parametrize("decay", [None, 0.8])
    def test_averaged(self, tiny_gan, decay):
        gan, reference = tiny_gan(), tiny_gan()
        optimizer = sgd(gan, rules.Averaged(rules.Extragradient(), decay=decay))
        seen = []
        for _ in range(5):
            reference.move(-H * extragradient(reference, H))
            seen.append(reference.theta())
            optimizer.step(gan.losses)
        average = seen[0]
        for theta in seen[1:]:
            average = (
                torch.stack(seen).mean(0)
                if decay is None
                else decay * average + (1 - decay) * theta
            )
        with optimizer.averaged():
            torch.testing.assert_close(gan.theta(), average, **CLOSE)
        torch.testing.assert_close(gan.theta(), reference.theta(), **CLOSE)

    def test_no_average(self, tiny_gan):
        with (
            pytest.raises(sp.UsageError, match=r"Wrap the rule as Averaged\(rule\)"),
            sgd(tiny_gan(), rules.GradientDescent()).averaged(),
        ):
            pass

    def test_clipped(self, tiny_gan):
        gan, reference = tiny_gan(), tiny_gan()
        xi, norm = reference.xi(), 0.05
        optimizer = sgd(gan, rules.Clipped(norm=norm))
        expected = reference.theta()
        for where in reference.sizes().values():
            expected[where] -= H * xi[where] * min(1.0, norm / float(xi[where].norm()))
        optimizer.step(gan.losses)
        torch.testing.assert_close(gan.theta(), expected, **CLOSE)
        assert max(optimizer.last.direction_norms.values()) == pytest.approx(norm)

    def test_every(self, tiny_gan):
        gan, reference = tiny_gan(), tiny_gan()
        optimizer = sgd(gan, rules.Every(rules.Consensus(gamma=0.7), k=3))
        products = []
        for t in range(7):
            reference.move(-H * (consensus(reference, H) if t % 3 == 0 else reference.xi()))
            optimizer.step(gan.losses)
            products.append(optimizer.last.cost.products)
        torch.testing.assert_close(gan.theta(), reference.theta(), **CLOSE)
        assert products == [2, 0, 0, 2, 0, 0, 2]


COSTS = {
    "optimistic": (rules.Optimistic(), (2, 0, 1)),
    "extragradient": (rules.Extragradient(), (4, 0, 2)),
    "runge-kutta": (rules.RungeKutta(), (8, 0, 4)),
    "runge-kutta regularized": (
        rules.RungeKutta(regularization=0.1, regularized="discriminator"),
        (8, 1, 4),
    ),
    "consensus": (rules.Consensus(), (2, 2, 1)),
    "sga": (rules.SymplecticGradientAdjustment(), (2, 6, 1)),  # 4, and 2 in the first step
    "hamiltonian": (rules.Hamiltonian(), (2, 2, 1)),
    "stochastic hamiltonian": (rules.StochasticHamiltonian(), (4, 4, 2)),
    "jare": (rules.JacobianRegularized(), (2, 2, 1)),
    "look-ahead": (rules.LOLA(shaping=0.0), (2, 2, 1)),
    "lola": (rules.LOLA(), (2, 4, 1)),
    "sos": (rules.StableOpponentShaping(), (2, 4, 1)),
    "lcgd": (rules.LinearizedCompetitiveGradient(), (2, 2, 1)),
    "proximal point": (rules.ProximalPoint(tol=0.0, max_iter=3), (2, 6, 1)),
    "follow the ridge": (
        rules.FollowTheRidge(**GAN, zero_sum=True, tol=0.0, max_iter=3),
        (2, 4, 1),
    ),
    # 8, and 2 in the first step
    "follow the ridge, not zero-sum": (
        rules.FollowTheRidge(**GAN, tol=0.0, max_iter=3),
        (2, 10, 1),
    ),
    "total gradient": (rules.TotalGradient(**GAN, tol=0.0, max_iter=3), (2, 4, 1)),
    "gradient newton": (
        rules.GradientNewton(**GAN, zero_sum=True, tol=0.0, max_iter=3),
        (3, 3, 2),
    ),
    # 7, and 2 in the first step
    "gradient newton, not zero-sum": (
        rules.GradientNewton(**GAN, tol=0.0, max_iter=3),
        (3, 9, 2),
    ),
    "complete newton": (
        rules.CompleteNewton(**GAN, zero_sum=True, tol=0.0, max_iter=3),
        (3, 9, 2),
    ),
    "unrolled": (rules.Unrolled(**GAN, unroll=3), (8, 3, 7)),
    "lookahead": (rules.Lookahead(), (2, 0, 1)),
    "randomized smoothing": (rules.RandomizedSmoothing(samples=3), (0, 0, 13)),
    "spsa": (rules.SimultaneousPerturbation(), (0, 0, 5)),
    "per player": (
        rules.PerPlayer(rules.RandomizedSmoothing(samples=3), ("generator",)),
        (1, 0, 8),
    ),
}


@pytest.mark.filterwarnings("ignore::saddlepoint.errors.SolverWarning")
@pytest.mark.parametrize("name", COSTS)
def test_the_documented_cost_is_the_measured_one(tiny_gan, name):
    rule, (gradients, products, losses) = COSTS[name]
    gan = tiny_gan(zero_sum=False)
    optimizer = sgd(gan, rule, lr=0.01)
    optimizer.step(gan.losses)
    assert optimizer.last.cost == sp.Cost(gradients=gradients, products=products, losses=losses)


def test_the_adjustment_of_a_zero_sum_game_costs_one_product_of_each_player(tiny_gan):
    """The first step finds out the form, for two products more."""
    gan = tiny_gan(zero_sum=True)
    optimizer = sgd(gan, rules.SymplecticGradientAdjustment(), lr=0.01)
    for products in (4, 2, 2):
        optimizer.step(gan.losses)
        assert optimizer.last.cost == sp.Cost(gradients=2, products=products, losses=1)


@pytest.mark.filterwarnings("ignore::saddlepoint.errors.SolverWarning")
def test_the_form_of_a_stackelberg_rule_costs_two_products_in_the_first_step(tiny_gan):
    gan = tiny_gan(zero_sum=True)
    optimizer = sgd(gan, rules.GradientNewton(**GAN, damping=1.0, tol=0.0, max_iter=3), lr=0.01)
    for products in (5, 3, 3):
        optimizer.step(gan.losses)
        assert optimizer.last.cost == sp.Cost(gradients=3, products=products, losses=2)


def test_past_extragradient_costs_one_gradient_per_player(tiny_gan):
    gan = tiny_gan()
    optimizer = sgd(gan, rules.PastExtragradient())
    for _ in range(3):
        optimizer.step(gan.losses)
        assert optimizer.last.cost == sp.Cost(gradients=2, products=0, losses=1)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: rules.Consensus(gamma=-1.0), r"Consensus: gamma=-1\.0 must be at least 0"),
        (lambda: rules.RungeKutta(stages=3), "stages=3 must be 2 or 4"),
        (lambda: rules.RungeKutta(regularization=0.1), "the player that it moves as regularized"),
        (lambda: rules.Lookahead(k=0), "needs k ≥ 1"),
        (lambda: rules.Averaged(decay=1.0), r"decay=1\.0 must be in \[0, 1\)"),
        (lambda: rules.Clipped(norm=0.0), r"norm=0\.0 must be positive"),
        (lambda: rules.Every(k=0), "k=0 must be at least 1"),
        (
            lambda: rules.FollowTheRidge(leader="a", follower="a"),
            'leader and follower are both "a"',
        ),
        (
            lambda: rules.Unrolled(leader="a", follower="b", lr=-1.0),
            "needs different leader and follower",
        ),
    ],
)
def test_options_are_checked_at_construction(make, text):
    with pytest.raises(sp.UsageError, match=text):
        make()


def test_players_are_checked_at_construction(tiny_gan):
    for rule in (
        rules.TotalGradient(leader="generator", follower="critic"),
        rules.Unrolled(leader="generator", follower="critic"),
    ):
        with pytest.raises(sp.UsageError, match=r"two players; name them"):
            sgd(tiny_gan(), rule)
    with pytest.raises(
        sp.UsageError, match=r'no player "discriminatr"\. Did you mean "discriminator"'
    ):
        sgd(tiny_gan(), rules.RungeKutta(regularization=0.1, regularized="discriminatr"))
    inner = {p: torch.optim.Adam(t) for p, t in tiny_gan().players.items()}
    with pytest.raises(sp.UsageError, match=r"must be torch\.optim\.SGD"):
        sp.GameOptimizer(inner, rules.Lookahead(rules.RungeKutta()))
