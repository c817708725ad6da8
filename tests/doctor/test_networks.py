"""The doctor on moving buffers, unsuitable outputs and missing gradients."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from saddlepoint.doctor import examine
from tests.doctor.pairs import (
    Detached,
    Outer,
    X,
    Z,
    built,
    examined_with,
    generator,
    mlp,
    numbers,
    only,
)


class TestBuffers:
    # with one row the iteration has converged, and no pass changes it
    @pytest.mark.parametrize("width", [8, 1])
    def test_spectral_norm_is_a_warning_and_its_derivatives_are_not_called_wrong(self, width):
        found = examined_with(
            built(lambda: parametrizations.spectral_norm(nn.Linear(8, width))), mlp(width, 1)
        )
        finding = only(found, "spectral-norm", "warning")
        assert finding.layer == "1.parametrizations.weight.0 (_SpectralNorm)"
        assert "modules=[G, D]" in finding.message
        assert "constants" in finding.message
        assert found.healthy

    @pytest.mark.filterwarnings("ignore:.*spectral_norm.* is deprecated")
    def test_old_style_spectral_norm_that_has_run(self):
        layer = built(lambda: nn.utils.spectral_norm(nn.Linear(8, 8)))
        layer(numbers(2, 8))  # leaves a weight with a history, which deepcopy refuses
        found = examined_with(layer, mlp(8, 1))
        assert only(found, "spectral-norm", "warning").layer == "1 (Linear)"
        assert found.healthy

    def test_batch_norm(self):
        found = examined_with(nn.BatchNorm1d(8), mlp(8, 1))
        finding = only(found, "batch-norm", "warning")
        assert finding.layer == "1 (BatchNorm1d)"
        assert "modules=[G, D]" in finding.message
        assert "couple the samples" in finding.message
        assert found.healthy
        assert found.cost.reason is None

    def test_batch_norm_under_a_penalty(self):
        found = examine(
            generator(), nn.Sequential(mlp(3, 8), nn.BatchNorm1d(8), mlp(8, 1)), Z, X, r1=1.0
        )
        finding = only(found, "batch-norm-penalty")
        assert (finding.player, finding.layer) == ("discriminator", "1 (BatchNorm1d)")
        assert "GroupNorm" in finding.message

    def test_evaluation_mode_is_reported_and_kept(self):
        found = examine(
            generator(), nn.Sequential(mlp(3, 8), nn.BatchNorm1d(8), mlp(8, 1)).eval(), Z, X
        )
        assert {finding.check for finding in found.findings} == {"evaluation-mode", "jacobian"}


class TestOutputs:
    @pytest.mark.parametrize(
        ("end", "layer"), [(nn.Sigmoid(), "2 (Sigmoid)"), (None, "whole network (Squashed)")]
    )
    def test_sigmoid(self, end, layer):
        class Squashed(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = mlp(3, 8, 1)

            def forward(self, x):
                return torch.sigmoid(self.body(x)).squeeze(1)

        discriminator = Squashed() if end is None else nn.Sequential(mlp(3, 8), mlp(8, 1), end)
        finding = only(examine(generator(), discriminator, Z, X), "bounded-logits")
        assert (finding.player, finding.layer) == ("discriminator", layer)
        assert 0 < finding.numbers["lowest"] < finding.numbers["highest"] < 1
        assert "Remove it" in finding.message

    def test_an_exception_names_its_layer(self):
        found = examine(generator(), nn.Sequential(mlp(3, 8), Outer(mlp(7, 1))), Z, X)
        finding = only(found, "forward")
        assert (finding.player, finding.layer) == ("discriminator", "1.inner.layers.1 (Linear)")
        assert "mat1 and mat2" in finding.message
        assert finding.message in found.cost.reason

    def test_shapes(self):
        found = examine(mlp(4, 8, 2), mlp(3, 8, 1), Z, X)
        assert "(2,), the real ones (3,)" in only(found, "shapes").message

    def test_logits_for_every_pixel(self):
        assert "shape (16, 2)" in only(examined_with(mlp(8, 2)), "logit-shape", "warning").message

    def test_not_finite(self):
        class Logarithm(nn.Module):
            def forward(self, x):
                return x.log()

        finding = only(examined_with(Logarithm(), mlp(8, 1)), "not-finite")
        assert finding.layer == "1 (Logarithm)"
        assert 0 < finding.numbers["share"] <= 1

    def test_a_tuple(self):
        class Pairs(nn.Module):
            def forward(self, x):
                return x, x

        assert "a tuple" in only(examined_with(Pairs()), "output").message


class TestFlow:
    def test_a_detached_generator(self):
        finding = only(examine(Outer(Detached(generator())), mlp(3, 8, 1), Z, X), "detached")
        assert (finding.player, finding.layer) == ("generator", "inner (Detached)")
        assert "Remove the detach()" in finding.message

    def test_a_discriminator_that_cuts_its_input(self):
        finding = only(
            examine(generator(), nn.Sequential(Detached(mlp(3, 8)), mlp(8, 1)), Z, X), "detached"
        )
        assert (finding.player, finding.layer) == ("discriminator", "0 (Detached)")

    def test_a_dead_player(self):
        dead = mlp(3, 8, 1)
        with torch.no_grad():
            dead.layers[-2].weight.zero_()
        found = examine(generator(), dead, Z, X)
        assert only(found, "zero-gradient").player == "generator"

    def test_parameters_without_gradient(self):
        discriminator = mlp(3, 8, 1)
        discriminator.spare = nn.Linear(2, 2, device="meta").to_empty(device="cpu")
        with torch.no_grad():
            for p in discriminator.spare.parameters():
                p.zero_()
        finding = only(examine(generator(), discriminator, Z, X), "no-gradient", "note")
        assert (finding.player, finding.layer) == ("discriminator", "spare (Linear)")
        assert "spare.weight, spare.bias" in finding.message

    @pytest.mark.parametrize("tie", ["object", "storage"])
    def test_a_shared_parameter(self, tie):
        G, D = mlp(4, 8, 3), mlp(3, 8, 1)
        if tie == "object":
            D.layers[1].bias = G.layers[1].bias
        else:
            D.layers[1].weight = nn.Parameter(G.layers[3].weight.detach().T)
        finding = only(examine(G, D, Z, X), "shared-parameter")
        name = "layers.3.weight" if tie == "storage" else "layers.1.bias"
        assert finding.layer == f"{name.rpartition('.')[0]} (Linear)"
        assert name in finding.message
        assert "copy the layer" in finding.message

    def test_linear_losses_of_piecewise_linear_networks(self):
        found = examine(mlp(4, 8, 3), mlp(3, 8, 1), Z, X, loss="wasserstein")
        notes = [finding for finding in found.findings if finding.check == "zero-hessian"]
        assert {finding.player for finding in notes} == {"discriminator", "generator"}
        assert notes[0].numbers == {"zero": 4.0, "tensors": 4.0}
        smooth = examine(mlp(4, 8, 3), mlp(3, 8, 1, activation="tanh"), Z, X, loss="wasserstein")
        assert all(
            finding.numbers["zero"] < finding.numbers["tensors"]
            for finding in smooth.findings
            if finding.check == "zero-hessian"
        )

    def test_players_that_do_not_see_each_other(self):
        """D(x) = Σ x + body(x without its history): both have gradients, and neither depends on the
        other's parameters."""

        class Blind(Outer):
            def forward(self, x):
                return x.sum(dim=1, keepdim=True) + self.inner(x.detach())

        found = examine(generator(), Blind(mlp(3, 8, 1)), Z, X, loss="wasserstein")
        blocks = [finding for finding in found.findings if finding.check == "interaction"]
        assert [(finding.level, finding.player) for finding in blocks] == [
            ("error", "discriminator"),
            ("error", "generator"),
        ]

    def test_no_parameters(self):
        frozen = mlp(4, 8, 3).requires_grad_(False)
        assert only(examine(frozen, mlp(3, 8, 1), Z, X), "no-parameters").player == "generator"

    @pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated in several ways
    def test_a_scripted_network_is_reported(self):
        found = examine(
            generator(), nn.Sequential(mlp(3, 8), torch.jit.trace(mlp(8, 1), numbers(2, 8))), Z, X
        )
        assert only(found, "scripted").layer == "1 (TopLevelTracedModule)"
        assert "before torch.jit" in found.cost.reason

    def test_a_network_that_cannot_be_copied_is_reported(self):
        discriminator = mlp(3, 8, 1)
        discriminator.lock = threading.Lock()
        found = examine(generator(), discriminator, Z, X)
        assert "lock" in only(found, "not-copied").message
        assert found.cost.gradient_ms is None
