"""Krylov solvers for (A + shift·I) x = b, with A given by products with vectors.

Vectors are tensors of shape (dimension,). All solvers share these conventions:

- ``tol`` is relative: a solve stops at ‖b − (A + shift·I) x‖ ≤ tol · ‖b‖.
- ``max_iter`` bounds the number of products with A.
- A warm start x0 costs one product, for its residual b − (A + shift·I) x0. A start that is worse
  than zero is not used.
- A product that is not finite ends the solve.
- The iterate with the smallest residual is returned, with a SolveInfo; a solve that stops early
  raises no error.
- A complex right-hand side raises UsageError.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from saddlepoint.curvature.krylov import Krylov
from saddlepoint.errors import UsageError

Product = Callable[[Tensor], Tensor]
Status = Literal["converged", "max_iter", "breakdown", "negative_curvature", "non_finite"]


@dataclass(frozen=True)
class SolveInfo:
    """How a solve ended.

    Attributes:
        status: "converged", "max_iter" (not within the allowed products), "breakdown" (singular
            system), "negative_curvature" (conjugate gradients met pᵀAp ≤ 0) or "non_finite".
        iterations: steps of the method.
        products: applications of A, including the one of a warm start.
        residual: ‖b − (A + shift·I) x‖ / ‖b‖ of the returned x, as computed by the method's
            recurrence.
        curvature: the smallest Rayleigh quotient of A + shift·I that was met, or None where the
            method computes none.
    """

    status: Status
    iterations: int
    products: int
    residual: float
    curvature: float | None = None


class Solution(NamedTuple):
    """A solution x, its image A x (without the shift; costs no further product), and the info."""

    x: Tensor
    image: Tensor
    info: SolveInfo


class Solver(Protocol):
    """The signature of all solvers."""

    def __call__(
        self,
        product: Product,
        b: Tensor,
        *,
        x0: Tensor | None = None,
        shift: float = 0.0,
        tol: float,
        max_iter: int,
    ) -> Solution: ...


def cg(
    product: Product,
    b: Tensor,
    *,
    x0: Tensor | None = None,
    shift: float = 0.0,
    tol: float,
    max_iter: int,
) -> Solution:
    """Solve with conjugate gradients, for symmetric positive definite A + shift·I.

    A direction p with pᵀ(A + shift·I)p ≤ 4·eps·‖p‖·‖(A + shift·I)p‖ ends the solve as
    "negative_curvature"; the iterates before it are descent directions of ½xᵀAx − bᵀx when the
    start is zero.

    Reference: Hestenes and Stiefel (1952).

    >>> A = torch.tensor([[4.0, 1.0], [1.0, 3.0]])
    >>> solution = cg(lambda v: A @ v, torch.tensor([1.0, 2.0]), tol=1e-6, max_iter=10)
    >>> [round(v, 4) for v in solution.x.tolist()], solution.info.status, solution.info.products
    ([0.0909, 0.6364], 'converged', 2)
    """
    start = _Start(product, b, x0, shift, tol, max_iter)
    x, r, best = start.x, start.r, start.best()
    p, rr, curvature = r, float(r.dot(r)), None
    status = start.status
    floor = 4 * torch.finfo(b.dtype).eps
    iterations = 0
    while status is None:
        Ap = start.shifted(p)
        pAp, pp, ApAp = torch.stack([p.dot(Ap), p.dot(p), Ap.dot(Ap)]).tolist()
        if not math.isfinite(pAp):
            status = "non_finite"
            break
        curvature = min(pAp / pp, math.inf if curvature is None else curvature)
        if pAp <= floor * math.sqrt(pp * ApAp):
            status = "negative_curvature"
            break
        alpha = rr / pAp
        x, r = x + alpha * p, r - alpha * Ap
        iterations += 1
        rr, before = float(r.dot(r)), rr
        best.consider(x, r, math.sqrt(rr))
        status = start.status_at(math.sqrt(rr))
        p = r + (rr / before) * p
    return start.solution(best, status, iterations, curvature)


def minres(
    product: Product,
    b: Tensor,
    *,
    x0: Tensor | None = None,
    shift: float = 0.0,
    tol: float,
    max_iter: int,
) -> Solution:
    """Solve with the minimal residual method, for symmetric, also indefinite or singular A.

    Reference: Paige and Saunders (1975).

    >>> A = torch.tensor([[1.0, 2.0], [2.0, -3.0]], dtype=torch.float64)
    >>> b = torch.ones(2, dtype=torch.float64)
    >>> solution = minres(lambda v: A @ v, b, tol=1e-12, max_iter=10)
    >>> torch.allclose(A @ solution.x, b)
    True
    """
    start = _Start(product, b, x0, shift, tol, max_iter)
    x, best, status = start.x, start.best(), start.status
    norm = start.residual
    eps = torch.finfo(b.dtype).eps
    r = start.r
    v, v_before = r / (norm or 1.0), torch.zeros_like(b)
    w, w_before = torch.zeros_like(b), torch.zeros_like(b)
    beta, c, s, dbar, epsilon, scale, phibar = 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, norm
    curvature = None
    iterations = 0
    while status is None:
        q = start.shifted(v) - beta * v_before
        alpha = float(v.dot(q))
        q = q - alpha * v
        beta_next = float(torch.linalg.vector_norm(q))
        if not math.isfinite(alpha + beta_next):
            status = "non_finite"
            break
        curvature = min(alpha, math.inf if curvature is None else curvature)
        delta, gbar = c * dbar + s * alpha, s * dbar - c * alpha
        gamma = math.hypot(gbar, beta_next)
        scale = max(scale, abs(alpha) + beta + beta_next)
        if gamma <= 10 * eps * scale:
            status = "breakdown"
            break
        dbar, epsilon_before, epsilon = -c * beta_next, epsilon, s * beta_next
        c, s = gbar / gamma, beta_next / gamma
        w, w_before = (v - epsilon_before * w_before - delta * w) / gamma, w
        x = x + c * phibar * w
        complete = beta_next <= 10 * eps * scale  # the Krylov space is invariant
        v, v_before = (q if complete else q / beta_next), v
        phibar, beta = s * phibar, beta_next
        iterations += 1
        # the residual is r_k = s² r_{k−1} − φ̄_k c v_{k+1}, so that A x needs no further product
        r = s * s * r - phibar * c * v
        best.consider(x, r, abs(phibar))
        status = start.status_at_end(abs(phibar)) if complete else start.status_at(abs(phibar))
    return start.solution(best, status, iterations, curvature)


def gmres(
    product: Product,
    b: Tensor,
    *,
    x0: Tensor | None = None,
    shift: float = 0.0,
    tol: float,
    max_iter: int,
) -> Solution:
    """Solve with the generalised minimal residual method, for any square A.

    It stores one vector per iteration and restarts after 50, so memory stays below 52 vectors.

    Reference: Saad and Schultz (1986).

    >>> A = torch.tensor([[1.0, 2.0], [-2.0, 1.0]])
    >>> solution = gmres(lambda v: A @ v, torch.tensor([1.0, 0.0]), tol=1e-6, max_iter=10)
    >>> [round(v, 4) for v in solution.x.tolist()], solution.info.iterations
    ([0.2, 0.4], 2)
    """
    start = _Start(product, b, x0, shift, tol, max_iter)
    x, r, best, status = start.x, start.r, start.best(), start.status
    iterations = 0
    while status is None:
        krylov = Krylov(start.shifted, r, min(_RESTART, max_iter))
        while status is None and krylov.size < krylov.capacity and not krylov.closed:
            if not krylov.extend():
                status = "non_finite"
                break
            iterations += 1
            status = start.status_at(krylov.least_squares()[1] * krylov.norm)
        if krylov.size == 0:
            break
        y, _ = krylov.least_squares()
        x = x + krylov.combine(y)
        r = r - krylov.image(y)
        best.consider(x, r, float(torch.linalg.vector_norm(r)))
        # the space is complete: solved, or A + shift·I is singular on it
        if krylov.closed and status is None:
            status = start.status_at_end(best.norm)
        elif status == "converged" and not best.norm <= 2 * start.target:
            # the recurrence underestimated the residual: restart from the true one
            status = None if start.products < max_iter else "max_iter"
    return start.solution(best, status, iterations, None)


def saddle_free(
    product: Product,
    b: Tensor,
    *,
    x0: Tensor | None = None,
    shift: float = 0.0,
    tol: float,
    max_iter: int,
) -> Solution:
    """Return x = (|A| + shift·I)⁻¹ b on the Krylov space of b, with |A| = Q|Λ|Qᵀ.

    x is a descent direction for any symmetric A. Lanczos gives A ≈ Q T Qᵀ after k products, and
    x = ‖b‖ Q (|T| + shift·I)⁻¹ e₁; for a positive definite A this is the solution of conjugate
    gradients. b itself lies in the space. ``residual`` is β_k |y_k|, the part of A x outside of the
    space; ``curvature`` is the smallest Ritz value plus the shift. A warm start would leave the
    space, so x0 is not used.

    Reference: Dauphin et al. (2014), arXiv:1406.2572, which keeps the space for several steps; here
    every step builds a new one.

    >>> A = torch.diag(torch.tensor([2.0, -4.0]))
    >>> solution = saddle_free(lambda v: A @ v, torch.tensor([1.0, 1.0]), tol=1e-6, max_iter=5)
    >>> [round(v, 4) for v in solution.x.tolist()]
    [0.5, 0.25]
    """
    start = _Start(product, b, None, 0.0, tol, max_iter)
    status = start.status
    if status is not None:  # b is zero or not finite, or max_iter is 0
        return Solution(start.x, start.x, SolveInfo(status, 0, 0, float(start.residual > 0)))
    krylov, y, residual, curvature = Krylov(start.shifted, b, max_iter), np.zeros(0), 1.0, None
    while status is None:
        if not krylov.extend():
            status = "non_finite"
            break
        values, vectors = np.linalg.eigh(krylov.symmetric())
        absolute = np.abs(values) + shift
        if not absolute.min() > 0:
            status = "breakdown"
            break
        y = vectors @ (vectors[0] / absolute)
        residual, curvature = krylov.beta * abs(float(y[-1])), float(values.min()) + shift
        status = "converged" if krylov.closed else start.status_at(residual * krylov.norm)
    info = SolveInfo(status, krylov.size, start.products, residual, curvature)
    return Solution(krylov.combine(y), krylov.image(y), info)


def schur_cg(
    B: Product,
    Bt: Product,
    bx: Tensor,
    by: Tensor,
    *,
    x0: Tensor | None = None,
    tol: float,
    max_iter: int,
) -> tuple[Tensor, Tensor, SolveInfo]:
    """Solve x + B y = bx, y − Bᵀ x = by with conjugate gradients on (I + B Bᵀ) x = bx − B by.

    I + B Bᵀ, the Schur complement, is positive definite for any B. An iteration takes two products,
    one with B and one with Bᵀ, and the start takes one. Bᵀx is accumulated from them, so
    y = by + Bᵀx needs no further product.

    Args:
        B: applies B, shape (n, m), to a tensor of shape (m,); the result is a new tensor.
        Bt: applies Bᵀ.
        bx: shape (n,).
        by: shape (m,).
        x0: a first guess of x; costs two products.
        tol: the solve stops at ‖residual‖ ≤ tol · ‖(bx, by)‖.
        max_iter: the largest number of iterations.

    Reference: Schäfer and Anandkumar (2019), arXiv:1905.12103, for the system; Hestenes and Stiefel
    (1952) for the method.

    >>> B = torch.tensor([[2.0]])
    >>> one = torch.ones(1)
    >>> x, y, info = schur_cg(lambda v: B @ v, lambda v: B.T @ v, one, one, tol=1e-6, max_iter=5)
    >>> round(x.item(), 4), round(y.item(), 4), info.status, info.products
    (-0.2, 0.6, 'converged', 3)
    """
    _check_real(bx)
    target = tol * math.sqrt(float(bx.dot(bx)) + float(by.dot(by)))
    x, t, r, products = torch.zeros_like(bx), torch.zeros_like(by), bx - B(by), 1
    if x0 is not None:
        image = Bt(x0)
        warm, products = r - x0 - B(image), products + 2
        if float(warm.dot(warm)) < float(r.dot(r)):  # a start worse than zero is not used
            x, t, r = x0.clone(), image, warm
    p, rr, iterations = r.clone(), float(r.dot(r)), 0
    status: Status | None = "non_finite" if not math.isfinite(rr + target) else None
    while status is None:
        if math.sqrt(rr) <= target:
            status = "converged"
        elif iterations == max_iter:
            status = "max_iter"
        else:
            q = Bt(p)
            Ap = B(q).add_(p)
            curvature = float(p.dot(p)) + float(q.dot(q))
            iterations, products = iterations + 1, products + 2
            alpha = rr / curvature if math.isfinite(curvature) else math.nan
            after = Ap.mul_(-alpha).add_(r)
            before, rr_after = rr, float(after.dot(after))
            if not math.isfinite(rr_after):
                status = "non_finite"
                break
            r, rr = after, rr_after
            x.add_(p, alpha=alpha)
            t.add_(q, alpha=alpha)
            p.mul_(rr / before).add_(r)
    relative = math.sqrt(rr) * tol / target if target else math.sqrt(rr)
    return x, by + t, SolveInfo(status, iterations, products, relative)


SOLVERS: dict[str, Solver] = {
    "cg": cg,
    "minres": minres,
    "gmres": gmres,
    "saddle_free": saddle_free,
}

_RESTART = 50


def _check_real(b: Tensor) -> None:
    if b.is_complex():
        raise UsageError(
            f"The right-hand side is complex ({b.dtype}), and these solvers are for real systems."
            " Write the system in real and imaginary parts, as Vector.flatten does."
        )


class _Start:
    """The start of a solve: first iterate, target, counted products; makes the Solution."""

    def __init__(
        self,
        product: Product,
        b: Tensor,
        x0: Tensor | None,
        shift: float,
        tol: float,
        max_iter: int,
    ) -> None:
        _check_real(b)
        self._product, self._shift, self._max_iter = product, shift, max_iter
        self.b, self.products = b, 0
        self._norm = float(torch.linalg.vector_norm(b))
        self.target = tol * self._norm
        self.x, self.r = torch.zeros_like(b), b
        if x0 is not None and max_iter > 0 and self._norm > 0:
            warm = b - self.shifted(x0)
            # a start worse than zero is not used
            if float(torch.linalg.vector_norm(warm)) < self._norm:
                self.x, self.r = x0.clone(), warm
        self.residual = float(torch.linalg.vector_norm(self.r))
        self.status: Status | None = (
            self.status_at(self.residual) if math.isfinite(self._norm) else "non_finite"
        )

    def shifted(self, v: Tensor) -> Tensor:
        """Return (A + shift·I) v."""
        self.products += 1
        return self._product(v) + self._shift * v if self._shift else self._product(v)

    def status_at(self, residual: float) -> Status | None:
        """Return the status at a residual, or None where the solve goes on."""
        if residual <= self.target:
            return "converged"
        return "max_iter" if self.products >= self._max_iter else None

    def status_at_end(self, residual: float) -> Status:
        """Return the status once the Krylov space is complete.

        A residual of the size of rounding counts as converged, whatever ``tol`` is.
        """
        floor = 1e3 * torch.finfo(self.b.dtype).eps * self._norm
        return "converged" if residual <= max(self.target, floor) else "breakdown"

    def best(self) -> _Best:
        """Return the start as the best iterate so far."""
        return _Best(self.x, self.r, self.residual)

    def solution(
        self, best: _Best, status: Status | None, iterations: int, curvature: float | None
    ) -> Solution:
        """Return the best iterate with its image and the SolveInfo."""
        relative = best.norm / self._norm if self._norm else 0.0
        image = self.b - best.r - self._shift * best.x
        info = SolveInfo(status or "converged", iterations, self.products, relative, curvature)
        return Solution(best.x, image, info)


@dataclass
class _Best:
    """The iterate with the smallest residual so far."""

    x: Tensor
    r: Tensor
    norm: float

    def consider(self, x: Tensor, r: Tensor, norm: float) -> None:
        if norm < self.norm:
            self.x, self.r, self.norm = x, r, norm
