"""An orthonormal basis of a Krylov space, for GMRES and the saddle-free solver."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


class Krylov:
    """An orthonormal basis Q of span{b, Ab, A²b, …} with A Q_k = Q_{k+1} H.

    It is built by Arnoldi's method with reorthogonalisation. Coefficients are relative to b itself,
    not to b/‖b‖: a system that one product solves is then solved without rounding.
    """

    def __init__(self, product: Callable[[Tensor], Tensor], b: Tensor, capacity: int) -> None:
        self._product, self._b = product, b
        self.norm = float(torch.linalg.vector_norm(b))
        self.size, self.capacity, self.closed, self.beta = 0, min(capacity, b.numel()), False, 0.0
        self._Q = b.new_empty(self.capacity + 1, b.numel())
        self._Q[0] = b / self.norm
        self._H = np.zeros((self.capacity + 1, self.capacity))

    def extend(self) -> bool:
        """Add one vector; return whether the product was finite.

        Afterwards ``closed`` says whether the space is invariant.
        """
        k, Q = self.size, self._Q[: self.size + 1]
        if k == 0:  # the Rayleigh quotient of b itself is exact where that of b/‖b‖ would round
            w = self._product(self._b)
            h = (w.dot(self._b) / self._b.dot(self._b)).reshape(1)
            w = (w - h * self._b) / self.norm
        else:
            w = self._product(Q[k])
            h = Q @ w
            w = w - h @ Q
        again = Q @ w
        w = w - again @ Q
        h = h if k == 0 else h + again
        beta = float(torch.linalg.vector_norm(w))
        column = h.double().cpu().numpy()
        if not math.isfinite(beta) or not np.isfinite(column).all():
            return False
        scale = math.hypot(beta, float(np.linalg.norm(column)))
        self.closed = beta <= 10 * torch.finfo(w.dtype).eps * scale or k + 1 == w.numel()
        self._H[: k + 1, k] = column
        self.beta = self._H[k + 1, k] = 0.0 if self.closed else beta
        self._Q[k + 1] = 0.0 if self.closed else w / beta
        self.size = k + 1
        return True

    def least_squares(self) -> tuple[np.ndarray, float]:
        """Return y with the smallest ‖e₁ − H y‖, and that norm."""
        H = self._H[: self.size + 1, : self.size]
        if self.size == 1 and self.closed and H[0, 0] != 0:
            return np.array([1 / H[0, 0]]), 0.0  # exact, where the general way rounds
        target = np.eye(1, self.size + 1)[0]
        y = np.linalg.lstsq(H, target, rcond=None)[0]
        return y, float(np.linalg.norm(target - H @ y))

    def symmetric(self) -> np.ndarray:
        """Return the symmetric part of the square H; tridiagonal for a symmetric A."""
        H = self._H[: self.size, : self.size]
        return np.asarray((H + H.T) / 2)

    def combine(self, y: np.ndarray) -> Tensor:
        """Return y₁ b + ‖b‖ Σ_{j>1} y_j q_j; y may be shorter than the basis."""
        if len(y) == 0:
            return torch.zeros_like(self._b)
        rest = torch.as_tensor(y[1:] * self.norm, dtype=self._b.dtype, device=self._b.device)
        return self._b * float(y[0]) + rest @ self._Q[1 : len(y)]

    def image(self, y: np.ndarray) -> Tensor:
        """Return A applied to ``combine(y)``, from the products already made."""
        if len(y) == 0:
            return torch.zeros_like(self._b)
        return self.combine(self._H[: len(y) + 1, : len(y)] @ y)
