"""Rules that solve one linear system in every step: (P + J_part L) d = ξ.

P is a preconditioner, L the diagonal matrix of the learning rates, and J_part the blocks of the
Jacobian between different players or the whole Jacobian.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from saddlepoint.curvature import Operator, schur_cg
from saddlepoint.rules.base import Rule, check_limits
from saddlepoint.rules.preconditioners import (
    KroneckerPreconditioner,
    PreconditionerMatrix,
    RMSPreconditioner,
    update_preconditioner,
)
from saddlepoint.rules.step import Step
from saddlepoint.rules.zero_sum import interacts_as_zero_sum
from saddlepoint.vectors import Vector


@dataclass(frozen=True)
class CompetitiveGradient(Rule):
    """Competitive gradient descent (CGD): (P + J_o L) d = ξ.

    The step is the Nash equilibrium of the local bilinear game.
    J_o has the blocks J_ij with i ≠ j, the interaction of the players. L are the inner learning
    rates, so that θ moves by L d. P is the identity or a preconditioner. For two players with
    losses f and −f, one learning rate h and P = I this is
    Δx = −h (I + h² D_xy D_yx)⁻¹ (∂_x f + h D_xy ∂_y f), and its mirror image for y.

    With ``preconditioner=RMSPreconditioner()`` it is AdaptiveCompetitiveGradient. With
    ``KroneckerPreconditioner()`` the length of each player's step is that of SOAP.

    For two players with J_yx = −J_xyᵀ, as in every zero-sum game, the system is solved with
    conjugate gradients on the Schur complement of the smaller player. Whether that holds is tested
    on a random vector in the first step and in every tenth after it. In any other game, of any
    number of players (the polymatrix form), it is solved with GMRES.

    The inner optimizer must be plain SGD: the learning rate is part of the solve.

    Args:
        tol: relative residual at which the solve stops; 1e-6 in the paper's experiments.
        max_iter: the largest number of iterations of the solve.
        warm_start: start from the last step's solution, at the price of one iteration.
        preconditioner: P; None is the identity.

    Holds for: any number of players, zero-sum or not.
    Cost for k iterations: two players, zero-sum, 2 gradients and 2k + 1 products (2 more in every
    tenth step); else n gradients (with respect to all players) and n·k products.
    Guarantee: on the bilinear game x·s·y it contracts for every step size, |λ|² = 1 / (1 + h²s²).

    Reference: Schäfer and Anandkumar (2019), Competitive gradient descent, arXiv:1905.12103; for n
    players Ma et al. (2021), Polymatrix competitive gradient descent, arXiv:2111.08565.

    >>> import torch
    >>> from saddlepoint import GameOptimizer
    >>> x, y = (torch.ones(1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    >>> optimizers = {"x": torch.optim.SGD([x], lr=1.0), "y": torch.optim.SGD([y], lr=1.0)}
    >>> optimizer = GameOptimizer(optimizers, CompetitiveGradient())
    >>> _ = optimizer.step(lambda: {"x": (x * y).sum(), "y": -(x * y).sum()})
    >>> abs(round(x.item(), 6)), round(y.item(), 6)
    (0.0, 1.0)
    """

    tol: float = 1e-6
    max_iter: int = 50
    warm_start: bool = False
    preconditioner: RMSPreconditioner | KroneckerPreconditioner | None = None

    order = 2
    cross = "unless_zero_sum"
    needs_all_players = True
    output = "update"
    evaluates_again = False

    def __post_init__(self) -> None:
        check_limits("CompetitiveGradient", self.tol, self.max_iter)

    def direction(self, step: Step) -> Vector:
        zero_sum = interacts_as_zero_sum(step)
        xi = step.linearization.gradient
        P = update_preconditioner(self.preconditioner, step.state, "joint", xi)
        if zero_sum:
            return _solve_zero_sum(step, P, self.tol, self.max_iter, self.warm_start)
        J_o = step.linearization.jacobian.off_diagonal
        return _solve_general(step, J_o, P, self.tol, self.max_iter, self.warm_start)

    def partial_direction(self, step: Step) -> Vector:
        """Return P⁻¹ ξ, the solution for players that interact with no other."""
        xi = step.linearization.gradient
        return update_preconditioner(self.preconditioner, step.state, "joint", xi).apply_inverse(xi)


@dataclass(frozen=True)
class AdaptiveCompetitiveGradient(Rule):
    """Adaptive competitive gradient descent (ACGD), with the preconditioner of RMSProp.

    (P + J_o L) d = ξ with P = diag((√v + ε) / √(1 − βᵗ)), where v ← βv + (1 − β)ξ² is the running
    mean of squares after t steps. The system is scaled by P^(−1/2) on both sides and solved as in
    CompetitiveGradient.

    The inner optimizer must be plain SGD: the learning rate is part of the solve.

    Args:
        beta: decay of the running mean; 0.99 as published.
        epsilon: added to √v; 1e-5 as published.
        tol: relative residual at which the solve stops; the published code offers 1e-10 and
            its StyleGAN script 1e-4.
        max_iter: the largest number of iterations of the solve.
        warm_start: start from the last step's solution, at the price of one iteration.

    Holds for: any number of players, zero-sum or not.
    Cost: as CompetitiveGradient.
    Guarantee: none proved; without the preconditioner it is CompetitiveGradient.

    Reference: Schäfer, Zheng and Anandkumar (2020), Implicit competitive regularization in GANs,
    arXiv:1910.05852.

    >>> AdaptiveCompetitiveGradient(beta=0.9).epsilon
    1e-05
    """

    beta: float = 0.99
    epsilon: float = 1e-5
    tol: float = 1e-4
    max_iter: int = 20
    warm_start: bool = False

    order = 2
    cross = "unless_zero_sum"
    needs_all_players = True
    output = "update"
    evaluates_again = False

    def __post_init__(self) -> None:
        check_limits("AdaptiveCompetitiveGradient", self.tol, self.max_iter)
        RMSPreconditioner(self.beta, self.epsilon)  # raises UsageError where they are out of range

    def direction(self, step: Step) -> Vector:
        return self._with_preconditioner().direction(step)

    def partial_direction(self, step: Step) -> Vector:
        return self._with_preconditioner().partial_direction(step)

    def _with_preconditioner(self) -> CompetitiveGradient:
        preconditioner = RMSPreconditioner(self.beta, self.epsilon)
        return CompetitiveGradient(self.tol, self.max_iter, self.warm_start, preconditioner)


@dataclass(frozen=True)
class LinearizedCompetitiveGradient(Rule):
    """Competitive gradient descent with a Neumann series of two terms: direction = ξ − J_o L ξ.

    Each player assumes that the others take one plain gradient step. The inner optimizer must be
    plain SGD: the learning rate is part of the rule.

    Holds for: any number of players, zero-sum or not.
    Cost for n players: n gradients (with respect to all players), n products.
    Guarantee: on a bilinear game x·s·y it is extragradient and converges for h·s < 1.

    Reference: Schäfer and Anandkumar (2019), Competitive gradient descent, arXiv:1905.12103.
    """

    order = 2
    cross = True
    needs_all_players = True
    output = "update"
    evaluates_again = False

    def direction(self, step: Step) -> Vector:
        xi = step.linearization.gradient
        return xi - step.linearization.jacobian.off_diagonal @ xi.scale(step.lrs)


@dataclass(frozen=True)
class ProximalPoint(Rule):
    """Linearised proximal point: (P + J L) d = ξ.

    With P = I this is the implicit Euler step θ⁺ = θ − L ξ(θ⁺), with ξ linearised at θ. The inner
    optimizer must be plain SGD: the learning rate is part of the solve.

    Args:
        tol: relative residual at which the solve stops.
        max_iter: the largest number of products of the solve.
        warm_start: start from the last step's solution, at the price of one product.
        preconditioner: P; None is the identity.

    Holds for: any number of players, zero-sum or not.
    Cost for n players, k iterations: n gradients (with respect to all players), n·k products.
    Guarantee: on a bilinear game x·s·y it contracts for every step size, |λ|² = 1 / (1 + h²s²); as
    h grows it becomes Newton's method on ξ and is drawn to any critical point.

    Reference: Rockafellar (1976), Monotone operators and the proximal point algorithm, SIAM J.
    Control Optim. 14.

    >>> ProximalPoint().output
    'update'
    """

    tol: float = 1e-6
    max_iter: int = 50
    warm_start: bool = False
    preconditioner: RMSPreconditioner | KroneckerPreconditioner | None = None

    order = 2
    cross = True
    needs_all_players = True
    output = "update"
    evaluates_again = False

    def __post_init__(self) -> None:
        check_limits("ProximalPoint", self.tol, self.max_iter)

    def direction(self, step: Step) -> Vector:
        xi, J = step.linearization.gradient, step.linearization.jacobian
        P = update_preconditioner(self.preconditioner, step.state, "joint", xi)
        return _solve_general(step, J, P, self.tol, self.max_iter, self.warm_start)

    def partial_direction(self, step: Step) -> Vector:
        """Return P⁻¹ ξ, the first term of the solution."""
        xi = step.linearization.gradient
        return update_preconditioner(self.preconditioner, step.state, "joint", xi).apply_inverse(xi)


def _solve_zero_sum(
    step: Step, P: PreconditionerMatrix, tol: float, max_iter: int, warm_start: bool
) -> Vector:
    """Solve (P + J_o L) d = ξ for two players with J_xy = −J_yxᵀ.

    In the coordinates L d = R e of the preconditioner P L⁻¹ the system is (I + K) e = Rᵀ ξ with K
    antisymmetric. Only each player's own gradient is needed: J_xy v = −J_yxᵀ v is a derivative of
    ξ_y.
    """
    xi, J, lrs = step.linearization.gradient, step.linearization.jacobian, step.lrs
    sizes = {player: sum(t.numel() for t in xi[player]) for player in xi}
    x, y = sorted(xi, key=lambda player: (sizes[player], player))
    both = P.divided_by_lrs(lrs, xi)
    Px, Py = both.only([x]), both.only([y])
    # in single precision at least: learning rates are not rounded to half precision
    xi_x, xi_y = xi.only([x]).widened(), xi.only([y]).widened()

    def B(e: Tensor) -> Tensor:
        v = Py.apply_inv_sqrt(xi_y.unflatten(e))
        return -Px.apply_inv_sqrt_transpose(J[y, x].T @ v).flatten()

    def Bt(e: Tensor) -> Tensor:
        v = Px.apply_inv_sqrt(xi_x.unflatten(e))
        return Py.apply_inv_sqrt_transpose(J[x, y].T @ v).flatten()

    x0 = None
    if step.state.knows("solution", xi_x):
        start = step.state.recall("solution", default=xi_x.zeros())
        x0 = Px.apply_sqrt(start.scale(lrs)).flatten()
    ex, ey, step.solves["joint"] = schur_cg(
        B,
        Bt,
        Px.apply_inv_sqrt_transpose(xi_x).flatten(),
        Py.apply_inv_sqrt_transpose(xi_y).flatten(),
        x0=x0,
        tol=tol,
        max_iter=max_iter,
    )
    inverse_lrs = {player: [1 / max(lr, 1e-30) for lr in lrs[player]] for player in xi}
    dx = Px.apply_inv_sqrt(xi_x.unflatten(ex)).scale(inverse_lrs)
    dy = Py.apply_inv_sqrt(xi_y.unflatten(ey)).scale(inverse_lrs)
    if warm_start:
        step.state.remember("solution", dx)
    return Vector({**dx, **dy}).typed(xi)


def _solve_general(
    step: Step,
    J: Operator,
    P: PreconditionerMatrix,
    tol: float,
    max_iter: int,
    warm_start: bool,
) -> Vector:
    """Solve (P + J L) d = ξ as (I + Rᵀ J L R) e = Rᵀ ξ, in the coordinates e = R⁻¹ d."""
    lrs, xi = step.lrs, step.linearization.gradient
    x0 = None
    if step.state.knows("solution", xi):
        x0 = P.apply_sqrt(step.state.recall("solution", default=xi.zeros()))
    e, _ = step.solve(
        "joint",
        "gmres",
        lambda e: P.apply_inv_sqrt_transpose(J @ P.apply_inv_sqrt(e).scale(lrs)),
        P.apply_inv_sqrt_transpose(xi),
        x0=x0,
        shift=1.0,
        tol=tol,
        max_iter=max_iter,
    )
    d = P.apply_inv_sqrt(e)
    if warm_start:
        step.state.remember("solution", d)
    return d
