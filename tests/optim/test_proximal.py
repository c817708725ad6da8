import re
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import saddlepoint as sp
from saddlepoint.optim import (
    L1,
    PROXIMAL_MAPS,
    Ball,
    Box,
    ProximalMap,
    Simplex,
    SpectralNorm,
    Subgradient,
)
from saddlepoint.optim.proximal import from_config, project_simplex, to_config

SETS = {
    "box": Box(-0.5, 0.3),
    "ball": Ball(0.7),
    "simplex": Simplex(),
    "spectral_norm": SpectralNorm(0.8),
}
seeds = st.integers(0, 10_000)


def draw(seed, *shape, scale=2.0):
    return scale * torch.randn(
        *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def inside(name, x):
    return {
        "box": lambda: bool(((x >= -0.5) & (x <= 0.3)).all()),
        "ball": lambda: float(x.norm()) <= 0.7 + 1e-12,
        "simplex": lambda: bool((x >= 0).all()) and bool((x.sum(-1) - 1).abs().max() < 1e-12),
        "spectral_norm": lambda: float(torch.linalg.matrix_norm(x, 2)) <= 0.8 + 1e-12,
    }[name]()


@pytest.mark.parametrize("name", SETS)
@given(seed=seeds)
def test_projections_land_in_the_set_and_satisfy_the_variational_inequality(name, seed):
    """⟨x − P(x), u − P(x)⟩ ≤ 0 for every u of the set, which no other point of it satisfies."""
    x = draw(seed, 4, 3)
    p = SETS[name].apply(x, step=0.1)
    assert inside(name, p)
    for k in range(5):
        u = SETS[name].apply(draw(seed + 10_001 + k, 4, 3), step=0.1)
        assert float(((x - p) * (u - p)).sum()) <= 1e-10
    torch.testing.assert_close(SETS[name].apply(p, step=0.1), p)


@given(seed=seeds, strength=st.floats(0, 3), h=st.floats(1e-3, 2))
def test_l1_is_the_proximal_map(seed, strength, h):
    """P minimises ½‖u − x‖² + hλ‖u‖₁, against random u."""

    def value(u):
        return float(0.5 * (u - x).square().sum() + h * strength * u.abs().sum())

    x = draw(seed, 6)
    p = L1(strength).apply(x, step=h)
    assert all(value(p) <= value(p + 0.1 * draw(seed + k, 6)) + 1e-12 for k in range(1, 6))


def test_spectral_norm_leaves_vectors_and_small_singular_values_and_flattens_kernels():
    assert SpectralNorm(0.1).apply(torch.ones(3), step=0.1).tolist() == [1.0, 1.0, 1.0]
    kernel = draw(0, 4, 2, 3, 3)
    assert float(
        torch.linalg.matrix_norm(SpectralNorm(0.5).apply(kernel, 0.1).flatten(1), 2)
    ) == pytest.approx(0.5)


@pytest.mark.parametrize("proximal", [*SETS.values(), L1(0.5)])
def test_the_plain_form_builds_the_same_map(proximal):
    assert from_config(to_config(proximal)) == proximal
    assert to_config(to_config(proximal)) == to_config(proximal)
    assert type(proximal) in PROXIMAL_MAPS.values()
    assert to_config("simplex") == {"name": "simplex"}


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Box(1.0, 0.0), "Box: low=1.0 must not be greater than high=0.0"),
        (lambda: Ball(0.0), "Ball: radius=0.0"),
        (lambda: L1(-1.0), "L1: strength=-1.0"),
        (lambda: SpectralNorm(0.0), "SpectralNorm: bound=0.0"),
        (lambda: to_config({"name": "bxo"}), 'Unknown proximal map "bxo". Did you mean "box"?'),
        (
            lambda: to_config({"name": "ball", "size": 1}),
            "Proximal map ball does not accept the options",
        ),
        (lambda: to_config("box"), "Proximal map box does not accept the options {}"),
        (lambda: Box("a", 1.0), "Box: low='a' must be a number"),
        (lambda: Box(0.0, torch.ones(2)), "Box: high=tensor([1., 1.]) must be a number"),
        (lambda: Box(float("nan"), None), "Box: low=nan must not be greater than high=None"),
        (lambda: Ball(None), "Ball: radius=None must be a number"),
        (lambda: L1("0.1"), "L1: strength='0.1' must be a number"),
        (lambda: SpectralNorm([1.0]), "SpectralNorm: bound=[1.0] must be a number"),
        (lambda: to_config({"name": "l1", "strength": None}), "L1: strength=None must be a number"),
        (
            lambda: Subgradient([torch.tensor(1.0, requires_grad=True)], proximal="simplex"),
            "Simplex: the parameter has no dimension",
        ),
        (lambda: to_config(3), 'or a name with options such as {"name": "simplex"}, not 3'),
    ],
)
def test_mistakes(make, text):
    with pytest.raises(sp.UsageError, match=re.escape(text)):
        make()


@pytest.mark.parametrize(
    ("box", "expected"),
    [(Box(0.0, None), [0, 0, 2]), (Box(None, 1.0), [-3, 0, 1]), (Box(None, None), [-3, 0, 2])],
)
def test_a_box_may_be_open(box, expected):
    assert box.apply(torch.tensor([-3.0, 0.0, 2.0]), step=0.1).tolist() == expected
    assert from_config(to_config(box)) == box


def test_empty_tensors_are_their_own_projections():
    for shape in ((0,), (3, 0), (0, 3), (2, 0, 3)):
        for proximal in (*SETS.values(), L1(0.5)):
            assert proximal.apply(torch.zeros(shape), step=0.1).shape == shape


def test_a_map_of_one_s_own_needs_a_name(monkeypatch):
    @dataclass(frozen=True)
    class Halved(ProximalMap):
        factor: float = 0.5

        def apply(self, tensor, step):
            return self.factor * tensor

    with pytest.raises(
        sp.UsageError,
        match=r'register it first: saddlepoint\.optim\.PROXIMAL_MAPS\["my-halved"\] = Halved',
    ):
        to_config(Halved())
    monkeypatch.setitem(PROXIMAL_MAPS, "my-halved", Halved)
    x = torch.ones(1, requires_grad=True)
    x.grad = torch.zeros(1)
    Subgradient([x], proximal=Halved(0.25)).step()
    assert x.item() == 0.25


def test_groups_have_maps_of_their_own():
    weight, bias, free = (torch.full((2, 2), 1.0, requires_grad=True) for _ in range(3))
    groups = [
        {"params": [weight], "proximal": Box(-0.01, 0.01)},
        {"params": [bias], "proximal": {"name": "l1", "strength": 10.0}},
        {"params": [free]},
    ]
    optimizer = Subgradient(groups, lr=0.1)
    for p in (weight, bias, free):
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert weight.unique().tolist() == pytest.approx([0.01])
    assert bias.unique().tolist() == [0.0]
    assert free.unique().tolist() == [1.0]


def test_simplex_projection_of_many_rows_at_once():
    rows = draw(1, 50, 7)
    torch.testing.assert_close(
        project_simplex(rows), torch.stack([project_simplex(row) for row in rows])
    )
