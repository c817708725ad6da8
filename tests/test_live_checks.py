"""What the constructor checks is checked again when parameter groups have changed."""

import warnings

import pytest
import torch

import saddlepoint as sp
from saddlepoint import rules


def number(value=1.0):
    return torch.full((2,), value, dtype=torch.float64, requires_grad=True)


def bilinear(x, y):
    return lambda: {"x": (x * y).sum(), "y": -(x * y).sum()}


def optimizer_for(x, y, rule=None, kind=torch.optim.SGD, **options):
    return sp.GameOptimizer(
        {"x": kind([x], **{"lr": 0.1, **options}), "y": kind([y], **{"lr": 0.1, **options})}, rule
    )


CHANGES = {
    "maximize": (None, "maximize", True, r'Player "y": maximize=True'),
    "maximize under a rule of steps": (
        rules.CompetitiveGradient(),
        "maximize",
        True,
        r'Player "y": maximize=True',
    ),
    "weight decay under a rule of steps": (
        rules.CompetitiveGradient(),
        "weight_decay",
        0.1,
        "not SGD with weight_decay=0.1",
    ),
    "momentum under a rule of steps": (
        rules.RungeKutta(),
        "momentum",
        0.9,
        "not SGD with momentum=0.9",
    ),
    "a negative rate": (None, "lr", -0.1, r"the learning rate is -0\.1"),
    "a rate that is NaN": (None, "lr", float("nan"), "the learning rate is nan"),
    "an infinite rate": (rules.Extragradient(), "lr", float("inf"), "the learning rate is inf"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_option_set_afterwards(name):
    rule, option, value, message = CHANGES[name]
    x, y = number(), number(2.0)
    optimizer = optimizer_for(x, y, rule)
    optimizer.step(bilinear(x, y))
    before = x.tolist(), y.tolist()
    optimizer.optimizers["y"].param_groups[0][option] = value
    for _ in range(2):  # and it stays refused
        with pytest.raises(sp.UsageError, match=message):
            optimizer.step(bilinear(x, y))
    assert (x.tolist(), y.tolist()) == before


@pytest.mark.parametrize("option", ["maximize", "weight_decay", "momentum"])
def test_a_group_that_is_added(option):
    x, y, more = number(), number(), number()
    optimizer = optimizer_for(x, y, rules.ProximalPoint())
    optimizer.step(bilinear(x, y))
    optimizer.optimizers["x"].add_param_group({"params": [more], option: 0.5})
    with pytest.raises(sp.UsageError, match=f'Player "x".*{option}'):
        optimizer.step(bilinear(x, y))


def test_weight_decay_under_curvature_warns_once_also_afterwards():
    x, y = number(), number()
    optimizer = optimizer_for(x, y, rules.Consensus(0.1))
    optimizer.step(bilinear(x, y))
    for player in ("x", "y"):
        optimizer.optimizers[player].param_groups[0]["weight_decay"] = 0.01
        with pytest.warns(
            sp.CurvatureWarning,
            match=f'Player "{player}": weight decay of SGD acts outside the curvature of Consensus',
        ):
            optimizer.step(bilinear(x, y))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            optimizer.optimizers[player].param_groups[0]["weight_decay"] = 0.02
            optimizer.step(bilinear(x, y))


class TestOwners:
    def test_a_tensor_that_a_second_player_gets(self):
        x, y = number(), number()
        optimizer = optimizer_for(x, y)
        optimizer.optimizers["y"].add_param_group({"params": [x]})
        with pytest.raises(
            sp.UsageError,
            match=r'Parameter 1 of player "y", shape \(2,\), also belongs to player "x"',
        ):
            optimizer.step(bilinear(x, y))

    def test_a_shared_tensor_that_is_thawed(self):
        x, y, shared = number(), number(), number().requires_grad_(False)
        optimizer = sp.GameOptimizer(
            {n: torch.optim.SGD([p, shared], lr=0.1) for n, p in (("x", x), ("y", y))}
        )
        optimizer.step(bilinear(x, y))
        shared.requires_grad_(True)
        with pytest.raises(sp.UsageError, match="also belongs to player"):
            optimizer.step(bilinear(x, y))

    def test_a_tensor_put_in_the_place_of_another(self):
        x, y = number(), number()
        optimizer = optimizer_for(x, y)
        optimizer.step(bilinear(x, y))
        optimizer.optimizers["y"].param_groups[0]["params"][0] = x
        with pytest.raises(sp.UsageError, match="also belongs to player"):
            optimizer.step(bilinear(x, y))


def test_an_optimizer_put_in_the_place_of_another():
    x, y = number(), number()
    optimizer = optimizer_for(x, y, rules.CompetitiveGradient())
    optimizer.step(bilinear(x, y))
    optimizer.optimizers["y"] = torch.optim.Adam([y])
    with pytest.raises(
        sp.UsageError, match=r'Player "y": CompetitiveGradient returns updates .* not Adam'
    ):
        optimizer.step(bilinear(x, y))


def test_a_scheduler_that_cycles_momentum():
    """OneCycleLR sets momentum 0.95 on an SGD that had none: with it |z| came out as 1678 where
    1.16 is due."""
    x, y = number(), number()
    optimizer = optimizer_for(x, y, rules.CompetitiveGradient())
    torch.optim.lr_scheduler.OneCycleLR(optimizer.optimizers["x"], max_lr=1.0, total_steps=100)
    with pytest.raises(
        sp.UsageError,
        match=(
            r"SGD with momentum=0\.95\. A scheduler set the momentum: pass it cycle_momentum=False"
        ),
    ):
        optimizer.step(bilinear(x, y))


@pytest.mark.parametrize("rule", [rules.GradientDescent(), rules.CompetitiveGradient()])
def test_schedulers_of_the_rate_are_welcome(rule):
    x, y = number(), number()
    optimizer = optimizer_for(x, y, rule)
    inner = optimizer.optimizers["x"]
    schedules = [
        torch.optim.lr_scheduler.OneCycleLR(
            inner, max_lr=0.5, total_steps=10, cycle_momentum=False
        ),
        torch.optim.lr_scheduler.LambdaLR(
            optimizer.optimizers["y"], lambda t: 0.0 if t == 3 else 1.0
        ),
    ]
    for _ in range(8):
        optimizer.step(bilinear(x, y))
        for schedule in schedules:
            schedule.step()
    assert all(torch.isfinite(p).all() for p in (x, y))


class TestArguments:
    @pytest.mark.parametrize("rule", [rules.Extragradient, "extragradient", 3])
    def test_a_rule_is_an_instance(self, rule):
        with pytest.raises(
            sp.UsageError,
            match=(
                r"is not a rule\. Pass an instance, such as"
                r" rule=saddlepoint\.rules\.Extragradient\(\)"
            ),
        ):
            sp.GameOptimizer({"x": torch.optim.SGD([number()], lr=0.1)}, rule)

    def test_players_have_names(self):
        with pytest.raises(sp.UsageError, match="name of a player must be a string, not 0"):
            sp.GameOptimizer({0: torch.optim.SGD([number()], lr=0.1)})

    def test_an_optimizer_is_one(self):
        with pytest.raises(
            sp.UsageError,
            match=r'Player "x": expected a torch\.optim\.Optimizer over its parameters, not ReLU',
        ):
            sp.GameOptimizer({"x": torch.nn.ReLU()})


class TestFrozenPlayers:
    def test_a_player_may_be_frozen_at_first(self):
        """As trainers do that thaw one network at a time."""
        x, y = number(), number().requires_grad_(False)
        optimizer = optimizer_for(x, y)
        optimizer.step(lambda: {"x": (x * y).sum()})
        assert x.tolist() == [0.9, 0.9]
        x.requires_grad_(False), y.requires_grad_(True)
        optimizer.step(lambda: {"y": (x * y).sum()})
        assert y.tolist() == pytest.approx([0.91, 0.91])

    @pytest.mark.parametrize(
        "rule",
        [
            rules.GradientDescent(),
            rules.Optimistic(),
            rules.Extragradient(),
            rules.Consensus(0.5),
            rules.SymplecticGradientAdjustment(),
            rules.CompetitiveGradient(),
            rules.AdaptiveCompetitiveGradient(),
            rules.ProximalPoint(),
            rules.Newton(),
            rules.Newton(part="full"),
            rules.RungeKutta(),
            rules.Lookahead(k=2),
            rules.Averaged(),
            rules.SimultaneousPerturbation(),
        ],
    )
    def test_with_its_loss_among_the_others_the_rest_plays_on(self, rule):
        """A frozen player is a constant: the step is that of the game without it."""

        def play(alone):
            x, y = number(), number(0.5).requires_grad_(False)
            own = {"x": torch.optim.SGD([x], lr=0.1)}
            if not alone:
                own["y"] = torch.optim.SGD([y], lr=0.1)
            optimizer = sp.GameOptimizer(own, rule)
            for _ in range(3):
                optimizer.step(
                    lambda: (
                        {"x": (x**2 * y).sum()}
                        if alone
                        else {"y": -(x**2 * y).sum(), "x": (x**2 * y).sum()}
                    )
                )
            return x.detach(), y

        (x, _), (due, y) = play(False), play(True)
        assert torch.allclose(x, due, rtol=1e-12)
        assert y.tolist() == [0.5, 0.5]

    def test_where_all_are_frozen_there_is_nothing_to_move(self):
        x = number().requires_grad_(False)
        optimizer = sp.GameOptimizer({"x": torch.optim.SGD([x], lr=0.1)})
        with pytest.raises(
            sp.UsageError,
            match=(
                r'Nothing can move: all parameters of "x" are frozen .* Call requires_grad_\(True\)'
            ),
        ):
            optimizer.step(lambda: {"x": x.sum()})

    def test_a_leader_that_is_frozen_is_named(self):
        x, y = number(), number()
        rule = rules.TotalGradient(leader="x", follower="y")
        optimizer = optimizer_for(x, y, rule)
        x.requires_grad_(False)
        with pytest.raises(
            sp.UsageError, match='Player "x" is frozen, and TotalGradient needs it to move'
        ):
            optimizer.step(lambda: {"x": (x * y**2).sum(), "y": (x * y**2).sum()})


class TestWhatElseIsAlive:
    def test_another_rule_needs_another_optimizer(self):
        x, y = number(), number()
        optimizer = optimizer_for(x, y, rules.Optimistic())
        optimizer.step(bilinear(x, y))
        optimizer.rule = rules.Lookahead()
        with pytest.raises(sp.UsageError, match="The rule was Optimistic and is Lookahead now"):
            optimizer.step(bilinear(x, y))

    def test_other_options_of_a_rule_are_a_schedule(self):
        x, y = number(), number()
        optimizer = optimizer_for(x, y, rules.Consensus(0.1))
        optimizer.step(bilinear(x, y))
        optimizer.rule = rules.Consensus(0.0)
        before, slope = x.tolist(), y.tolist()
        optimizer.step(bilinear(x, y))
        assert x.tolist() == pytest.approx(
            [b - 0.1 * s for b, s in zip(before, slope, strict=True)]
        )

    @pytest.mark.parametrize(
        "rule",
        [
            rules.Optimistic(),
            rules.Lookahead(k=2),
            rules.Averaged(),
            rules.AdaptiveCompetitiveGradient(warm_start=True),
        ],
    )
    def test_what_is_remembered_follows_a_network_to_another_precision(self, rule):
        net = torch.nn.ParameterList(
            [torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))]
        )
        optimizer = sp.GameOptimizer(
            {n: torch.optim.SGD([p], lr=0.01) for n, p in zip("xy", net, strict=True)}, rule
        )
        for _ in range(4):
            optimizer.step(bilinear(*net))
            net.double()
        assert all(p.dtype == torch.float64 and torch.isfinite(p).all() for p in net)

    @pytest.mark.parametrize("length", [4, 7, 30])
    def test_a_schedule_may_end_beside_zero_by_rounding(self, length):
        x, y = number(), number()
        optimizer = optimizer_for(x, y)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer.optimizers["x"], 1 / 3, 0.0, length)
        for _ in range(length + 1):
            optimizer.step(bilinear(x, y))
            schedule.step()

    def test_sparse_adam_has_no_use_for_dense_gradients(self):
        table = torch.nn.Embedding(3, 2, sparse=True, _weight=torch.ones(3, 2))
        with pytest.raises(sp.UsageError, match="SparseAdam accepts sparse gradients only"):
            sp.GameOptimizer({"x": torch.optim.SparseAdam(table.parameters())})

    @pytest.mark.parametrize(
        ("dtype", "value", "n"), [(torch.float16, 2000.0, 4000), (torch.float32, 1e25, 3)]
    )
    def test_a_finite_gradient_whose_squares_overflow_is_no_divergence(self, dtype, value, n):
        x = torch.ones(n, dtype=dtype, requires_grad=True)
        optimizer = sp.GameOptimizer({"x": torch.optim.SGD([x], lr=0.0)})
        optimizer.step(lambda: {"x": (value * x).sum(dtype=torch.float32)})
        assert optimizer.last.direction_norms["x"] == pytest.approx(value * n**0.5, rel=1e-2)
        clipped = sp.GameOptimizer({"x": torch.optim.SGD([x], lr=1.0)}, rules.Clipped(norm=0.5))
        clipped.step(lambda: {"x": (value * x).sum(dtype=torch.float32)})
        assert clipped.last.direction_norms["x"] == pytest.approx(0.5, rel=1e-2)
