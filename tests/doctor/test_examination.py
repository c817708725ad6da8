"""The doctor finds nothing wrong in a good pair, and names layer and remedy in a bad one."""

from __future__ import annotations

import copy
import math
import time
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import saddlepoint as sp
from saddlepoint.doctor import examine
from saddlepoint.doctor.costs import estimate
from saddlepoint.doctor.pair import Pair
from tests.doctor.pairs import (
    Attention,
    X,
    Z,
    built,
    examined_with,
    generator,
    mlp,
    numbers,
    only,
)


@pytest.mark.parametrize("loss", ["minimax", "non-saturating", "hinge", "wasserstein"])
@pytest.mark.parametrize("activation", ["leaky_relu", "tanh"])
def test_a_good_pair_is_healthy(loss, activation):
    found = examine(
        mlp(4, 8, 8, 3, activation=activation),
        mlp(3, 8, 8, 1, activation=activation),
        Z,
        X,
        loss=loss,
    )
    assert found.healthy
    assert {finding.level for finding in found.findings} == {"note"}
    assert only(found, "jacobian", "note").numbers["relative_error"] < 1e-6


def test_a_good_pair_with_a_gradient_penalty_is_healthy():
    found = examine(mlp(4, 8, 3), mlp(3, 8, 1, activation="softplus"), Z, X, r1=10.0)
    assert [finding.check for finding in found.findings] == ["jacobian"]
    assert "r1=10" in found.findings[0].layer


def test_a_convolutional_pair_is_healthy():
    def networks():
        G = nn.Sequential(
            nn.Linear(4, 8 * 4 * 4),
            nn.Unflatten(1, (8, 4, 4)),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(8, 1, 3, padding=1),
            nn.Tanh(),
        )
        D = nn.Sequential(
            nn.Conv2d(1, 4, 3, 2, 1),
            nn.GroupNorm(2, 4),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(64, 1),
        )
        return G, D

    found = examine(*built(networks), Z, numbers(16, 1, 8, 8), r1=1.0)
    assert [(finding.level, finding.check) for finding in found.findings] == [("note", "jacobian")]
    assert found.cost.reason is None


def test_the_ranking_puts_errors_first():
    """The warning of BatchNorm is found before the error of attention."""
    found = examined_with(nn.BatchNorm1d(8), built(Attention), mlp(8, 1))
    assert [finding.level for finding in found.findings] == ["error", "warning", "note"]
    assert not found.healthy


def test_nothing_changes():
    """Parameters, buffers, gradients, modes, hooks and random state are bit for bit what they were;
    also with a penalty."""
    G = nn.Sequential(mlp(4, 8), nn.BatchNorm1d(8), nn.Dropout(), mlp(8, 3))
    D = nn.Sequential(
        mlp(3, 8),
        built(lambda: parametrizations.spectral_norm(nn.Linear(8, 8))),
        built(Attention),
        mlp(8, 1),
    )
    D[0].eval()
    G[0].layers[1].weight.grad = torch.ones(8, 4)
    before = copy.deepcopy(
        [*G.state_dict().values(), *D.state_dict().values(), Z, X, torch.get_rng_state()]
    )
    modes = [module.training for network in (G, D) for module in network.modules()]
    examine(G, D, Z, X, r1=1.0)
    after = [*G.state_dict().values(), *D.state_dict().values(), Z, X, torch.get_rng_state()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert modes == [module.training for network in (G, D) for module in network.modules()]
    assert torch.equal(G[0].layers[1].weight.grad, torch.ones(8, 4))
    assert all(p.grad is None for p in D.parameters())
    assert not any(
        module._forward_hooks or module._forward_pre_hooks
        for network in (G, D)
        for module in network.modules()
    )
    assert all(p.requires_grad for network in (G, D) for p in network.parameters())


def test_the_result_does_not_depend_on_the_random_state():
    D = nn.Sequential(mlp(3, 8), nn.Dropout(), mlp(8, 1))
    with torch.random.fork_rng():
        first = examine(generator(), D, Z, X)
        torch.rand(5)
        assert examine(generator(), D, Z, X).findings == first.findings


class TestCosts:
    def test_bytes_are_what_the_shapes_say(self):
        """G: 4→3, D: 3→1, both linear: the graph keeps G's output, its last layer's input; logits
        twice, for softplus."""
        G, D = built(lambda: nn.Linear(4, 3)), built(lambda: nn.Linear(3, 1))
        cost = examine(G, D, Z, X, loss="wasserstein").cost
        n = 4 * 3 + 3 + 3 + 1
        assert (cost.batch, cost.parameter_bytes, cost.solver_bytes) == (16, 4 * n, 40 * n)
        copies = 4 * 16 * (4 + 3)  # the networks get copies of noise and data
        assert cost.graph_bytes == copies + 4 * 16 * 3
        assert cost.second_graph_bytes > cost.graph_bytes

    def test_a_tensor_that_is_kept_twice_counts_once(self):
        class Power(nn.Module):
            def forward(self, x):
                return x.square()  # keeps x

        class Product(nn.Module):
            def forward(self, x):
                return x * x  # keeps x, and x

        power, product = (
            examined_with(layer, mlp(8, 1)).cost.graph_bytes for layer in (Power(), Product())
        )
        assert power == product

    def test_times_are_positive_and_a_solve_is_ten_products(self):
        cost = examine(generator(), mlp(3, 8, 1), Z, X).cost
        assert min(cost.gradient_ms, cost.graph_ms, cost.product_ms) > 0
        assert cost.solve_ms == pytest.approx(cost.graph_ms + 10 * cost.product_ms)
        assert cost.ratios["product"] == pytest.approx(cost.product_ms / cost.gradient_ms)

    def test_times_are_milliseconds(self, monkeypatch):
        ticks = iter(range(10_000))
        monkeypatch.setattr(time, "perf_counter", lambda: 0.002 * next(ticks))
        cost = estimate(Pair(generator(), mlp(3, 8, 1), Z, X))
        assert cost.gradient_ms == pytest.approx(2.0)
        assert cost.rounds == 5

    def test_without_second_derivatives_the_reason_is_given(self):
        cost = examined_with(built(Attention), mlp(8, 1)).cost
        assert cost.gradient_ms > 0
        assert (cost.product_ms, cost.graph_ms, cost.solve_ms, cost.second_graph_bytes) == (
            None,
        ) * 4
        assert "1 (Attention)" in cost.reason


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            partial(examine, generator(), mlp(3, 1), Z, X, loss="wassertein"),
            'Did you mean "wasserstein"',
        ),
        (partial(examine, generator(), mlp(3, 1), Z, X, r1=math.nan), "r1=nan"),
        (partial(examine, generator(), print, Z, X), "discriminator must be a torch.nn.Module"),
        (partial(examine, generator(), mlp(3, 1), Z[:0], X), 'example "noise" must be a tensor'),
        (
            partial(examine, generator(), mlp(3, 1), Z, [1.0]),
            'example "real" must be a tensor .*not list',
        ),
    ],
)
def test_wrong_arguments(call, text):
    with pytest.raises(sp.UsageError, match=text):
        call()
