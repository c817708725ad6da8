import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saddlepoint.curvature import SOLVERS, cg, gmres, minres, saddle_free, schur_cg
from saddlepoint.errors import UsageError

GENERAL = {"tol": 1e-10, "max_iter": 200}


def matrix(values, seed, dtype=torch.float64):
    """A symmetric matrix with the given eigenvalues."""
    g = torch.Generator().manual_seed(seed)
    Q, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=g, dtype=torch.float64))
    return (Q @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ Q.T).to(dtype)


def vector(n, seed, dtype=torch.float64):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(
        dtype
    )


class Counted:
    def __init__(self, A):
        self.A, self.products = A, 0

    def __call__(self, v):
        self.products += 1
        return self.A @ v


def check_report(solution, A, b, shift=0.0):
    """What the report and the image say must be what a dense computation finds."""
    x, image, report = solution
    torch.testing.assert_close(image, A @ x, rtol=1e-6, atol=1e-8 * float(b.norm()))
    true = float((b - A @ x - shift * x).norm() / b.norm())
    assert report.residual == pytest.approx(true, rel=1e-3, abs=1e-9)


positive = st.lists(st.floats(0.1, 10), min_size=1, max_size=12)
indefinite = st.lists(
    st.floats(0.1, 10).flatmap(lambda v: st.sampled_from([v, -v])), min_size=1, max_size=12
)
seeds = st.integers(0, 10_000)
shifts = st.sampled_from([0.0, 0.5])


@given(positive, seeds, shifts, st.booleans(), st.sampled_from(sorted(SOLVERS)))
def test_positive_definite_systems(values, seed, shift, warm, method):
    A, b = matrix(values, seed), vector(len(values), seed + 1)
    product = Counted(A)
    x0 = vector(len(values), seed + 2) if warm else None
    solution = SOLVERS[method](product, b, x0=x0, shift=shift, **GENERAL)
    expected = torch.linalg.solve(A + shift * torch.eye(len(values), dtype=A.dtype), b)
    torch.testing.assert_close(solution.x, expected, rtol=1e-6, atol=1e-7)
    assert solution.info.status == "converged"
    assert solution.info.products == product.products
    if method != "saddle_free":
        check_report(solution, A, b, shift)


@given(
    st.lists(st.floats(0.5, 5), min_size=1, max_size=10),
    seeds,
    st.booleans(),
    st.sampled_from(sorted(SOLVERS)),
)
def test_single_precision(values, seed, warm, method):
    A, b = matrix(values, seed, torch.float32), vector(len(values), seed + 1, torch.float32)
    x0 = vector(len(values), seed + 2, torch.float32) if warm else None
    solution = SOLVERS[method](Counted(A), b, x0=x0, tol=1e-5, max_iter=100)
    assert solution.info.status == "converged"
    assert solution.x.dtype == torch.float32
    torch.testing.assert_close(A @ solution.x, b, rtol=0, atol=1e-4 * float(b.norm()))


@given(indefinite, seeds, st.sampled_from([minres, gmres]))
def test_indefinite_systems(values, seed, method):
    A, b = matrix(values, seed), vector(len(values), seed + 1)
    solution = method(Counted(A), b, **GENERAL)
    torch.testing.assert_close(A @ solution.x, b, rtol=0, atol=1e-8 * float(b.norm()))
    check_report(solution, A, b)


@given(st.integers(1, 15), seeds, shifts)
def test_gmres_solves_non_symmetric_systems(n, seed, shift):
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(n, n, generator=g, dtype=torch.float64) + 2 * math.sqrt(n) * torch.eye(
        n, dtype=torch.float64
    )
    b = vector(n, seed + 1)
    solution = gmres(Counted(A), b, shift=shift, **GENERAL)
    torch.testing.assert_close(
        A @ solution.x + shift * solution.x, b, rtol=0, atol=1e-8 * float(b.norm())
    )
    check_report(solution, A, b, shift)


def test_gmres_restarts():
    values = torch.linspace(1, 50, 120).tolist()
    A, b = matrix(values, 0), vector(120, 1)
    solution = gmres(Counted(A), b, tol=1e-8, max_iter=400)
    assert solution.info.status == "converged"
    assert solution.info.products > 50
    check_report(solution, A, b)


@given(indefinite, seeds, shifts)
def test_saddle_free_takes_absolute_eigenvalues(values, seed, shift):
    A, b = matrix(values, seed), vector(len(values), seed + 1)
    solution = saddle_free(Counted(A), b, shift=shift, tol=0.0, max_iter=50)
    L, Q = torch.linalg.eigh(A)
    expected = Q @ ((Q.T @ b) / (L.abs() + shift))
    torch.testing.assert_close(solution.x, expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(solution.image, A @ expected, rtol=1e-6, atol=1e-6)


@settings(max_examples=50)
@given(indefinite, seeds, st.integers(1, 3))
def test_saddle_free_descends_even_when_cut_short(values, seed, max_iter):
    A, b = matrix(values, seed), vector(len(values), seed + 1)
    solution = saddle_free(Counted(A), b, tol=0.0, shift=0.1, max_iter=max_iter)
    assert float(solution.x.dot(b)) > 0
    assert solution.info.products <= max_iter


def test_cg_stops_at_negative_curvature_with_a_descent_direction():
    A, b = matrix([5.0, 4.0, 3.0, -2.0], 0), vector(4, 1)
    solution = cg(Counted(A), b, **GENERAL)
    assert solution.info.status == "negative_curvature"
    assert solution.info.curvature < 0
    assert float(solution.x.dot(b)) >= 0


@pytest.mark.parametrize("method", sorted(SOLVERS))
def test_zero_right_hand_side_costs_nothing(method):
    product = Counted(torch.eye(3, dtype=torch.float64))
    solution = SOLVERS[method](product, torch.zeros(3, dtype=torch.float64), **GENERAL)
    assert solution.x.tolist() == [0.0, 0.0, 0.0]
    assert (solution.info.status, solution.info.products, product.products) == (
        "converged",
        0,
        0,
    )


@pytest.mark.parametrize("method", sorted(SOLVERS))
def test_one_product_solves_a_multiple_of_the_identity_without_rounding(method):
    solution = SOLVERS[method](lambda v: 2 * v, torch.full((7,), 2.0), tol=1e-6, max_iter=10)
    if method == "minres":  # works with b/‖b‖, so it may round
        torch.testing.assert_close(solution.x, torch.ones(7))
    else:
        assert solution.x.tolist() == [1.0] * 7
    assert solution.info.products == 1


@pytest.mark.parametrize("method", ["cg", "minres", "gmres"])
def test_an_exact_warm_start_costs_one_product(method):
    A, b = matrix([1.0, 2.0, 3.0], 0), vector(3, 1)
    product = Counted(A)
    solution = SOLVERS[method](product, b, x0=torch.linalg.solve(A, b), **GENERAL)
    assert (solution.info.status, solution.info.products, solution.info.iterations) == (
        "converged",
        1,
        0,
    )


@pytest.mark.parametrize("method", ["cg", "minres", "gmres"])
def test_a_warm_start_worse_than_zero_is_not_used(method):
    A, b = matrix([1.0, 2.0, 3.0], 0), vector(3, 1)
    solution = SOLVERS[method](
        Counted(A), b, x0=1e6 * torch.ones(3, dtype=torch.float64), tol=1e-12, max_iter=1
    )
    assert solution.info.status == "max_iter"
    assert solution.x.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("method", sorted(SOLVERS))
@pytest.mark.parametrize("max_iter", [1, 3])
def test_the_budget_is_never_exceeded(method, max_iter):
    A, b = matrix(torch.linspace(1, 100, 30).tolist(), 0), vector(30, 1)
    product = Counted(A)
    solution = SOLVERS[method](product, b, tol=1e-12, max_iter=max_iter)
    assert product.products == solution.info.products == max_iter
    assert solution.info.status == "max_iter"


@pytest.mark.parametrize("method", sorted(SOLVERS))
@pytest.mark.parametrize("good_products", [0, 2])
def test_a_non_finite_product_ends_with_the_best_iterate(method, good_products):
    A, b = matrix([1.0, 2.0, 3.0, 4.0, 5.0], 0), vector(5, 1)
    calls = iter(range(100))
    solution = SOLVERS[method](
        lambda v: A @ v if next(calls) < good_products else v * math.nan, b, **GENERAL
    )
    assert solution.info.status == "non_finite"
    assert bool(solution.x.isfinite().all())


@pytest.mark.parametrize("method", sorted(SOLVERS))
def test_a_non_finite_right_hand_side_is_reported(method):
    solution = SOLVERS[method](lambda v: v, torch.tensor([1.0, math.nan]), **GENERAL)
    assert solution.info.status == "non_finite"
    assert solution.x.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("method", ["minres", "gmres"])
def test_singular_systems(method):
    A = matrix([3.0, 2.0, 1.0, 0.0], 0)
    inside, outside = A @ vector(4, 1), vector(4, 2)
    solved = SOLVERS[method](Counted(A), inside, **GENERAL)
    torch.testing.assert_close(A @ solved.x, inside, rtol=0, atol=1e-9)
    best = SOLVERS[method](Counted(A), outside, **GENERAL)
    least_squares = torch.linalg.lstsq(A, outside.unsqueeze(1), driver="gelsd").solution.squeeze(1)
    smallest = float((outside - A @ least_squares).norm() / outside.norm())
    assert best.info.status in ("breakdown", "max_iter")
    assert best.info.residual == pytest.approx(smallest, rel=1e-4)


@pytest.mark.parametrize("method", ["cg", "minres", "gmres"])
@pytest.mark.parametrize(("dtype", "tol"), [(torch.float32, 1e-3), (torch.float64, 1e-6)])
def test_ill_conditioned_systems_report_what_they_reached(method, dtype, tol):
    values = torch.logspace(-12, 0, 20).tolist()
    A, b = matrix(values, 0, dtype), vector(20, 1, dtype)
    solution = SOLVERS[method](Counted(A), A @ b, tol=tol, max_iter=200)
    assert bool(solution.x.isfinite().all())
    true = float((A @ b - A @ solution.x).norm() / (A @ b).norm())
    assert true <= 2 * solution.info.residual + 100 * torch.finfo(dtype).eps
    assert solution.info.status == "converged"


@given(st.integers(1, 8), st.integers(1, 8), seeds, st.booleans())
def test_schur_cg_solves_the_antisymmetric_system(n, m, seed, warm):
    g = torch.Generator().manual_seed(seed)
    B = torch.randn(n, m, generator=g, dtype=torch.float64)
    bx, by = (torch.randn(k, generator=g, dtype=torch.float64) for k in (n, m))
    forward, backward = Counted(B), Counted(B.T)
    x0 = torch.randn(n, generator=g, dtype=torch.float64) if warm else None
    x, y, report = schur_cg(forward, backward, bx, by, x0=x0, tol=1e-12, max_iter=50)
    torch.testing.assert_close(
        x + B @ y, bx, rtol=0, atol=1e-10 * (1 + float(bx.norm() + by.norm()))
    )
    torch.testing.assert_close(
        y - B.T @ x, by, rtol=0, atol=1e-10 * (1 + float(bx.norm() + by.norm()))
    )
    assert report.status == "converged"
    assert (
        report.products
        == forward.products + backward.products
        == 1 + 2 * report.iterations + (2 if warm else 0)
    )
    # as many distinct eigenvalues as B has singular values, and some rounding
    assert report.iterations <= min(n, m) + 3


def test_schur_cg_reports_how_it_ended():
    B = torch.diag(torch.tensor([1.0, 10.0, 100.0, 1000.0], dtype=torch.float64))
    ones = torch.ones(4, dtype=torch.float64)
    x, y, report = schur_cg(lambda v: B @ v, lambda v: B.T @ v, ones, ones, tol=1e-12, max_iter=2)
    assert (report.status, report.iterations, report.products) == ("max_iter", 2, 5)
    true = torch.cat([ones - x - B @ y, ones - y + B.T @ x]).norm() / torch.cat([ones, ones]).norm()
    assert report.residual == pytest.approx(float(true), rel=1e-6)
    zero = torch.zeros(4, dtype=torch.float64)
    assert (
        schur_cg(lambda v: B @ v, lambda v: B.T @ v, zero, zero, tol=1e-6, max_iter=5)[2].status
        == "converged"
    )
    calls = iter(range(10))
    broken = lambda v: B @ v if next(calls) < 2 else v * math.nan  # noqa: E731
    x, y, report = schur_cg(broken, lambda v: B.T @ v, ones, ones, tol=1e-12, max_iter=9)
    assert report.status == "non_finite"
    assert bool(x.isfinite().all() and y.isfinite().all())


@pytest.mark.parametrize("method", SOLVERS)
def test_complex_systems_are_refused(method):
    b = torch.ones(2, dtype=torch.complex128)
    with pytest.raises(UsageError, match=r"The right-hand side is complex \(torch\.complex128\)"):
        SOLVERS[method](lambda v: v, b, **GENERAL)
    with pytest.raises(UsageError, match="The right-hand side is complex"):
        schur_cg(lambda v: v, lambda v: v, b, b, **GENERAL)
