"""What belongs to a parameter follows the parameter: through freezing, new groups, other orders,
memory layouts, saved states."""

import copy
import io
import itertools

import pytest
import torch

import saddlepoint as sp
from saddlepoint import rules

F64 = torch.float64


def vector(*values):
    return torch.tensor(values, dtype=F64, requires_grad=True)


class TestMemoryLayout:
    @pytest.mark.parametrize("kind", ["Adam", "AdamW", "SGD", "Adagrad"])
    @pytest.mark.parametrize("layout", ["channels_last", "transposed"])
    def test_fused_kernels_get_the_strides_of_the_parameter(self, kind, layout):
        def train(fused):
            generator = torch.Generator().manual_seed(0)
            weight = torch.randn(4, 3, 3, 3, dtype=F64, generator=generator)
            x = torch.randn(8, 3, 6, 6, dtype=F64, generator=generator)
            if layout == "channels_last":
                weight = weight.to(memory_format=torch.channels_last)
            else:
                weight = weight.transpose(0, 1).contiguous().transpose(0, 1)
            weight = torch.nn.Parameter(weight)

            def losses():
                y = torch.nn.functional.conv2d(x, weight)
                return {"p": y.square().mean() + y.sum(1).mean()}

            game = sp.GameOptimizer(
                {"p": getattr(torch.optim, kind)([weight], lr=0.01, fused=fused)}
            )
            for _ in range(5):
                game.step(losses)
            return weight.detach()

        assert torch.allclose(train(True), train(False), rtol=0, atol=1e-14)

    @pytest.mark.parametrize(
        "rule",
        [
            rules.GradientDescent(),
            rules.Consensus(0.1),
            rules.Extragradient(),
            rules.CompetitiveGradient(),
        ],
    )
    def test_gradients_have_the_strides_that_backward_gives(self, rule):
        plain = torch.randn(4, 3, 2, 2, dtype=F64, generator=torch.Generator().manual_seed(1))
        dense = plain.to(memory_format=torch.channels_last).requires_grad_()
        gaps = torch.zeros(4, 6, dtype=F64)[:, ::2].requires_grad_()
        broadcast = torch.ones(1, 3, dtype=F64).requires_grad_()
        parameters = [dense, gaps, broadcast]

        def loss():
            return dense.square().sum() + dense.sum() + gaps.sum() + broadcast.expand(5, 3).sum()

        loss().backward()
        due = [p.grad.stride() for p in parameters]
        for p in parameters:
            p.grad = None
        seen = []

        class Spy(torch.optim.SGD):
            def step(self, closure=None):
                seen.append(
                    [p.grad.stride() for group in self.param_groups for p in group["params"]]
                )
                return super().step(closure)

        sp.GameOptimizer({"x": Spy(parameters, lr=0.1)}, rule).step(lambda: {"x": loss()})
        assert seen[-1] == due

    def test_directions_in_one_memory_come_apart(self):
        a, b = vector(1.0, 2.0), vector(3.0, 4.0)
        grads = []

        class Spy(torch.optim.SGD):
            def step(self, closure=None):
                grads.extend(p.grad for group in self.param_groups for p in group["params"])
                return super().step(closure)

        class Shared(rules.Rule):
            def direction(self, step):
                both = torch.cat([t.reshape(-1) for t in step.linearization.gradient.tensors])
                return step.linearization.gradient.unflatten(both)

        sp.GameOptimizer({"x": Spy([a, b], lr=0.1)}, Shared()).step(lambda: {"x": (a + b).sum()})
        assert grads[0].untyped_storage().data_ptr() != grads[1].untyped_storage().data_ptr()


STATEFUL = {
    "optimistic": lambda: rules.Optimistic(),
    "past extragradient": lambda: rules.PastExtragradient(),
    "lookahead": lambda: rules.Lookahead(k=2),
    "averaged": lambda: rules.Averaged(),
    "averaged, exponential": lambda: rules.Averaged(decay=0.9),
    "acgd": lambda: rules.AdaptiveCompetitiveGradient(tol=1e-12, warm_start=True),
    "kronecker cgd": lambda: rules.CompetitiveGradient(
        preconditioner=rules.KroneckerPreconditioner(frequency=2), tol=1e-12, max_iter=100
    ),
    "cgd, warm": lambda: rules.CompetitiveGradient(warm_start=True, tol=1e-12),
    "proximal, warm": lambda: rules.ProximalPoint(warm_start=True, tol=1e-12),
    "newton, rms": lambda: rules.Newton(
        preconditioner=rules.RMSPreconditioner(), tol=1e-12, max_iter=100
    ),
    "every": lambda: rules.Every(rules.Optimistic(), k=2, fallback=rules.Lookahead(k=2)),
    "nested": lambda: rules.Lookahead(rules.Averaged(rules.Optimistic()), k=3),
}


class Pair:
    """Two players with two matrices each; general-sum, smooth, with interaction."""

    def __init__(self, order="xy"):
        g = torch.Generator().manual_seed(3)
        self.a, self.b, self.c, self.d = (
            torch.randn(2, 2, dtype=F64, generator=g).requires_grad_() for _ in range(4)
        )
        self.order = order

    def optimizer(self, rule, lr=0.05, groups=None):
        own = {"x": [self.a, self.b], "y": [self.c, self.d]}
        return sp.GameOptimizer({n: torch.optim.SGD(own[n], lr=lr) for n in self.order}, rule)

    def losses(self, order=None):
        x, y = (self.a @ self.b + self.a).tanh(), (self.c @ self.d + self.d).sin()
        found = {
            "x": (x * y).sum() + 0.1 * (self.a**2).sum() + 0.2 * (self.b**2).sum(),
            "y": -(x * y.tanh()).sum() + 0.3 * (self.c**2).sum(),
        }
        return {name: found[name] for name in order or "xy"}

    def theta(self):
        return torch.cat([p.detach().reshape(-1) for p in (self.a, self.b, self.c, self.d)])


def run(pair, optimizer, steps, order=None):
    for _ in range(steps):
        optimizer.step(lambda: pair.losses(order))


@pytest.mark.parametrize("name", STATEFUL)
class TestOrderOfIteration:
    def test_the_order_of_the_closures_mapping_does_not_matter(self, name):
        straight, mixed = Pair(), Pair()
        run(straight, straight.optimizer(STATEFUL[name]()), 6)
        optimizer = mixed.optimizer(STATEFUL[name]())
        for number in range(6):
            run(mixed, optimizer, 1, order="yx" if number % 2 else "xy")
        assert torch.equal(mixed.theta(), straight.theta())

    def test_a_state_loads_into_players_listed_in_another_order(self, name):
        straight, first, second = Pair(), Pair(), Pair("yx")
        run(straight, straight.optimizer(STATEFUL[name]()), 6)
        before = first.optimizer(STATEFUL[name]())
        run(first, before, 3)
        stored = io.BytesIO()
        torch.save(before.state_dict(), stored)
        stored.seek(0)
        for ours, theirs in zip(
            (second.a, second.b, second.c, second.d),
            (first.a, first.b, first.c, first.d),
            strict=True,
        ):
            ours.data.copy_(theirs.data)
        after = second.optimizer(STATEFUL[name]())
        after.load_state_dict(torch.load(stored, weights_only=True))
        run(second, after, 3, order="yx")
        assert torch.allclose(second.theta(), straight.theta(), rtol=1e-9, atol=1e-12)

    def test_deep_copies_go_on_alike(self, name):
        pair = Pair()
        optimizer = pair.optimizer(STATEFUL[name]())
        run(pair, optimizer, 3)
        other, its = copy.deepcopy((pair, optimizer))
        run(pair, optimizer, 3)
        run(other, its, 3)
        assert torch.equal(pair.theta(), other.theta())

    def test_at_rate_zero_nothing_moves_whatever_is_frozen_thawed_or_added(self, name):
        pair = Pair()
        optimizer = pair.optimizer(STATEFUL[name](), lr=0.0)
        before = pair.theta()
        extra = vector(5.0, 6.0)
        pattern = itertools.cycle([(pair.a,), (pair.d, pair.b), (), (pair.c, pair.a)])
        for number in range(8):
            frozen = next(pattern)
            for p in (pair.a, pair.b, pair.c, pair.d):
                p.requires_grad_(all(p is not other for other in frozen))
            if number == 5:
                optimizer.optimizers["x"].add_param_group({"params": [extra], "lr": 0.0})
            optimizer.step(
                lambda: {p: loss + 0.1 * extra.sum() for p, loss in pair.losses().items()}
            )
        assert torch.equal(pair.theta(), before)
        assert extra.tolist() == [5.0, 6.0]

    def test_what_is_frozen_and_thawed_finds_its_memory(self, name):
        """The third and fourth parameters' positions change when the first is frozen; their memory
        must not."""
        pair, alone = Pair(), Pair()
        one, two = pair.optimizer(STATEFUL[name]()), alone.optimizer(STATEFUL[name]())
        run(pair, one, 3)
        run(alone, two, 3)
        pair.a.requires_grad_(False)
        alone.a.requires_grad_(False)
        held = pair.a.clone()
        run(pair, one, 2)
        # the same step by step, in an optimizer that was saved and loaded while frozen
        fresh = alone.optimizer(STATEFUL[name]())
        fresh.load_state_dict(two.state_dict())
        run(alone, fresh, 2)
        assert torch.equal(pair.a, held)
        assert torch.equal(pair.theta(), alone.theta())
        pair.a.requires_grad_(True)
        alone.a.requires_grad_(True)
        run(pair, one, 3)
        run(alone, fresh, 3)
        assert torch.equal(pair.theta(), alone.theta())


class TestWhatTheMathematicsAsks:
    def test_lookahead_of_a_layer_frozen_and_another_thawed(self):
        a = torch.nn.Parameter(torch.full((2,), 1.0))
        b = torch.nn.Parameter(torch.full((2,), 100.0), requires_grad=False)
        optimizer = sp.GameOptimizer(
            {"x": torch.optim.SGD([a, b], lr=0.0)}, rule=rules.Lookahead(k=2)
        )
        for _ in range(2):
            optimizer.step(lambda: {"x": (7 * a + b).sum()})
        a.requires_grad_(False), b.requires_grad_(True)
        for _ in range(2):
            optimizer.step(lambda: {"x": (7 * a + b).sum()})
        assert a.tolist() == [1.0, 1.0]
        assert b.tolist() == [100.0, 100.0]

    @pytest.mark.parametrize("decay", [None, 0.5])
    def test_the_average_counts_a_frozen_parameter_at_its_value(self, decay):
        """Against the average written out: b is frozen in steps 3 to 5, c joins with step 4."""
        a, b, c = vector(1.0), vector(2.0), vector(3.0)
        inner = torch.optim.SGD([a, b], lr=0.1)
        optimizer = sp.GameOptimizer({"x": inner}, rules.Averaged(decay=decay))
        iterates = []
        for step in range(1, 9):
            b.requires_grad_(step not in (3, 4, 5))
            if step == 4:
                inner.add_param_group({"params": [c]})
            optimizer.step(lambda: {"x": (a**2 + b**2 + c**2).sum()})
            iterates.append(torch.cat([a.detach(), b.detach(), c.detach()]))
            due = iterates[0]
            for t, iterate in enumerate(iterates[1:], start=2):
                due = due + (iterate - due) * (1 / t if decay is None else 1 - decay)
            with optimizer.averaged():
                found = torch.cat([a.detach(), b.detach(), c.detach()])
            known = slice(0, 2) if step < 4 else slice(0, 3)
            assert torch.allclose(found[known], due[known], rtol=1e-12, atol=0)

    def test_optimism_remembers_a_parameters_last_move(self):
        a, b = vector(1.0), vector(1.0)
        optimizer = sp.GameOptimizer({"x": torch.optim.SGD([a, b], lr=0.1)}, rules.Optimistic())
        factors = {"a": 1.0, "b": 10.0}
        optimizer.step(lambda: {"x": (factors["a"] * a + factors["b"] * b).sum()})
        a.requires_grad_(False)
        factors["b"] = 20.0
        optimizer.step(lambda: {"x": (factors["a"] * a + factors["b"] * b).sum()})
        a.requires_grad_(True)
        factors["a"] = 3.0
        before = a.item(), b.item()
        optimizer.step(lambda: {"x": (factors["a"] * a + factors["b"] * b).sum()})
        assert before[0] - a.item() == pytest.approx(0.1 * (2 * 3 - 1))
        assert before[1] - b.item() == pytest.approx(0.1 * (2 * 20 - 20))

    def test_bias_correction_is_each_parameters_own(self):
        """ACGD's first step of a parameter has the size of the learning rate, whenever it joins."""
        a, b = vector(1.0), vector(1.0)
        b.requires_grad_(False)
        optimizer = sp.GameOptimizer(
            {"x": torch.optim.SGD([a, b], lr=0.01)}, rules.AdaptiveCompetitiveGradient()
        )
        for _ in range(50):
            optimizer.step(lambda: {"x": (a + 3 * b).sum()})
        b.requires_grad_(True)
        optimizer.step(lambda: {"x": (a + 3 * b).sum()})
        assert 1 - b.item() == pytest.approx(0.01, rel=1e-3)

    def test_memory_follows_a_parameter_to_another_place(self):
        a, b = vector(1.0), vector(1.0)
        inner = torch.optim.SGD([a, b], lr=0.1)
        optimizer = sp.GameOptimizer({"x": inner}, rules.Optimistic())
        optimizer.step(lambda: {"x": (a + 10 * b).sum()})
        inner.param_groups[0]["params"].reverse()
        before = a.item(), b.item()
        optimizer.step(lambda: {"x": (2 * a + 20 * b).sum()})
        assert before[0] - a.item() == pytest.approx(0.1 * (2 * 2 - 1))
        assert before[1] - b.item() == pytest.approx(0.1 * (2 * 20 - 10))

    def test_a_parameter_put_in_the_place_of_another_has_no_memory(self):
        a, b = vector(1.0), vector(1.0)
        inner = torch.optim.SGD([a], lr=0.1)
        optimizer = sp.GameOptimizer({"x": inner}, rules.Optimistic())
        optimizer.step(lambda: {"x": (10 * a).sum()})
        inner.param_groups[0]["params"][0] = b
        optimizer.step(lambda: {"x": b.sum()})
        assert b.item() == pytest.approx(0.9)


class TestForeignStates:
    """All or nothing, and the first difference by name."""

    def pair(
        self,
        rule=None,
        kind=torch.optim.Adam,
        shape=(2,),
        dtype=F64,
        lr=0.5,
        names=("x", "y"),
        **options,
    ):
        own = {n: torch.ones(shape, dtype=dtype, requires_grad=True) for n in names}
        optimizer = sp.GameOptimizer({n: kind([p], lr=lr, **options) for n, p in own.items()}, rule)
        optimizer.step(
            lambda: {
                n: (p**2).sum() * sum((q**2).sum() for q in own.values()) for n, p in own.items()
            }
        )
        return optimizer

    @pytest.mark.parametrize(
        ("theirs", "message"),
        [
            (
                {"kind": torch.optim.SGD},
                r'Player "x": the state belongs to torch\.SGD, this optimizer has torch\.Adam',
            ),
            (
                {"shape": (3,)},
                r'Player "x", parameter 0\.0: its shape is \(3,\) in the state, \(2,\) here',
            ),
            (
                {"dtype": torch.float32},
                r"its dtype is torch\.float32 in the state, torch\.float64 here",
            ),
            (
                {"names": ("x", "z")},
                r"The state has the players \['x', 'z'\], this optimizer \['x', 'y'\]",
            ),
            (
                {"rule": rules.Optimistic()},
                r"The state belongs to the rule Optimistic, this optimizer has Gradient",
            ),
        ],
    )
    def test_the_first_difference_is_named_and_nothing_is_replaced(self, theirs, message):
        ours = self.pair(lr=0.25)
        before = copy.deepcopy(ours.state_dict())
        with pytest.raises(sp.UsageError, match=message + ".* Nothing was loaded"):
            ours.load_state_dict(self.pair(**theirs).state_dict())
        assert str(ours.state_dict()) == str(before)

    def test_a_refusal_of_the_second_player_leaves_the_first(self):
        ours, theirs = self.pair(lr=0.25), self.pair(lr=0.5)
        foreign = theirs.state_dict()
        foreign["optimizers"]["y"]["param_groups"] = "no groups"
        with pytest.raises(sp.UsageError, match="Nothing was loaded"):
            ours.load_state_dict(foreign)
        assert [inner.param_groups[0]["lr"] for inner in ours.optimizers.values()] == [0.25, 0.25]

    @pytest.mark.parametrize(
        ("theirs", "ours", "message"),
        [
            (
                rules.Lookahead(k=5),
                rules.Lookahead(k=6),
                "Lookahead with k=5, this optimizer has k=6",
            ),
            (
                rules.Lookahead(rules.Optimistic()),
                rules.Lookahead(),
                "rule='Optimistic', this optimizer has rule='GradientDescent'",
            ),
            (
                rules.Averaged(rules.Clipped(norm=1.0)),
                rules.Averaged(rules.Clipped(norm=2.0)),
                r"rule\.norm=1\.0, this optimizer has rule\.norm=2\.0",
            ),
        ],
    )
    def test_options_of_the_rule_are_compared(self, theirs, ours, message):
        with pytest.raises(sp.UsageError, match=message):
            self.pair(ours).load_state_dict(self.pair(theirs).state_dict())

    @pytest.mark.parametrize("kind", [torch.optim.Adam, sp.optim.SOAP, sp.optim.MomentumSGD])
    def test_parameters_with_names_are_found_by_them(self, kind):
        """The second optimizer lists its parameters the other way round; the trajectory is that of
        the first."""

        def play(order, state=None, start=None):
            named = {"a": vector(1.0, 2.0), "b": vector(3.0, 4.0)}
            for name, value in (start or {}).items():
                named[name].data.copy_(value)
            optimizer = sp.GameOptimizer(
                {"x": kind([(n, named[n]) for n in order], lr=0.1)}, rules.Optimistic()
            )
            if state is not None:
                optimizer.load_state_dict(copy.deepcopy(state))
            for _ in range(3):
                optimizer.step(lambda: {"x": (named["a"] ** 2).sum() + 3 * (named["b"] ** 2).sum()})
            return optimizer.state_dict(), {name: p.detach().clone() for name, p in named.items()}

        state, middle = play("ab")
        _, straight = play("ab", state, middle)
        _, turned = play("ba", state, middle)
        assert all(torch.equal(straight[name], turned[name]) for name in "ab")

    def test_other_names_are_refused(self):
        make = lambda name: sp.GameOptimizer({"x": torch.optim.Adam([(name, vector(1.0))], lr=0.1)})  # noqa: E731
        with pytest.raises(
            sp.UsageError,
            match="bias: the state has no parameter of this name, but weight in its place",
        ):
            make("bias").load_state_dict(make("weight").state_dict())

    def test_a_state_that_is_none(self):
        with pytest.raises(sp.UsageError, match=r'lacks "rule".*not saved by GameOptimizer'):
            self.pair().load_state_dict({})


class TestTwoNetworksOfOnePlayer:
    """Names of parameters are unique within a network, not within a player that has two."""

    @pytest.mark.parametrize(
        "kind", [torch.optim.SGD, sp.optim.SOAP, sp.optim.MomentumSGD, sp.optim.Subgradient]
    )
    @pytest.mark.parametrize("groups", [False, True])
    def test_both_move_and_are_saved(self, kind, groups):
        def build():
            g = torch.Generator().manual_seed(0)
            nets = [sp.models.MLP((2, 2), generator=g).double() for _ in range(2)]
            named = [dict(net.named_parameters()) for net in nets]
            chained = itertools.chain(*(own.items() for own in named))
            parameters = [{"params": own.items()} for own in named] if groups else chained
            return nets, sp.GameOptimizer(
                {"g": kind(parameters, lr=0.1)}, rules.Lookahead(rules.Optimistic(), k=2)
            )

        x = torch.ones(3, 2, dtype=F64)
        nets, optimizer = build()
        before = [p.detach().clone() for net in nets for p in net.parameters()]

        def run(nets, optimizer, steps):
            for _ in range(steps):
                optimizer.step(lambda: {"g": nets[1](nets[0](x)).square().sum() + nets[0](x).sum()})
            return [p.detach().clone() for net in nets for p in net.parameters()]

        after = run(nets, optimizer, 3)
        assert all(not torch.equal(p, q) for p, q in zip(before, after, strict=True))
        others, second = build()
        for ours, theirs in zip(
            (p for net in others for p in net.parameters()), after, strict=True
        ):
            ours.data.copy_(theirs)
        second.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        assert all(
            torch.equal(p, q)
            for p, q in zip(run(nets, optimizer, 2), run(others, second, 2), strict=True)
        )


class TestLookaheadOfAlternatelyFrozenPlayers:
    @pytest.mark.parametrize("k", [2, 3])
    def test_is_that_of_players_that_are_not_frozen(self, k):
        """As scripts do that call set_requires_grad before each turn."""
        ends = []
        for freeze in (False, True):
            x, y = vector(1.0), vector(1.0)
            optimizer = sp.GameOptimizer(
                {n: torch.optim.SGD([p], lr=0.1) for n, p in (("x", x), ("y", y))},
                rules.Lookahead(k=k),
            )
            for _ in range(6):
                for name, mover, other in (("x", x, y), ("y", y, x)):
                    mover.requires_grad_(True)
                    other.requires_grad_(not freeze)
                    optimizer.step(lambda name=name, x=x, y=y: {name: (x**2 + x * y + y**2).sum()})
            ends.append((x.item(), y.item()))
        # the return of a frozen player is made when it is thawed: at the end one may be owed still
        assert any(a == b for a, b in zip(*ends, strict=True))


def test_a_return_that_was_owed_is_made_once_though_the_step_fails():
    x, y = vector(1.0), vector(1.0)
    optimizer = sp.GameOptimizer(
        {n: torch.optim.SGD([p], lr=0.1) for n, p in (("x", x), ("y", y))}, rules.Lookahead(k=2)
    )
    optimizer.step(lambda: {"y": (2 * y).sum()})  # y: 0.8
    y.requires_grad_(False)
    optimizer.step(lambda: {"x": x.sum()})  # x returns, y owes it
    y.requires_grad_(True)
    for _ in range(2):
        with pytest.raises(sp.DivergenceError):
            optimizer.step(lambda: {"y": (y / 0).sum()})
    assert y.item() == pytest.approx(0.9)


class TestTrialSteps:
    def test_groups_stay_the_objects_that_schedules_hold(self):
        x = vector(1.0)
        inner = torch.optim.SGD([x], lr=0.1)
        group = inner.param_groups[0]
        optimizer = sp.GameOptimizer({"x": inner}, rules.PastExtragradient())
        for _ in range(2):
            optimizer.step(lambda: {"x": (x**2).sum()})
        before = x.item()
        group["lr"] = 0.0
        optimizer.step(lambda: {"x": (x**2).sum()})
        assert x.item() == before

    def test_state_is_put_back_as_it_was(self):
        """State in another dtype than its parameter, such as master weights, is not rounded by a
        trial step."""

        class Master(torch.optim.SGD):
            def step(self, closure=None):
                for group in self.param_groups:
                    for p in group["params"]:
                        master = self.state[p].setdefault("master", p.detach().float())
                        master.sub_(group["lr"] * p.grad.float())
                        p.data.copy_(master)

        ends = []
        for rule in (rules.GradientDescent(), rules.Extragradient(keep_state=False)):
            x = torch.ones(1, dtype=torch.bfloat16, requires_grad=True)
            optimizer = sp.GameOptimizer({"x": Master([x], lr=1e-4)}, rule)
            for _ in range(100):
                optimizer.step(lambda x=x: {"x": x.sum()})
            ends.append(optimizer.optimizers["x"].state[x]["master"].item())
        assert ends[1] == pytest.approx(ends[0], abs=1e-6)

    def test_a_parameter_unused_in_a_step_is_skipped_in_the_trial_too(self):
        x, y = vector(1.0), vector(1.0)
        a, b = vector(1.0), vector(1.0)
        optimizer = sp.GameOptimizer(
            {"p": torch.optim.SGD([x, y], lr=0.1, momentum=0.9)}, rules.Extragradient()
        )
        by_hand = torch.optim.SGD([a, b], lr=0.1, momentum=0.9)
        for step in range(4):

            def loss(x, y, step=step):
                return (x**2).sum() + ((y**2).sum() if step % 2 == 0 else 0)

            optimizer.step(lambda loss=loss: {"p": loss(x, y)})
            start = a.detach().clone(), b.detach().clone()
            for trial in (True, False):
                by_hand.zero_grad()
                loss(a, b).backward()
                if not trial:
                    a.data.copy_(start[0]), b.data.copy_(start[1])
                by_hand.step()
        assert torch.allclose(x, a, rtol=1e-12)
        assert torch.allclose(y, b, rtol=1e-12)


class TestAfterADivergence:
    @pytest.mark.parametrize("name", STATEFUL)
    def test_what_the_rule_remembers_is_as_before(self, name):
        """A loop that skips a bad batch goes on as if it had not been."""
        skipped, straight = Pair(), Pair()
        one, other = skipped.optimizer(STATEFUL[name]()), straight.optimizer(STATEFUL[name]())
        run(skipped, one, 3)
        run(straight, other, 3)

        def bad():
            found = skipped.losses()
            # finite, with a slope that is not
            return {"x": found["x"] + (skipped.a * 0).sqrt().sum(), "y": found["y"]}

        with pytest.raises(sp.DivergenceError):
            one.step(bad)
        run(skipped, one, 3)
        run(straight, other, 3)
        assert torch.equal(skipped.theta(), straight.theta())
