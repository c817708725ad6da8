"""Eigenvalues of matrix-free operators, and the Schur complement of a game as such an operator."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from saddlepoint.curvature.operators import Operator
from saddlepoint.curvature.solvers import Solver, cg
from saddlepoint.errors import DivergenceError, UsageError, did_you_mean
from saddlepoint.extras import needs
from saddlepoint.vectors import Vector

Which = Literal["magnitude", "smallest", "largest", "both_ends"]
"""Of the largest magnitude, of the smallest or largest real part, or half of them from each end."""

# the names in ARPACK: for general and for symmetric operators
_ARPACK = {
    "magnitude": ("LM", "LM"),
    "smallest": ("SR", "SA"),
    "largest": ("LR", "LA"),
    "both_ends": (None, "BE"),
}


@dataclass(frozen=True)
class Eigenvalues:
    """Eigenvalues of an operator A, and how they were found.

    Attributes:
        values: the eigenvalues, beginning with the most extreme; ascending for "both_ends". A
            complex pair is never split.
        residuals: ‖A v − λ v‖ for each value and its eigenvector of length 1.
        products: applications of A.
        converged: whether all requested eigenvalues were found within ``tol``.
        method: "dense", where the matrix was computed, or "arpack".
    """

    values: tuple[complex, ...]
    residuals: tuple[float, ...]
    products: int
    converged: bool
    method: Literal["dense", "arpack"]

    @property
    def real(self) -> tuple[float, ...]:
        """The real parts of the eigenvalues."""
        return tuple(value.real for value in self.values)


def eigenvalues(
    operator: Operator,
    count: int,
    *,
    which: Which = "magnitude",
    symmetric: bool = False,
    tol: float | None = None,
    max_iter: int = 1000,
) -> Eigenvalues:
    """Return ``count`` extreme eigenvalues of a square operator, matrix-free.

    ARPACK restarts Arnoldi (Lanczos where symmetric) on a Krylov space of m = max(2·count + 10, 30)
    vectors, always from the same first vector. Up to dimension m the matrix is computed instead,
    which costs fewer products. Eigenvalues that have not converged within ``max_iter`` are left
    out, and ``converged`` is then False. ARPACK is part of SciPy, which ``saddlepoint[train]``
    installs; up to dimension m it is not needed.

    Args:
        operator: A; products are computed in its parameters' precision, the rest in float64.
        count: how many; at most the dimension of the operator are returned, and one more where the
            last would be half of a complex pair.
        which: "magnitude", "smallest" and "largest" real part, or "both_ends": the smallest
            count // 2, and the largest for the rest.
        symmetric: whether A = Aᵀ; "both_ends" needs it.
        tol: relative to the eigenvalue; by default ε^(2/3) of the parameters' precision,
            4e-11 in float64, 2e-5 in float32.
        max_iter: the largest number of applications of A in the search; the residuals then take one
            for each value, two for a complex pair.

    Raises:
        UsageError: an unknown ``which``, "both_ends" for an operator that is not symmetric, or a
            count or max_iter that is too small.
        DivergenceError: a product is NaN or infinite.
        MissingExtraError: the dimension is above m, and SciPy is not installed.

    Reference: Lehoucq, Sorensen and Yang (1998), ARPACK users' guide: solution of large-scale
    eigenvalue problems with implicitly restarted Arnoldi methods.

    >>> from saddlepoint import Game, linearize
    >>> x, y = (torch.ones(30, dtype=torch.float64, requires_grad=True) for _ in range(2))
    >>> weights = torch.arange(1, 31).double()
    >>> def losses():
    ...     f = (weights * x * y).sum() + (x**2).sum() / 2 - (y**2).sum() / 2
    ...     return {"x": f, "y": -f}
    >>> found = eigenvalues(linearize(Game({"x": [x], "y": [y]}, losses)).jacobian, 2)
    >>> [f"{value:.4f}" for value in found.values], found.converged, found.method
    (['1.0000+30.0000j', '1.0000-30.0000j'], True, 'arpack')
    """
    basis = max(2 * count + 10, 30)
    if which not in _ARPACK:
        raise UsageError(f'eigenvalues: which="{which}" is unknown.' + did_you_mean(which, _ARPACK))
    if which == "both_ends" and not symmetric:
        raise UsageError(
            'eigenvalues: which="both_ends" needs symmetric=True, because complex eigenvalues have'
            ' no order. Call it once with "smallest" and once with "largest".'
        )
    if count < 1:
        raise UsageError(f"eigenvalues: count must be at least 1, not {count}.")
    if max_iter < 3 * basis:
        raise UsageError(
            f"eigenvalues: {count} eigenvalues need a max_iter of at least {3 * basis} products,"
            f" not {max_iter}."
        )

    product = _Product(operator)
    if product.size <= basis:
        matrix = np.stack([product(column) for column in np.eye(product.size)], axis=1)
        if symmetric:
            values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
        else:
            values, vectors = np.linalg.eig(matrix)
        order = _order(values, which, count)
        return _result(product, lambda v: matrix @ v, values, vectors, order, True, "dense")
    values, vectors = _arpack(product, count, which, symmetric, tol, max_iter, basis)
    converged, order = len(values) >= count, _order(values, which, count)
    return _result(product, product.matmul, values, vectors, order, converged, "arpack")


class SchurComplement(Operator):
    """J_xx − J_xy J_yy⁻¹ J_yx, the total derivative of ξ_x along the follower's best responses.

    x is the leader, y the follower, and ξ_y = 0 on the curve of best responses. In a zero-sum game,
    where J_xy = −J_yxᵀ, the operator is symmetric: the Hessian of max_y f(x, y). An application
    costs three block products and a solve with J_yy, which has to be symmetric.

    Args:
        xx: the leader's own Hessian.
        xy: the leader's gradient, differentiated by the follower.
        yx: the follower's gradient, differentiated by the leader.
        yy: the follower's own Hessian, positive definite for ``cg``.
        solver: one of ``SOLVERS``.
        tol: relative residual of a solve.
        max_iter: the largest number of products of a solve.

    Raises:
        UsageError: on application, where a solve does not reach ``tol``.

    Reference: Jin, Netrapalli and Jordan (2020), What is local optimality in nonconvex-nonconcave
    minimax optimization?, arXiv:1902.00618.

    >>> from saddlepoint import Game, linearize
    >>> x, y = (torch.zeros(1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    >>> def losses():
    ...     f = (-3 * x**2 - y**2 + 4 * x * y).sum()
    ...     return {"x": f, "y": -f}
    >>> J = linearize(Game({"x": [x], "y": [y]}, losses)).jacobian
    >>> blocks = J["x", "x"], J["x", "y"], J["y", "x"], J["y", "y"]
    >>> SchurComplement(*blocks, tol=1e-10, max_iter=5).dense().tolist()  # −6 + 4·4/2
    [[2.0]]
    """

    def __init__(
        self,
        xx: Operator,
        xy: Operator,
        yx: Operator,
        yy: Operator,
        *,
        solver: Solver = cg,
        tol: float,
        max_iter: int,
    ) -> None:
        self.domain = xx.domain
        self._xx, self._xy, self._yx, self._yy = xx, xy, yx, yy
        self._solver, self._tol, self._max_iter = solver, tol, max_iter

    def __matmul__(self, v: Vector) -> Vector:
        b = self._yx @ v
        solution = self._solver(
            lambda y: (self._yy @ b.unflatten(y)).flatten(),
            b.flatten(),
            tol=self._tol,
            max_iter=self._max_iter,
        )
        info = solution.info
        if info.status != "converged":
            raise UsageError(
                f'Schur complement: a solve with the follower\'s Hessian ended as "{info.status}"'
                f" after {info.products} products at a relative residual of"
                f" {info.residual:.1e}, not {self._tol:.1e}. Raise max_iter or tol."
            )
        return self._xx @ v - self._xy @ b.unflatten(solution.x)

    @property
    def T(self) -> SchurComplement:
        return SchurComplement(
            self._xx.T,
            self._yx.T,
            self._xy.T,
            self._yy,
            solver=self._solver,
            tol=self._tol,
            max_iter=self._max_iter,
        )


class _Product:
    """An operator on NumPy vectors; products are counted, and checked to be finite."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self._like = operator.domain.tensors[0]
        self.precision = float(torch.finfo(self._like.dtype).eps)
        self.size = sum(t.numel() for t in operator.domain.tensors)
        self.count = 0
        self.zero = True  # whether every product so far was zero

    def __call__(self, v: np.ndarray) -> np.ndarray:
        flat = torch.as_tensor(
            np.array(v).reshape(-1), dtype=self._like.dtype, device=self._like.device
        )
        image = self._operator @ self._operator.domain.unflatten(flat)
        self.count += 1
        for player, tensors in image.items():
            if not all(bool(t.isfinite().all()) for t in tensors):
                raise DivergenceError(
                    f"eigenvalues: product {self.count} is not finite in the part of player"
                    f' "{player}". The second derivatives overflow here; check the losses and the'
                    " size of the parameters.",
                    player=player,
                )
        found = np.asarray(image.flatten().double().cpu().numpy())
        self.zero = self.zero and not found.any()
        return found

    def matmul(self, vectors: np.ndarray) -> np.ndarray:
        """Apply to the columns of a matrix, real and imaginary parts separately."""
        columns = [self(v.real) + (1j * self(v.imag) if v.imag.any() else 0) for v in vectors.T]
        return np.stack(columns, axis=1)


def _arpack(
    product: _Product,
    count: int,
    which: str,
    symmetric: bool,
    tol: float | None,
    max_iter: int,
    basis: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the converged eigenvalues, and their eigenvectors as columns."""
    n = product.size
    with needs("train", f"eigenvalues: an operator of dimension {n}, which is more than {basis},"):
        from scipy.sparse.linalg import (
            ArpackError,
            ArpackNoConvergence,
            LinearOperator,
            eigs,
            eigsh,
        )

    options: dict[str, Any] = {
        "which": _ARPACK[which][symmetric],
        "v0": np.random.default_rng(0).standard_normal(n),
        "ncv": basis,
        # a restart takes at most basis − count products; ARPACK makes one more
        "maxiter": (max_iter - basis - 1) // (basis - count) - 1,
        "tol": product.precision ** (2 / 3) if tol is None else tol,
    }
    if "rng" in inspect.signature(eigs).parameters:
        # SciPy 1.17 draws new directions from it where a Krylov space is complete early; before,
        # they came from ARPACK's own generator
        options["rng"] = np.random.default_rng(1)
    try:
        found = (eigsh if symmetric else eigs)(
            LinearOperator((n, n), matvec=product, dtype=np.float64), count, **options
        )
    except ArpackNoConvergence as stopped:
        found = stopped.eigenvalues, stopped.eigenvectors
    except ArpackError:
        if not product.zero:
            raise
        # ARPACK raises an error for the zero operator, the only one that maps a random vector to 0
        found = np.zeros(count), np.eye(n, count)
    return np.asarray(found[0]), np.asarray(found[1])


def _order(values: np.ndarray, which: str, count: int) -> np.ndarray:
    """Return the indices of the requested values, the most extreme first.

    Of a complex pair, the value with the positive imaginary part comes first.
    """
    keys = {
        "magnitude": -abs(values),
        "smallest": values.real,
        "largest": -values.real,
        "both_ends": values.real,
    }
    key = keys[which]
    # members of a pair and equal eigenvalues differ by rounding: compare them by their imaginary
    # part, not by the last digit
    coarse = np.round(key / (abs(values).max(initial=0.0) or 1.0), 9)
    order = np.lexsort((-values.imag, -abs(values.imag), coarse))
    if which == "both_ends" and len(order) > count:
        return np.concatenate([order[: count // 2], order[len(order) - (count - count // 2) :]])
    return order[:count]


def _result(
    product: _Product,
    apply: Callable[[np.ndarray], np.ndarray],
    values: np.ndarray,
    vectors: np.ndarray,
    order: np.ndarray,
    converged: bool,
    method: Literal["dense", "arpack"],
) -> Eigenvalues:
    """Compute the residuals of the values at ``order``, once for a complex pair."""
    wanted = values[order]
    upper = [i for i in order if values[i].imag >= 0 or not np.any(wanted == values[i].conj())]
    images = apply(vectors[:, upper]) if upper else vectors[:, :0]
    found: list[complex] = []
    residuals: list[float] = []
    for i, image in zip(upper, images.T, strict=True):
        value = complex(values[i])
        pair = [value] if value.imag == 0 else [value, value.conjugate()]
        found += sorted(pair, key=lambda value: -value.imag)
        residuals += [float(np.linalg.norm(image - values[i] * vectors[:, i]))] * len(pair)
    return Eigenvalues(tuple(found), tuple(residuals), product.count, converged, method)
