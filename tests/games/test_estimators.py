import math

import pytest
import torch

import saddlepoint as sp
from saddlepoint.games import bernoulli, gumbel, straight_through, threshold

LOGITS = torch.tensor(
    [-math.inf, -3.0, -1e-40, -0.0, 0.0, 1e-40, 0.4, math.inf], dtype=torch.float64
)
SIGNS = [-1.0, -1.0, -1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
FINITE = LOGITS[1:-1]


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slope(f, at):
    x = at.clone().requires_grad_()
    y = f(x)
    assert y.grad_fn is not None
    return torch.autograd.grad(y.sum(), x)[0]


def test_the_threshold_is_at_zero_and_zero_is_above():
    assert threshold(LOGITS).tolist() == SIGNS
    assert straight_through(LOGITS).tolist() == SIGNS
    assert threshold(LOGITS.float()).dtype == torch.float32


@pytest.mark.parametrize(
    "f",
    [
        threshold,
        straight_through,
        lambda x: bernoulli(x, torch.tensor([0.5])),
        lambda x: gumbel(x, torch.tensor([0.5])),
    ],
)
def test_a_nan_is_not_hidden(f):
    assert bool(f(torch.tensor([math.nan])).isnan())


@pytest.mark.parametrize("f", [threshold, lambda x: bernoulli(x, uniform(8))])
def test_without_slope_at_every_order_even_under_an_infinite_one(f):
    x = LOGITS.clone().requires_grad_()
    y = f(x)
    assert torch.autograd.grad(y, x, torch.full_like(y, math.inf))[0].tolist() == [0.0] * 8
    point = sp.linearize(sp.Game({"x": [x]}, lambda: {"x": (f(x) + f(x) ** 2).sum()}))
    assert point.gradient.flatten().tolist() == [0.0] * 8
    assert (point.jacobian @ point.gradient).flatten().tolist() == [0.0] * 8


def test_bernoulli_has_the_probabilities_of_the_sigmoid():
    logits = torch.tensor([-2.0, 0.0, 1.5], dtype=torch.float64)
    share = (bernoulli(logits.expand(20_000, 3), uniform(20_000, 3)) + 1).mean(0) / 2
    torch.testing.assert_close(share, torch.sigmoid(logits), rtol=0, atol=0.02)
    assert bernoulli(
        torch.tensor([-math.inf, math.inf]), torch.tensor([0.0, 1 - 1e-7])
    ).tolist() == [-1.0, 1.0]


def test_straight_through_has_the_derivatives_of_tanh():
    first = slope(straight_through, FINITE)
    torch.testing.assert_close(first, 1 - torch.tanh(FINITE) ** 2)
    x = FINITE.clone().requires_grad_()
    (bend,) = torch.autograd.grad(
        torch.autograd.grad(straight_through(x).sum(), x, create_graph=True)[0].sum(), x
    )
    torch.testing.assert_close(bend, -2 * torch.tanh(FINITE) * (1 - torch.tanh(FINITE) ** 2))


class TestGumbel:
    def test_soft_samples_are_those_of_the_two_class_softmax(self):
        """(y + 1) / 2 is the first of softmax((log-odds, 0) + two Gumbel noises) / T, whose noises
        differ by a logistic one."""
        logits, u, T = torch.linspace(-2, 2, 5, dtype=torch.float64), uniform(5), 0.7
        logistic = torch.log(u) - torch.log1p(-u)
        expected = torch.softmax(
            torch.stack([logits + logistic, torch.zeros(5, dtype=torch.float64)]) / T, 0
        )[0]
        torch.testing.assert_close((gumbel(logits, u, T) + 1) / 2, expected)

    def test_hard_samples_round_the_soft_ones_and_keep_their_slope(self):
        u = uniform(6)
        soft, hard = (lambda x, hard=hard: gumbel(x, u, 0.5, hard=hard) for hard in (False, True))
        assert torch.equal(hard(FINITE), threshold(soft(FINITE)))
        torch.testing.assert_close(slope(hard, FINITE), slope(soft, FINITE))
        assert bool((slope(hard, FINITE) > 0).all())

    def test_hard_samples_have_the_probabilities_of_the_sigmoid_at_every_temperature(self):
        logits = torch.tensor([-2.0, 0.0, 1.5], dtype=torch.float64).expand(20_000, 3)
        samples = [gumbel(logits, uniform(20_000, 3), T, hard=True) for T in (0.1, 5.0)]
        assert torch.equal(*samples)
        torch.testing.assert_close(
            (samples[0] + 1).mean(0) / 2, torch.sigmoid(logits[0]), rtol=0, atol=0.02
        )

    def test_at_the_ends_of_the_noise(self):
        ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
        assert gumbel(torch.zeros(2, dtype=torch.float64), ends).tolist() == [-1.0, 1.0]
        assert slope(lambda x: gumbel(x, ends), torch.zeros(2, dtype=torch.float64)).tolist() == [
            0.0,
            0.0,
        ]

    @pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
    def test_temperature(self, temperature):
        with pytest.raises(sp.UsageError, match=r"gumbel: temperature=.* must be positive"):
            gumbel(torch.zeros(1), torch.zeros(1), temperature)


@pytest.mark.parametrize(
    "f",
    [
        threshold,
        straight_through,
        lambda x: bernoulli(x, torch.tensor(0.3)),
        lambda x: gumbel(x, torch.tensor(0.3)),
    ],
)
def test_under_vmap(f):
    x = FINITE.float()
    assert torch.equal(torch.func.vmap(f)(x), f(x))
