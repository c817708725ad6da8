import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import saddlepoint as sp
from saddlepoint.diagnostics.rotation import PathAngle, cosine, path_angle, rotation
from saddlepoint.games.analytic import (
    bilinear,
    bilinear_matrix,
    bowl,
    cournot,
    quadratic,
    with_spectrum,
    zero_sum,
)
from saddlepoint.models import MLP
from saddlepoint.vectors import Vector


def of(game):
    return rotation(game.players, game.losses)


def random_game(seed, turn=None):
    """A quadratic game of two and three parameters; ``turn`` changes the coordinates of each player
    by an orthogonal matrix."""
    draws = torch.Generator().manual_seed(seed)
    A, B = (torch.randn(5, 5, generator=draws, dtype=torch.float64) for _ in range(2))
    start = torch.randn(5, generator=draws, dtype=torch.float64)
    Q = torch.eye(5, dtype=torch.float64) if turn is None else turn
    sym = [Q @ (M + M.T) @ Q.T for M in (A, B)]
    sym = [(M + M.T) / 2 for M in sym]
    return quadratic({"x": 2, "y": 3}, dict(zip("xy", sym, strict=True)), Q @ start, "not minimax")


def orthogonal(seed):
    draws = torch.Generator().manual_seed(seed)
    blocks = [
        torch.linalg.qr(torch.randn(n, n, generator=draws, dtype=torch.float64))[0] for n in (2, 3)
    ]
    return torch.block_diag(*blocks)


class TestRotation:
    def test_bilinear_games_only_turn(self):
        for game in (
            bilinear(3.0),
            bilinear_matrix([1.0, 2.0, 0.1], torch.Generator().manual_seed(0)),
        ):
            found = of(game)
            assert found.antisymmetric == pytest.approx(1.0, abs=1e-12)
            assert found.cosine == pytest.approx(0.0, abs=1e-12)

    def test_games_of_common_interest_do_not_turn(self):
        assert of(bowl()).antisymmetric == 0.0
        assert of(cournot(3)).antisymmetric == pytest.approx(0.0, abs=1e-24)  # J = I + 11ᵀ

    @pytest.mark.parametrize(("a", "b"), [(1.0, 2.0), (3.0, 0.5), (-1.0, 1.0)])
    def test_spirals(self, a, b):
        """J = aI + bR: ‖Sξ‖ = |a|‖ξ‖ and ‖Aξ‖ = |b|‖ξ‖ for every ξ."""
        found = of(with_spectrum([complex(a, b)]))
        assert found.antisymmetric == pytest.approx(b * b / (a * a + b * b))
        assert found.cosine == pytest.approx(a / math.hypot(a, b))

    def test_each_player(self):
        """f = −3x² + 4xy − y² at (1, 0): ξ = (−6, −4), Jξ = (36 − 16, 24 − 8)."""
        found = of(zero_sum(-6.0, 4.0, -2.0, start=(1.0, 0.0)))
        assert found.players == {"x": pytest.approx(-1.0), "y": pytest.approx(-1.0)}
        assert found.gradient_norm == pytest.approx(math.hypot(6, 4))

    def test_against_dense_matrices(self, tiny_gan):
        gan = tiny_gan(zero_sum=False)
        xi, J = gan.dense()
        S, A = (J + J.T) / 2, (J - J.T) / 2
        found = rotation({"discriminator": gan.D, "generator": gan.G}, gan.losses)
        turning, straight = float((A @ xi).square().sum()), float((S @ xi).square().sum())
        assert found.antisymmetric == pytest.approx(turning / (turning + straight))
        assert found.cosine == pytest.approx(float(xi @ J @ xi / (xi.norm() * (J @ xi).norm())))

    def test_at_a_stationary_point_there_is_nothing_to_say(self):
        found = of(bilinear(start=(0.0, 0.0)))
        assert math.isnan(found.antisymmetric)
        assert math.isnan(found.cosine)
        assert math.isnan(found.players["x"])

    @given(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0.01, 100))
    def test_a_share_that_neither_scale_nor_coordinates_change(self, seed, turn, scale):
        game = random_game(seed)
        found = of(game).antisymmetric
        assert 0 <= found <= 1
        scaled = rotation(
            game.players, lambda: {player: scale * loss for player, loss in game.losses().items()}
        )
        assert scaled.antisymmetric == pytest.approx(found, abs=1e-9)
        assert of(random_game(seed, orthogonal(turn))).antisymmetric == pytest.approx(
            found, abs=1e-9
        )


class TestCosine:
    def test_by_hand_as_mappings_and_vectors(self):
        a = {"x": [torch.tensor([3.0, 0.0])], "y": [torch.tensor([[1.0]]), torch.tensor(0.0)]}
        b = {"y": [torch.tensor([[-2.0]]), torch.tensor(0.0)], "x": [torch.tensor([0.0, 1.0])]}
        for found in (cosine(a, b), cosine(Vector(a), Vector(b))):
            assert found.players == {"x": 0.0, "y": -1.0}
            assert found.joint == pytest.approx(-2 / math.sqrt(10 * 5))

    def test_a_quarter_turn_and_nothing(self):
        zero = {"x": [torch.zeros(2)]}
        assert math.isnan(cosine(zero, zero).joint)
        v = {"x": [torch.tensor([1.0, 1e-3])]}
        assert cosine(v, v).joint == pytest.approx(1.0, abs=1e-15)

    def test_mistakes(self):
        a = {"x": [torch.zeros(2)]}
        with pytest.raises(sp.UsageError, match=r"have the players \['x'\] and \['y'\]"):
            cosine(a, {"y": [torch.zeros(2)]})
        with pytest.raises(
            sp.UsageError, match=r'player "x" have the shapes \[\(2,\)\] and \[\(3,\)\]'
        ):
            cosine(a, {"x": [torch.zeros(3)]})


def spiral(a, b, p, **options):
    """The path angle of J = aI + bR along x from 1 to 0, at the distance p beside the centre."""
    game = with_spectrum([complex(a, b)])
    ends = [{"x": [torch.tensor([x])], "y": [torch.tensor([p])]} for x in (1.0, 0.0)]
    return path_angle(game.players, game.losses, *ends, **options)


class TestPathAngle:
    @pytest.mark.parametrize(
        ("a", "b", "p"),
        [(1.0, 0.0, 0.0), (1.0, 2.0, 0.05), (0.0, 1.0, 0.1), (-1.0, 0.5, 0.2), (1.0, -1.0, 0.1)],
    )
    def test_closed_form(self, a, b, p):
        """θ(α) = (−s, p) with s = α − 1 and ξ = (ax + by, ay − bx); the way is (−1, 0), so ⟨way, ξ⟩
        = a s − b p."""
        found = spiral(a, b, p)
        p = float(torch.tensor(p))  # as the parameters have it, in single precision
        for alpha, c, norm in zip(found.alphas, found.cosines, found.norms, strict=True):
            s = alpha - 1
            size = math.hypot(a, b) * math.hypot(s, p)
            assert norm == pytest.approx(size, abs=1e-12)
            if size > 1e-12:
                assert c == pytest.approx((a * s - b * p) / size, abs=1e-7)
            else:
                assert math.isnan(c)

    @pytest.mark.parametrize(
        ("a", "b", "p", "summary"),
        [
            (1.0, 0.0, 0.0, "attraction (switch +1.00, bump +0.00)"),
            (-1.0, 0.0, 0.0, "repulsion (switch -1.00, bump +0.00)"),
            (0.0, 1.0, 0.05, "rotation (switch +0.00, bump -0.90)"),
            (1.0, -1.0, 0.05, "attraction and rotation (switch +0.70, bump +0.64)"),
            (0.0, 1.0, 0.0, "neither (switch +0.00, bump +0.00)"),  # exactly around the end
        ],
    )
    def test_summaries(self, a, b, p, summary):
        found = spiral(a, b, p)
        assert found.summary == summary
        r, reach = math.hypot(a, b), 0.5
        assert found.switch == pytest.approx(a / r * reach / math.hypot(reach, p), abs=1e-6)
        if p:
            assert found.bump == pytest.approx(-b / r * (1 - p / math.hypot(reach, p)), abs=1e-6)

    def test_a_field_that_vanishes_everywhere(self):
        x = torch.ones(1, requires_grad=True)
        found = path_angle(
            {"x": [x]},
            lambda: {"x": 0 * x.sum()},
            {"x": [torch.zeros(1)]},
            {"x": [torch.ones(1)]},
            points=5,
        )
        assert found.summary == "neither (switch +nan, bump +nan)"

    def test_options(self):
        found = spiral(1.0, 1.0, 0.1, points=9, span=(0.0, 3.0))
        assert found.alphas[0] == 0.0
        assert found.alphas[-1] == 3.0
        assert len(found.alphas) == len(found.cosines) == len(found.norms) == 9
        assert found.distance == 1.0
        assert isinstance(found, PathAngle)


class TestThePathLeavesNothingBehind:
    @pytest.fixture
    def networks(self):
        return {
            "discriminator": nn.Sequential(
                MLP((2, 8, 1), generator=torch.Generator().manual_seed(0)), nn.Dropout(0.5)
            ),
            "generator": nn.Sequential(
                MLP((4, 8, 2), generator=torch.Generator().manual_seed(1)), nn.BatchNorm1d(2)
            ),
        }

    @staticmethod
    def other(networks):
        """Parameters and buffers elsewhere, as state dicts."""
        return {
            player: {name: t + 1 for name, t in network.state_dict().items()}
            for player, network in networks.items()
        }

    @staticmethod
    def losses(networks):
        f = networks["discriminator"](networks["generator"](torch.randn(16, 4))).square().mean()
        return {"discriminator": f, "generator": -f}

    @staticmethod
    def snapshot(networks):
        return {
            player: {name: t.clone() for name, t in network.state_dict().items()}
            for player, network in networks.items()
        }

    def assert_same(self, networks, before):
        for player, network in networks.items():
            assert all(
                torch.equal(t, before[player][name]) for name, t in network.state_dict().items()
            )
            assert all(p.grad is None for p in network.parameters())

    def test_parameters_buffers_and_random_state(self, networks):
        before = self.snapshot(networks)
        with torch.random.fork_rng():
            state = torch.get_rng_state()
            first, second = (
                path_angle(
                    networks, lambda: self.losses(networks), before, self.other(networks), points=5
                )
                for _ in range(2)
            )
            found = rotation(networks, lambda: self.losses(networks))
            assert found == rotation(networks, lambda: self.losses(networks))
            assert torch.equal(torch.get_rng_state(), state)
        assert first == second
        self.assert_same(networks, before)

    def test_state_dicts_and_tensors_are_the_same(self, networks):
        start, end = self.snapshot(networks), self.other(networks)
        tensors = [
            {
                player: [given[player][name] for name, _ in network.named_parameters()]
                for player, network in networks.items()
            }
            for given in (start, end)
        ]
        with torch.random.fork_rng():
            a = path_angle(networks, lambda: self.losses(networks), start, end, points=5)
            b = path_angle(networks, lambda: self.losses(networks), *tensors, points=5)
        assert a == b

    def test_also_when_it_fails_on_the_way(self, networks):
        before, calls = self.snapshot(networks), []

        def failing():
            calls.append(1)
            if len(calls) == 3:
                raise RuntimeError("no more data")
            return self.losses(networks)

        with torch.random.fork_rng(), pytest.raises(RuntimeError, match="no more data"):
            path_angle(networks, failing, before, self.other(networks), points=5)
        assert len(calls) == 3
        self.assert_same(networks, before)


class TestMistakes:
    def test_points_that_do_not_fit(self):
        game, module = bowl(), MLP((2, 1), generator=torch.Generator().manual_seed(0))
        here, there = {"x": [torch.zeros(2)]}, {"x": [torch.ones(2)]}

        def path(start, end, players=game.players, closure=game.losses, **options):
            return path_angle(players, closure, start, end, **options)

        with pytest.raises(sp.UsageError, match="start and end are the same point"):
            path(here, here)
        with pytest.raises(
            sp.UsageError, match=r"at least 5 points and a span that contains 1, not 4"
        ):
            path(here, there, points=4)
        with pytest.raises(sp.UsageError, match=r"not 41 and \(0.0, 1.0\)"):
            path(here, there, span=(0.0, 1.0))
        with pytest.raises(
            sp.UsageError, match=r"end has the players \['y'\], the game has \['x'\]"
        ):
            path(here, {"y": [torch.ones(2)]})
        with pytest.raises(
            sp.UsageError,
            match=r'start of player "x" has the shapes \[\(3,\)\], its parameters have \[\(2,\)\]',
        ):
            path({"x": [torch.zeros(3)]}, there)
        with pytest.raises(
            sp.UsageError, match="a mapping of names, but the player is given as tensors"
        ):
            path({"x": {"weight": torch.zeros(2)}}, there)
        state = module.state_dict()
        weight, bias = state
        with pytest.raises(
            sp.UsageError, match=f'end of player "x" has no "{bias}". Did you mean "{bias}s"'
        ):
            path(
                {"x": state}, {"x": {weight: state[weight], f"{bias}s": state[bias]}}, {"x": module}
            )

    def test_a_closure_that_leaves_out_a_player(self):
        game = bilinear()
        with pytest.raises(
            sp.UsageError, match='rotation: the closure left out the loss of player "y"'
        ):
            rotation(game.players, lambda: {"x": game.losses()["x"]})
        ends = [{"x": [torch.tensor([value])], "y": [torch.zeros(1)]} for value in (0.0, 1.0)]
        with pytest.raises(
            sp.UsageError, match='path_angle: the closure left out the loss of player "y"'
        ):
            path_angle(game.players, lambda: {"x": game.losses()["x"]}, *ends)

    def test_what_is_not_finite(self):
        x = torch.zeros(1, requires_grad=True)
        with pytest.raises(
            sp.DivergenceError, match=r'rotation: ξ is not finite in the part of player "x"'
        ):
            rotation({"x": [x]}, lambda: {"x": x.abs().sqrt().sum()})
        with pytest.raises(
            sp.DivergenceError,
            match='path_angle: at α = 1 ξ is not finite in the part of player "x"',
        ):
            path_angle(
                {"x": [x]},
                lambda: {"x": x.abs().sqrt().sum()},
                {"x": [torch.ones(1)]},
                {"x": [torch.zeros(1)]},
            )
        assert x.item() == 0

    def test_an_operation_without_a_second_derivative(self):
        with torch.random.fork_rng():
            layer = nn.utils.parametrizations.weight_norm(nn.Linear(2, 1))
        with pytest.raises(sp.DoubleBackwardError, match="weight_norm"):
            rotation({"x": layer}, lambda: {"x": layer(torch.ones(1, 2)).square().sum()})
