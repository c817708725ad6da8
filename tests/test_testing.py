"""The checks of ``saddlepoint.testing`` can fail, and say with numbers why."""

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import saddlepoint as sp
from saddlepoint.testing import check_subgradient
from saddlepoint.testing.subgradients import _distance_to_hull

ZERO = torch.zeros((), dtype=torch.float64)


def double(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


class TestConvex:
    @pytest.mark.parametrize(
        ("f", "x"),
        [
            (torch.abs, ZERO),
            (torch.norm, torch.zeros(3, dtype=torch.float64)),
            (lambda x: x.square().sum(), double(1.0, -2.0)),
            (lambda x: torch.logsumexp(x, 0), torch.linspace(-3, 3, 300, dtype=torch.float64)),
            (lambda x: x.amax(), torch.ones(4, dtype=torch.float64)),
            (lambda x: x.max(dim=0).values, torch.ones(4, dtype=torch.float64)),
            (lambda x: (x**2).sum(), torch.linspace(-1, 1, 20)),
            (lambda x: torch.where(x > 0, -x.log(), torch.inf), ZERO + 1),
        ],
    )
    def test_true_ones_pass(self, f, x):
        check_subgradient(f, x)

    @pytest.mark.parametrize("g", [-1.0, -0.5, 0.0, 1.0])
    def test_every_slope_between_those_of_both_sides_passes(self, g):
        check_subgradient(torch.abs, ZERO, torch.full_like(ZERO, g))

    @pytest.mark.parametrize("g", [-1.01, 1.01, 3.0])
    def test_no_other_slope_does(self, g):
        with pytest.raises(
            AssertionError,
            match=(
                rf"The given subgradient, {g:g}, is not a subgradient of f at x: f\(x\) \+ ⟨g, y −"
                r" x⟩ = "
            ),
        ):
            check_subgradient(torch.abs, ZERO, torch.full_like(ZERO, g))

    def test_the_wrong_sign_fails_with_numbers(self):
        x = double(1.0, 1.0)
        with pytest.raises(
            AssertionError,
            match=(
                r"\(-2, -2\), is not a subgradient .* = 2\.\d+ lies above f\(y\) = 1\.\d+ at y ="
                r" \(0\.\d+, 0\.\d+\)"
            ),
        ):
            check_subgradient(lambda x: x.square().sum(), x, -2 * x)

    def test_one_wrong_entry_of_many_fails(self):
        x = torch.linspace(-1, 1, 100, dtype=torch.float64)
        g = 2 * x
        g[17] += 0.5
        with pytest.raises(AssertionError, match="is not a subgradient"):
            check_subgradient(lambda x: x.square().sum(), x, g)

    def test_concave_functions_fail_and_the_message_says_what_to_do(self):
        with pytest.raises(AssertionError, match="If f is not convex, use convex=False"):
            check_subgradient(lambda x: -x.square(), ZERO + 1)

    def test_only_far_points_show_that_a_tangent_is_not_a_support(self):
        f = lambda x: (x**2 - 1) ** 2 + 0.2 * x  # noqa: E731  a well at -1 lower than that at 1
        x = double(0.9746)  # near the bottom of the higher one, where f is convex
        with pytest.raises(AssertionError, match="is not a subgradient"):
            check_subgradient(lambda x: f(x).sum(), x)
        check_subgradient(lambda x: f(x).sum(), x, convex=False)


class TestClarke:
    @pytest.mark.parametrize(
        ("f", "x"),
        [
            (torch.sin, ZERO + 2),
            (lambda x: -x.abs(), ZERO),
            (lambda x: x.relu().sum() - x.abs().sum(), torch.zeros(3, dtype=torch.float64)),
            (lambda x: x.amin(), torch.ones(3, dtype=torch.float64)),
            (torch.norm, torch.zeros(2, dtype=torch.float64)),
        ],
    )
    def test_true_ones_pass(self, f, x):
        check_subgradient(f, x, convex=False)

    def test_the_difference_of_two_relus_fails(self):
        difference = lambda x: x.relu() - (-x).relu()  # noqa: E731
        with pytest.raises(
            AssertionError,
            match=r"The gradient of autograd, 0, is not in the Clarke set of f at x: it is 1 away",
        ):
            check_subgradient(difference, ZERO, convex=False)
        check_subgradient(difference, ZERO, ZERO + 1, convex=False)

    @pytest.mark.parametrize(
        ("g", "away"), [((0.8, 0.6), None), ((0.0, 2.0), 1.0), ((3.0, 4.0), 4.0)]
    )
    def test_the_distance_is_reported(self, g, away):
        if away is None:
            return check_subgradient(
                torch.norm,
                torch.zeros(2, dtype=torch.float64),
                double(*g),
                convex=False,
                tolerance=0.01,
            )
        with pytest.raises(AssertionError, match=r"it is [\d.]+ away") as caught:
            check_subgradient(
                torch.norm, torch.zeros(2, dtype=torch.float64), double(*g), convex=False
            )
        found = float(str(caught.value).partition("it is ")[2].split()[0])
        assert found == pytest.approx(away, rel=0.01)

    def test_a_function_without_lipschitz_constant_is_named(self):
        with pytest.raises(AssertionError, match="is not finite: f is not Lipschitz there"):
            check_subgradient(torch.sqrt, ZERO, ZERO, convex=False)  # NaN left of 0

    def test_more_samples_find_more_corners(self):
        corner, zero = torch.ones(8, dtype=torch.float64), torch.zeros(8, dtype=torch.float64)
        with pytest.raises(AssertionError, match="is not in the Clarke set"):
            check_subgradient(lambda x: x.abs().sum(), zero, corner, convex=False)
        check_subgradient(lambda x: x.abs().sum(), zero, corner, convex=False, samples=2000)


@pytest.mark.parametrize("convex", [True, False])
class TestBoth:
    @pytest.mark.parametrize(
        ("f", "shown"), [(torch.sqrt, "inf"), (lambda x: x.square().sqrt(), "nan")]
    )
    def test_torch_s_slope_of_the_square_root_fails(self, f, shown, convex):
        with pytest.raises(
            AssertionError,
            match=rf"The gradient of autograd, {shown}, is not finite, so it is not a subgradient",
        ):
            check_subgradient(f, ZERO, convex=convex)

    def test_the_same_points_every_time_unless_a_generator_is_given(self, convex):
        seen = []
        for generator in (None, None, torch.Generator().manual_seed(1)):
            points = []
            check_subgradient(
                lambda x, p=points: p.append(x.detach().clone()) or x.abs().sum(),
                double(1.0, 1.0),
                convex=convex,
                generator=generator,
            )
            seen.append(torch.stack(points))
        assert torch.equal(seen[0], seen[1])
        assert not torch.equal(seen[0], seen[2])
        assert 190 <= len(seen[0]) <= 210

    def test_the_point_is_left_alone(self, convex):
        x = double(1.0, 2.0).requires_grad_()
        check_subgradient(lambda x: x.square().sum(), x, convex=convex)
        assert x.grad is None
        assert x.tolist() == [1.0, 2.0]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_rounding_is_not_held_against_a_gradient(self, dtype, convex):
        x = torch.linspace(-3, 3, 50, dtype=dtype)
        check_subgradient(lambda x: 1000 + torch.cosh(x).mean(), x, convex=convex)

    def test_usage(self, convex):
        with pytest.raises(
            sp.UsageError,
            match=r"x must contain floating-point numbers, .*, not 3 of torch\.int64",
        ):
            check_subgradient(lambda x: x.sum(), torch.arange(3), convex=convex)
        with pytest.raises(
            sp.UsageError, match=r"the subgradient must have the shape of x, \(\), not \(2,\)"
        ):
            check_subgradient(torch.abs, ZERO, torch.zeros(2), convex=convex)
        for name, value in {"samples": 0, "radius": -1.0, "tolerance": math.nan}.items():
            with pytest.raises(
                sp.UsageError, match=f"check_subgradient: {name} must be positive, not {value}"
            ):
                check_subgradient(torch.abs, ZERO, convex=convex, **{name: value})


def test_functions_must_be_scalar_and_finite():
    with pytest.raises(
        sp.UsageError, match=r"must be a scalar tensor, not a tensor of shape \(2,\)"
    ):
        check_subgradient(lambda x: x.abs(), double(1.0, 2.0))
    with pytest.raises(AssertionError, match="f is inf at x, so it has no subgradient there"):
        check_subgradient(lambda x: x + torch.inf, ZERO)
    with pytest.raises(
        AssertionError,
        match=r"f is nan at distance .* from x\. It should be inf outside of its domain",
    ):
        check_subgradient(lambda x: -x.log(), ZERO + 1)


numbers = st.floats(-3, 3, allow_nan=False).map(lambda v: round(v, 3))


@given(rows=st.lists(st.tuples(numbers, numbers), min_size=1, max_size=6))
@example(rows=[(0.0, 0.0), (0.0, 2.0), (0.0, 0.001)])
@example(rows=[(0.0, 0.0005), (0.0, 2.0), (0.0, 0.0015)])
def test_the_distance_to_a_hull_in_the_plane_is_that_to_its_nearest_edge(rows):
    """Outside of the hull, the nearest point lies on a segment between two of the rows; inside, 0
    is a mixture of three."""
    points = double(*rows).view(-1, 2)
    nearest = min(segment_distance(p, q) for p in points for q in points)
    inside = any(holds_zero(p, q, r) for p in points for q in points for r in points)
    expected = 0.0 if inside else nearest
    found = _distance_to_hull(points, 1e-4)
    assert found <= 1e-4 if expected == 0 else found == pytest.approx(expected, rel=0.002, abs=1e-4)


def segment_distance(p, q):
    step = q - p
    share = 0.0 if not step.any() else float((-(p @ step) / (step @ step)).clamp(0, 1))
    return float((p + share * step).norm())


def holds_zero(p, q, r):
    turns = [float(a[0] * b[1] - a[1] * b[0]) for a, b in ((p, q), (q, r), (r, p))]
    return all(t > 0 for t in turns) or all(t < 0 for t in turns)
