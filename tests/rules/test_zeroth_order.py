"""Rules that use losses only, against closed forms with the same displacements, and against
gradients on average."""

import math

import pytest
import torch
from torch import nn

import saddlepoint as sp
from saddlepoint import rules
from saddlepoint.data.stream import generator_for
from saddlepoint.games import threshold, zero_sum
from saddlepoint.models import MLP

CLOSE = {"rtol": 1e-9, "atol": 1e-12}
SMOOTHING, SPSA = rules.RandomizedSmoothing, rules.SimultaneousPerturbation


def sgd(players, rule, lr=1.0, **known):
    return sp.GameOptimizer(
        {p: torch.optim.SGD(list(tensors), lr=lr) for p, tensors in players.items()}, rule, **known
    )


def zeros(n):
    return torch.zeros(n, dtype=torch.float64, requires_grad=True)


def direction_of(rule, loss, n):
    """The direction of one step for a player "x" at θ = 0, from a step of SGD with lr = 1."""
    x = zeros(n)
    sgd({"x": [x]}, rule).step(lambda: {"x": loss(x)})
    return -x.detach()


def displacements(rule, n, t=0, player="x"):
    generator = generator_for(rule.seed, f"displacements of {player}", t)
    if isinstance(rule, SPSA):
        return torch.randint(0, 2, (rule.samples, n), generator=generator) * 2.0 - 1
    u = torch.randn(rule.samples, n, generator=generator, dtype=torch.float64)
    return u if rule.noise == "gaussian" else u / u.norm(dim=1, keepdim=True) * math.sqrt(n)


RULES = {
    "gaussian": SMOOTHING(0.1, samples=3),
    "sphere": SMOOTHING(0.1, noise="sphere", samples=3),
    "one-sided": SMOOTHING(0.1, antithetic=False, samples=3),
    "spsa": SPSA(0.1, samples=3),
    "another seed": SMOOTHING(0.1, samples=3, seed=4),
}


@pytest.mark.parametrize("name", RULES)
def test_on_a_linear_loss_the_direction_is_u_uT_g(name):
    rule, g = RULES[name], torch.linspace(-1, 2, 5, dtype=torch.float64)
    x = zeros(5)
    optimizer = sgd({"x": [x]}, rule, lr=0.1)
    for t in range(3):
        before, u = x.detach().clone(), displacements(rule, 5, t).double()
        optimizer.step(lambda: {"x": g @ x})
        torch.testing.assert_close((before - x.detach()) / 0.1, (u @ g) @ u / 3, **CLOSE)


def test_the_displacements_of_a_player_depend_on_its_name_and_not_on_the_others():
    x, y, g = zeros(4), zeros(4), torch.ones(4, dtype=torch.float64)
    sgd({"y": [y], "x": [x]}, SMOOTHING()).step(lambda: {"y": g @ y, "x": g @ x})
    torch.testing.assert_close(-x.detach(), direction_of(SMOOTHING(), lambda x: g @ x, 4), **CLOSE)
    assert not torch.equal(x, y)


@pytest.mark.parametrize("name", [*RULES])
def test_without_bias_on_a_quadratic_loss(name):
    """The mean over 2,000 displacements is within five standard errors of the gradient, in every
    entry."""
    rule = type(RULES[name])(**{**vars(RULES[name]), "samples": 2_000})
    A = torch.tensor([[2.0, 1.0, 0.0], [1.0, 3.0, -1.0], [0.0, -1.0, 1.0]], dtype=torch.float64)
    start = torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64)
    loss = lambda x: 0.5 * (x + start) @ A @ (x + start)  # noqa: E731
    u = displacements(rule, 3).double()
    slopes = u @ A @ start + (
        0.05 * torch.einsum("si,ij,sj->s", u, A, u) if name == "one-sided" else 0
    )
    each = slopes[:, None] * u
    found = direction_of(rule, loss, 3)
    torch.testing.assert_close(found, each.mean(0), rtol=1e-7, atol=1e-9)
    assert bool(((found - A @ start).abs() < 5 * each.std(0) / math.sqrt(2_000)).all())


def test_looking_both_ways_has_less_variance_even_for_the_same_number_of_evaluations():
    loss = lambda x: 10 * (x @ x) + x.sum()  # noqa: E731
    spread = {
        antithetic: (
            torch.stack(
                [
                    direction_of(
                        SMOOTHING(0.5, samples=samples, antithetic=antithetic, seed=seed), loss, 4
                    )
                    for seed in range(100)
                ]
            ).var(0)
        )
        for antithetic, samples in ((True, 4), (False, 8))
    }
    assert bool((spread[True] < 0.1 * spread[False]).all())


def test_draws_have_the_identity_as_second_moment_and_the_sphere_a_fixed_length():
    like = torch.zeros(1, dtype=torch.float64)
    for rule in (
        SMOOTHING(samples=2_000),
        SMOOTHING(samples=2_000, noise="sphere"),
        SPSA(samples=2_000),
    ):
        u = rule.draw(5, like, torch.Generator().manual_seed(0))
        torch.testing.assert_close(
            u.T @ u / 2_000, torch.eye(5, dtype=torch.float64), rtol=0, atol=0.15
        )
        assert u.dtype == torch.float64
        if rule != SMOOTHING(samples=2_000):
            torch.testing.assert_close(
                u.norm(dim=1), torch.full((2_000,), math.sqrt(5), dtype=torch.float64)
            )


def test_gains_of_spsa_shrink_as_published():
    x, looked = zeros(1), []

    def losses():
        looked.append(abs(x.item()))
        return {"x": 0 * x.sum()}

    optimizer = sgd({"x": [x]}, SPSA(0.2, gamma=0.25))
    for t in range(4):
        looked.clear()
        optimizer.step(losses)
        assert looked[-2:] == [pytest.approx(0.2 / (t + 1) ** 0.25)] * 2


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    "rule", [SMOOTHING(0.1, samples=4), SMOOTHING(0.1, noise="sphere", samples=4), SPSA(samples=4)]
)
def test_both_players_find_the_equilibrium_of_a_strongly_monotone_game(rule, shared):
    game = zero_sum(1.0, 1.0, -1.0)
    optimizer = sgd(game.players, type(rule)(**{**vars(rule), "shared": shared}), lr=0.05)
    for _ in range(300):
        optimizer.step(game.losses)
    assert game.distance() < 1e-3


def test_a_staircase_has_no_gradient_and_a_smoothed_slope():
    """f = (round(4x) / 4)²: its gradient is zero everywhere; smoothed over steps of ¼ it leads to
    the bottom."""
    ends = {}
    for rule in (sp.GradientDescent(), SMOOTHING(0.3, samples=32)):
        x = torch.full((1,), 2.0, dtype=torch.float64, requires_grad=True)
        optimizer = sgd({"x": [x]}, rule, lr=0.05)
        for _ in range(100):
            optimizer.step(lambda x=x: {"x": ((x * 4).round() / 4).square().sum()})
        ends[type(rule).__name__] = x.item()
    assert ends["GradientDescent"] == 2.0
    assert abs(ends["RandomizedSmoothing"]) < 0.125


def test_resuming_draws_what_the_straight_run_draws(tiny_gan):
    ends = []
    for stops in ((6,), (3, 3)):
        gan, state = tiny_gan(), None
        inner = {p: torch.optim.Adam(t, lr=0.01) for p, t in gan.players.items()}
        for steps in stops:
            optimizer = sp.GameOptimizer(
                inner, rules.PerPlayer(SMOOTHING(), ("generator",), SPSA())
            )
            if state is not None:
                optimizer.load_state_dict(state)
            for _ in range(steps):
                optimizer.step(gan.losses)
            state = optimizer.state_dict()
        ends.append(gan.theta())
    assert torch.equal(*ends)


COSTS = {
    "smoothing": (SMOOTHING(samples=5), 1 + 2 * 5 * 2),
    "smoothing, shared": (SMOOTHING(samples=5, shared=True), 1 + 2 * 5),
    "one-sided": (SMOOTHING(samples=5, antithetic=False), 1 + 5 * 2),
    "one-sided, shared": (SMOOTHING(samples=5, antithetic=False, shared=True), 1 + 5),
    "spsa": (SPSA(), 5),
    "spsa, shared": (SPSA(shared=True), 3),
}


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("name", COSTS)
def test_the_cost_is_in_evaluations_alone(tiny_gan, name, batched):
    rule, losses = COSTS[name]
    gan = tiny_gan()
    optimizer = sgd(
        gan.players, type(rule)(**{**vars(rule), "batched": batched}), modules=[gan.G, gan.D]
    )
    optimizer.step(gan.losses)
    assert optimizer.last.cost == sp.Cost(gradients=0, products=0, losses=losses)
    assert optimizer.last.gradient_norms == {}
    assert set(optimizer.last.direction_norms) == {"discriminator", "generator"}


def test_a_trial_loss_that_is_not_finite_names_the_player_and_moves_nothing():
    x, y = zeros(2), zeros(1)
    optimizer = sgd({"x": [x], "y": [y]}, SMOOTHING(0.1))
    with pytest.raises(
        sp.DivergenceError, match=r'The update of player "y" is not finite'
    ) as caught:
        optimizer.step(lambda: {"x": x.sum(), "y": torch.where(y == 0, y, math.inf).sum()})
    assert caught.value.player == "y"
    assert (x.tolist(), y.tolist()) == ([0.0, 0.0], [0.0])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: SMOOTHING(0.0), r"RandomizedSmoothing: sigma=0\.0 must be positive"),
        (
            lambda: SMOOTHING(samples=0),
            "RandomizedSmoothing: needs samples ≥ 1 and seed ≥ 0, not 0 and 0",
        ),
        (lambda: SMOOTHING(noise="spere"), r'noise "spere" is unknown\. Did you mean "sphere"\?'),
        (lambda: SPSA(c=-1.0), "SimultaneousPerturbation: needs a finite c > 0 and gamma ≥ 0"),
        (lambda: SPSA(seed=-1), "SimultaneousPerturbation: needs samples ≥ 1 and seed ≥ 0"),
        (
            lambda: rules.PerPlayer(SPSA(), ()),
            r"PerPlayer: players=\(\) must be a sequence of names",
        ),
        (
            lambda: rules.PerPlayer(SPSA(), "generator"),
            "PerPlayer: players='generator' must be a sequence of names",
        ),
    ],
)
def test_options_are_checked_at_construction(make, text):
    with pytest.raises(sp.UsageError, match=text):
        make()


class Noisy(nn.Module):
    """A network with dropout, in float64."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 1)
            ).double()

    def forward(self, x):
        return self.layers(x)


class TestBatched:
    @pytest.mark.parametrize("shared", [False, True])
    @pytest.mark.parametrize("name", RULES)
    def test_agrees_with_one_after_the_other(self, tiny_gan, name, shared):
        ends = []
        for batched in (False, True):
            gan = tiny_gan()
            rule = type(RULES[name])(**{**vars(RULES[name]), "batched": batched, "shared": shared})
            optimizer = sgd(gan.players, rule, lr=0.1, modules=[gan.G, gan.D])
            for _ in range(5):
                optimizer.step(gan.losses)
            ends.append(gan.theta())
        torch.testing.assert_close(*ends, rtol=1e-10, atol=1e-12)

    def test_draws_the_dropout_of_the_step_and_the_user_s_noise(self):
        x, ends = torch.linspace(-1, 1, 15, dtype=torch.float64).view(5, 3), []
        for batched in (False, True):
            network, noise = Noisy(), torch.Generator().manual_seed(1)
            with torch.random.fork_rng():
                torch.manual_seed(2)
                optimizer = sgd(
                    {"x": network.parameters()},
                    SMOOTHING(batched=batched),
                    0.1,
                    modules=[network],
                    generators=[noise],
                )
                for _ in range(3):
                    optimizer.step(
                        lambda n=network, g=noise: {
                            "x": (
                                n(x + torch.randn(5, 3, generator=g, dtype=x.dtype)).square().mean()
                            )
                        }
                    )
            ends.append(torch.cat([p.detach().reshape(-1) for p in network.parameters()]))
        torch.testing.assert_close(*ends, rtol=1e-10, atol=1e-12)

    def test_without_the_modules(self, tiny_gan):
        gan = tiny_gan()
        for modules in ([], [gan.D]):
            with pytest.raises(
                sp.UsageError,
                match=(
                    r'of player "\w+", shape .* is in none of the modules .* or use batched=False'
                ),
            ):
                sgd(gan.players, SPSA(batched=True), modules=modules).step(gan.losses)

    def test_what_vmap_refuses(self):
        x = torch.ones(4, 3, dtype=torch.float64)
        generator = torch.Generator().manual_seed(0)
        bn = nn.Sequential(MLP((3, 3), generator=generator), nn.BatchNorm1d(3)).double()
        plain = MLP((3, 1), generator=generator).double()
        cases = [
            (bn, lambda: bn(x).square().mean()),
            (plain, lambda: plain(x).mean() * plain(x).mean().item()),
            (plain, lambda: plain(x).mean() if plain(x).mean() > 0 else -plain(x).mean()),
        ]
        for network, loss in cases:
            before = [p.detach().clone() for p in network.parameters()]
            with pytest.raises(
                sp.UsageError,
                match=r"cannot be evaluated at many points in one pass\. .* Use batched=False\.",
            ):
                sgd({"x": network.parameters()}, SPSA(batched=True), modules=[network]).step(
                    lambda loss=loss: {"x": loss()}
                )
            assert all(torch.equal(p, q) for p, q in zip(before, network.parameters(), strict=True))

    def test_parameters_that_the_closure_kept_from_before(self, tiny_gan):
        """They would stay where they are in a batch, silently; the first step finds out."""
        gan = tiny_gan()
        kept = list(gan.G.parameters())
        optimizer = sgd(gan.players, SMOOTHING(0.1, batched=True), modules=[gan.G, gan.D])
        with pytest.raises(
            sp.UsageError, match=r'the loss of player "generator" is .* in a batch and .* alone'
        ):
            optimizer.step(lambda: {"generator": sum(p.square().sum() for p in kept)})
        sgd(gan.players, SMOOTHING(0.1, batched=True), modules=[gan.G, gan.D]).step(
            lambda: {"generator": sum(p.square().sum() for p in gan.G.parameters())}
        )


class TestBuffers:
    def test_batch_norm_moves_once_a_step_where_the_modules_are_named(self):
        bn, x = nn.BatchNorm1d(2).double(), torch.arange(6.0, dtype=torch.float64).view(3, 2)
        optimizer = sgd({"x": bn.parameters()}, SMOOTHING(), modules=[bn])
        optimizer.step(lambda: {"x": bn(x).square().mean()})
        assert bn.num_batches_tracked.item() == 1

    def test_and_is_warned_of_where_they_are_not(self):
        bn, x = nn.BatchNorm1d(2).double(), torch.arange(6.0, dtype=torch.float64).view(3, 2)
        with pytest.warns(sp.CurvatureWarning, match="BatchNorm updates its statistics") as caught:
            sgd({"x": bn.parameters()}, SMOOTHING()).step(lambda: {"x": bn(x).square().mean()})
        assert len(caught) == 1


class TestPerPlayer:
    RULE = rules.PerPlayer(SMOOTHING(samples=2), ("generator",))

    def test_each_player_moves_as_under_its_own_rule(self, tiny_gan):
        gan, alone = tiny_gan(), tiny_gan()
        start, where = gan.theta(), gan.sizes()
        optimizer = sgd(gan.players, self.RULE)
        optimizer.step(gan.losses)
        assert optimizer.last.cost == sp.Cost(gradients=1, products=0, losses=2 + 4)
        moved = start - gan.theta()
        torch.testing.assert_close(
            moved[where["discriminator"]], alone.xi()[where["discriminator"]], **CLOSE
        )
        sgd(alone.players, SMOOTHING(samples=2)).step(
            lambda: {"generator": alone.losses()["generator"]}
        )
        torch.testing.assert_close(
            moved[where["generator"]], (start - alone.theta())[where["generator"]], **CLOSE
        )

    def test_alternating_turns_belong_to_one_rule(self, tiny_gan):
        gan, reference = tiny_gan(), tiny_gan()
        optimizer, plain = sgd(gan.players, self.RULE), sgd(reference.players, sp.GradientDescent())
        for _ in range(2):
            optimizer.step(lambda: {"discriminator": gan.losses()["discriminator"]})
            assert optimizer.last.cost == sp.Cost(gradients=1, products=0, losses=1)
            assert set(optimizer.last.gradient_norms) == {"discriminator"}
            plain.step(lambda: {"discriminator": reference.losses()["discriminator"]})
            assert torch.equal(gan.theta(), reference.theta())
        optimizer.step(lambda: {"generator": gan.losses()["generator"]})
        assert optimizer.last.cost == sp.Cost(gradients=0, products=0, losses=1 + 4)
        assert optimizer.last.gradient_norms == {}

    @pytest.mark.parametrize("turns", [[("x", "y")], [("x",), ("y",)]])
    def test_moves_a_player_that_autograd_cannot_reach(self, turns):
        """y's loss is that of detached, thresholded outputs: a gradient of none or of zero must not
        keep it where it is."""
        for cut in (threshold, torch.Tensor.detach):
            x, y = zeros(1), torch.full((3,), 0.01, dtype=torch.float64, requires_grad=True)

            def losses(active, x=x, y=y, cut=cut):
                f = ((x - 1) * cut(y).sum()).sum()
                return {player: loss for player, loss in (("x", f), ("y", -f)) if player in active}

            optimizer = sgd({"x": [x], "y": [y]}, rules.PerPlayer(SMOOTHING(0.1), ("y",)), lr=0.1)
            for active in turns:
                optimizer.step(lambda active=active, losses=losses: losses(active))
            assert bool((y != 0.01).all())

    def test_the_same_rule_twice_is_that_rule(self, tiny_gan):
        for rule in (sp.GradientDescent(), rules.Optimistic()):
            ends = []
            for whole in (rule, rules.PerPlayer(rule, ("discriminator",), rule)):
                gan = tiny_gan()
                optimizer = sgd(gan.players, whole, lr=0.1)
                for turn in (
                    ["discriminator"],
                    ["generator"],
                    ["generator", "discriminator"],
                    ["discriminator"],
                    ["generator"],
                ):
                    optimizer.step(
                        lambda turn=turn, gan=gan: {
                            p: loss for p, loss in gan.losses().items() if p in turn
                        }
                    )
                ends.append(gan.theta())
            torch.testing.assert_close(*ends, rtol=1e-9, atol=1e-12)

    def test_a_wrapper_inside_touches_its_own_players_only(self, tiny_gan):
        gan, reference = tiny_gan(), tiny_gan()
        optimizer = sgd(
            gan.players, rules.PerPlayer(rules.Lookahead(k=1, alpha=0.5), ("generator",)), lr=0.1
        )
        where, xi = gan.sizes(), reference.xi()
        optimizer.step(gan.losses)
        moved = (reference.theta() - gan.theta()) / 0.1
        torch.testing.assert_close(moved[where["generator"]], xi[where["generator"]] / 2, **CLOSE)
        torch.testing.assert_close(
            moved[where["discriminator"]], xi[where["discriminator"]], **CLOSE
        )

    def test_extrapolation_leaves_the_other_player_s_optimizer_alone(self, tiny_gan):
        gan = tiny_gan()
        inner = {p: torch.optim.Adam(t, lr=0.01) for p, t in gan.players.items()}
        rule = rules.PerPlayer(SMOOTHING(), ("generator",), rules.Extragradient(keep_state=True))
        sp.GameOptimizer(inner, rule).step(gan.losses)
        counts = {
            player: {int(state["step"]) for state in optimizer.state.values()}
            for player, optimizer in inner.items()
        }
        assert counts == {"generator": {1}, "discriminator": {2}}

    def test_an_unused_parameter_of_a_gradient_player_is_skipped(self):
        x, y, unused = zeros(1), zeros(1), torch.ones(1, requires_grad=True)
        inner = {"x": torch.optim.Adam([x, unused], weight_decay=0.1), "y": torch.optim.Adam([y])}
        sp.GameOptimizer(inner, rules.PerPlayer(SMOOTHING(), ("y",))).step(
            lambda: {"x": (x - y).sum(), "y": (x + y).sum()}
        )
        assert unused.item() == 1.0

    def test_needs_of_the_rules_inside(self, tiny_gan):
        rule = rules.PerPlayer(SPSA(), ("generator",), rules.CompetitiveGradient())
        assert (rule.order, rule.needs_all_players, rule.output) == (
            2,
            True,
            rules.CompetitiveGradient().output,
        )
        with pytest.raises(
            sp.UsageError, match=r'PerPlayer: no player "generatr"\. Did you mean "generator"\?'
        ):
            sgd(tiny_gan().players, rules.PerPlayer(SPSA(), ("generatr",)))
        inside = rules.PerPlayer(
            rules.RungeKutta(regularization=0.1, regularized="discriminator"), ("generator",)
        )
        with pytest.raises(sp.UsageError, match='no player "discriminator"'):
            sgd(tiny_gan().players, inside)

    def test_curvature_for_one_player(self, tiny_gan):
        """Newton of the generator, its opponent held, while the discriminator's loss is only
        evaluated."""
        gan, reference = tiny_gan(), tiny_gan()
        newton = sp.Newton(damping=0.5, adapt=False, tol=1e-13, max_iter=50)
        sgd(gan.players, rules.PerPlayer(newton, ("generator",), SMOOTHING())).step(gan.losses)
        sgd(reference.players, newton).step(lambda: {"generator": reference.losses()["generator"]})
        where = gan.sizes()["generator"]
        torch.testing.assert_close(gan.theta()[where], reference.theta()[where], **CLOSE)
