import copy
import math
import warnings
from functools import partial

import pytest
import torch
from torch.nn import functional as F

import saddlepoint as sp
from saddlepoint.games import GAN_LOSSES, bilinear
from saddlepoint.models import MLP


def pair(seed=0):
    g = torch.Generator().manual_seed(seed)
    return MLP((4, 8, 3), generator=g), MLP((3, 8, 1), generator=g)


def batches(n):
    g = torch.Generator().manual_seed(5)
    return [(torch.randn(6, 3, generator=g), torch.randn(6, 4, generator=g)) for _ in range(n)]


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.5),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2, betas=(0.5, 0.9)),
    "sign": lambda p: sp.optim.SignSubgradient(p, lr=1e-3),
}


def d_loss(D, real, fake):
    return F.softplus(-D(real)).mean() + F.softplus(D(fake)).mean()


@pytest.mark.parametrize("name", OPTIMIZERS)
class TestEqualsTheHandWrittenLoopBitForBit:
    def test_alternating(self, name):
        (G, D), make = pair(), OPTIMIZERS[name]
        oD, oG = make(D.parameters()), make(G.parameters())
        for real, z in batches(5):
            oD.zero_grad()
            d_loss(D, real, G(z).detach()).backward()
            oD.step()
            oG.zero_grad()
            F.softplus(-D(G(z))).mean().backward()
            oG.step()
        G2, D2 = pair()
        optimizer = sp.GameOptimizer(
            {"discriminator": make(D2.parameters()), "generator": make(G2.parameters())}
        )
        for real, z in batches(5):
            optimizer.step(
                lambda real=real, z=z: {"discriminator": d_loss(D2, real, G2(z).detach())}
            )
            optimizer.step(lambda z=z: {"generator": F.softplus(-D2(G2(z))).mean()})
        assert all(
            torch.equal(p, q)
            for A, B in ((G, G2), (D, D2))
            for p, q in zip(A.parameters(), B.parameters(), strict=True)
        )

    def test_simultaneous(self, name):
        (G, D), make = pair(), OPTIMIZERS[name]
        oD, oG = make(D.parameters()), make(G.parameters())
        for real, z in batches(5):
            fake = G(z)
            gradients_D = torch.autograd.grad(
                d_loss(D, real, fake), list(D.parameters()), retain_graph=True
            )
            gradients_G = torch.autograd.grad(F.softplus(-D(fake)).mean(), list(G.parameters()))
            for network, gradients in ((D, gradients_D), (G, gradients_G)):
                for p, g in zip(network.parameters(), gradients, strict=True):
                    p.grad = g
            oD.step()
            oG.step()
        G2, D2 = pair()
        optimizer = sp.GameOptimizer(
            {"discriminator": make(D2.parameters()), "generator": make(G2.parameters())}
        )
        for real, z in batches(5):

            def losses(real=real, z=z):
                fake = G2(z)
                return {
                    "discriminator": d_loss(D2, real, fake),
                    "generator": F.softplus(-D2(fake)).mean(),
                }

            optimizer.step(losses)
        assert all(
            torch.equal(p, q)
            for A, B in ((G, G2), (D, D2))
            for p, q in zip(A.parameters(), B.parameters(), strict=True)
        )


def test_an_unused_parameter_is_skipped_as_backward_skips_it():
    used, unused = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    optimizer = sp.GameOptimizer({"x": torch.optim.AdamW([used, unused], lr=0.1, weight_decay=0.5)})
    optimizer.step(lambda: {"x": (used**2).sum()})
    assert unused.item() == 1.0


def test_schedulers_and_parameter_groups_of_the_inner_optimizer_apply():
    a, b = (torch.ones(1, requires_grad=True) for _ in range(2))
    inner = torch.optim.SGD([{"params": [a], "lr": 0.1}, {"params": [b], "lr": 0.2}])
    schedule = torch.optim.lr_scheduler.ExponentialLR(inner, gamma=0.5)
    optimizer = sp.GameOptimizer({"x": inner})
    for _ in range(2):
        optimizer.step(lambda: {"x": (a + b).sum()})
        schedule.step()
    assert (a.item(), b.item()) == (pytest.approx(1 - 0.1 - 0.05), pytest.approx(1 - 0.2 - 0.1))


def test_frozen_parameters_do_not_move():
    x, frozen = torch.ones(1, requires_grad=True), torch.ones(1)
    optimizer = sp.GameOptimizer({"x": torch.optim.SGD([x, frozen], lr=0.1)})
    optimizer.step(lambda: {"x": (x * frozen).sum()})
    assert (round(x.item(), 6), frozen.item()) == (0.9, 1.0)


def test_shared_and_broadcast_gradients_do_not_alias():
    a, b = (torch.ones(3, requires_grad=True) for _ in range(2))
    seen = []

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            seen.extend(p.grad for group in self.param_groups for p in group["params"])
            return super().step(closure)

    sp.GameOptimizer({"x": Spy([a, b], lr=0.1)}).step(lambda: {"x": (a + b).sum()})
    assert all(gradient.is_contiguous() for gradient in seen)
    assert seen[0].data_ptr() != seen[1].data_ptr()


def test_the_result_of_a_step():
    game = bilinear(2.0)
    optimizer = sp.GameOptimizer(
        {p: torch.optim.SGD(t, lr=0.1) for p, t in game.players.items()}, sp.CompetitiveGradient()
    )
    last = optimizer.step(game.losses)
    assert last is optimizer.last
    assert last.losses == {"x": 2.0, "y": -2.0}
    assert last.gradient_norms == {"x": 2.0, "y": 2.0}
    assert last.direction_norms["x"] == pytest.approx((2 - 0.1 * 2 * -2) / (1 + 0.04))
    assert last.solves["joint"].status == "converged"
    assert last.cost == optimizer.cost


class TestRefusals:
    def x(self):
        return torch.ones(2, requires_grad=True)

    def test_unknown_player(self):
        x = self.x()
        optimizer = sp.GameOptimizer({"critic": torch.optim.SGD([x], lr=0.1)})
        with pytest.raises(
            sp.UsageError, match=r'unknown player "citic"\. Did you mean "critic"\?'
        ):
            optimizer.step(lambda: {"citic": x.sum()})

    def test_shared_parameter(self):
        x = self.x()
        with pytest.raises(
            sp.UsageError, match=r'Parameter 0 of player "b", shape .* also belongs to player "a"'
        ):
            sp.GameOptimizer({"a": torch.optim.SGD([x], lr=0.1), "b": torch.optim.SGD([x], lr=0.1)})

    def test_maximize(self):
        with pytest.raises(
            sp.UsageError,
            match=(
                r'Player "a": maximize=True\. Every player minimises its own loss; negate the loss'
            ),
        ):
            sp.GameOptimizer({"a": torch.optim.SGD([self.x()], lr=0.1, maximize=True)})

    def test_lbfgs(self):
        with pytest.raises(sp.UsageError, match=r"LBFGS evaluates its own closure"):
            sp.GameOptimizer({"a": torch.optim.LBFGS([self.x()])})

    @pytest.mark.parametrize(
        "make",
        [
            lambda p: torch.optim.Adam(p),
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
            lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.1),
            lambda p: sp.optim.SignSubgradient(p, lr=0.1),
        ],
    )
    @pytest.mark.parametrize(
        "rule", [sp.Newton(), sp.CompetitiveGradient(), sp.AdaptiveCompetitiveGradient()]
    )
    def test_rules_in_units_of_steps_demand_plain_sgd(self, make, rule):
        with pytest.raises(
            sp.UsageError, match=r"must be torch\.optim\.SGD without momentum and weight decay"
        ):
            sp.GameOptimizer({"a": make([self.x()])}, rule)

    def test_a_joint_rule_needs_every_player(self):
        game = bilinear()
        optimizer = sp.GameOptimizer(
            {p: torch.optim.SGD(t, lr=0.1) for p, t in game.players.items()},
            sp.CompetitiveGradient(),
        )
        with pytest.raises(
            sp.UsageError,
            match=(
                "CompetitiveGradient needs the losses of all players at once; the closure left"
                ' out "y"'
            ),
        ):
            optimizer.step(lambda: {"x": game.losses()["x"]})

    def test_state_of_another_rule(self):
        game = bilinear()

        def make(rule):
            inner = {p: torch.optim.SGD(t, lr=0.1) for p, t in game.players.items()}
            return sp.GameOptimizer(inner, rule)

        with pytest.raises(
            sp.UsageError, match="The state belongs to the rule Newton, this optimizer has Gradient"
        ):
            make(None).load_state_dict(make(sp.Newton()).state_dict())

    def test_a_rule_that_forgets_a_player(self):
        game = bilinear()

        class Forgetful(sp.Rule):
            order = 1

            def direction(self, step):
                return step.linearization.gradient.only(["x"])

        optimizer = sp.GameOptimizer(
            {p: torch.optim.SGD(t, lr=0.1) for p, t in game.players.items()}, Forgetful()
        )
        with pytest.raises(
            sp.UsageError,
            match=(
                r"Forgetful returned directions for \['x'\], but the players that move are \['x',"
                r" 'y'\]"
            ),
        ):
            optimizer.step(game.losses)


class TestDivergence:
    def test_a_non_finite_loss_changes_nothing(self):
        x = torch.ones(2, requires_grad=True)
        optimizer = sp.GameOptimizer({"x": torch.optim.SGD([x], lr=0.1)})
        with pytest.raises(
            sp.DivergenceError, match=r'The loss of player "x" is inf\. No parameter was changed'
        ):
            optimizer.step(lambda: {"x": (x / 0).sum()})
        assert x.tolist() == [1.0, 1.0]

    def test_a_non_finite_gradient_names_the_parameter(self):
        layer = MLP((2, 1), generator=torch.Generator().manual_seed(0))
        before = copy.deepcopy(layer.state_dict())
        optimizer = sp.GameOptimizer({"x": torch.optim.Adam(layer.named_parameters(), lr=0.1)})

        def losses():
            # finite value, infinite slope at 0: 0 · inf = NaN
            bad = torch.sqrt(layer.layers[1].bias * 0).sum()
            return {"x": layer(torch.ones(1, 2)).sum() + bad}

        with pytest.raises(
            sp.DivergenceError,
            match=r'update of player "x" is not finite: first in layers\.1\.bias, shape \(1,\)',
        ):
            optimizer.step(losses)
        assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_weight_decay_under_curvature_warns_once():
    x = torch.ones(1, requires_grad=True)

    class SecondOrder(sp.Rule):
        order = 2

        def direction(self, step):
            return step.linearization.gradient

    with pytest.warns(
        sp.CurvatureWarning, match="weight decay of AdamW acts outside the curvature of SecondOrder"
    ):
        sp.GameOptimizer({"x": torch.optim.AdamW([x])}, SecondOrder())


def test_no_reference_cycle_keeps_the_graph():
    """The graph of a step must be freed by reference counting alone, without a run of the garbage
    collector."""
    import gc
    import weakref

    x = torch.ones(2, requires_grad=True)
    held = []

    def losses():
        y = x**2
        held.append(weakref.ref(y))
        return {"x": y.sum()}

    for rule in (sp.GradientDescent(), sp.Newton()):
        optimizer = sp.GameOptimizer({"x": torch.optim.SGD([x], lr=0.1)}, rule)
        gc.disable()
        try:
            optimizer.step(losses)
            assert all(reference() is None for reference in held)
        finally:
            gc.enable()


def test_rules_that_evaluate_again_see_the_same_randomness_and_move_buffers_once():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = torch.nn.Sequential(
            torch.nn.Linear(3, 3),
            torch.nn.BatchNorm1d(3),
            torch.nn.Dropout(0.5),
            torch.nn.Linear(3, 1),
        ).double()
        x = torch.randn(8, 3, dtype=torch.float64)
        rule = sp.Newton(damping=100.0, tol=1e-6, max_iter=100)
        optimizer = sp.GameOptimizer(
            {"x": torch.optim.SGD(net.parameters(), lr=1.0)}, rule, modules=[net]
        )
        optimizer.step(lambda: {"x": net(x).pow(2).mean()})
    assert net[1].num_batches_tracked.item() == 1
    # strongly damped, the model is accurate: only different dropout masks could spoil the ratio of
    # gains
    assert optimizer.rule_state.numbers["damping.x"] == pytest.approx(100 * 2 / 3)


def gan_losses(name, G, D, real, z):
    discriminator, generator = GAN_LOSSES[name]
    fake = D(G(z))
    return {"discriminator": discriminator(D(real), fake), "generator": generator(fake)}


@pytest.mark.parametrize("loss", GAN_LOSSES)
def test_every_rule_trains_a_small_gan(loss):
    for rule in (
        sp.GradientDescent(),
        sp.Newton(),
        sp.Newton(part="full"),
        sp.CompetitiveGradient(),
        sp.AdaptiveCompetitiveGradient(),
    ):
        G, D = pair()
        lr = 0.05 if isinstance(rule, sp.AdaptiveCompetitiveGradient) else 0.5
        inner = {
            "discriminator": torch.optim.SGD(D.parameters(), lr=lr),
            "generator": torch.optim.SGD(G.parameters(), lr=lr),
        }
        optimizer = sp.GameOptimizer(inner, rule)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sp.SolverWarning)
            for real, z in batches(5):
                values = optimizer.step(partial(gan_losses, loss, G, D, real, z))
        assert all(math.isfinite(value) for value in values.losses.values())
