import math

import pytest
import torch

import saddlepoint as sp
from saddlepoint.games import bilinear, three_players, zero_sum

EXACT = {"rtol": 0.0, "atol": 1e-10}
TIGHT = {"tol": 1e-14, "max_iter": 200}


def optimizer_for(players, rule, lr):
    return sp.GameOptimizer(
        {p: torch.optim.SGD(tensors, lr=lr) for p, tensors in players.items()}, rule
    )


def step_map(make, rule, lr):
    """The matrix of one step on a quadratic game, from its action on basis vectors."""
    columns = []
    for basis in torch.eye(2, dtype=torch.float64).tolist():
        game = make(basis)
        optimizer_for(game.players, rule, lr).step(game.losses)
        columns.append(game.theta.detach())
    return torch.stack(columns, dim=1)


def radius(M):
    return float(torch.linalg.eigvals(M).abs().max())


@pytest.mark.parametrize("h", [0.05, 0.2, 1.0, 10.0])
@pytest.mark.parametrize("s", [1.0, 3.0, 6.0])
def test_cgd_contracts_a_bilinear_game_at_every_step_size(h, s):
    M = step_map(lambda start: bilinear(s, start), sp.CompetitiveGradient(**TIGHT), h)
    assert radius(M) == pytest.approx(1 / math.sqrt(1 + h**2 * s**2), abs=1e-10)


@pytest.mark.parametrize(
    ("game", "expected"),
    [((0, 1, 0), 0.9988), ((1, 1, -1), 0.9488), ((-6, 4, -2), 1.061), ((6, 4, 2), 0.958)],
)
def test_cgd_has_the_published_spectral_radii(game, expected):
    M = step_map(
        lambda start: zero_sum(*map(float, game), start), sp.CompetitiveGradient(**TIGHT), 0.05
    )
    assert radius(M) == pytest.approx(expected, abs=5e-4)


def test_cgd_twenty_steps_of_the_published_formula(tiny_gan):
    gan, reference, h = tiny_gan(), tiny_gan(), 0.7
    optimizer = optimizer_for(gan.players, sp.CompetitiveGradient(**TIGHT), h)
    # the discriminator maximises f = −(its loss); x is the generator
    y, x = reference.sizes().values()
    for _ in range(20):
        xi, J = reference.dense()
        gx, gy = xi[x], -xi[y]
        Hxy, Hyx = J[x, y], J[x, y].T
        eye_x, eye_y = torch.eye(len(gx), dtype=gx.dtype), torch.eye(len(gy), dtype=gy.dtype)
        step = torch.zeros_like(xi)
        step[x] = -h * torch.linalg.solve(eye_x + h**2 * Hxy @ Hyx, gx + h * Hxy @ gy)
        step[y] = h * torch.linalg.solve(eye_y + h**2 * Hyx @ Hxy, gy - h * Hyx @ gx)
        reference.move(step)
        optimizer.step(gan.losses)
    torch.testing.assert_close(gan.theta(), reference.theta(), rtol=0, atol=1e-8)


def test_cgd_general_sum_and_unequal_learning_rates(tiny_gan):
    gan, reference = tiny_gan(zero_sum=False), tiny_gan(zero_sum=False)
    lrs = {"discriminator": 0.5, "generator": 0.1}
    inner = {p: torch.optim.SGD(tensors, lr=lrs[p]) for p, tensors in gan.players.items()}
    optimizer = sp.GameOptimizer(inner, sp.CompetitiveGradient(**TIGHT))
    for _ in range(2):
        xi, J = reference.dense()
        L = torch.zeros_like(xi)
        for player, rows in reference.sizes().items():
            J[rows, rows] = 0
            L[rows] = lrs[player]
        reference.move(-L * torch.linalg.solve(torch.eye(len(xi), dtype=xi.dtype) + J * L, xi))
        optimizer.step(gan.losses)
    torch.testing.assert_close(gan.theta(), reference.theta(), **EXACT)


def test_polymatrix_step_of_three_players():
    game, h = three_players(), 0.3
    J, theta = game.jacobian, game.theta.detach()
    off = J - torch.diag(J.diagonal())
    expected = theta - h * torch.linalg.solve(torch.eye(3, dtype=J.dtype) + h * off, J @ theta)
    optimizer_for(game.players, sp.CompetitiveGradient(**TIGHT), h).step(game.losses)
    torch.testing.assert_close(game.theta.detach(), expected, **EXACT)


@pytest.mark.parametrize("warm_start", [False, True])
def test_acgd_twenty_steps_of_the_published_formula(tiny_gan, warm_start):
    gan, reference = tiny_gan(), tiny_gan()
    h, beta, eps = 0.01, 0.9, 1e-5
    optimizer = optimizer_for(
        gan.players,
        sp.AdaptiveCompetitiveGradient(beta=beta, epsilon=eps, warm_start=warm_start, **TIGHT),
        h,
    )
    y, x = reference.sizes().values()
    v = torch.zeros_like(reference.theta())
    for t in range(1, 21):
        xi, J = reference.dense()
        v = beta * v + (1 - beta) * xi**2
        A = h * math.sqrt(1 - beta**t) / (v.sqrt() + eps)
        gx, gy, Hxy = xi[x], -xi[y], J[x, y]
        step = torch.zeros_like(xi)
        step[x] = -torch.linalg.solve(
            torch.diag(1 / A[x]) + Hxy @ torch.diag(A[y]) @ Hxy.T, gx + Hxy @ (A[y] * gy)
        )
        step[y] = torch.linalg.solve(
            torch.diag(1 / A[y]) + Hxy.T @ torch.diag(A[x]) @ Hxy, gy - Hxy.T @ (A[x] * gx)
        )
        reference.move(step)
        optimizer.step(gan.losses)
    torch.testing.assert_close(gan.theta(), reference.theta(), rtol=0, atol=1e-7)


def test_learning_rate_zero_moves_nothing_and_stays_finite(tiny_gan):
    for rule in (sp.CompetitiveGradient(), sp.AdaptiveCompetitiveGradient()):
        gan = tiny_gan()
        before = gan.theta()
        optimizer_for(gan.players, rule, 0.0).step(gan.losses)
        assert torch.equal(gan.theta(), before)


def test_small_steps_reduce_to_the_gradient(tiny_gan):
    gan = tiny_gan()
    optimizer = optimizer_for(gan.players, sp.CompetitiveGradient(**TIGHT), 1e-9)
    xi, _ = gan.dense()
    before = gan.theta()
    optimizer.step(gan.losses)
    torch.testing.assert_close((before - gan.theta()) / 1e-9, xi, rtol=1e-6, atol=1e-6)


def test_cost_of_a_general_game_is_what_the_documentation_says(tiny_gan):
    gan = tiny_gan(zero_sum=False)
    optimizer = optimizer_for(gan.players, sp.CompetitiveGradient(tol=0.0, max_iter=4), 0.1)
    with pytest.warns(
        sp.SolverWarning,
        match=r'The solve "joint" of CompetitiveGradient ended as "max_iter" after 4 products',
    ):
        optimizer.step(gan.losses)
    optimizer.step(gan.losses)  # said once
    assert optimizer.last.cost == sp.Cost(gradients=2, products=8, losses=1)
    assert optimizer.unconverged == 2
    assert optimizer.last.solves["joint"].status == "max_iter"


@pytest.mark.filterwarnings("ignore::saddlepoint.errors.SolverWarning")
@pytest.mark.parametrize("rule", [sp.CompetitiveGradient, sp.AdaptiveCompetitiveGradient])
@pytest.mark.parametrize("warm_start", [False, True])
def test_cost_of_a_zero_sum_game_is_what_the_documentation_says(tiny_gan, rule, warm_start):
    """Two mixed products an iteration and one at the start; the other player's part costs nothing;
    the first step finds out the form."""
    gan = tiny_gan(zero_sum=True)
    optimizer = optimizer_for(gan.players, rule(tol=0.0, max_iter=4, warm_start=warm_start), 0.1)
    optimizer.step(gan.losses)
    assert optimizer.last.cost == sp.Cost(gradients=2, products=2 + 9, losses=1)
    optimizer.step(gan.losses)
    assert optimizer.last.cost == sp.Cost(gradients=2, products=11 if warm_start else 9, losses=1)


class TestWhichFormIsUsed:
    def form(self, players, losses, rule=None):
        optimizer = optimizer_for(players, rule or sp.CompetitiveGradient(**TIGHT), 0.1)
        optimizer.step(losses)
        return bool(optimizer.rule_state.numbers.get("zero_sum"))

    def test_zero_sum_and_general_sum_gans(self, tiny_gan):
        for kind in (True, False):
            gan = tiny_gan(zero_sum=kind)
            assert self.form(gan.players, gan.losses) == kind

    def test_terms_of_one_player_alone_do_not_matter(self, tiny_gan):
        """The generator's loss usually leaves out the term of the real samples, so the losses do
        not add up to zero."""
        gan = tiny_gan()

        def losses():
            found = gan.losses()
            return {
                **found,
                "discriminator": (
                    found["discriminator"] + sum((p**2).sum() for p in gan.D.parameters())
                ),
            }

        assert self.form(gan.players, losses)

    def test_three_players_are_not_zero_sum_in_pairs(self):
        game = three_players()
        assert not self.form(game.players, game.losses)

    def test_at_a_critical_point(self):
        """The probe is a random vector, not the gradient, which is zero here."""
        game = bilinear(start=(0.0, 0.0))
        assert self.form(game.players, game.losses)

    def test_single_precision(self, tiny_gan):
        for kind in (True, False):
            gan = tiny_gan(zero_sum=kind)
            gan.G.float(), gan.D.float()
            gan.z, gan.real = gan.z.float(), gan.real.float()
            players = {
                "discriminator": tuple(gan.D.parameters()),
                "generator": tuple(gan.G.parameters()),
            }
            assert self.form(players, gan.losses, sp.CompetitiveGradient(tol=1e-5)) == kind


@pytest.mark.parametrize("adaptive", [False, True])
def test_both_forms_agree_on_a_zero_sum_game(tiny_gan, adaptive):
    rule = sp.AdaptiveCompetitiveGradient(**TIGHT) if adaptive else sp.CompetitiveGradient(**TIGHT)
    paths = []
    for forced in (None, 0.0):
        gan = tiny_gan(zero_sum=True)
        inner = {
            "discriminator": torch.optim.SGD(gan.players["discriminator"], lr=0.02),
            "generator": torch.optim.SGD(gan.players["generator"], lr=0.05),
        }
        optimizer = sp.GameOptimizer(inner, rule)
        if forced is not None:
            optimizer.rule_state.numbers["zero_sum"] = forced
        for _ in range(5):
            optimizer.step(gan.losses)
        paths.append(gan.theta())
    torch.testing.assert_close(*paths, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: sp.AdaptiveCompetitiveGradient(beta=1.0),
            "RMSPreconditioner: needs 0 ≤ beta < 1 and epsilon > 0",
        ),
        (lambda: sp.AdaptiveCompetitiveGradient(epsilon=0.0), "needs 0 ≤ beta < 1 and epsilon > 0"),
        (
            lambda: sp.CompetitiveGradient(tol=-1.0),
            "CompetitiveGradient: needs tol ≥ 0 and max_iter ≥ 1",
        ),
    ],
)
def test_options_are_checked_at_construction(make, text):
    with pytest.raises(sp.UsageError, match=text):
        make()
