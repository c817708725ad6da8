"""The measured linear map of one step on quadratic games, against theory: spectral radii, and
stability limits from both sides."""

import math
from functools import partial

import pytest
import torch

import saddlepoint as sp
from saddlepoint import rules
from saddlepoint.games import bilinear, zero_sum
from saddlepoint.vectors import Vector

I2 = torch.eye(2, dtype=torch.float64)
EX, EY = (
    torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64)),
    torch.diag(torch.tensor([0.0, 1.0], dtype=torch.float64)),
)
XY = {"leader": "x", "follower": "y"}
TIGHT = {"tol": 1e-14, "max_iter": 50}
GAMES = {
    "xy": (0.0, 1.0, 0.0),
    "monotone": (1.0, 1.0, -1.0),
    "f1": (-6.0, 4.0, -2.0),
    "f2": (6.0, 4.0, 2.0),
}


def radius(M):
    return float(torch.linalg.eigvals(M).abs().max())


def step_map(rule, game, h, steps=1, lr=None, alternating=False):
    """The matrix of ``steps`` steps, from their action on the basis vectors of θ."""
    columns = []
    for start in I2.tolist():
        made = zero_sum(*game, start)
        inner = {p: torch.optim.SGD(t, lr=(lr or {}).get(p, h)) for p, t in made.players.items()}
        optimizer = sp.GameOptimizer(inner, rule)
        for _ in range(steps):
            for active in [("x",), ("y",)] if alternating else [("x", "y")]:
                optimizer.step(partial(losses_of, made, active))
        columns.append(made.theta.detach())
    return torch.stack(columns, dim=1)


def losses_of(game, active):
    return {player: loss for player, loss in game.losses().items() if player in active}


def map_with_past(rule, game, h):
    """The matrix of one step on (θ, past gradient), for rules that remember one."""
    columns = []
    for start in torch.eye(4, dtype=torch.float64):
        made = zero_sum(*game, start[:2].tolist())
        optimizer = sp.GameOptimizer(
            {p: torch.optim.SGD(t, lr=h) for p, t in made.players.items()}, rule
        )
        optimizer.rule_state.remember("past", Vector({"x": [start[2:3]], "y": [start[3:4]]}))
        optimizer.step(made.losses)
        columns.append(
            torch.cat(
                [
                    made.theta.detach(),
                    optimizer.rule_state.recall("past", Vector(made.players)).flatten(),
                ]
            )
        )
    return torch.stack(columns, dim=1)


def jacobian(game):
    return zero_sum(*game).jacobian


def block(A, B, C, D):
    return torch.cat([torch.cat([A, B], 1), torch.cat([C, D], 1)])


def antisymmetric(J):
    return (J - J.T) / 2


def followed(J):
    """The direction field of follow-the-ridge at equal learning rates: ξ_y − H⁻¹ J_yx ξ_x."""
    return (
        J
        - EY @ (J[1, 0] / J[1, 1] * torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)) @ J
    )


def total(J):
    """The direction field of total gradient descent of a zero-sum game, where ∂_y f_x = −ξ_y: ξ_x +
    J_yx H⁻¹ ξ_y."""
    return (
        J
        + EX @ (J[1, 0] / J[1, 1] * torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)) @ J
    )


def gradient_newton(J, h):
    leader = I2 - h * EX @ J
    return leader - EY @ J @ leader / J[1, 1]


def off_diagonal(J):
    return J - torch.diag(J.diagonal())


def unrolled(J, h, K=2, lr=0.1):
    """The leader sees y_K = a y + b x after K follower steps, and descends ξ_x(x, y_K) + b ∂_y
    f_x(x, y_K), with ∂_y f_x = −ξ_y."""
    a, b = 1.0, 0.0
    for _ in range(K):
        a, b = (1 - lr * J[1, 1]) * a, (1 - lr * J[1, 1]) * b - lr * J[1, 0]
    ahead = torch.stack(
        [
            torch.tensor([1.0, 0.0], dtype=torch.float64),
            torch.stack([torch.as_tensor(b), torch.as_tensor(a)]).double(),
        ]
    )
    leader = (J[0] - b * J[1]) @ ahead
    return I2 - h * torch.stack([leader, J[1]])


# name → (rule, the map of theory at step h)
THEORY = {
    "simultaneous": (rules.GradientDescent(), lambda J, h: I2 - h * J),
    "extragradient": (rules.Extragradient(), lambda J, h: I2 - h * J @ (I2 - h * J)),
    "consensus 0.1": (rules.Consensus(gamma=0.1), lambda J, h: I2 - h * (J + 0.1 * J.T @ J)),
    "consensus 1": (rules.Consensus(gamma=1.0), lambda J, h: I2 - h * (J + J.T @ J)),
    "sga": (
        rules.SymplecticGradientAdjustment(align=False),
        lambda J, h: I2 - h * (J + antisymmetric(J).T @ J),
    ),
    "hamiltonian": (rules.Hamiltonian(), lambda J, h: I2 - h * J.T @ J),
    "jare": (
        rules.JacobianRegularized(gamma=1.0),
        lambda J, h: I2 - h * (J + (J - torch.diag(J.diagonal())).T @ J),
    ),
    "cgd": (
        rules.CompetitiveGradient(**TIGHT),
        lambda J, h: I2 - h * torch.linalg.solve(I2 + h * (J - torch.diag(J.diagonal())), J),
    ),
    "lcgd": (
        rules.LinearizedCompetitiveGradient(),
        lambda J, h: I2 - h * (J - h * (J - torch.diag(J.diagonal())) @ J),
    ),
    "proximal point": (rules.ProximalPoint(**TIGHT), lambda J, h: torch.linalg.inv(I2 + h * J)),
    "runge-kutta 4": (
        rules.RungeKutta(),
        lambda J, h: sum(
            torch.linalg.matrix_power(-h * J, k) / math.factorial(k) for k in range(5)
        ),
    ),
    "runge-kutta 2": (rules.RungeKutta(stages=2), lambda J, h: I2 - h * J + h**2 / 2 * J @ J),
    "look-ahead": (
        rules.LOLA(alpha=0.1, shaping=0.0),
        lambda J, h: I2 - h * (J - 0.1 * off_diagonal(J) @ J),
    ),
    "lola": (  # of a zero-sum game ∂_j f_i = −ξ_j, so that χ = −J_oᵀ ξ
        rules.LOLA(alpha=0.1),
        lambda J, h: I2 - h * (J - 0.1 * off_diagonal(J) @ J + 0.1 * off_diagonal(J).T @ J),
    ),
    "newton own": (
        rules.Newton(damping=1.0, adapt=False, **TIGHT),
        lambda J, h: I2 - h * torch.diag(1 / (J.diagonal().abs() + 1)) @ J,
    ),
    "newton full": (rules.Newton(part="full", damping=0.0, **TIGHT), lambda J, h: (1 - h) * I2),
    "stochastic hamiltonian, same samples": (
        rules.StochasticHamiltonian(),
        lambda J, h: I2 - h * J.T @ J,
    ),
    "every, both the same": (
        rules.Every(rules.Extragradient(), fallback=rules.Extragradient()),
        lambda J, h: I2 - h * J @ (I2 - h * J),
    ),
    "unrolled": (rules.Unrolled(**XY, unroll=2, lr=0.1), unrolled),
    "follow the ridge": (rules.FollowTheRidge(**XY, **TIGHT), lambda J, h: I2 - h * followed(J)),
    "total gradient": (rules.TotalGradient(**XY, **TIGHT), lambda J, h: I2 - h * total(J)),
}
NEEDS_CURVED_FOLLOWER = {"follow the ridge", "total gradient"}

# radii at h = 0.05; None: the follower's Hessian is zero and the rule is not defined
TABLE = {
    "simultaneous": (1.0012, 0.9513, 1.100, 0.900),
    "extragradient": (0.9988, 0.9511, 1.110, 0.910),
    "consensus 0.1": (0.9963, 0.9413, 0.920, 0.973),
    "consensus 1": (0.9513, 0.8515, 2.397, 2.776),
    "sga": (0.9513, 0.9000, 0.866, 0.900),
    "hamiltonian": (0.9500, 0.9000, 2.589, 2.589),
    "cgd": (0.9988, 0.9488, 1.061, 0.958),
    "runge-kutta 4": (1.0000, 0.9512, 1.105, 0.905),
    "follow the ridge": (None, 0.9500, 0.900, 1.100),
    "total gradient": (None, 0.9500, 0.900, 1.100),
}


DEFINED = [
    (name, game)
    for name in THEORY
    for game in GAMES
    if name not in NEEDS_CURVED_FOLLOWER or game != "xy"
]


@pytest.mark.parametrize("h", [0.01, 0.05, 0.3])
@pytest.mark.parametrize(("name", "game"), DEFINED)
def test_the_measured_map_is_that_of_theory(name, game, h):
    rule, theory = THEORY[name]
    torch.testing.assert_close(
        step_map(rule, GAMES[game], h), theory(jacobian(GAMES[game]), h), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("name", TABLE)
def test_the_published_radii(name):
    for game, expected in zip(GAMES.values(), TABLE[name], strict=True):
        if expected is not None:
            assert radius(step_map(THEORY[name][0], game, 0.05)) == pytest.approx(
                expected, abs=6e-4
            )


@pytest.mark.parametrize("game", GAMES)
def test_lookahead(game):
    h, J = 0.05, jacobian(GAMES[game])
    theory = 0.7 * I2 + 0.3 * torch.linalg.matrix_power(I2 - h * J, 4)
    torch.testing.assert_close(
        step_map(rules.Lookahead(k=4, alpha=0.3), GAMES[game], h, steps=4),
        theory,
        rtol=0,
        atol=1e-10,
    )


@pytest.mark.parametrize(
    ("game", "expected"), [("xy", 1.0), ("monotone", 0.95), ("f1", 1.082), ("f2", 0.946)]
)
def test_alternating_gradient(game, expected):
    h, J = 0.05, jacobian(GAMES[game])
    M = step_map(rules.GradientDescent(), GAMES[game], h, alternating=True)
    torch.testing.assert_close(M, (I2 - h * EY @ J) @ (I2 - h * EX @ J), rtol=0, atol=1e-12)
    assert radius(M) == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(
    ("game", "expected"), [("xy", 0.9987), ("monotone", 0.9511), ("f1", 1.110), ("f2", 0.910)]
)
@pytest.mark.parametrize(
    "rule",
    [rules.Optimistic(), rules.PastExtragradient()],
    ids=["optimistic", "past extragradient"],
)
def test_rules_with_a_past(rule, game, expected):
    """(θ, past) ↦ (θ − h(2J θ − past), J θ), and (θ − hJ(θ − h past), J(θ − h past)): different
    maps of the same radius."""
    h, J = 0.05, jacobian(GAMES[game])
    theory = {
        rules.Optimistic: block(I2 - 2 * h * J, h * I2, J, 0 * I2),
        rules.PastExtragradient: block(I2 - h * J, h * h * J, J, -h * J),
    }[type(rule)]
    M = map_with_past(rule, GAMES[game], h)
    torch.testing.assert_close(M, theory, rtol=0, atol=1e-12)
    assert radius(M) == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(("game", "expected"), [("monotone", 0.9), ("f1", 0.9), ("f2", 1.1)])
def test_gradient_newton(game, expected):
    rule, J = rules.GradientNewton(**XY, **TIGHT), jacobian(GAMES[game])
    M = step_map(rule, GAMES[game], 0.05, lr={"x": 0.05, "y": 1.0})
    torch.testing.assert_close(M, gradient_newton(J, 0.05), rtol=0, atol=1e-10)
    schur = J[0, 0] - J[0, 1] * J[1, 0] / J[1, 1]
    # the follower's conditioning does not enter
    assert radius(M) == pytest.approx(abs(1 - 0.05 * float(schur)), abs=1e-9)
    assert radius(M) == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize("game", ["monotone", "f1", "f2"])
def test_complete_newton_is_at_the_critical_point_of_a_quadratic_after_two_steps(game):
    """The first brings the follower to its answer, the second the leader home. Also where that is
    no minimax point (f2)."""
    M = step_map(
        rules.CompleteNewton(**XY, **TIGHT), GAMES[game], 0.05, steps=2, lr={"x": 1.0, "y": 1.0}
    )
    torch.testing.assert_close(M, torch.zeros_like(M), rtol=0, atol=1e-10)


def test_only_stackelberg_rules_tell_a_local_minimax_point_from_another_critical_point():
    for rule in (rules.FollowTheRidge(**XY, **TIGHT), rules.TotalGradient(**XY, **TIGHT)):
        assert (
            radius(step_map(rule, GAMES["f1"], 0.05))
            < 1
            < radius(step_map(rule, GAMES["f2"], 0.05))
        )


class TestLimitsOnTheBilinearGame:
    """h·s just inside and just outside of what theory says is stable, with s = 1."""

    @pytest.mark.parametrize(
        ("name", "limit"),
        [
            ("extragradient", 1.0),
            ("lcgd", 1.0),
            ("runge-kutta 4", 2 * math.sqrt(2)),
            ("hamiltonian", 2.0),
        ],
    )
    def test_converges_below_and_diverges_above(self, name, limit):
        rule = THEORY[name][0]
        assert radius(step_map(rule, GAMES["xy"], 0.99 * limit)) < 1
        assert radius(step_map(rule, GAMES["xy"], 1.01 * limit)) > 1

    @pytest.mark.parametrize("rule", [rules.Optimistic(), rules.PastExtragradient()])
    def test_optimism_up_to_one_over_root_three(self, rule):
        assert radius(map_with_past(rule, GAMES["xy"], 0.99 / math.sqrt(3))) < 1
        assert radius(map_with_past(rule, GAMES["xy"], 1.01 / math.sqrt(3))) > 1

    def test_alternation_circles_up_to_two(self):
        assert radius(
            step_map(rules.GradientDescent(), GAMES["xy"], 1.99, alternating=True)
        ) == pytest.approx(1, abs=1e-9)
        assert radius(step_map(rules.GradientDescent(), GAMES["xy"], 2.01, alternating=True)) > 1.01

    def test_lookahead_tames_simultaneous_descent(self):
        rule = rules.Lookahead(k=5, alpha=0.5)
        assert radius(step_map(rule, GAMES["xy"], 0.73, steps=5)) < 1
        assert radius(step_map(rule, GAMES["xy"], 0.76, steps=5)) > 1

    def test_consensus_needs_gamma_of_about_half_the_step(self):
        """|1 − h(γ ± i)|² < 1 exactly where h(1 + γ²) < 2γ: γ > 0.101 at h = 0.2."""
        assert radius(step_map(rules.Consensus(gamma=0.100), GAMES["xy"], 0.2)) > 1
        assert radius(step_map(rules.Consensus(gamma=0.103), GAMES["xy"], 0.2)) < 1

    @pytest.mark.parametrize("h", [0.1, 1.0, 10.0])
    def test_implicit_rules_contract_at_every_step(self, h):
        for name in ("cgd", "proximal point"):
            assert radius(step_map(THEORY[name][0], GAMES["xy"], h)) == pytest.approx(
                1 / math.sqrt(1 + h * h), abs=1e-10
            )

    def test_simultaneous_descent_diverges_at_every_step(self):
        for h in (0.01, 0.1, 1.0):
            assert radius(step_map(rules.GradientDescent(), GAMES["xy"], h)) == pytest.approx(
                math.sqrt(1 + h * h), abs=1e-10
            )


@pytest.mark.parametrize("a", [1.0, 3.0, 6.0])
def test_strong_interaction(a):
    """The setting of the paper's figure 2, f = a·x·y with h = 0.2: only the implicit rules survive
    every strength."""
    h = 0.2
    survives = {
        name: radius(step_map(rule, (0.0, a, 0.0), h)) < 1
        for name, (rule, _) in THEORY.items()
        if name not in NEEDS_CURVED_FOLLOWER
    }
    assert survives["cgd"]
    assert survives["proximal point"]
    assert not survives["simultaneous"]
    assert survives["extragradient"] == (h * a < 1)
    assert survives["consensus 1"] == (h * (1 + a**2) < 2)  # |1 − h(γa² ± ia)|² < 1
    assert bilinear(a).jacobian[0, 1] == a
