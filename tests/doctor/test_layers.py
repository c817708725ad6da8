"""The doctor on layers whose second derivatives are refused or wrong: each is named with its
remedy."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import parametrizations

from saddlepoint.doctor import examine
from tests.doctor.pairs import (
    Attention,
    Cube,
    Cubed,
    Distances,
    Outer,
    Rounded,
    ThirdOrder,
    X,
    Z,
    built,
    errors,
    examined_with,
    generator,
    mlp,
    only,
)


def test_fused_attention():
    finding = only(examined_with(Outer(built(Attention)), mlp(8, 1)), "double-backward")
    assert (finding.player, finding.layer) == ("discriminator", "1.inner (Attention)")
    assert "sdpa_kernel(SDPBackend.MATH)" in finding.message
    assert "flash_attention" in finding.message  # PyTorch's own words


def test_attention_under_the_remedy_is_healthy():
    class Written(Attention):
        def forward(self, x):
            with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
                return super().forward(x)

    assert examined_with(built(Written), mlp(8, 1)).healthy


def test_weight_norm():
    finding = only(
        examined_with(built(lambda: parametrizations.weight_norm(nn.Linear(8, 4))), mlp(4, 1)),
        "double-backward",
    )
    assert finding.layer == "1.parametrizations.weight.0 (_WeightNorm)"
    assert finding.numbers["relative_error"] > 0.01
    assert "g * v / v.norm()" in finding.message


def test_distances():
    finding = only(examined_with(Distances(), mlp(5, 1)), "double-backward")
    assert finding.layer == "1 (Distances)"
    assert "write the distances out" in finding.message


def test_a_wrong_second_derivative_of_the_user_s_own(monkeypatch):
    finding = only(examined_with(Outer(Cubed()), mlp(8, 1)), "double-backward")
    assert finding.layer == "1.inner (Cubed)"
    assert 0.1 < finding.numbers["relative_error"] < 1
    assert "silently wrong" in finding.message
    assert "autograd.Function" in finding.message
    monkeypatch.setattr(Cube, "factor", 1.0)
    assert examined_with(Outer(Cubed()), mlp(8, 1)).healthy  # the factor is what was found


def test_a_straight_through_estimator_is_distinguished():
    finding = only(examined_with(Rounded(), mlp(8, 1)), "surrogate-gradient", "warning")
    assert finding.layer == "1 (Rounded)"
    assert finding.numbers["gradient_error"] > 0.01


def test_forward_mode_alone_is_a_note(monkeypatch):
    monkeypatch.setattr(Cube, "factor", 1.0)
    found = examined_with(Cubed(), mlp(8, 1))
    assert "does not use forward mode" in only(found, "forward-mode", "note").message


def test_a_layer_that_cannot_be_checked_is_reported():
    class Single(nn.Module):
        def forward(self, x):
            return x @ torch.eye(8)

    finding = only(examined_with(Single(), mlp(8, 1)), "not-checked", "warning")
    assert finding.layer == "1 (Single)"
    assert "float64" in finding.message


def test_a_layer_that_needs_another_one_is_reported_and_the_rest_is_checked():
    class Add(nn.Module):
        other = None

        def forward(self, x):
            return x + self.other

    class Skipping(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.add = mlp(8, 8), Add()

        def forward(self, x):
            self.add.other = self.body(x)
            try:
                return self.add(x)
            finally:
                self.add.other = None

    found = examined_with(Skipping(), mlp(8, 1))
    assert only(found, "not-checked", "warning").layer == "1.add (Add)"
    assert found.healthy


def test_conversions_to_another_precision_are_not_called_wrong():
    class Single(nn.Module):
        def forward(self, x):
            return torch.tanh(x.float() ** 3).to(x.dtype)

    found = examined_with(Single(), mlp(8, 1))
    assert only(found, "precision", "warning").layer == "1 (Single)"
    assert found.healthy


def test_a_network_that_draws_from_its_own_generator():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.source = [torch.Generator().manual_seed(0)]

        def forward(self, x):
            return x + torch.randn(x.shape, generator=self.source[0]).to(x)

    found = examined_with(Noisy(), mlp(8, 1))
    assert only(found, "not-reproducible", "warning").layer == "1 (Noisy)"
    assert found.healthy


def test_operations_between_layers_are_found_in_the_layer_around_them():
    class Between(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = mlp(3, 8), mlp(8, 1)

        def forward(self, x):
            return self.b(Cube.apply(self.a(x)))

    found = examine(generator(), Between(), Z, X)
    assert only(found, "double-backward").layer == "whole network (Between)"


def test_a_third_derivative_that_the_penalty_needs_is_checked_on_the_whole_game():
    """With R1 the Jacobian contains third derivatives of the discriminator, which no layer alone
    shows."""

    class Third(nn.Module):
        def forward(self, x):
            return ThirdOrder.apply(x)

    found = examine(generator(), nn.Sequential(mlp(3, 8), Third(), mlp(8, 1)), Z, X, r1=1.0)
    assert errors(found) == ["jacobian"]
    assert examine(generator(), nn.Sequential(mlp(3, 8), Third(), mlp(8, 1)), Z, X).healthy


def test_a_compiled_module_is_named_and_no_compiler_runs():
    def refuse(*_):
        raise AssertionError("the compiler ran")

    body = mlp(8, 8)
    fast = torch.compile(body, backend=refuse)
    found = examined_with(Outer(fast), mlp(8, 1))
    finding = only(found, "compiled")
    assert (finding.player, finding.layer) == ("discriminator", "1.inner (torch.compile)")
    assert "before torch.compile" in finding.message
    assert errors(found) == ["compiled"]  # the module inside is in order
    whole = examine(generator(), torch.compile(mlp(3, 8, 1), backend=refuse), Z, X)
    assert only(whole, "compiled").layer == "whole network (torch.compile)"
    in_place = mlp(8, 8)
    in_place.compile(backend=refuse)
    assert only(examined_with(in_place, mlp(8, 1)), "compiled").layer == "1 (torch.compile)"
