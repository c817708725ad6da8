"""Shapes of real training: extra turns under rules that couple the players, and micro-batches."""

import itertools

import pytest
import torch

import saddlepoint as sp
from saddlepoint import rules
from saddlepoint.models import MLP

F64 = torch.float64
COUPLED = {
    "consensus": rules.Consensus(0.1),
    "sga": rules.SymplecticGradientAdjustment(),
    "cgd": rules.CompetitiveGradient(tol=1e-12),
    "hamiltonian": rules.Hamiltonian(),
    "runge-kutta": rules.RungeKutta(),
    "past extragradient": rules.PastExtragradient(),
    "lookahead": rules.Lookahead(rules.CompetitiveGradient(tol=1e-12), k=3),
    "averaged": rules.Averaged(rules.Consensus(0.1)),
}


class Gan:
    """A small GAN whose losses take any part of its data."""

    def __init__(self, normed=False):
        g = torch.Generator().manual_seed(0)
        self.G, self.D = MLP((2, 4, 2), generator=g).double(), MLP((2, 4, 1), generator=g).double()
        self.z, self.real = (torch.randn(12, 2, generator=g, dtype=F64) for _ in range(2))

    def losses(self, part=slice(None), players=("discriminator", "generator")):
        softplus, fake = torch.nn.functional.softplus, self.D(self.G(self.z[part]))
        found = {
            "discriminator": {
                "real": softplus(-self.D(self.real[part])).mean(),
                "fake": softplus(fake).mean(),
            },
            "generator": softplus(-fake).mean(),
        }
        return {player: found[player] for player in players}

    def optimizer(self, rule, lr=0.1, kind=torch.optim.SGD):
        own = {"discriminator": self.D, "generator": self.G}
        return sp.GameOptimizer(
            {n: kind(net.parameters(), lr=lr) for n, net in own.items()},
            rule,
            modules=[self.G, self.D],
        )

    def theta(self, *networks):
        return torch.cat(
            [
                p.detach().reshape(-1)
                for net in networks or (self.D, self.G)
                for p in net.parameters()
            ]
        )


class TestExtraTurns:
    @pytest.mark.parametrize("name", COUPLED)
    @pytest.mark.parametrize("all_losses", [False, True])
    def test_the_named_player_steps_along_its_gradient(self, name, all_losses):
        gan, plain = Gan(), Gan()
        optimizer, by_hand = gan.optimizer(COUPLED[name]), plain.optimizer(rules.GradientDescent())
        players = ("discriminator", "generator") if all_losses else ("discriminator",)
        for _ in range(2):
            values = optimizer.step(lambda: gan.losses(players=players), only=["discriminator"])
            by_hand.step(lambda: plain.losses(players=("discriminator",)))
        assert set(values.losses) == {"discriminator"}
        assert torch.equal(gan.theta(), plain.theta())

    @pytest.mark.parametrize("name", COUPLED)
    def test_then_all_play(self, name):
        """The joint step after extra turns is the rule's own at that point."""
        gan, other = Gan(), Gan()
        optimizer = gan.optimizer(COUPLED[name])
        for _ in range(2):
            optimizer.step(gan.losses, only="discriminator")
        for ours, theirs in zip(
            (*other.G.parameters(), *other.D.parameters()),
            (*gan.G.parameters(), *gan.D.parameters()),
            strict=True,
        ):
            ours.data.copy_(theirs.data)
        optimizer.step(gan.losses)
        if name in ("lookahead", "past extragradient"):  # these remember the extra turns
            return
        other.optimizer(COUPLED[name]).step(other.losses)
        assert torch.allclose(gan.theta(), other.theta(), rtol=1e-9, atol=1e-12)

    def test_without_a_name_a_missing_player_stays_a_mistake(self):
        gan = Gan()
        with pytest.raises(
            sp.UsageError,
            match=r'left out "generator".*optimizer\.step\(closure, only=\["discriminator"\]\)',
        ):
            gan.optimizer(rules.Consensus()).step(lambda: gan.losses(players=("discriminator",)))

    def test_an_unknown_name(self):
        gan = Gan()
        with pytest.raises(sp.UsageError, match=r'no player "critic"'):
            gan.optimizer(rules.Consensus()).step(gan.losses, only=["critic"])

    def test_a_name_whose_loss_is_missing(self):
        gan = Gan()
        with pytest.raises(
            sp.UsageError,
            match='returned the losses of "generator", but "discriminator" should move',
        ):
            gan.optimizer(rules.Consensus()).step(
                lambda: gan.losses(players=("generator",)), only=["discriminator"]
            )

    def test_a_closure_that_returns_no_mapping(self):
        gan = Gan()
        with pytest.raises(
            sp.UsageError, match="must return a mapping of player → loss, not Tensor"
        ):
            gan.optimizer(rules.Consensus()).step(lambda: torch.ones(()), only=["discriminator"])

    def test_rules_with_a_metric_take_the_step_of_it(self):
        """ACGD's extra turn is a step of RMSProp with bias correction."""
        gan, rule = Gan(), rules.AdaptiveCompetitiveGradient()
        before = gan.theta(gan.D)
        gradients = torch.autograd.grad(
            sum(gan.losses()["discriminator"].values()), list(gan.D.parameters())
        )
        g = torch.cat([gradient.reshape(-1) for gradient in gradients])
        gan.optimizer(rule, lr=0.01).step(gan.losses, only=["discriminator"])
        due = 0.01 * g / (g.abs() + rule.epsilon / (1 - rule.beta) ** 0.5)
        assert torch.allclose(before - gan.theta(gan.D), due, rtol=1e-9, atol=1e-15)

    def test_rules_that_do_not_couple_restrict_themselves(self):
        gan, plain = Gan(), Gan()
        gan.optimizer(rules.Extragradient(), kind=torch.optim.Adam).step(
            gan.losses, only=["generator"]
        )
        plain.optimizer(rules.Extragradient(), kind=torch.optim.Adam).step(
            lambda: plain.losses(players=("generator",))
        )
        assert torch.equal(gan.theta(), plain.theta())

    def test_a_period_counts_joint_steps_only(self):
        """Every(consensus, 2): joint, plain, joint, whatever extra turns lie between."""
        gan, plain = Gan(), Gan()
        optimizer = gan.optimizer(rules.Every(rules.Consensus(1.0), k=2))
        due = [plain.optimizer(rules.Consensus(1.0)), plain.optimizer(rules.GradientDescent())]
        for number in range(4):
            optimizer.step(gan.losses, only=["discriminator"])
            due[1].step(lambda: plain.losses(players=("discriminator",)))
            optimizer.step(gan.losses)
            due[number % 2].step(plain.losses)
        assert torch.equal(gan.theta(), plain.theta())

    def test_per_player_rules_of_which_one_extrapolates(self):
        ends = []
        for rule in (
            rules.PerPlayer(rules.Extragradient(), ("discriminator",), rules.Optimistic()),
            rules.Extragradient(),
        ):
            gan = Gan()
            optimizer = gan.optimizer(rule)
            for _ in range(2):
                optimizer.step(gan.losses, only=["discriminator"])
            ends.append(gan.theta())
        assert torch.equal(*ends)
        gan.optimizer(rules.PerPlayer(rules.Extragradient(), ("discriminator",))).step(gan.losses)

    def test_per_player_rules_of_which_one_couples(self):
        x, y, z = (torch.ones(1, dtype=F64, requires_grad=True) for _ in range(3))
        rule = rules.PerPlayer(rules.CompetitiveGradient(tol=1e-12), ("x", "y"))
        optimizer = sp.GameOptimizer(
            {n: torch.optim.SGD([p], lr=0.1) for n, p in (("x", x), ("y", y), ("z", z))}, rule
        )

        def losses():
            return {"x": (x * y).sum(), "y": -(x * y).sum(), "z": (z**2 * x).sum()}

        optimizer.step(losses, only=["x"])
        assert (x.item(), y.item(), z.item()) == (0.9, 1.0, 1.0)
        optimizer.step(losses, only=["x", "y"])
        assert x.item() == pytest.approx(0.9 - (0.1 + 0.01 * 0.9) / 1.01)


ALL_RULES = {
    "gradient": (rules.GradientDescent(), torch.optim.Adam),
    "optimistic": (rules.Optimistic(), torch.optim.SGD),
    "extragradient": (rules.Extragradient(), torch.optim.Adam),
    "past extragradient": (rules.PastExtragradient(), torch.optim.SGD),
    "runge-kutta": (
        rules.RungeKutta(regularization=0.1, regularized="discriminator"),
        torch.optim.SGD,
    ),
    "consensus": (rules.Consensus(0.1), torch.optim.SGD),
    "sga": (rules.SymplecticGradientAdjustment(), torch.optim.SGD),
    "hamiltonian": (rules.Hamiltonian(), torch.optim.SGD),
    "stochastic hamiltonian": (rules.StochasticHamiltonian(), torch.optim.SGD),
    "jare": (rules.JacobianRegularized(0.5), torch.optim.SGD),
    "lola": (rules.LOLA(0.1), torch.optim.SGD),
    "sos": (rules.StableOpponentShaping(0.1), torch.optim.SGD),
    "cgd": (rules.CompetitiveGradient(tol=1e-12), torch.optim.SGD),
    "lcgd": (rules.LinearizedCompetitiveGradient(), torch.optim.SGD),
    "acgd": (rules.AdaptiveCompetitiveGradient(tol=1e-12), torch.optim.SGD),
    "kronecker cgd": (
        rules.CompetitiveGradient(
            preconditioner=rules.KroneckerPreconditioner(max_dimension=2), tol=1e-12, max_iter=200
        ),
        torch.optim.SGD,
    ),
    "proximal": (rules.ProximalPoint(tol=1e-12), torch.optim.SGD),
    "newton": (rules.Newton(tol=1e-12, max_iter=100), torch.optim.SGD),
    "newton, full": (rules.Newton(part="full", tol=1e-12, max_iter=100), torch.optim.SGD),
    "total gradient": (
        rules.TotalGradient(leader="generator", follower="discriminator", damping=1.0),
        torch.optim.SGD,
    ),
    "unrolled": (
        rules.Unrolled(leader="generator", follower="discriminator", unroll=2),
        torch.optim.SGD,
    ),
    "smoothing": (rules.RandomizedSmoothing(samples=2), torch.optim.SGD),
    "spsa": (rules.SimultaneousPerturbation(), torch.optim.SGD),
    "spsa, batched": (rules.SimultaneousPerturbation(batched=True), torch.optim.SGD),
    "lookahead": (rules.Lookahead(k=2), torch.optim.SGD),
    "every": (rules.Every(rules.Consensus(0.1), k=2), torch.optim.SGD),
    "per player": (
        rules.PerPlayer(rules.SimultaneousPerturbation(), ("generator",)),
        torch.optim.SGD,
    ),
}


class TestMicroBatches:
    @pytest.mark.parametrize("name", ALL_RULES)
    def test_a_step_of_several_is_the_step_of_the_whole_batch(self, name):
        rule, kind = ALL_RULES[name]
        whole, cut = Gan(), Gan()
        one, several = (
            whole.optimizer(rule, kind=kind, lr=0.05),
            cut.optimizer(rule, kind=kind, lr=0.05),
        )
        parts = [slice(0, 4), slice(4, 8), slice(8, 12)]
        for _ in range(3):
            values = several.step([lambda part=part: cut.losses(part) for part in parts])
            due = one.step(whole.losses)
            assert values.losses == pytest.approx(due.losses, rel=1e-9)
            assert several.last.terms["discriminator"] == pytest.approx(
                one.last.terms["discriminator"], rel=1e-9
            )
        assert torch.allclose(cut.theta(), whole.theta(), rtol=1e-6, atol=1e-8)

    def test_turns_of_one_player_too(self):
        whole, cut = Gan(), Gan()
        one, several = whole.optimizer(rules.Consensus(0.1)), cut.optimizer(rules.Consensus(0.1))
        for players in itertools.chain([["discriminator"]] * 2, [None]):
            several.step(
                [lambda part=part: cut.losses(part) for part in (slice(0, 6), slice(6, 12))],
                only=players,
            )
            one.step(whole.losses, only=players)
        assert torch.allclose(cut.theta(), whole.theta(), rtol=1e-9, atol=1e-12)

    def test_first_order_rules_hold_one_graph_at_a_time(self):
        """Counted in tensors that autograd saves: two micro-batches need no more than one."""
        alive, most = 0, 0

        class Held:
            def __init__(self, tensor):
                nonlocal alive, most
                self.tensor = tensor
                alive += 1
                most = max(most, alive)

            def __del__(self):
                nonlocal alive
                alive -= 1

        def peak(rule, number):
            nonlocal most
            gan = Gan()
            optimizer = gan.optimizer(rule)
            optimizer.step(gan.losses)  # the first step looks around
            most = 0
            with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
                optimizer.step([lambda: gan.losses(slice(0, 4))] * number)
            return most

        assert peak(rules.GradientDescent(), 4) == peak(rules.GradientDescent(), 1)
        assert peak(rules.Extragradient(), 4) == peak(rules.Extragradient(), 1)
        assert peak(rules.Consensus(0.1), 4) > peak(rules.Consensus(0.1), 1)

    def test_random_numbers_are_each_micro_batches_own_and_replayed(self):
        x, drawn = torch.ones(1, dtype=F64, requires_grad=True), []

        def losses():
            drawn.append(torch.rand(1).item())
            return {"x": (x**2).sum() * drawn[-1]}

        with torch.random.fork_rng():
            torch.manual_seed(0)
            optimizer = sp.GameOptimizer({"x": torch.optim.SGD([x], lr=0.1)}, rules.Extragradient())
            for _ in range(2):
                drawn.clear()
                optimizer.step([losses, losses])
                assert len(set(drawn)) == 2
                assert drawn[:2] == drawn[-2:]

    def test_none_and_different_ones_are_refused(self):
        gan = Gan()
        optimizer = gan.optimizer(rules.GradientDescent())
        with pytest.raises(sp.UsageError, match=r"step\(\[\]\): there is no closure"):
            optimizer.step([])
        for rule in (rules.GradientDescent(), rules.Consensus(0.1)):
            with pytest.raises(
                sp.UsageError,
                match=(
                    "Micro-batches 1 and 2 of this step have different losses for player"
                    ' "generator"'
                ),
            ):
                Gan().optimizer(rule).step(
                    [gan.losses, lambda: gan.losses(players=("discriminator",))]
                )

    def test_a_loss_that_is_not_finite_changes_nothing(self):
        gan = Gan()
        before = gan.theta()

        def losses(divisor):
            return {
                "discriminator": gan.losses()["discriminator"]["fake"] / divisor,
                "generator": gan.losses()["generator"],
            }

        with pytest.raises(sp.DivergenceError, match='loss of player "discriminator" is inf'):
            gan.optimizer(rules.GradientDescent()).step([lambda: losses(1), lambda: losses(0)])
        assert torch.equal(gan.theta(), before)
