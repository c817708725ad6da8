import json
import math

import numpy as np
import pytest
import torch
from torch import nn

import saddlepoint as sp
from saddlepoint.diagnostics.spectrum import GameSpectrum, game_spectrum
from saddlepoint.games.analytic import (
    bilinear,
    bowl,
    quadratic,
    three_players,
    with_spectrum,
    zero_sum,
)
from saddlepoint.games.dirac import dirac_gan
from saddlepoint.models import MLP


def of(game, **options):
    return game_spectrum(game.players, game.losses, **options)


def at(game, *theta):
    """The game with its parameters at θ."""
    with torch.no_grad():
        for p, value in zip(
            (p for tensors in game.players.values() for p in tensors), theta, strict=True
        ):
            p.fill_(value)
    return game


class Gan:
    """A smooth GAN in float64, 57 parameters against 47; ``convex`` is a weight decay of the
    discriminator."""

    def __init__(self, zero_sum=True, convex=0.0):
        draws = torch.Generator().manual_seed(0)
        self.networks = {
            "discriminator": MLP((2, 14, 1), activation="tanh", generator=draws).double(),
            "generator": MLP((2, 9, 2), activation="tanh", generator=draws).double(),
        }
        self.z, self.real = (
            torch.randn(20, 2, generator=draws, dtype=torch.float64) for _ in range(2)
        )
        self.zero_sum, self.convex = zero_sum, convex

    def losses(self):
        softplus, D = torch.nn.functional.softplus, self.networks["discriminator"]
        fake = D(self.networks["generator"](self.z))
        f = softplus(-D(self.real)).mean() + softplus(fake).mean()
        decay = self.convex * sum((p**2).sum() for p in D.parameters())
        return {
            "discriminator": f + decay,
            "generator": -f if self.zero_sum else softplus(-fake).mean(),
        }

    def dense(self):
        return sp.linearize(sp.Game(self.networks, self.losses)).jacobian.dense()


class TestClosedForms:
    def test_a_minimax_point_that_is_no_nash_point(self):
        """f = −3x² − y² + 4xy: x is at a maximum, J has the double eigenvalue −2, yet (0, 0) is
        local minimax: −6 + 4·4/2 = 2."""
        found = of(at(zero_sum(-6.0, 4.0, -2.0), 0.0, 0.0), leader="x")
        assert found.classes == ("unstable", "local minimax", "no minimum of x's loss")
        assert found.own == {"x": (-6.0,), "y": (2.0,)}
        assert found.schur == pytest.approx([2.0])
        assert found.leading == pytest.approx([-2.0, -2.0], abs=1e-6)
        assert (found.gradient_norm, found.zero_sum, found.converged, found.schur_reason) == (
            0.0,
            True,
            True,
            None,
        )

    def test_a_stable_point_that_no_leader_can_want(self):
        """f = 3x² + y² + 4xy: the double eigenvalue is 2, but y is at a minimum of what it
        maximises."""
        found = of(zero_sum(6.0, 4.0, 2.0), leader="x")
        assert found.classes == ("stable", "no minimum of y's loss")
        assert found.schur is None
        assert (
            "the follower y's own loss is not known to be positive definite: its smallest"
            " eigenvalue is -2" in found.schur_reason
        )

    @pytest.mark.parametrize("s", [0.5, 3.0])
    def test_bilinear(self, s):
        found = of(bilinear(s), leader="x")
        assert sorted(found.jacobian, key=lambda v: v.imag) == pytest.approx([-1j * s, 1j * s])
        assert found.classes == ("rotating",)
        assert found.rotation_ratio == math.inf
        assert found.own == {"x": (0.0,), "y": (0.0,)}

    @pytest.mark.parametrize(("gamma", "turns"), [(0.0, True), (0.3, True), (2.0, False)])
    def test_dirac_gan_with_gradient_penalty(self, gamma, turns):
        """λ = γ/2 ± √(γ²/4 − f′(0)²), of J; the paper's signs are those of −J."""
        found = of(at(dirac_gan(r1=gamma), 0.0, 0.0))
        root = np.emath.sqrt(gamma**2 / 4 - 0.25)
        expected = [gamma / 2 + root, gamma / 2 - root]
        assert sorted(found.jacobian, key=lambda v: (v.imag, v.real)) == pytest.approx(
            sorted(expected, key=lambda v: (v.imag, v.real))
        )
        assert ("rotating" in found.classes) is turns
        assert ("stable" in found.classes) is (gamma > 0)
        assert "local minimax" in found.classes or gamma == 0  # the Schur complement is f′(0)²/γ
        assert found.schur == (pytest.approx([0.25 / gamma]) if gamma else None)

    def test_the_ratio_of_rotation(self):
        found = of(with_spectrum([1 + 2j, 0.5 + 3j, 4.0]), leader="x")
        assert found.rotation_ratio == pytest.approx(6.0)
        assert found.classes == ("stable", "rotating", "local Nash", "local minimax")

    def test_what_vanishes_does_not_decide(self):
        found = of(with_spectrum([1.0, 1e-9 + 1e-7j]), leader="x")
        assert found.rotation_ratio == 0.0
        assert found.classes == ("degenerate",)

    def test_one_and_three_players(self):
        found = of(bowl())
        assert found.classes == ("stable", "local Nash")
        assert found.own == {"x": (1.0, 4.0)}
        found = of(three_players())
        assert found.classes == ("stable", "local Nash")
        assert found.rotation_ratio == pytest.approx(math.sqrt(3) / 2)  # 1, 1 ± i √3/2
        assert found.schur is None
        assert (
            "a leader and one follower are needed; the players are ['x', 'y', 'z']"
            in found.schur_reason
        )

    def test_saddles_of_an_own_loss(self):
        A = torch.diag(torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64))
        B = torch.diag(torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
        found = of(quadratic({"x": 2, "y": 1}, {"x": A, "y": B}, torch.zeros(3), "not minimax"))
        assert found.classes == ("unstable", "saddle of x's loss")

    @pytest.mark.parametrize(
        ("own", "schur", "classes"),
        [(1.0, -1.0, ("unstable", "local Nash")), (3.0, 1.0, ("stable", "local Nash"))],
    )
    def test_general_sum_is_no_minimax_point_but_has_a_schur_complement(self, own, schur, classes):
        """f_x = a x²/2 + xy, f_y = y²/2 + 2xy: S = a − 1·2, whose sign says nothing of a minimum
        over x of a maximum over y."""
        A = torch.tensor([[own, 1.0], [1.0, 0.0]], dtype=torch.float64)
        B = torch.tensor([[0.0, 2.0], [2.0, 1.0]], dtype=torch.float64)
        found = of(
            quadratic({"x": 1, "y": 1}, {"x": A, "y": B}, torch.ones(2), "not minimax"), leader="x"
        )
        assert found.schur == pytest.approx([schur])
        assert not found.zero_sum
        assert found.classes == classes


class TestAgainstDenseMatrices:
    @pytest.mark.parametrize("zero_sum", [True, False])
    def test_a_network_game(self, zero_sum):
        gan = Gan(zero_sum, convex=1.0)
        found = game_spectrum(gan.networks, gan.losses, count=6, max_iter=5000, solve_max_iter=1000)
        J = gan.dense()
        D, G = slice(0, 57), slice(57, None)
        assert found.converged
        assert found.zero_sum is zero_sum
        values = torch.linalg.eigvals(J).numpy()
        leading = values[np.argsort(-abs(values))][: len(found.leading)]
        np.testing.assert_allclose(
            sorted(abs(np.array(found.leading))), sorted(abs(leading)), atol=1e-8
        )
        smallest = np.sort(values.real)[: len(found.smallest)]
        np.testing.assert_allclose(np.sort(np.real(found.smallest)), smallest, atol=1e-8)
        for player, part in {"discriminator": D, "generator": G}.items():
            own = torch.linalg.eigvalsh(J[part, part]).numpy()
            np.testing.assert_allclose(found.own[player], [*own[:3], *own[-3:]], atol=1e-8)
        schur = torch.linalg.eigvals(
            J[G, G] - J[G, D] @ torch.linalg.solve(J[D, D], J[D, G])
        ).numpy()
        np.testing.assert_allclose(
            np.real(found.schur), np.sort(schur.real)[: len(found.schur)], atol=1e-8
        )

    def test_classes_of_a_network_game(self):
        gan = Gan()
        found = game_spectrum(gan.networks, gan.losses, count=6, max_iter=5000)
        own = torch.linalg.eigvalsh(gan.dense()[:57, :57])
        assert ("saddle of discriminator's loss" in found.classes) is bool(
            own[0] < -1e-5 * own.abs().max()
        )
        assert "local Nash" not in found.classes

    def test_the_union_has_nothing_twice(self):
        gan = Gan()
        found = game_spectrum(gan.networks, gan.losses, count=30, max_iter=9000)
        values = np.array(found.jacobian)
        apart = abs(values[:, None] - values[None]) + np.eye(len(values))
        assert apart.min() > 1e-9
        assert set(found.leading) <= set(found.jacobian)


class TestSearchesThatFail:
    def test_a_search_that_stops_early_gives_no_class(self):
        gan = Gan(convex=0.3)
        found = game_spectrum(gan.networks, gan.losses, count=6, max_iter=90)
        assert not found.converged
        assert not {"stable", "local Nash", "local minimax"} & set(found.classes)
        assert found.products <= 2 * 2 * (90 + 12) + 2 * (90 + 6) + 4

    def test_a_solve_that_stops(self):
        gan = Gan(convex=0.3)
        found = game_spectrum(gan.networks, gan.losses, count=6, max_iter=5000, solve_max_iter=2)
        assert found.schur is None
        assert 'ended as "max_iter" after 2 products' in found.schur_reason


def test_nothing_changes_by_it():
    with torch.random.fork_rng():
        bounded = nn.utils.parametrizations.spectral_norm(nn.Linear(2, 8))
    networks = {
        "discriminator": nn.Sequential(
            bounded,
            nn.Tanh(),
            MLP((8, 1), generator=torch.Generator().manual_seed(0)),
            nn.Dropout(0.5),
        ),
        "generator": nn.Sequential(
            MLP((4, 8, 2), generator=torch.Generator().manual_seed(1)), nn.BatchNorm1d(2)
        ),
    }
    before = {
        player: {name: t.clone() for name, t in network.state_dict().items()}
        for player, network in networks.items()
    }

    def losses():
        f = networks["discriminator"](networks["generator"](torch.randn(16, 4))).square().mean()
        return {"discriminator": f, "generator": -f}

    with torch.random.fork_rng():
        state = torch.get_rng_state()
        first, second = (game_spectrum(networks, losses, count=2) for _ in range(2))
        assert torch.equal(torch.get_rng_state(), state)
    assert first == second
    for player, network in networks.items():
        assert all(torch.equal(t, before[player][name]) for name, t in network.state_dict().items())
        assert all(p.grad is None for p in network.parameters())


def test_as_a_dictionary():
    found = of(zero_sum(-6.0, 4.0, -2.0, start=(0.0, 1.0)), leader="x")
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["schur"] == [[pytest.approx(2.0), 0.0]]
    assert plain["own"] == {"x": [-6.0], "y": [2.0]}
    assert plain["classes"] == ["unstable", "local minimax", "no minimum of x's loss"]
    assert set(plain) == set(GameSpectrum.__dataclass_fields__)
    assert plain["gradient_norm"] == pytest.approx(math.hypot(4, 2))


class TestMistakes:
    def test_options(self):
        game = bilinear()
        with pytest.raises(
            sp.UsageError, match=r'the leader "generater" is no player of this game\. Did you mean'
        ):
            of(dirac_gan(), leader="generater")
        with pytest.raises(sp.UsageError, match="count must be at least 2"):
            of(game, count=1)
        with pytest.raises(sp.UsageError, match=r"must be in \[0, 1\), not 1"):
            of(game, zero=1.0)
        with pytest.raises(
            sp.UsageError, match='game_spectrum: the closure left out the loss of player "y"'
        ):
            game_spectrum(game.players, lambda: {"x": game.losses()["x"]})

    def test_an_operation_without_a_second_derivative(self):
        with torch.random.fork_rng():
            layer = nn.utils.parametrizations.weight_norm(nn.Linear(2, 1))
        with pytest.raises(sp.DoubleBackwardError, match="weight_norm"):
            game_spectrum({"x": layer}, lambda: {"x": layer(torch.ones(1, 2)).square().sum()})
