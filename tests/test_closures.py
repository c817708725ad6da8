"""What a closure may do, and what is said where it does something else."""

import random
import warnings

import numpy as np
import pytest
import torch

import saddlepoint as sp
from saddlepoint import rules

F64 = torch.float64


def vector(*values):
    return torch.tensor(values, dtype=F64, requires_grad=True)


def one_player(x, rule=None, **options):
    return sp.GameOptimizer({"x": torch.optim.SGD([x], lr=0.1)}, rule, **options)


@pytest.fixture
def own_randomness():
    """Global generators that a closure draws from, put back afterwards."""
    states = np.random.get_state(), random.getstate()  # noqa: NPY002
    with torch.random.fork_rng():
        torch.manual_seed(0), np.random.seed(0), random.seed(0)  # noqa: NPY002
        yield
    np.random.set_state(states[0]), random.setstate(states[1])  # noqa: NPY002


class TestDifferentiatingInside:
    """Gradient penalties and physics-informed losses call autograd.grad in the closure."""

    RULES = (
        rules.Newton(),
        rules.SimultaneousPerturbation(),
        rules.RandomizedSmoothing(samples=2),
        rules.Extragradient(),
        rules.RungeKutta(),
        rules.Consensus(0.1),
        rules.Lookahead(k=2),
    )

    @pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
    def test_with_respect_to_inputs(self, rule):
        x = torch.ones(3, requires_grad=True)

        def losses():
            t = torch.linspace(0, 1, 4, requires_grad=True)
            (s,) = torch.autograd.grad((x.sum() * t**2).sum(), t, create_graph=True)
            return {"x": s.square().sum()}

        before = losses()["x"].item()
        optimizer = one_player(x, rule)
        optimizer.optimizers["x"].param_groups[0]["lr"] = 1e-3
        assert optimizer.step(losses).losses["x"] == pytest.approx(before)
        assert losses()["x"].item() < before

    @pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
    def test_with_respect_to_parameters(self, rule):
        x = vector(1.0, 2.0)

        def losses():
            (g,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
            return {"x": g.square().sum()}

        one_player(x, rule).step(losses)
        assert torch.isfinite(x).all()

    @pytest.mark.usefixtures("own_randomness")
    def test_an_attempt_without_a_graph_leaves_no_trace(self):
        """Random numbers and BatchNorm's statistics are those of one evaluation of each point."""
        drawn = {}

        def train(differentiates):
            torch.manual_seed(3)
            net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)).double()
            optimizer = sp.GameOptimizer(
                {"x": torch.optim.SGD(net.parameters(), lr=0.1)},
                rules.SimultaneousPerturbation(),
                modules=[net],
            )

            def losses():
                x = torch.randn(8, 2, dtype=F64, requires_grad=True)
                y = net(x).square().mean()
                if differentiates:
                    torch.autograd.grad(y, x, create_graph=True)
                return {"x": y}

            for _ in range(3):
                optimizer.step(losses)
            drawn[differentiates] = torch.rand(1).item()
            return net.state_dict()

        one, other = train(True), train(False)
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert drawn[True] == drawn[False]

    def test_a_batched_pass_refuses_it(self):
        net = torch.nn.ParameterList([torch.nn.Parameter(torch.ones(2))])

        def losses():
            (g,) = torch.autograd.grad((net[0] ** 2).sum(), net[0], create_graph=True)
            return {"x": g.square().sum()}

        optimizer = sp.GameOptimizer(
            {"x": torch.optim.SGD(net.parameters(), lr=0.1)},
            rules.SimultaneousPerturbation(batched=True),
            modules=[net],
        )
        with pytest.raises(sp.UsageError, match=r"Use batched=False"):
            optimizer.step(losses)


class TestRandomness:
    SEVERAL = (
        rules.Extragradient(),
        rules.RungeKutta(),
        rules.Newton(),
        rules.SimultaneousPerturbation(),
        rules.PastExtragradient(),
    )

    @pytest.mark.parametrize("rule", SEVERAL, ids=lambda rule: type(rule).__name__)
    @pytest.mark.parametrize("named", [False, True])
    @pytest.mark.usefixtures("own_randomness")
    def test_numpys_and_pythons_are_replayed(self, rule, named):
        """All evaluations of one step see the same draws, those of the next step others."""
        net = torch.nn.Linear(2, 1)
        drawn = []
        optimizer = sp.GameOptimizer(
            {"x": torch.optim.SGD(net.parameters(), lr=0.01)}, rule, modules=[net] if named else []
        )

        def losses():
            z = torch.tensor(np.random.randn(4, 2), dtype=torch.float32)  # noqa: NPY002
            drawn.append((float(z.sum()), random.random(), torch.rand(1).item()))
            return {"x": net(z * drawn[-1][1]).square().mean() + drawn[-1][2]}

        of_steps = []
        for _ in range(3):
            drawn.clear()
            optimizer.step(losses)
            assert len(set(drawn)) == 1
            of_steps.append(drawn[0])
        assert len(set(of_steps)) == 3

    @pytest.mark.parametrize("named", [False, True])
    @pytest.mark.usefixtures("own_randomness")
    def test_an_iterator_is_noticed(self, named):
        net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
        batches = iter(torch.randn(100, 8, 2))
        optimizer = sp.GameOptimizer(
            {"x": torch.optim.SGD(net.parameters(), lr=0.1)},
            rules.Extragradient(),
            modules=[net] if named else [],
        )
        with pytest.warns(
            sp.CurvatureWarning,
            match="evaluates the closure several times a step, and a second evaluation",
        ):
            optimizer.step(lambda: {"x": net(next(batches)).exp().mean()})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            optimizer.step(lambda: {"x": net(next(batches)).exp().mean()})

    @pytest.mark.usefixtures("own_randomness")
    def test_a_generator_that_is_not_named_is_noticed(self):
        x, generator = torch.ones(2, requires_grad=True), np.random.default_rng(0)
        with pytest.warns(sp.CurvatureWarning, match=r"x: [\d.]+, then [\d.]+"):
            one_player(x, rules.Extragradient()).step(
                lambda: {"x": float(generator.random()) * (x**2).sum()}
            )

    def test_a_running_value_kept_as_a_parameter_is_noticed(self):
        class Norm(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.mean = torch.nn.Parameter(torch.zeros(2), requires_grad=False)
                self.weight = torch.nn.Parameter(torch.ones(2))

            def forward(self, x):
                with torch.no_grad():
                    self.mean.mul_(0.9).add_(0.1 * x.mean(0))
                return (x - x.mean(0)) * self.weight

        net, data = Norm(), torch.arange(8.0).reshape(4, 2)
        optimizer = sp.GameOptimizer(
            {"x": torch.optim.SGD([net.weight], lr=0.1)}, rules.Extragradient(), modules=[net]
        )
        with pytest.warns(
            sp.CurvatureWarning, match=r"the frozen parameter mean changes.*register_buffer"
        ):
            optimizer.step(lambda: {"x": net(data).square().mean()})

    def test_a_rule_that_says_that_it_evaluates_once_must(self):
        class Twice(rules.Rule):
            evaluates_again = False

            def direction(self, step):
                step.linearize(1)
                return step.linearize(1).gradient

        x = vector(1.0)
        optimizer = one_player(x, Twice())
        with pytest.raises(RuntimeError, match="Twice declares evaluates_again = False"):
            optimizer.step(lambda: {"x": x.sum()})


class TestGradientsInGrad:
    @pytest.mark.parametrize(
        "rule",
        [
            rules.GradientDescent(),
            rules.Extragradient(),
            rules.Consensus(0.1),
            rules.SimultaneousPerturbation(),
        ],
    )
    def test_what_lies_in_grad_is_not_dropped(self, rule):
        x = vector(1.0, 1.0)
        (5 * x.sum()).backward()
        with pytest.raises(
            sp.UsageError,
            match=r'Parameter 0 of player "x", shape \(2,\), has a gradient in \.grad already',
        ):
            one_player(x, rule).step(lambda: {"x": x.sum()})
        assert x.tolist() == [1.0, 1.0]
        assert x.grad.tolist() == [5.0, 5.0]

    def test_zeros_and_other_players_gradients_are_no_matter(self):
        x, y = vector(1.0), vector(1.0)
        optimizer = sp.GameOptimizer(
            {n: torch.optim.SGD([p], lr=0.1) for n, p in (("x", x), ("y", y))}
        )
        (x * y).sum().backward()
        optimizer.optimizers["x"].zero_grad(set_to_none=False)
        optimizer.step(lambda: {"x": (x * y).sum()})
        assert x.item() == pytest.approx(0.9)
        assert y.grad.item() == 1.0

    def test_zero_grad_and_param_groups_are_there_for_habits_and_loggers(self):
        x, y = vector(1.0), vector(1.0)
        optimizer = sp.GameOptimizer(
            {"x": torch.optim.SGD([x], lr=0.1), "y": torch.optim.SGD([y], lr=0.2)}
        )
        (x * y).sum().backward()
        optimizer.zero_grad()
        optimizer.step(lambda: {"x": (x * y).sum()})
        assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.2]

    def test_backward_inside_the_closure(self):
        x = vector(1.0, 1.0)

        def losses():
            loss = (x**2).sum()
            loss.backward()
            return {"x": loss}

        with pytest.raises(sp.UsageError, match=r"call no backward\(\) inside it"):
            one_player(x).step(losses)

    def test_backward_of_something_else_inside_the_closure(self):
        """The graph that both share is freed, and no parameter of the player has a gradient in
        .grad."""
        x, w = vector(1.0), vector(2.0)

        def losses():
            shared = (x.detach() * w).exp() * x
            torch.autograd.backward(shared.sum(), inputs=[w])
            return {"x": shared.sum()}

        with pytest.raises(
            sp.UsageError,
            match=r"graph of a loss was freed .* Return the losses without calling backward\(\)",
        ):
            one_player(x).step(losses)

    def test_a_loss_kept_from_an_earlier_step(self):
        x = vector(1.0)
        kept = (x**2).sum()
        optimizer = one_player(x)
        optimizer.step(lambda: {"x": kept})
        with pytest.raises(sp.UsageError, match="returned a loss of an earlier call"):
            optimizer.step(lambda: {"x": kept})


class TestGradScaler:
    def test_scaled_losses_are_refused(self):
        x = torch.ones(2, requires_grad=True)
        scaler = torch.amp.GradScaler("cpu")
        with pytest.raises(
            sp.UsageError,
            match=r"large power of two, as torch\.amp\.GradScaler\.scale does.*torch\.bfloat16",
        ):
            one_player(x).step(lambda: {"x": scaler.scale((x**2).sum())})
        assert x.tolist() == [1.0, 1.0]

    def test_its_step_is_refused_by_name(self):
        x = torch.ones(2, requires_grad=True)
        scaler = torch.amp.GradScaler("cpu")
        scaler.scale(x.sum())
        with pytest.raises(
            sp.UsageError, match=r"torch\.amp\.GradScaler cannot step a GameOptimizer"
        ):
            scaler.step(one_player(x), lambda: {"x": x.sum()})

    @pytest.mark.parametrize(
        "factor",
        [65536.0, 3, torch.tensor(2.0), torch.tensor(1000.0), torch.tensor(65536.0, dtype=F64)],
    )
    def test_other_factors_are_no_matter(self, factor):
        x = torch.ones(2, requires_grad=True)
        one_player(x).step(lambda: {"x": factor * (1e-6 * x).sum()})

    def test_a_disabled_scaler_steps(self):
        x = torch.ones(2, requires_grad=True)
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        scaler.step(one_player(x), lambda: {"x": scaler.scale(x.sum())})
        scaler.update()
        assert x.tolist() == pytest.approx([0.9, 0.9])


class Gan:
    def __init__(self):
        g = torch.Generator().manual_seed(0)
        self.G, self.D = (
            sp.models.MLP((2, 3, 2), generator=g).double(),
            sp.models.MLP((2, 3, 1), generator=g).double(),
        )
        self.z = torch.randn(5, 2, generator=g, dtype=F64)

    def losses(self, detached=False):
        fake = self.G(self.z)
        v = torch.nn.functional.softplus(self.D(fake.detach() if detached else fake)).mean()
        return {"discriminator": v, "generator": -torch.nn.functional.softplus(self.D(fake)).mean()}

    def optimizer(self, rule):
        own = {"discriminator": self.D, "generator": self.G}
        return sp.GameOptimizer(
            {n: torch.optim.SGD(net.parameters(), lr=0.01) for n, net in own.items()}, rule
        )


COUPLED = (
    rules.Consensus(0.1),
    rules.SymplecticGradientAdjustment(),
    rules.CompetitiveGradient(),
    rules.AdaptiveCompetitiveGradient(),
    rules.Newton(part="full"),
    rules.ProximalPoint(),
    rules.Hamiltonian(),
    rules.JacobianRegularized(1.0),
    rules.LOLA(0.1),
    rules.StableOpponentShaping(0.1),
    rules.LinearizedCompetitiveGradient(),
    rules.Lookahead(rules.CompetitiveGradient()),
)


class TestLeftoverDetach:
    @pytest.mark.parametrize("rule", COUPLED, ids=lambda rule: type(rule).__name__)
    def test_is_said_once(self, rule):
        gan = Gan()
        optimizer = gan.optimizer(rule)
        with pytest.warns(
            sp.CurvatureWarning,
            match=r'loss of player "discriminator" does not depend .* any other player.*detach\(\)',
        ) as said:
            optimizer.step(lambda: gan.losses(detached=True))
        assert len(said) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error", sp.CurvatureWarning)
            warnings.simplefilter("ignore", sp.SolverWarning)
            optimizer.step(lambda: gan.losses(detached=True))

    @pytest.mark.parametrize("rule", COUPLED, ids=lambda rule: type(rule).__name__)
    def test_nothing_is_said_without_it(self, rule):
        gan = Gan()
        with warnings.catch_warnings():
            warnings.simplefilter("error", sp.CurvatureWarning)
            warnings.simplefilter("ignore", sp.SolverWarning)
            gan.optimizer(rule).step(gan.losses)

    @pytest.mark.parametrize(
        "rule",
        [rules.GradientDescent(), rules.Extragradient(), rules.Newton()],
        ids=lambda rule: type(rule).__name__,
    )
    def test_rules_that_do_not_couple_players_take_it(self, rule):
        gan = Gan()
        gan.optimizer(rule).step(lambda: gan.losses(detached=True))


class TestWithoutGradient:
    @pytest.mark.parametrize(
        "rule", [rules.GradientDescent(), rules.Extragradient(), rules.Optimistic()]
    )
    def test_a_mover_that_its_loss_does_not_reach(self, rule):
        x, y = vector(1.0), vector(1.0)
        optimizer = sp.GameOptimizer(
            {n: torch.optim.SGD([p], lr=0.1) for n, p in (("x", x), ("y", y))}, rule
        )
        with pytest.warns(
            sp.CurvatureWarning,
            match=r'Player "y" does not move: its loss does not depend on its parameters',
        ) as said:
            optimizer.step(lambda: {"x": (x * y).sum(), "y": x.sum()})
        assert len(said) == 1
        assert y.item() == 1.0

    def test_a_player_that_no_loss_reaches(self):
        x, y = vector(1.0), vector(1.0)
        optimizer = sp.GameOptimizer(
            {n: torch.optim.SGD([p], lr=0.1) for n, p in (("x", x), ("y", y))}, rules.Consensus(0.1)
        )
        with pytest.warns(sp.CurvatureWarning) as said:
            optimizer.step(lambda: {"x": (x**2).sum(), "y": x.sum()})
        assert 'Player "y" does not move: no loss depends on its parameters' in str(
            said[-1].message
        ) + str(said[0].message)

    def test_a_leader_that_only_the_follower_feels_is_right(self):
        h, w = vector(3.0), vector(0.0)
        rule = rules.TotalGradient(leader="h", follower="w")
        optimizer = sp.GameOptimizer(
            {n: torch.optim.SGD([p], lr=0.1) for n, p in (("h", h), ("w", w))}, rule
        )
        optimizer.step(lambda: {"h": ((w - 1) ** 2).sum(), "w": ((w - h) ** 2).sum()})
        assert h.item() != 3.0

    def test_a_parameter_frozen_inside_the_closure(self):
        x = vector(1.0)

        def losses():
            loss = (x**2).sum()
            x.requires_grad_(False)
            return {"x": loss}

        with pytest.raises(sp.UsageError, match=r"requires no gradient any more"):
            one_player(x).step(losses)


def test_a_parameter_thawed_inside_the_closure():
    x, y = vector(1.0), vector(1.0).requires_grad_(False)
    optimizer = sp.GameOptimizer({"p": torch.optim.SGD([x, y], lr=0.1)})

    def losses():
        y.requires_grad_(True)
        return {"p": (x * y).sum()}

    with pytest.raises(
        sp.UsageError,
        match=r"requires_grad_\(True\) on a parameter that was frozen when the step began",
    ):
        optimizer.step(losses)
    assert x.item() == 1.0


class Reversal(torch.autograd.Function):
    """A gradient reversal layer."""

    @staticmethod
    def forward(context, x):
        return x.view_as(x)

    @staticmethod
    def backward(context, gradient):
        return -0.5 * gradient


class Straight(torch.autograd.Function):
    """A straight-through estimator."""

    @staticmethod
    def forward(context, x):
        return x.round()

    @staticmethod
    def backward(context, gradient):
        return gradient


class Tanh(torch.autograd.Function):
    """A Function whose backward is the derivative."""

    @staticmethod
    def forward(context, x):
        y = x.tanh()
        context.save_for_backward(y)
        return y

    @staticmethod
    def backward(context, gradient):
        (y,) = context.saved_tensors
        return gradient * (1 - y**2)


class Scaled(torch.autograd.Function):
    """One whose backward forgot a factor of 2."""

    @staticmethod
    def forward(context, x):
        return 2 * x

    @staticmethod
    def backward(context, gradient):
        return gradient


class TestBackwardsThatAreNoDerivatives:
    def network(self, function, dtype):
        g = torch.Generator().manual_seed(0)
        net = sp.models.MLP((3, 8, 4), generator=g).to(dtype)
        head = sp.models.MLP((4, 1), generator=g).to(dtype)
        x = torch.randn(6, 3, generator=g, dtype=dtype)

        def losses():
            features = net(x)
            domain = torch.nn.functional.softplus(head(function.apply(features))).mean()
            return {"features": domain + features.square().mean(), "head": domain}

        return {"features": list(net.parameters()), "head": list(head.parameters())}, losses

    @pytest.mark.parametrize("dtype", [torch.float32, F64])
    @pytest.mark.parametrize("function", [Reversal, Straight, Scaled])
    def test_linearize_says_so(self, function, dtype):
        players, losses = self.network(function, dtype)
        with pytest.raises(
            sp.DoubleBackwardError,
            match=f"contains {function.__name__}, a torch.autograd.Function whose backward is not",
        ):
            sp.linearize(sp.Game(players, losses))

    @pytest.mark.parametrize(
        "rule",
        [
            rules.Consensus(0.1),
            rules.CompetitiveGradient(),
            rules.Newton(),
            rules.SymplecticGradientAdjustment(),
        ],
    )
    def test_curvature_rules_say_so_and_move_nothing(self, rule):
        players, losses = self.network(Reversal, F64)
        before = [p.detach().clone() for own in players.values() for p in own]
        optimizer = sp.GameOptimizer(
            {n: torch.optim.SGD(own, lr=0.1) for n, own in players.items()}, rule
        )
        with pytest.raises(sp.DoubleBackwardError, match="Reversal"):
            optimizer.step(losses)
        assert all(
            torch.equal(p, q)
            for p, q in zip(before, (p for own in players.values() for p in own), strict=True)
        )

    @pytest.mark.parametrize("dtype", [torch.float32, F64])
    def test_a_true_derivative_passes_and_changes_nothing(self, dtype):
        players, losses = self.network(Tanh, dtype)
        linearization = sp.linearize(sp.Game(players, losses))

        class Plain:
            apply = staticmethod(torch.tanh)

        their_players, their_losses = self.network(Plain, dtype)
        due = sp.linearize(sp.Game(their_players, their_losses))
        assert torch.allclose(linearization.jacobian.dense(), due.jacobian.dense(), atol=1e-6)
        ends = []
        for mine, closure in ((players, losses), (their_players, their_losses)):
            optimizer = sp.GameOptimizer(
                {n: torch.optim.SGD(own, lr=0.1) for n, own in mine.items()}, rules.Consensus(0.1)
            )
            optimizer.step(closure)
            ends.append(torch.cat([p.detach().reshape(-1) for own in mine.values() for p in own]))
            assert optimizer.cost.products == 2
        assert torch.allclose(*ends, atol=1e-6)

    def test_first_order_rules_take_a_reversal(self):
        players, losses = self.network(Reversal, F64)
        sp.GameOptimizer(
            {n: torch.optim.SGD(own, lr=0.1) for n, own in players.items()}, rules.Extragradient()
        ).step(losses)


class TestLosses:
    def test_named_terms_are_in_the_record(self):
        x, y = vector(2.0), vector(3.0)
        optimizer = sp.GameOptimizer(
            {n: torch.optim.SGD([p], lr=0.1) for n, p in (("x", x), ("y", y))}, rules.Consensus(0.1)
        )
        optimizer.step(
            lambda: {
                "y": -(x * y).sum(),
                "x": {"adversarial": (x * y).sum(), "penalty": (x**2).sum()},
            }
        )
        assert optimizer.last.terms == {"x": {"adversarial": 6.0, "penalty": 4.0}}
        assert optimizer.last.losses == {"x": 10.0, "y": -6.0}

    def test_a_complex_loss(self):
        x = torch.ones(2, dtype=torch.complex64, requires_grad=True)
        with pytest.raises(
            sp.UsageError, match=r'The loss of player "x" is complex\. A loss must be real'
        ):
            one_player(x).step(lambda: {"x": x.sum()})

    def test_a_sparse_gradient_is_refused_by_name(self):
        table = torch.nn.Embedding(5, 2, sparse=True, _weight=torch.ones(5, 2))
        optimizer = sp.GameOptimizer({"x": torch.optim.SGD(table.parameters(), lr=0.1)})
        with pytest.raises(
            sp.UsageError,
            match=r'Parameter 0 of player "x", shape \(5, 2\), has a sparse gradient.*sparse=False',
        ):
            optimizer.step(lambda: {"x": table(torch.tensor([1, 2])).sum()})


class TestAroundTheStep:
    ALL = (
        rules.GradientDescent(),
        rules.Extragradient(),
        rules.Consensus(0.1),
        rules.CompetitiveGradient(),
        rules.Newton(),
        rules.SimultaneousPerturbation(),
        rules.CompetitiveGradient(preconditioner=rules.KroneckerPreconditioner(max_dimension=2)),
    )

    @pytest.mark.parametrize("rule", ALL, ids=lambda rule: type(rule).__name__)
    def test_no_grad_around_it_does_not_matter(self, rule):
        one, other = Gan(), Gan()
        one.optimizer(rule).step(one.losses)
        with torch.no_grad():
            other.optimizer(rule).step(other.losses)
        pairs = zip(
            (*one.G.parameters(), *one.D.parameters()),
            (*other.G.parameters(), *other.D.parameters()),
            strict=True,
        )
        assert all(torch.equal(p, q) for p, q in pairs)

    def test_inference_mode_is_refused(self):
        gan = Gan()
        optimizer = gan.optimizer(rules.GradientDescent())
        with (
            torch.inference_mode(),
            pytest.raises(sp.UsageError, match=r"torch\.inference_mode\(\)"),
        ):
            optimizer.step(gan.losses)

    @pytest.mark.filterwarnings("ignore::saddlepoint.SolverWarning")
    @pytest.mark.parametrize("rule", ALL, ids=lambda rule: type(rule).__name__)
    @pytest.mark.parametrize("parts", [1, 2])
    def test_autocast_around_it_is_autocast_of_the_losses(self, rule, parts):
        """The rule's own products keep their precision: the step is that with autocast in the
        closure."""
        ends = []
        for around in (True, False):
            g = torch.Generator().manual_seed(0)
            G, D = sp.models.MLP((4, 16, 4), generator=g), sp.models.MLP((4, 16, 1), generator=g)
            z = torch.randn(8, 4, generator=g)

            def losses(G=G, D=D, z=z):
                v = torch.nn.functional.softplus(D(G(z))).mean()
                return {"d": v, "g": -v}

            def inside(losses=losses):
                with torch.autocast("cpu", torch.bfloat16):
                    return losses()

            optimizer = sp.GameOptimizer(
                {n: torch.optim.SGD(net.parameters(), lr=0.1) for n, net in (("d", D), ("g", G))},
                rule,
            )
            for _ in range(2):
                if around:
                    with torch.autocast("cpu", torch.bfloat16):
                        optimizer.step([losses] * parts)
                else:
                    optimizer.step([inside] * parts)
            ends.append(
                torch.cat([p.detach().reshape(-1) for net in (G, D) for p in net.parameters()])
            )
        assert torch.equal(*ends)

    def test_a_parameter_changed_inside_the_closure(self):
        x = vector(2.0)

        def losses():
            loss = (x**2).sum()
            with torch.no_grad():
                x.clamp_(-1, 1)
            return {"x": loss}

        with pytest.raises(sp.UsageError, match=r"Clip, average and update outside of the closure"):
            one_player(x).step(losses)


class TestHooks:
    def test_a_hook_on_a_gradient_acts_as_in_backward_and_is_refused_by_curvature(self):
        x = vector(3.0)
        x.register_hook(lambda gradient: 0.5 * gradient)
        one_player(x).step(lambda: {"x": (x**2).sum()})
        assert x.item() == pytest.approx(3 - 0.1 * 3)
        for rule in (rules.Newton(), rules.Consensus(0.1)):
            with pytest.raises(
                sp.UsageError,
                match=r'Parameter 0 of player "x", .* has a hook on its gradient \(register_hook\)',
            ):
                one_player(x, rule).step(lambda: {"x": (x**2).sum()})

    def test_a_hook_after_accumulation_is_called(self):
        def halve(p):
            p.grad.mul_(0.5)

        x, y = vector(1.0), vector(1.0)
        for p in (x, y):
            p.register_post_accumulate_grad_hook(halve)
        one_player(x).step(lambda: {"x": (3 * x).sum()})
        (3 * y).sum().backward()
        torch.optim.SGD([y], lr=0.1).step()
        assert x.item() == y.item()

    @pytest.mark.parametrize("rule", [rules.Newton(), rules.SimultaneousPerturbation()])
    def test_hooks_and_retained_gradients_in_the_closure(self, rule):
        x = vector(1.0, 2.0)

        def losses():
            h = x * 2
            h.retain_grad()
            h.register_hook(lambda gradient: None)
            return {"x": (h**2).sum()}

        one_player(x, rule).step(losses)
        assert torch.isfinite(x).all()

    def test_extrapolations_write_to_no_gradient_of_the_record(self):
        x = vector(3.0)
        optimizer = one_player(x, rules.Extragradient())

        def halve(inner, *_):
            inner.param_groups[0]["params"][0].grad.mul_(0.5)

        optimizer.optimizers["x"].register_step_pre_hook(halve)
        optimizer.step(lambda: {"x": (x**2).sum()})
        assert optimizer.last.gradient_norms == {"x": 6.0}


class TestCheckpointing:
    def network(self, reentrant):
        g = torch.Generator().manual_seed(0)
        body, head = (
            sp.models.MLP((2, 4), generator=g).double(),
            sp.models.MLP((4, 1), generator=g).double(),
        )
        z = torch.ones(3, 2, dtype=F64, requires_grad=True)
        checkpoint = torch.utils.checkpoint.checkpoint
        loss = lambda: {"x": head(checkpoint(body, z, use_reentrant=reentrant)).square().mean()}  # noqa: E731
        return (
            sp.GameOptimizer(
                {"x": torch.optim.SGD([*body.parameters(), *head.parameters()], lr=0.1)}
            ),
            body,
            loss,
        )

    def test_the_reentrant_kind_is_refused(self):
        optimizer, _, loss = self.network(True)
        with pytest.raises(
            sp.UsageError,
            match=r"torch\.utils\.checkpoint with use_reentrant=True.*use_reentrant=False",
        ):
            optimizer.step(loss)

    def test_the_other_kind_trains(self):
        optimizer, body, loss = self.network(False)
        before = [p.detach().clone() for p in body.parameters()]
        optimizer.step(loss)
        assert any(not torch.equal(p, q) for p, q in zip(before, body.parameters(), strict=True))


class TestWhatComesLate:
    """A rule, or a part of a network, that is first used in a later step is looked at there."""

    def test_a_curvature_rule_between_first_order_steps(self):
        net = torch.nn.utils.parametrizations.weight_norm(
            sp.models.MLP((2, 1), generator=torch.Generator().manual_seed(0)).layers[1]
        ).double()
        x = vector(1.0, 1.0)
        rule = rules.Every(rules.GradientDescent(), k=2, fallback=rules.Consensus(0.1))
        own = {"d": net.parameters(), "x": [x]}
        optimizer = sp.GameOptimizer({n: torch.optim.SGD(p, lr=0.1) for n, p in own.items()}, rule)
        losses = lambda: {"d": -net(x).square().sum(), "x": net(x).square().sum()}  # noqa: E731
        optimizer.step(losses)
        with pytest.raises(sp.DoubleBackwardError, match="weight_norm"):
            optimizer.step(losses)

    def test_an_iterator_under_a_rule_that_evaluates_again_later(self):
        x, generator = vector(1.0), np.random.default_rng(0)
        rule = rules.Every(rules.GradientDescent(), k=2, fallback=rules.Extragradient())
        optimizer = one_player(x, rule)
        losses = lambda: {"x": (x**2).sum() * float(generator.random())}  # noqa: E731
        optimizer.step(losses)
        with pytest.warns(sp.CurvatureWarning, match="evaluates the closure several times"):
            optimizer.step(losses)

    def test_players_with_rules_of_their_own(self):
        x, y, generator = vector(1.0), vector(1.0), np.random.default_rng(0)
        rule = rules.PerPlayer(rules.GradientDescent(), ("x",), rules.Optimistic())
        optimizer = sp.GameOptimizer(
            {n: torch.optim.SGD([p], lr=0.1) for n, p in (("x", x), ("y", y))}, rule
        )
        with pytest.warns(sp.CurvatureWarning, match="evaluates the closure several times"):
            optimizer.step(
                lambda: {
                    n: (p**2).sum() * float(generator.random()) for n, p in (("x", x), ("y", y))
                }
            )

    def test_a_detach_in_a_joint_step_after_turns_of_each(self):
        gan = Gan()
        optimizer = gan.optimizer(rules.Consensus(0.1))
        for player in ("discriminator", "generator"):
            optimizer.step(lambda: gan.losses(detached=True), only=[player])
        with pytest.warns(
            sp.CurvatureWarning, match="does not depend on the parameters of any other player"
        ):
            optimizer.step(lambda: gan.losses(detached=True))

    def test_fresh_samples_are_no_surprise(self):
        x, draws = vector(1.0), iter(range(1, 100))
        optimizer = one_player(x, rules.Extragradient(fresh_samples=True))
        for _ in range(2):
            optimizer.step(lambda: {"x": (x**2).sum() / next(draws)})
        assert next(draws) == 5


class TestMistakes:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (
                lambda x: sp.GameOptimizer(torch.optim.SGD([x], lr=0.1)),
                "needs a mapping player → optimizer, not SGD",
            ),
            (
                lambda x: one_player(x, modules=[x]),
                r"modules= takes networks \(torch\.nn\.Module\), not Tensor",
            ),
            (
                lambda x: one_player(x, generators=[np.random.default_rng(0)]),
                "generators= takes torch.Generator objects, not Generator",
            ),
            (
                lambda x: one_player(x).step({"x": x.sum()}),
                r"step\(\) takes a function that returns player → loss, not dict",
            ),
            (
                lambda x: one_player(x).step([{"x": x.sum()}]),
                "takes a function that returns player → loss, not dict",
            ),
            (
                lambda x: one_player(x).step(None),
                "takes a function that returns player → loss, not NoneType",
            ),
            (
                lambda x: one_player(x).step(lambda: {"x": x.sum()}, only=3),
                "only=3 must be names of players",
            ),
            (
                lambda x: one_player(x).step(lambda: {"x": x.sum()}, only=[]),
                r"only=\[\] names no player",
            ),
            (
                lambda x: one_player(torch.nn.LazyLinear(2).weight),
                "belongs to a lazy layer whose shape is not known yet",
            ),
            (
                lambda x: one_player(x, modules=[torch.nn.LazyBatchNorm1d()]),
                "lazy layers whose shapes are not known yet",
            ),
        ],
    )
    def test_are_sentences(self, make, message):
        with pytest.raises(sp.UsageError, match=message):
            make(vector(1.0))

    def test_one_network_or_a_mapping_of_them_may_be_named(self):
        net = sp.models.MLP((1, 1), generator=torch.Generator().manual_seed(0))
        for modules in (net, {"g": net}):
            one_player(net.layers[1].weight, rules.Extragradient(), modules=modules)

    def test_an_optimizer_that_needs_a_closure(self):
        class Sharp(torch.optim.SGD):
            def step(self, closure):
                closure()

        x = vector(1.0)
        optimizer = sp.GameOptimizer({"x": Sharp([x], lr=0.1)})
        with pytest.raises(sp.UsageError, match='Player "x": Sharp needs a closure for its step'):
            optimizer.step(lambda: {"x": x.sum()})
        assert x.grad is None

    def test_scaled_losses_that_are_added_or_divided(self):
        x = torch.ones(2, requires_grad=True)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for loss in (
            lambda: scaler.scale(x.sum()) + scaler.scale((x**2).sum()),
            lambda: scaler.scale(x.sum()) / 2,
        ):
            with pytest.raises(sp.UsageError, match="GradScaler"):
                one_player(x).step(lambda loss=loss: {"x": loss()})
