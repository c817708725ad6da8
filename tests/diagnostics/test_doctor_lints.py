"""The doctor on moving buffers, outputs that do not fit and gradients that do not flow."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from saddlepoint.diagnostics.doctor import examine
from tests.diagnostics.doctor_pairs import (
    Cut,
    Outer,
    X,
    Z,
    built,
    generator,
    judged_by,
    mlp,
    numbers,
    only,
)


class TestBuffers:
    # with one row the iteration has converged, and no pass changes it
    @pytest.mark.parametrize("width", [8, 1])
    def test_spectral_norm_is_a_caution_and_its_derivatives_are_not_called_wrong(self, width):
        found = judged_by(
            built(lambda: parametrizations.spectral_norm(nn.Linear(8, width))), mlp(width, 1)
        )
        remark = only(found, "spectral-norm", "caution")
        assert remark.layer == "1.parametrizations.weight.0 (_SpectralNorm)"
        assert "modules=[G, D]" in remark.sentence
        assert "constants" in remark.sentence
        assert found.healthy

    @pytest.mark.filterwarnings("ignore:.*spectral_norm.* is deprecated")
    def test_old_style_spectral_norm_that_has_run(self):
        layer = built(lambda: nn.utils.spectral_norm(nn.Linear(8, 8)))
        layer(numbers(2, 8))  # leaves a weight with a history, which deepcopy refuses
        found = judged_by(layer, mlp(8, 1))
        assert only(found, "spectral-norm", "caution").layer == "1 (Linear)"
        assert found.healthy

    def test_batch_norm(self):
        found = judged_by(nn.BatchNorm1d(8), mlp(8, 1))
        remark = only(found, "batch-norm", "caution")
        assert remark.layer == "1 (BatchNorm1d)"
        assert "modules=[G, D]" in remark.sentence
        assert "couple the samples" in remark.sentence
        assert found.healthy
        assert found.cost.reason is None

    def test_batch_norm_under_a_penalty(self):
        found = examine(
            generator(), nn.Sequential(mlp(3, 8), nn.BatchNorm1d(8), mlp(8, 1)), Z, X, r1=1.0
        )
        remark = only(found, "batch-norm-penalty")
        assert (remark.player, remark.layer) == ("discriminator", "1 (BatchNorm1d)")
        assert "GroupNorm" in remark.sentence

    def test_evaluation_mode_is_told_and_kept(self):
        found = examine(
            generator(), nn.Sequential(mlp(3, 8), nn.BatchNorm1d(8), mlp(8, 1)).eval(), Z, X
        )
        assert {remark.check for remark in found.remarks} == {"evaluation-mode", "jacobian"}


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

        judge = Squashed() if end is None else nn.Sequential(mlp(3, 8), mlp(8, 1), end)
        remark = only(examine(generator(), judge, Z, X), "bounded-logits")
        assert (remark.player, remark.layer) == ("discriminator", layer)
        assert 0 < remark.numbers["lowest"] < remark.numbers["highest"] < 1
        assert "Remove it" in remark.sentence

    def test_an_exception_names_its_layer(self):
        found = examine(generator(), nn.Sequential(mlp(3, 8), Outer(mlp(7, 1))), Z, X)
        remark = only(found, "forward")
        assert (remark.player, remark.layer) == ("discriminator", "1.inner.layers.1 (Linear)")
        assert "mat1 and mat2" in remark.sentence
        assert remark.sentence in found.cost.reason

    def test_shapes(self):
        found = examine(mlp(4, 8, 2), mlp(3, 8, 1), Z, X)
        assert "(2,), the real ones (3,)" in only(found, "shapes").sentence

    def test_logits_for_every_pixel(self):
        assert "shape (16, 2)" in only(judged_by(mlp(8, 2)), "logit-shape", "caution").sentence

    def test_not_finite(self):
        class Logarithm(nn.Module):
            def forward(self, x):
                return x.log()

        remark = only(judged_by(Logarithm(), mlp(8, 1)), "not-finite")
        assert remark.layer == "1 (Logarithm)"
        assert 0 < remark.numbers["share"] <= 1

    def test_a_tuple(self):
        class Pairs(nn.Module):
            def forward(self, x):
                return x, x

        assert "a tuple" in only(judged_by(Pairs()), "output").sentence


class TestFlow:
    def test_a_detached_generator(self):
        remark = only(examine(Outer(Cut(generator())), mlp(3, 8, 1), Z, X), "detached")
        assert (remark.player, remark.layer) == ("generator", "inner (Cut)")
        assert "Remove the detach()" in remark.sentence

    def test_a_discriminator_that_cuts_its_input(self):
        remark = only(
            examine(generator(), nn.Sequential(Cut(mlp(3, 8)), mlp(8, 1)), Z, X), "detached"
        )
        assert (remark.player, remark.layer) == ("discriminator", "0 (Cut)")

    def test_a_dead_player(self):
        dead = mlp(3, 8, 1)
        with torch.no_grad():
            dead.layers[-2].weight.zero_()
        found = examine(generator(), dead, Z, X)
        assert only(found, "zero-gradient").player == "generator"

    def test_parameters_without_gradient(self):
        judge = mlp(3, 8, 1)
        judge.spare = nn.Linear(2, 2, device="meta").to_empty(device="cpu")
        with torch.no_grad():
            for p in judge.spare.parameters():
                p.zero_()
        remark = only(examine(generator(), judge, Z, X), "no-gradient", "note")
        assert (remark.player, remark.layer) == ("discriminator", "spare (Linear)")
        assert "spare.weight, spare.bias" in remark.sentence

    @pytest.mark.parametrize("tie", ["object", "storage"])
    def test_a_shared_parameter(self, tie):
        G, D = mlp(4, 8, 3), mlp(3, 8, 1)
        if tie == "object":
            D.layers[1].bias = G.layers[1].bias
        else:
            D.layers[1].weight = nn.Parameter(G.layers[3].weight.detach().T)
        remark = only(examine(G, D, Z, X), "shared-parameter")
        name = "layers.3.weight" if tie == "storage" else "layers.1.bias"
        assert remark.layer == f"{name.rpartition('.')[0]} (Linear)"
        assert name in remark.sentence
        assert "copy the layer" in remark.sentence

    def test_linear_losses_of_piecewise_linear_networks(self):
        found = examine(mlp(4, 8, 3), mlp(3, 8, 1), Z, X, loss="wasserstein")
        notes = [remark for remark in found.remarks if remark.check == "zero-hessian"]
        assert {remark.player for remark in notes} == {"discriminator", "generator"}
        assert notes[0].numbers == {"zero": 4.0, "tensors": 4.0}
        smooth = examine(mlp(4, 8, 3), mlp(3, 8, 1, activation="tanh"), Z, X, loss="wasserstein")
        assert all(
            remark.numbers["zero"] < remark.numbers["tensors"]
            for remark in smooth.remarks
            if remark.check == "zero-hessian"
        )

    def test_players_that_do_not_see_each_other(self):
        """D(x) = Σ x + body(x without its history): both have gradients, and neither depends on the
        other's parameters."""

        class Blind(Outer):
            def forward(self, x):
                return x.sum(dim=1, keepdim=True) + self.inner(x.detach())

        found = examine(generator(), Blind(mlp(3, 8, 1)), Z, X, loss="wasserstein")
        blocks = [remark for remark in found.remarks if remark.check == "interaction"]
        assert [(remark.level, remark.player) for remark in blocks] == [
            ("error", "discriminator"),
            ("error", "generator"),
        ]

    def test_no_parameters(self):
        frozen = mlp(4, 8, 3).requires_grad_(False)
        assert only(examine(frozen, mlp(3, 8, 1), Z, X), "no-parameters").player == "generator"

    @pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated in several ways
    def test_a_scripted_network_is_told(self):
        found = examine(
            generator(), nn.Sequential(mlp(3, 8), torch.jit.trace(mlp(8, 1), numbers(2, 8))), Z, X
        )
        assert only(found, "scripted").layer == "1 (TopLevelTracedModule)"
        assert "before torch.jit" in found.cost.reason

    def test_a_network_that_cannot_be_copied_is_told(self):
        judge = mlp(3, 8, 1)
        judge.lock = threading.Lock()
        found = examine(generator(), judge, Z, X)
        assert "lock" in only(found, "not-copied").sentence
        assert found.cost.gradient_ms is None
