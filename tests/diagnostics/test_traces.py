import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn

from saddlepoint.diagnostics import (
    Projection,
    Trace,
    accuracy,
    mean_pairwise_distance,
    membership_auc,
)
from saddlepoint.models import MLP


def network(seed=0, sizes=(2, 3, 1)):
    return MLP(sizes, generator=torch.Generator().manual_seed(seed)).double()


def move(net, tensors, factor=1.0):
    with torch.no_grad():
        for p, t in zip(net.parameters(), tensors, strict=True):
            p += factor * t


def normal(net, seed):
    draws = torch.Generator().manual_seed(seed)
    return [torch.randn(p.shape, generator=draws, dtype=torch.float64) for p in net.parameters()]


def direction(net, seed):
    """r, entry by entry, from what the projection says of unit steps at θ = 0."""
    net, found = network(), []
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
        projection = Projection(net, seed=seed)
        for p in net.parameters():
            flat = p.view(-1)
            for i in range(len(flat)):
                flat[i] = 1.0
                found.append(projection.value())
                flat[i] = 0.0
    return torch.tensor(found, dtype=torch.float64)


class TestProjection:
    @pytest.mark.parametrize("factor", [1.0, -3.0, 1e-6])
    def test_it_moves_by_the_inner_product(self, factor):
        net = network()
        r, step = direction(net, 0), normal(net, 1)
        projection = Projection(net, seed=0)
        before = projection.value()
        move(net, step, factor)
        expected = factor * float(r @ torch.cat([t.reshape(-1) for t in step]))
        assert projection.value() - before == pytest.approx(expected, rel=1e-6)

    def test_the_direction_has_about_unit_length(self):
        """‖r‖² is a mean of n squares of normal numbers, 1 ± 3√(2/n)."""
        assert float(direction(network(), 0).square().sum()) == pytest.approx(
            1.0, abs=3 * math.sqrt(2 / 13)
        )

    def test_the_seed_fixes_it(self):
        net = network()
        values = [Projection(net, seed=seed).value() for seed in (0, 0, 1, 2)]
        assert values[0] == values[1]
        assert len(set(values)) == 3

    def test_it_follows_an_optimizer_a_loaded_state_and_new_memory(self):
        net, other = network(), network(1)
        projection = Projection(net, seed=0)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
        seen = [projection.value()]
        for p in net.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()
        seen.append(projection.value())
        assert seen[-1] == Projection(net, seed=0).value() != seen[0]
        net.load_state_dict(other.state_dict())
        assert projection.value() == Projection(other, seed=0).value() != seen[-1]
        for p in net.parameters():
            p.data = 2 * p.data  # as Module.to does
        assert projection.value() == pytest.approx(2 * Projection(other, seed=0).value())

    def test_it_follows_parameters_that_are_not_contiguous(self):
        net = (
            nn.Conv2d(3, 4, 3, device="meta")
            .to_empty(device="cpu")
            .to(memory_format=torch.channels_last)
        )
        for p in net.parameters():
            nn.init.ones_(p)
        assert not net.weight.is_contiguous()
        projection = Projection(net, seed=0)
        before = projection.value()
        with torch.no_grad():
            net.weight *= 2
            net.bias *= 2
        assert projection.value() == pytest.approx(2 * before)

    def test_frozen_parameters_take_no_part(self):
        net = network()
        net.layers[1].weight.requires_grad_(False)
        projection = Projection(net, seed=0)
        before = projection.value()
        with torch.no_grad():
            net.layers[1].weight += 1
        assert projection.value() == before

    def test_infinite_parameters_of_both_signs(self):
        net = network()
        with torch.no_grad():
            for p, r in zip(
                net.parameters(),
                torch.split(direction(net, 0), [p.numel() for p in net.parameters()]),
                strict=True,
            ):
                p.copy_(math.inf * r.reshape(p.shape) * (-1 if p.ndim == 1 else 1))
        assert math.isnan(Projection(net, seed=0).value())

    def test_large_tensors_are_seen_in_part(self):
        net = nn.ParameterList([nn.Parameter(torch.zeros(20_001))])
        projection = Projection(net, seed=0)
        with torch.no_grad():
            net[0][20_000] = 1.0
            assert projection.value() == 0.0
            net[0][19_999] = 1.0
            assert projection.value() != 0.0

    def test_the_parameters_and_random_state_stay(self):
        net = network()
        before = [p.clone() for p in net.parameters()]
        Projection(net, seed=0).value()
        assert all(
            torch.equal(p, b) and p.grad is None
            for p, b in zip(net.parameters(), before, strict=True)
        )


class TestTrace:
    def networks(self):
        return {"discriminator": network(0), "generator": network(1, (2, 4, 2))}

    def test_points_are_taken_once(self):
        networks = self.networks()
        trace = Trace(networks, seed=3)
        first = {player: Projection(net, seed=3).value() for player, net in networks.items()}
        trace.sample(5, {"discriminator": 1.5, "generator": 0.25})
        move(networks["generator"], normal(networks["generator"], 2))
        trace.sample(10, {"discriminator": 1.25})  # the generator did not move
        assert trace.take() == {
            "steps": [5, 10],
            "losses": {"discriminator": [1.5, 1.25], "generator": [0.25, None]},
            "projections": {
                "discriminator": [first["discriminator"]] * 2,
                "generator": [
                    first["generator"],
                    Projection(networks["generator"], seed=3).value(),
                ],
            },
        }
        nothing = {"discriminator": [], "generator": []}
        assert trace.take() == {"steps": [], "losses": nothing, "projections": nothing}

    def test_what_was_not_taken_survives_a_checkpoint(self):
        networks = self.networks()
        trace, later = Trace(networks, seed=0), Trace(networks, seed=0)
        trace.sample(1, {"discriminator": 1.0, "generator": 2.0})
        buffer = io.BytesIO()
        torch.save(trace.state_dict(), buffer)
        buffer.seek(0)
        later.load_state_dict(torch.load(buffer, weights_only=True))
        for one in (trace, later):
            one.sample(2, {"generator": 3.0})
        assert later.take() == trace.take()
        assert trace.state_dict() == []

    def test_a_state_is_a_snapshot(self):
        trace = Trace(self.networks(), seed=0)
        trace.sample(1, {})
        state = trace.state_dict()
        trace.sample(2, {})
        assert [step for step, _, _ in state] == [1]


# with ties
logits = st.lists(st.floats(-5, 5) | st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=12)


def t(values):
    return torch.tensor(values, dtype=torch.float64)


class TestMembershipAuc:
    @given(logits, logits)
    def test_it_counts_pairs(self, a, b):
        pairs = [1.0 if x > y else 0.5 if x == y else 0.0 for x in a for y in b]
        assert membership_auc(t(a), t(b)) == pytest.approx(sum(pairs) / len(pairs))

    @given(logits, logits, st.randoms(use_true_random=False))
    def test_invariances(self, a, b, random):
        found = membership_auc(t(a), t(b))
        assert membership_auc(t(b), t(a)) == pytest.approx(1 - found)
        # powers of two: the same ties
        assert membership_auc(8 * t(a) + 64, 8 * t(b) + 64) == pytest.approx(
            membership_auc(t(a) + 8, t(b) + 8)
        )
        assert membership_auc(t(a + a), t(b)) == pytest.approx(found)
        shuffled = [t(random.sample(values, len(values))) for values in (a, b)]
        assert membership_auc(*shuffled) == pytest.approx(found)

    def test_memorised_and_not(self):
        a = torch.linspace(0, 1, 9)
        assert membership_auc(a + 2, a) == 1.0
        assert membership_auc(a, a + 2) == 0.0
        assert membership_auc(a.reshape(9, 1), a) == 0.5
        assert membership_auc(torch.full((256, 1), 0.1), torch.full((200, 1), 0.1)) == 0.5

    def test_normal_outputs(self):
        """P(X > Y) = Φ(d / √2) for normal outputs whose means differ by d standard deviations."""
        draws = torch.Generator().manual_seed(0)
        x, y = (torch.randn(2000, generator=draws, dtype=torch.float64) for _ in range(2))
        assert membership_auc(x + 1, y) == pytest.approx(0.5 * (1 + math.erf(0.5)), abs=0.02)


class TestAccuracy:
    @given(logits, logits)
    def test_it_counts_sides_of_a_threshold(self, a, b):
        both = a + b
        threshold = (
            (sum(a) / len(a) + sum(b) / len(b)) / 2 if min(both) > 0 or max(both) < 0 else 0.0
        )
        if any(0 < abs(value - threshold) < 1e-9 for value in both):
            return  # rounding decides
        right = (
            [(x > threshold) + 0.5 * (x == threshold) for x in a],
            [(x < threshold) + 0.5 * (x == threshold) for x in b],
        )
        assert accuracy(t(a), t(b)) == pytest.approx(
            sum(sum(side) / len(side) for side in right) / 2
        )

    @pytest.mark.parametrize("shift", [0.0, 100.0, -100.0])
    def test_a_critic_has_no_zero(self, shift):
        a, b = t([1.0, 2.0, -1.0, 3.0]), t([-1.0, -2.0, -3.0, -4.0])
        assert accuracy(a + shift, b + shift) == 0.875
        assert accuracy(b + shift, a + shift) == 0.125

    @pytest.mark.parametrize("constant", [0.0, 0.5, -0.1, 3.0])
    def test_a_constant_discriminator_is_at_chance(self, constant):
        assert accuracy(torch.full((256, 1), constant), torch.full((250, 1), constant)) == 0.5

    @given(logits, logits)
    def test_who_is_who(self, a, b):
        assert accuracy(t(a), t(b)) == pytest.approx(1 - accuracy(t(b), t(a)))

    @given(logits)
    def test_the_same_outputs_are_at_chance(self, a):
        assert accuracy(t(a), t(a)) == pytest.approx(0.5)


samples = arrays.arrays(
    float, st.tuples(st.integers(2, 7), st.integers(1, 4)), elements=st.floats(-10, 10)
)


class TestMeanPairwiseDistance:
    @given(samples)
    def test_it_is_the_root_mean_square_distance_of_pairs(self, x):
        n = len(x)
        squares = [
            float(np.square(x[i] - x[j]).sum()) for i in range(n) for j in range(n) if i != j
        ]
        assert mean_pairwise_distance(torch.tensor(x)) == pytest.approx(
            math.sqrt(sum(squares) / len(squares)), rel=1e-9, abs=1e-9
        )

    @given(samples, st.floats(-5, 5), st.floats(-5, 5))
    def test_moving_and_scaling(self, x, shift, factor):
        found = mean_pairwise_distance(torch.tensor(x))
        assert mean_pairwise_distance(factor * torch.tensor(x) + shift) == pytest.approx(
            abs(factor) * found, rel=1e-9, abs=1e-9
        )
        assert mean_pairwise_distance(torch.tensor(x).flip(0)) == pytest.approx(
            found, rel=1e-9, abs=1e-9
        )

    def test_closed_forms(self):
        # all pairs have the distance √2
        assert mean_pairwise_distance(torch.eye(5)) == pytest.approx(math.sqrt(2))
        assert mean_pairwise_distance(torch.ones(9, 1, 28, 28)) == 0.0
        flat, shaped = torch.eye(6), torch.eye(6).reshape(6, 1, 2, 3)
        assert mean_pairwise_distance(shaped) == pytest.approx(mean_pairwise_distance(flat))
        turn = torch.linalg.qr(
            torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        )[0]
        x = torch.randn(20, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        assert mean_pairwise_distance(x @ turn) == pytest.approx(mean_pairwise_distance(x))
