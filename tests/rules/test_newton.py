import pytest
import torch

import saddlepoint as sp
from saddlepoint.games import bilinear, bowl, zero_sum

EXACT = {"rtol": 0.0, "atol": 1e-10}


def optimizer_for(players, rule, lr=1.0):
    return sp.GameOptimizer(
        {p: torch.optim.SGD(tensors, lr=lr) for p, tensors in players.items()}, rule
    )


def absolute_inverse(H, damping):
    values, Q = torch.linalg.eigh(H)
    return Q @ torch.diag(1 / (values.abs() + damping)) @ Q.T


def test_one_undamped_step_lands_on_the_minimum_exactly():
    x = torch.ones(5, requires_grad=True)
    optimizer_for({"x": [x]}, sp.Newton(damping=0.0)).step(lambda: {"x": (x**2).sum()})
    assert x.tolist() == [0.0] * 5


@pytest.mark.parametrize("solver", ["saddle_free", "cg", "minres"])
def test_one_undamped_step_minimises_a_quadratic(solver):
    game = bowl()
    optimizer_for(game.players, sp.Newton(damping=0.0, solver=solver, tol=1e-12)).step(game.losses)
    torch.testing.assert_close(game.theta, torch.zeros(2, dtype=torch.float64), **EXACT)


class TestTwentyStepsAgainstDenseReferences:
    def test_own_saddle_free(self, tiny_gan):
        gan, reference = tiny_gan(zero_sum=False), tiny_gan(zero_sum=False)
        rule = sp.Newton(damping=0.3, adapt=False, tol=0.0, max_iter=100)
        optimizer = optimizer_for(gan.players, rule, lr=0.5)
        for _ in range(20):
            xi, J = reference.dense()
            parts = [
                absolute_inverse(J[rows, rows], 0.3) @ xi[rows]
                for rows in reference.sizes().values()
            ]
            reference.move(-0.5 * torch.cat(parts))
            optimizer.step(gan.losses)
        torch.testing.assert_close(gan.theta(), reference.theta(), rtol=0, atol=1e-7)

    def test_own_minres_without_safeguard_needed(self, tiny_gan):
        gan, reference = tiny_gan(), tiny_gan()
        optimizer = optimizer_for(
            gan.players,
            sp.Newton(solver="minres", damping=5.0, adapt=False, tol=1e-14, max_iter=200),
        )
        for _ in range(20):
            xi, J = reference.dense()
            eye = torch.eye(len(xi), dtype=xi.dtype)
            parts = [
                torch.linalg.solve((J + 5 * eye)[rows, rows], xi[rows])
                for rows in reference.sizes().values()
            ]
            reference.move(-torch.cat(parts))
            optimizer.step(gan.losses)
        torch.testing.assert_close(gan.theta(), reference.theta(), rtol=0, atol=1e-7)

    # without a safeguard the full rule takes steps here that magnify a change of the start of 1e-12
    # to one of 2 after twenty of them
    @pytest.mark.parametrize(("part", "steps"), [("own", 20), ("full", 3)])
    def test_in_the_metric_of_rmsprop(self, tiny_gan, part, steps):
        gan, reference = tiny_gan(zero_sum=False), tiny_gan(zero_sum=False)
        rule = sp.Newton(
            part=part,
            damping=3.0,
            adapt=False,
            preconditioner=sp.RMSPreconditioner(beta=0.9, epsilon=1e-3),
            tol=1e-14,
            max_iter=200,
        )
        optimizer, v = optimizer_for(gan.players, rule), torch.zeros_like(reference.theta())
        for t in range(1, steps + 1):
            xi, J = reference.dense()
            v = 0.9 * v + 0.1 * xi**2
            root = ((v.sqrt() + 1e-3) / (1 - 0.9**t) ** 0.5).sqrt()
            scaled, b = J / root[:, None] / root, xi / root
            if part == "full":
                e = torch.linalg.solve(scaled + 3 * torch.eye(len(xi), dtype=xi.dtype), b)
            else:
                e = torch.cat(
                    [
                        absolute_inverse(scaled[rows, rows], 3.0) @ b[rows]
                        for rows in reference.sizes().values()
                    ]
                )
            reference.move(-e / root)
            optimizer.step(gan.losses)
        torch.testing.assert_close(gan.theta(), reference.theta(), rtol=0, atol=1e-7)

    def test_full(self, tiny_gan):
        gan, reference = tiny_gan(zero_sum=False), tiny_gan(zero_sum=False)
        optimizer = optimizer_for(
            gan.players,
            sp.Newton(part="full", damping=0.5, adapt=False, tol=1e-14, max_iter=200),
        )
        for _ in range(20):
            xi, J = reference.dense()
            reference.move(-torch.linalg.solve(J + 0.5 * torch.eye(len(xi), dtype=xi.dtype), xi))
            optimizer.step(gan.losses)
        torch.testing.assert_close(gan.theta(), reference.theta(), rtol=0, atol=1e-7)

    def test_own_with_levenberg_marquardt(self, tiny_gan):
        gan, reference = tiny_gan(zero_sum=False), tiny_gan(zero_sum=False)
        optimizer = optimizer_for(gan.players, sp.Newton(damping=0.01, tol=0.0, max_iter=100))
        damping = dict.fromkeys(reference.sizes(), 0.01)
        for _ in range(6):
            xi, J = reference.dense()
            losses, step = reference.losses(), torch.zeros_like(xi)
            for player, rows in reference.sizes().items():
                H, g = J[rows, rows], xi[rows]
                d = absolute_inverse(H, damping[player]) @ g
                trial = torch.zeros_like(xi)
                trial[rows] = d
                reference.move(-trial)
                gain = losses[player].item() - reference.losses()[player].item()
                reference.move(trial)
                ratio = gain / float(g @ d - 0.5 * d @ H @ d)
                damping[player] *= 2 / 3 if ratio > 0.75 else 1.0 if ratio >= 0.25 else 3 / 2
                step[rows] = d if ratio > 0 else 0.0
            reference.move(-step)
            optimizer.step(gan.losses)
            for player in damping:
                assert optimizer.rule_state.numbers[f"damping.{player}"] == pytest.approx(
                    damping[player], rel=1e-9
                )
        torch.testing.assert_close(gan.theta(), reference.theta(), rtol=0, atol=1e-8)
        assert any(value != 0.01 for value in damping.values())


def test_the_full_rule_solves_a_bilinear_game_in_one_step():
    game = bilinear(3.0)
    optimizer_for(game.players, sp.Newton(part="full", damping=0.0, tol=1e-14)).step(game.losses)
    torch.testing.assert_close(game.theta, torch.zeros(2, dtype=torch.float64), **EXACT)


@pytest.mark.filterwarnings("ignore::saddlepoint.errors.SolverWarning")
def test_negative_curvature_is_descended():
    """On ½x² − ½y² plain Newton is drawn to the saddle; the safeguarded one leaves it along y,
    minres only goes down."""
    for solver in ("saddle_free", "cg", "minres"):
        z = torch.tensor([1.0, 0.1], dtype=torch.float64, requires_grad=True)

        def losses(z=z):
            return {"z": 0.5 * (z[0] ** 2 - z[1] ** 2)}

        rule = sp.Newton(solver=solver, damping=0.1, adapt=False, tol=1e-12)
        for _ in range(3):
            before = losses()["z"].item()
            optimizer_for({"z": [z]}, rule, lr=0.5).step(losses)
            assert losses()["z"].item() < before
        assert (abs(z[1].item()) > 0.1) == (solver != "minres")


def test_a_step_that_gains_nothing_is_not_taken_and_raises_the_damping():
    x = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    optimizer = optimizer_for({"x": [x]}, sp.Newton(damping=1e-6))
    optimizer.step(lambda: {"x": torch.sqrt(1 + x**2).sum()})  # undamped Newton jumps from 2 to −8
    assert x.item() == 2.0
    assert optimizer.rule_state.numbers["damping.x"] == pytest.approx(1.5e-6)
    for _ in range(60):
        optimizer.step(lambda: {"x": torch.sqrt(1 + x**2).sum()})
    assert abs(x.item()) < 1e-3


def test_one_player_may_move_alone_unless_the_rule_is_joint(tiny_gan):
    gan = tiny_gan()
    before = gan.theta()
    optimizer_for(gan.players, sp.Newton()).step(lambda: {"generator": gan.losses()["generator"]})
    slices = gan.sizes()
    assert torch.equal(gan.theta()[slices["discriminator"]], before[slices["discriminator"]])
    assert not torch.equal(gan.theta()[slices["generator"]], before[slices["generator"]])
    with pytest.raises(
        sp.UsageError,
        match=(
            'Newton needs the losses of all players at once; the closure left out "discriminator"'
        ),
    ):
        optimizer_for(gan.players, sp.Newton(part="full")).step(
            lambda: {"generator": gan.losses()["generator"]}
        )


def test_cost_is_what_the_documentation_says(tiny_gan):
    gan = tiny_gan()
    optimizer = optimizer_for(gan.players, sp.Newton(tol=0.0, max_iter=3))
    with pytest.warns(sp.SolverWarning):
        optimizer.step(gan.losses)
    assert optimizer.cost == sp.Cost(gradients=2, products=6, losses=3)
    optimizer = optimizer_for(gan.players, sp.Newton(part="full", tol=0.0, max_iter=3))
    with pytest.warns(sp.SolverWarning):
        optimizer.step(gan.losses)
    assert optimizer.cost == sp.Cost(gradients=4, products=6, losses=2)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"part": "ful"}, r'part="ful" is unknown\. Did you mean "full"\?'),
        ({"part": "full", "solver": "cg"}, 'solver="cg" does not fit part="full"; use gmres'),
        ({"solver": "gmres"}, "use saddle_free or cg or minres"),
        ({"damping": -1.0}, r"damping=-1\.0 must be at least 0"),
        ({"max_iter": 0}, "needs tol ≥ 0 and max_iter ≥ 1"),
    ],
)
def test_options_are_checked_at_construction(options, text):
    with pytest.raises(sp.UsageError, match=text):
        sp.Newton(**options)


def test_full_newton_finds_critical_points_that_are_no_equilibria():
    """Documented, not desired: f2 of the oracle table has no minimax point at the origin."""
    game = zero_sum(6.0, 4.0, 2.0)
    optimizer_for(game.players, sp.Newton(part="full", damping=0.0, tol=1e-14)).step(game.losses)
    torch.testing.assert_close(game.theta, torch.zeros(2, dtype=torch.float64), **EXACT)
