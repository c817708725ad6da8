import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import saddlepoint as sp
from saddlepoint.curvature import SchurComplement, eigenvalues
from saddlepoint.curvature.operators import Operator
from saddlepoint.models import MLP
from saddlepoint.vectors import Vector


class Gan:
    """A smooth GAN in float64 with more than forty parameters for each player, so that ARPACK runs
    on every block.

    ``convex`` adds weight decay that makes the discriminator's Hessian positive definite.
    """

    def __init__(self, seed=0, zero_sum=True, convex=0.0):
        draws = torch.Generator().manual_seed(seed)
        self.G = MLP((2, 9, 2), activation="tanh", generator=draws).double()
        self.D = MLP((2, 14, 1), activation="tanh", generator=draws).double()
        self.z, self.real = (
            torch.randn(20, 2, generator=draws, dtype=torch.float64) for _ in range(2)
        )
        self.zero_sum, self.convex = zero_sum, convex
        self.networks = {"discriminator": self.D, "generator": self.G}

    def losses(self):
        softplus = torch.nn.functional.softplus
        fake = self.D(self.G(self.z))
        f = softplus(-self.D(self.real)).mean() + softplus(fake).mean()
        decay = self.convex * sum((p**2).sum() for p in self.D.parameters())
        return {
            "discriminator": f + decay,
            "generator": -f if self.zero_sum else softplus(-fake).mean(),
        }

    def jacobian(self):
        return sp.linearize(sp.Game(self.networks, self.losses)).jacobian


class Matrix(Operator):
    """A dense matrix as an operator of one player."""

    def __init__(self, matrix):
        self.matrix, self.domain = matrix, Vector({"x": [matrix[0]]})

    def __matmul__(self, v):
        return Vector({"x": [self.matrix @ v["x"][0]]})

    @property
    def T(self):
        return Matrix(self.matrix.T)


def by(which, values):
    values = np.asarray(values)
    key = {"magnitude": -abs(values), "smallest": values.real, "largest": -values.real}[which]
    return values[np.argsort(key, kind="stable")]


def assert_same_end(found, dense, which, tol=1e-8):
    """The values found are the end of the dense spectrum, each matched with one of its own."""
    expected = list(by(which, dense)[: len(found)])
    for value in found:
        nearest = min(expected, key=lambda e: abs(e - value))
        assert abs(nearest - value) < tol, (value, expected)
        expected.remove(nearest)


def schur_of(J, x="generator", y="discriminator", **options):
    return SchurComplement(
        J[x, x], J[x, y], J[y, x], J[y, y], **{"tol": 1e-12, "max_iter": 1000, **options}
    )


class TestArnoldiAgainstTheDenseSpectrum:
    @pytest.mark.parametrize("which", ["magnitude", "smallest", "largest"])
    @pytest.mark.parametrize("zero_sum", [True, False])
    def test_jacobian(self, which, zero_sum):
        J = Gan(zero_sum=zero_sum).jacobian()
        found = eigenvalues(J, 7, which=which, max_iter=5000)
        dense = torch.linalg.eigvals(J.dense()).numpy()
        assert found.method == "arpack"
        assert found.converged
        assert len(found.values) in (7, 8)  # a pair at the border
        assert_same_end(found.values, dense, which)
        assert max(found.residuals) < 1e-8

    @pytest.mark.parametrize("player", ["discriminator", "generator"])
    @pytest.mark.parametrize("which", ["magnitude", "smallest", "largest", "both_ends"])
    def test_hessian_blocks(self, player, which):
        J = Gan(zero_sum=False).jacobian()[player, player]
        found = eigenvalues(J, 6, which=which, symmetric=True, max_iter=5000)
        dense = torch.linalg.eigvalsh(J.dense()).numpy()
        assert found.method == "arpack"
        assert found.converged
        if which == "both_ends":
            np.testing.assert_allclose(found.real, [*dense[:3], *dense[-3:]], atol=1e-8)
        else:
            assert_same_end(found.values, dense, which)
        assert max(found.residuals) < 1e-8

    @pytest.mark.parametrize("zero_sum", [True, False])
    def test_schur_complement(self, zero_sum):
        J = Gan(zero_sum=zero_sum, convex=1.0).jacobian()
        D, G = slice(0, 57), slice(57, None)
        M = J.dense()
        expected = M[G, G] - M[G, D] @ torch.linalg.solve(M[D, D], M[D, G])
        S = schur_of(J)
        torch.testing.assert_close(S.dense(), expected, rtol=0, atol=1e-10)
        v = torch.linspace(-1, 1, 47, dtype=torch.float64)
        torch.testing.assert_close(
            (S.T @ S.domain.unflatten(v)).flatten(), expected.T @ v, rtol=0, atol=1e-10
        )
        found = eigenvalues(S, 5, which="smallest", symmetric=zero_sum, max_iter=5000)
        assert found.method == "arpack"
        assert found.converged
        assert_same_end(found.values, torch.linalg.eigvals(expected).numpy(), "smallest")

    def test_single_precision(self):
        gan = Gan()
        reference = torch.linalg.eigvals(gan.jacobian().dense()).numpy()
        gan.G.float(), gan.D.float()
        gan.z, gan.real = gan.z.float(), gan.real.float()
        found = eigenvalues(gan.jacobian(), 6, max_iter=5000)
        assert found.converged
        assert found.method == "arpack"
        assert_same_end(found.values, reference, "magnitude", tol=1e-5)

    def test_twice_the_same_and_products_counted(self):
        J = Gan().jacobian()
        before = J.linearization.cost.products
        first = eigenvalues(J, 4)
        assert J.linearization.cost.products - before == 2 * first.products  # two rows each
        assert eigenvalues(J, 4) == first


class TestDense:
    """Up to the size of ARPACK's basis the matrix is written out."""

    @given(
        st.integers(1, 30),
        st.integers(0, 10**6),
        st.sampled_from(["magnitude", "smallest", "largest"]),
    )
    def test_any_matrix(self, n, seed, which):
        M = torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        found = eigenvalues(Matrix(M), 3, which=which)
        assert found.method == "dense"
        assert found.products == n
        assert found.converged
        assert all(value.conjugate() in found.values for value in found.values)
        assert_same_end(found.values, torch.linalg.eigvals(M).numpy(), which, tol=1e-6)
        assert max(found.residuals) < 1e-9 * (1 + float(M.norm()))

    def test_both_ends_and_fewer_than_asked_for(self):
        M = Matrix(torch.diag(torch.tensor([3.0, -2.0, 5.0, 1.0, 0.5])))
        three = eigenvalues(M, 3, which="both_ends", symmetric=True)
        assert three.real == (-2.0, 3.0, 5.0)
        nine = eigenvalues(M, 9, which="both_ends", symmetric=True)
        assert nine.real == (-2.0, 0.5, 1.0, 3.0, 5.0)

    def test_order_and_pairs(self):
        M = torch.block_diag(
            torch.tensor([[1.0, 2.0], [-2.0, 1.0]]), torch.tensor([[-3.0]])
        ).double()
        # the pair at the border is kept whole
        assert eigenvalues(Matrix(M), 2).values == pytest.approx((-3.0, 1 + 2j, 1 - 2j))
        assert eigenvalues(Matrix(M), 1, which="smallest").values == (-3.0,)


class TestDifficultSpectra:
    @pytest.mark.parametrize("symmetric", [True, False])
    def test_the_zero_operator(self, symmetric):
        """A linear critic has no curvature of its own; ARPACK refuses the zero matrix."""
        found = eigenvalues(
            Matrix(torch.zeros(50, 50, dtype=torch.float64)), 4, symmetric=symmetric
        )
        assert found.values == (0.0,) * 4
        assert found.converged
        assert found.method == "arpack"
        assert found.residuals == (0.0,) * 4

    def test_low_rank(self):
        M = torch.zeros(60, 60, dtype=torch.float64)
        M[:3, :3] = torch.diag(torch.tensor([4.0, -2.0, 1.0], dtype=torch.float64))
        found = eigenvalues(Matrix(M), 6, which="both_ends", symmetric=True)
        np.testing.assert_allclose(found.real, [-2, 0, 0, 0, 1, 4], atol=1e-12)
        again = eigenvalues(Matrix(M), 6, which="both_ends", symmetric=True)
        assert again.products == found.products

    def test_what_has_not_converged_is_left_out(self):
        """All real parts of a skew matrix are zero, so that none is the smallest."""
        B = torch.randn(80, 80, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        found = eigenvalues(Matrix(B - B.T), 6, which="smallest", max_iter=200)
        assert not found.converged
        assert len(found.values) < 6
        assert found.products <= 200 + 2 * 6
        assert max(found.residuals, default=0.0) < 1e-6

    @pytest.mark.parametrize("max_iter", [90, 100, 333])
    @pytest.mark.parametrize("which", ["smallest", "both_ends"])
    def test_the_budget_is_kept(self, max_iter, which):
        M = torch.diag(torch.cat([torch.linspace(0, 1e-7, 60), torch.ones(40)]).double())
        found = eigenvalues(Matrix(M), 6, which=which, symmetric=True, max_iter=max_iter)
        assert found.products <= max_iter + len(found.values)


class TestMistakes:
    M = Matrix(torch.eye(3))

    def test_options(self):
        with pytest.raises(
            sp.UsageError, match=r'which="magnitud" is unknown\. Did you mean "magnitude"'
        ):
            eigenvalues(self.M, 1, which="magnitud")
        with pytest.raises(sp.UsageError, match="needs symmetric=True"):
            eigenvalues(self.M, 1, which="both_ends")
        with pytest.raises(sp.UsageError, match="count must be at least 1, not 0"):
            eigenvalues(self.M, 0)
        with pytest.raises(
            sp.UsageError, match="10 eigenvalues need a max_iter of at least 90 products, not 89"
        ):
            eigenvalues(self.M, 10, max_iter=89)

    @pytest.mark.parametrize("n", [3, 50])
    def test_a_product_that_is_not_finite(self, n):
        M = torch.eye(n)
        M[0, 0] = torch.inf
        with pytest.raises(
            sp.DivergenceError, match='not finite in the part of player "x"'
        ) as error:
            eigenvalues(Matrix(M), 2)
        assert error.value.player == "x"

    def test_a_solve_that_stops_early(self):
        with pytest.raises(
            sp.UsageError, match='ended as "max_iter" after 2 products at a relative residual'
        ):
            schur_of(Gan(convex=0.3).jacobian(), max_iter=2).dense()
        with pytest.raises(sp.UsageError, match='ended as "negative_curvature"'):
            schur_of(Gan().jacobian()).dense()
