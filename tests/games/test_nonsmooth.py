import math
import runpy
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import saddlepoint as sp
from saddlepoint.games import (
    GAN_LOSSES,
    KINKS,
    absolute,
    hinge,
    l1_norm,
    largest,
    max_margin,
    positive_part,
)
from saddlepoint.testing import check_subgradient

TABLE = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "write_kink_table.py"))
F = torch.nn.functional
LABELS = torch.tensor([0, 2])
FUNCTIONS = {
    "absolute": lambda x, **how: absolute(x, **how).sum(),
    "positive_part": lambda x, **how: positive_part(x, **how).sum(),
    "largest": lambda x, **how: largest(x, **how).sum(),
    "largest of rows": lambda x, **how: largest(x, 0, **how).sum(),
    "l1_norm": l1_norm,
    "hinge": lambda x, **how: hinge(x, **how).sum(),
    "max_margin": lambda x, **how: max_margin(x, LABELS, **how),
}
REFERENCES = {
    "absolute": lambda x: x.abs().sum(),
    "positive_part": lambda x: x.relu().sum(),
    "largest": lambda x: x.amax(-1).sum(),
    "largest of rows": lambda x: x.amax(0).sum(),
    "l1_norm": lambda x: x.abs().sum(),
    "hinge": lambda x: (1 - x).relu().sum(),
    "max_margin": lambda x: (
        sum(
            max(torch.zeros((), dtype=x.dtype), *(1 + row[j] - row[y] for j in range(3) if j != y))
            for row, y in zip(x, LABELS.tolist(), strict=True)
        )
        / len(x)
    ),
}
SPECIAL = [-math.inf, -2.0, -0.0, 0.0, 0.1, 1.0, 3.0, math.inf]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def slope(f, x, kink="minimum_norm", seed=0):
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(f(x, kink=kink, generator=seeded(seed)), x)[0]


def double(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


lattice = st.lists(st.integers(-4, 4), min_size=6, max_size=6).map(
    lambda numbers: double(*numbers).view(2, 3) / 2
)
everywhere = pytest.mark.parametrize("kink", KINKS)
every_function = pytest.mark.parametrize("name", FUNCTIONS)


@pytest.mark.parametrize(
    ("f", "at", "nearest", "one_sided"),
    [
        (absolute, 0.0, 0.0, 1.0),
        (positive_part, 0.0, 0.0, 1.0),
        (hinge, 1.0, 0.0, 0.0),
        (l1_norm, (0.0, -2.0), (0.0, -1.0), (1.0, -1.0)),
        (largest, (1.0, 3.0, 3.0), (0.0, 0.5, 0.5), (0.0, 1.0, 0.0)),
        # the second and third class violate the margin alike
        (
            lambda s, **how: max_margin(s, torch.tensor(0), **how),
            (0.0, 1.0, 1.0),
            (-1.0, 0.5, 0.5),
            (-1.0, 1.0, 0.0),
        ),
        # one class lies on the margin exactly
        (
            lambda s, **how: max_margin(s, torch.tensor(0), **how),
            (2.0, 1.0, 0.0),
            (0.0, 0.0, 0.0),
            (-1.0, 1.0, 0.0),
        ),
    ],
)
def test_the_documented_selections(f, at, nearest, one_sided):
    x = torch.tensor(at, dtype=torch.float64)
    assert slope(f, x).tolist() == pytest.approx(nearest)
    assert slope(f, x, "one_sided").tolist() == pytest.approx(one_sided)


@pytest.mark.parametrize("f", [absolute, positive_part, hinge])
@pytest.mark.parametrize("at", [-1.0, 0.0, 1.0])
def test_one_sided_is_the_derivative_from_the_right(f, at):
    x = torch.tensor(at, dtype=torch.float64)
    assert slope(f, x, "one_sided").item() == pytest.approx(((f(x + 1e-6) - f(x)) / 1e-6).item())


@everywhere
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_values_are_torch_s_everywhere(kink, dtype):
    how = {"kink": kink, "generator": seeded()}
    x = torch.tensor(SPECIAL, dtype=dtype)
    pairs = torch.cartesian_prod(x, x, x)  # with every kind of tie, at infinity too
    for ours, theirs in (
        (absolute(x, **how), x.abs()),
        (positive_part(x, **how), x.relu()),
        (hinge(x, **how), (1 - x).relu()),
        (largest(pairs, **how), pairs.amax(-1)),
        (largest(pairs, 0, **how), pairs.amax(0)),
    ):
        assert torch.equal(ours, theirs)
        assert ours.dtype == dtype


@everywhere
@every_function
@given(x=lattice)
def test_values_are_the_formula_s(name, kink, x):
    torch.testing.assert_close(
        FUNCTIONS[name](x, kink=kink, generator=seeded()), REFERENCES[name](x)
    )


@everywhere
@every_function
@given(x=lattice, y=lattice)
def test_every_selection_is_a_subgradient_also_where_there_are_ties(name, kink, x, y):
    f = REFERENCES[name]
    assert f(y) >= f(x) + (slope(FUNCTIONS[name], x, kink) * (y - x)).sum() - 1e-12


@every_function
@given(x=lattice)
def test_minimum_norm_is_the_smallest_of_the_subgradients(name, x):
    nearest = slope(FUNCTIONS[name], x).norm()
    for kink in ("one_sided", "random"):
        assert nearest <= slope(FUNCTIONS[name], x, kink).norm() + 1e-12


@everywhere
@every_function
def test_each_passes_the_sampled_check_at_its_kinks(name, kink):
    generator = seeded()
    f = partial(FUNCTIONS[name], kink=kink, generator=generator)
    for x in (
        torch.zeros(2, 3),
        torch.ones(2, 3),
        torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]),
    ):
        check_subgradient(f, x.double())


@everywhere
@every_function
def test_nan_goes_through_to_value_and_slope(name, kink):
    x = torch.tensor([[0.0, math.nan, 0.0], [1.0, 2.0, 3.0]])
    assert FUNCTIONS[name](x, kink=kink, generator=seeded()).isnan()
    assert slope(FUNCTIONS[name], x, kink)[0, 1].isnan()


@everywhere
def test_slopes_at_infinity(kink):
    x = double(-math.inf, math.inf)
    for name, expected in {
        "absolute": [-1.0, 1.0],
        "positive_part": [0.0, 1.0],
        "hinge": [-1.0, 0.0],
        "largest": [0.0, 1.0],
    }.items():
        assert slope(FUNCTIONS[name], x, kink).tolist() == expected


class TestRandom:
    def test_it_is_uniform_over_the_subgradients(self):
        x = torch.zeros(20000, 3, dtype=torch.float64)
        for f, mean, low, high in ((absolute, 0.0, -1.0, 1.0), (positive_part, 0.5, 0.0, 1.0)):
            found = slope(lambda x, f=f, **how: f(x, **how).sum(), x, "random")
            assert found.mean().item() == pytest.approx(mean, abs=0.01)
            assert found.var().item() == pytest.approx((high - low) ** 2 / 12, rel=0.03)
            assert low <= found.min() < low + 0.01
            assert high - 0.01 < found.max() <= high
        weights = slope(FUNCTIONS["largest"], x, "random")
        torch.testing.assert_close(weights.sum(-1), torch.ones(20000, dtype=torch.float64))
        assert weights.mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.01)
        # of a coordinate uniform on the triangle
        assert weights.var(0).tolist() == pytest.approx([1 / 18] * 3, rel=0.05)

    @every_function
    def test_the_generator_alone_decides_and_moves_on_alike_at_every_point(self, name):
        kinks, generic = torch.ones(2, 3), torch.tensor([[0.3, 1.7, -2.0], [5.0, -1.2, 0.4]])
        assert torch.equal(
            slope(FUNCTIONS[name], kinks, "random"), slope(FUNCTIONS[name], kinks, "random")
        )
        states = []
        for x in (kinks, generic):
            generator = seeded()
            FUNCTIONS[name](x, kink="random", generator=generator)
            states.append(generator.get_state())
        assert torch.equal(*states)
        assert not torch.equal(states[0], seeded().get_state())

    @every_function
    def test_it_needs_a_generator(self, name):
        with pytest.raises(
            sp.UsageError,
            match='kink="random" draws random slopes and needs a generator: pass generator=',
        ):
            FUNCTIONS[name](torch.zeros(2, 3), kink="random")


@every_function
def test_unknown_selections_are_refused(name):
    with pytest.raises(
        sp.UsageError,
        match=r'kink="one-sided" is not a known selection\. Did you mean "one_sided"\?',
    ):
        FUNCTIONS[name](torch.zeros(2, 3), kink="one-sided")


def test_labels_must_fit():
    with pytest.raises(
        sp.UsageError, match=r"one class for each row of scores, shape \(2,\), not \(2, 1\)"
    ):
        max_margin(torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.long))


# PyTorch's own forward mode uses it
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
class TestDerivatives:
    @everywhere
    @every_function
    def test_second_derivatives_are_zero(self, name, kink):
        for start in (torch.ones(2, 3), torch.tensor([[0.3, 1.7, -2.0], [5.0, -1.2, 0.4]])):
            x = start.double().requires_grad_()
            game = sp.Game(
                {"x": [x]}, lambda x=x: {"x": FUNCTIONS[name](x, kink=kink, generator=seeded())}
            )
            assert not sp.linearize(game).jacobian.dense().any()
            gradient = torch.func.grad(lambda x: FUNCTIONS[name](x, kink=kink, generator=seeded()))
            assert not torch.func.jacrev(gradient)(start.double()).any()

    @everywhere
    def test_what_is_inside_keeps_its_curvature(self, kink):
        x = double(2.0, -3.0).requires_grad_()
        game = sp.Game(
            {"x": [x]}, lambda: {"x": positive_part(x**3, kink=kink, generator=seeded()).sum()}
        )
        assert sp.linearize(game).jacobian.dense().tolist() == [[12.0, 0.0], [0.0, 0.0]]

    @pytest.mark.parametrize("kink", ["minimum_norm", "one_sided"])
    @every_function
    def test_vmap_and_forward_mode(self, name, kink):
        f = partial(FUNCTIONS[name], kink=kink)
        stack = torch.stack(
            [
                torch.ones(2, 3),
                torch.zeros(2, 3),
                torch.tensor([[0.3, 1.7, -2.0], [5.0, -1.2, 0.4]]),
            ]
        ).double()
        torch.testing.assert_close(torch.func.vmap(f)(stack), torch.stack([f(x) for x in stack]))
        expected = torch.stack([slope(FUNCTIONS[name], x, kink) for x in stack])
        torch.testing.assert_close(torch.func.vmap(torch.func.grad(f))(stack), expected)
        torch.testing.assert_close(torch.func.vmap(torch.func.jacfwd(f))(stack), expected)

    def test_vmap_with_random_slopes(self):
        f = partial(l1_norm, kink="random", generator=seeded())
        found = torch.func.vmap(torch.func.grad(f), randomness="different")(torch.zeros(3, 4))
        assert len(found.unique()) == 12


class TestCompositions:
    """What a selection for each function cannot do, as the documentation says."""

    def test_the_difference_of_two_positive_parts_is_wrong_at_zero(self):
        found = [
            slope(TABLE["difference"], double(0.0), kink).item()
            for kink in ("minimum_norm", "one_sided")
        ]
        assert found == [0.0, 2.0]

    def test_averaging_beside_the_kink_is_right(self):
        x, generator = double(0.0).requires_grad_(), seeded()
        mean = (
            sum(
                TABLE["difference"](x + 1e-3 * torch.randn(x.shape, generator=generator))
                for _ in range(50)
            )
            / 50
        )
        assert torch.autograd.grad(mean, x)[0].item() == pytest.approx(1.0)


class TestTable:
    @pytest.mark.parametrize(
        "row", [r for r in TABLE["ROWS"] if not isinstance(r.vertices, str)], ids=lambda r: r.name
    )
    def test_the_sets_are_the_gradients_nearby(self, row):
        generator, near = seeded(), set()
        for _ in range(50):
            y = row.point + 1e-6 * torch.randn(
                row.point.shape, generator=generator, dtype=torch.float64
            )
            near.add(TABLE["text"](TABLE["gradient"](row.torch, y)))
        assert near == {TABLE["text"](vertex) for vertex in row.vertices}

    @pytest.mark.parametrize("row", [r for r in TABLE["ROWS"] if r.ours], ids=lambda r: r.name)
    def test_ours_is_the_same_function(self, row):
        generator = seeded()
        for kink in KINKS:
            for size in (0.0, 1e-6, 0.3):
                y = row.point + size * torch.randn(
                    row.point.shape, generator=generator, dtype=torch.float64
                )
                torch.testing.assert_close(
                    row.ours(y, kink=kink, generator=generator), row.torch(y), rtol=0, atol=1e-12
                )

    def test_what_is_marked(self):
        wrong = {
            line.split("|")[1].strip(" `") for line in TABLE["page"]().splitlines() if "✗ |" in line
        }
        assert wrong == {"x.sqrt()", "x.square().sqrt()", "x.relu() - (-x).relu()"}


class TestGanLosses:
    def test_hinge_is_the_published_loss(self):
        real, fake = torch.tensor([0.3, -1.0, 2.0]), torch.tensor([0.8, -2.0, -0.5])
        discriminator, generator = GAN_LOSSES["hinge"]
        terms = discriminator(real, fake)
        torch.testing.assert_close(terms["real"], -torch.minimum(torch.zeros(3), real - 1).mean())
        torch.testing.assert_close(terms["fake"], -torch.minimum(torch.zeros(3), -fake - 1).mean())
        torch.testing.assert_close(generator(fake)["fake"], -fake.mean())

    def test_wasserstein_is_the_published_loss_and_zero_sum_in_the_generated_samples(self):
        real, fake = torch.tensor([0.3, -1.0]), torch.tensor([0.8, -2.0])
        discriminator, generator = GAN_LOSSES["wasserstein"]
        torch.testing.assert_close(
            sum(discriminator(real, fake).values()), fake.mean() - real.mean()
        )
        torch.testing.assert_close(generator(fake)["fake"], -fake.mean())

    def test_samples_on_the_margin_or_past_it_do_not_pull_the_discriminator(self):
        x = double(-2.0, -1.0, 0.0, 1.0, 2.0).requires_grad_()
        terms = GAN_LOSSES["hinge"][0](x, x)
        assert torch.autograd.grad(terms["real"], x)[0].tolist() == pytest.approx(
            [-0.2, -0.2, -0.2, 0.0, 0.0]
        )
        assert torch.autograd.grad(terms["fake"], x)[0].tolist() == pytest.approx(
            [0.0, 0.0, 0.2, 0.2, 0.2]
        )

    @pytest.mark.parametrize("side", ["real", "fake"])
    def test_the_discriminator_s_slopes_at_the_kinks_are_subgradients(self, side):
        terms = GAN_LOSSES["hinge"][0]
        check_subgradient(lambda x: terms(x, x)[side], double(-1.0, 0.0, 1.0))
