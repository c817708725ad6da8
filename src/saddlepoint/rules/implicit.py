"""Rules that solve one linear system with the interaction of the players, or the whole Jacobian, in it: (P + J_part L) d = ξ.

P is a metric, L the learning lrs, and J_part the interaction blocks or the whole Jacobian.
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
)
from saddlepoint.rules.step import Step
from saddlepoint.rules.zero_sum import interacts_as_zero_sum
from saddlepoint.vectors import Vector


@dataclass(frozen=True)
class CompetitiveGradient(Rule):
    """Competitive gradient descent: the Nash equilibrium of the local bilinear game, (P + J_o L) d = ξ.

    J_o is the interaction, the blocks J_ij with i ≠ j, L the inner learning lrs, so that θ moves
    by L d, and P the identity or another metric. For two players with losses f and −f, one learning
    rate h and P = I this is Δx = −h (I + h² D_xy D_yx)⁻¹ (∂_x f + h D_xy ∂_y f), and its mirror
    image for y.

    With ``preconditioner=RMSPreconditioner()`` it is AdaptiveCompetitiveGradient; with ``preconditioner=KroneckerPreconditioner()`` each
    player's length of a step is that of SOAP, and the players still answer each other.

    Two players with J_yx = −J_xyᵀ, as in every zero-sum game, are solved with conjugate gradients
    on the Schur complement of the smaller one. Whether that holds is found out on a random vector
    in every tenth step, from the first on. Any other game, of any number of players (then it is the
    polymatrix form), is solved with GMRES.

    The inner optimizer must be plain SGD: the learning rate is part of the solve.

    Args:
        tol: relative residual at which the solve ends; 1e-6 in the paper's experiments.
        max_iter: the most iterations of the solve.
        warm_start: start from the last step's solution, at the price of one iteration.
        preconditioner: the metric P; None is the identity.

    Holds for: any number of players, zero-sum or not.
    Cost for k iterations: two players, zero-sum, 2 gradients and 2k + 1 products (2 more in every
    tenth step); else n gradients (with respect to all players) and n·k products.
    Guarantee: on the bilinear game x·s·y it contracts for every step size, |λ|² = 1 / (1 + h²s²).

    Reference: Schäfer and Anandkumar (2019), Competitive gradient descent, arXiv:1905.12103; for n
    players Ma et al. (2021), Polymatrix competitive gradient descent, arXiv:2111.08565.

    >>> import torch
    >>> from saddlepoint import GameOptimizer
    >>> x, y = (torch.ones(1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    >>> optimizer = GameOptimizer({n: torch.optim.SGD([p], lr=1.0) for n, p in (("x", x), ("y", y))}, CompetitiveGradient())
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
    cross = "unless_zero_sum"
    needs_all_players = True
    output = "update"
    evaluates_again = False

    def __post_init__(self) -> None:
        check_limits("CompetitiveGradient", self.tol, self.max_iter)

    def direction(self, step: Step) -> Vector:
        return _competitive(step, self.preconditioner, self.tol, self.max_iter, self.warm_start)

    def partial_direction(self, step: Step) -> Vector:
        return _alone(step, self.preconditioner)


@dataclass(frozen=True)
class AdaptiveCompetitiveGradient(Rule):
    """Competitive gradient descent in the metric of RMSProp: (P + J_o L) d = ξ with P = diag((√v + ε) / √(1 − βᵗ)).

    v ← βv + (1 − β)ξ², the running mean of squares after t steps. The system is scaled by P^(−1/2)
    on both sides and solved as that of CompetitiveGradient.

    The inner optimizer must be plain SGD: the learning rate is part of the solve.

    Args:
        beta: decay of the running mean; 0.99 as published.
        epsilon: added to √v; 1e-5 as published.
        tol: relative residual at which the solve ends; the published code offers 1e-10 and
            its StyleGAN script 1e-4.
        max_iter: the most iterations of the solve.
        warm_start: start from the last step's solution, at the price of one iteration.

    Holds for: any number of players, zero-sum or not.
    Cost: as CompetitiveGradient.
    Guarantee: none proved; without the metric it is CompetitiveGradient.

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
    cross = "unless_zero_sum"
    needs_all_players = True
    output = "update"
    evaluates_again = False

    def __post_init__(self) -> None:
        check_limits("AdaptiveCompetitiveGradient", self.tol, self.max_iter)
        RMSPreconditioner(self.beta, self.epsilon)  # checks them

    def direction(self, step: Step) -> Vector:
        return _competitive(
            step,
            RMSPreconditioner(self.beta, self.epsilon),
            self.tol,
            self.max_iter,
            self.warm_start,
        )

    def partial_direction(self, step: Step) -> Vector:
        return _alone(step, RMSPreconditioner(self.beta, self.epsilon))


@dataclass(frozen=True)
class LinearizedCompetitiveGradient(Rule):
    """Competitive gradient descent with its solve cut after one term: direction = ξ − J_o L ξ.

    Each player counts on one plain gradient step of the others. The inner optimizer must be plain
    SGD: the learning rate is part of the rule.

    Holds for: any number of players, zero-sum or not.
    Cost for n players: n gradients (with respect to all players), n products.
    Guarantee: on a bilinear game x·s·y it is extragradient and converges for h·s < 1.

    Reference: Schäfer and Anandkumar (2019), Competitive gradient descent, arXiv:1905.12103.
    """

    order = 2
    cross = True
    cross = True
    needs_all_players = True
    output = "update"
    evaluates_again = False

    def direction(self, step: Step) -> Vector:
        xi = step.linearization.gradient
        return xi - step.linearization.jacobian.off_diagonal @ xi.scale(step.lrs)


@dataclass(frozen=True)
class ProximalPoint(Rule):
    """Linearised proximal point: (P + J L) d = ξ, with P = I the implicit Euler step θ⁺ = θ − L ξ(θ⁺) with ξ linearised at θ.

    The inner optimizer must be plain SGD: the learning rate is part of the solve.

    Args:
        tol: relative residual at which the solve ends.
        max_iter: the most products of the solve.
        warm_start: start from the last step's solution, at the price of one product.
        preconditioner: the metric P; None is the identity.

    Holds for: any number of players, zero-sum or not.
    Cost for n players, k iterations: n gradients (with respect to all players), n·k products.
    Guarantee: on a bilinear game x·s·y it contracts for every step size, |λ|² = 1 / (1 + h²s²); as
    h grows it becomes Newton's method on ξ and is drawn to any critical point.

    Reference: Rockafellar (1976), Monotone operators and the proximal point algorithm, SIAM J.
    Control Optim. 14.

    >>> ProximalPoint().units
    'step'
    """

    tol: float = 1e-6
    max_iter: int = 50
    warm_start: bool = False
    preconditioner: RMSPreconditioner | KroneckerPreconditioner | None = None

    order = 2
    cross = True
    cross = True
    needs_all_players = True
    output = "update"
    evaluates_again = False

    def __post_init__(self) -> None:
        check_limits("ProximalPoint", self.tol, self.max_iter)

    def direction(self, step: Step) -> Vector:
        metric = _metric(step, self.preconditioner)
        return _implicit(
            step, step.linearization.jacobian, metric, self.tol, self.max_iter, self.warm_start
        )

    def partial_direction(self, step: Step) -> Vector:
        return _alone(step, self.preconditioner)


def _competitive(
    step: Step,
    preconditioner: RMSPreconditioner | KroneckerPreconditioner | None,
    tol: float,
    max_iter: int,
    warm_start: bool,
) -> Vector:
    """Solve (P + J_o L) d = ξ by the form that the game allows."""
    if interacts_as_zero_sum(step):
        return _schur(step, _metric(step, preconditioner), tol, max_iter, warm_start)
    return _implicit(
        step,
        step.linearization.jacobian.off_diagonal,
        _metric(step, preconditioner),
        tol,
        max_iter,
        warm_start,
    )


def _metric(
    step: Step, preconditioner: RMSPreconditioner | KroneckerPreconditioner | None
) -> PreconditionerMatrix:
    return (
        PreconditionerMatrix()
        if preconditioner is None
        else preconditioner.update(step.state, "joint", step.linearization.gradient)
    )


def _alone(
    step: Step, preconditioner: RMSPreconditioner | KroneckerPreconditioner | None
) -> Vector:
    """Return P⁻¹ ξ, what the solve gives to players that meet no other."""
    metric = _metric(step, preconditioner)
    return metric.apply_inv_sqrt(metric.apply_inv_sqrt_transpose(step.linearization.gradient))


def _schur(
    step: Step, metric: PreconditionerMatrix, tol: float, max_iter: int, warm_start: bool
) -> Vector:
    """Solve the system of a zero-sum game in the coordinates L d = R e of the metric P L⁻¹: (I + K) e = Rᵀ ξ with K antisymmetric.

    Only each player's own gradient is needed: J_xy v = −J_yxᵀ v is a derivative of ξ_y.
    """
    xi, J, lrs = step.linearization.gradient, step.linearization.jacobian, step.lrs
    x, y = sorted(xi, key=lambda player: (sum(t.numel() for t in xi[player]), player))
    whole = metric.over(lrs, xi)
    own = {player: whole.only([player]) for player in (x, y)}
    # learning rates are not rounded to half precision
    like = {player: xi.only([player]).widened() for player in (x, y)}

    def up(player: str, e: Tensor) -> Vector:
        return own[player].apply_inv_sqrt(like[player].unflatten(e))

    start = (
        step.state.recall("solution", default=like[x].zeros())
        if step.state.knows("solution", like[x])
        else None
    )
    ex, ey, step.solves["joint"] = schur_cg(
        lambda e: -own[x].apply_inv_sqrt_transpose(J[y, x].T @ up(y, e)).flatten(),
        lambda e: own[y].apply_inv_sqrt_transpose(J[x, y].T @ up(x, e)).flatten(),
        own[x].apply_inv_sqrt_transpose(like[x]).flatten(),
        own[y].apply_inv_sqrt_transpose(like[y]).flatten(),
        x0=None if start is None else own[x].apply_sqrt(start.scale(lrs)).flatten(),
        tol=tol,
        max_iter=max_iter,
    )
    inverse = {player: [1 / max(rate, 1e-30) for rate in lrs[player]] for player in (x, y)}
    d = {player: up(player, e).scale(inverse) for player, e in ((x, ex), (y, ey))}
    if warm_start:
        step.state.remember("solution", d[x])
    return Vector({player: d[player][player] for player in d}).typed(xi)


def _implicit(
    step: Step,
    J: Operator,
    metric: PreconditionerMatrix,
    tol: float,
    max_iter: int,
    warm_start: bool,
) -> Vector:
    """Solve (P + J L) d = ξ in the coordinates e = R⁻¹ d of the P: (I + Rᵀ J L R) e = Rᵀ ξ."""
    lrs, xi = step.lrs, step.linearization.gradient
    start = (
        step.state.recall("solution", default=xi.zeros())
        if step.state.knows("solution", xi)
        else None
    )
    e, _ = step.solve(
        "joint",
        "gmres",
        lambda e: metric.apply_inv_sqrt_transpose(J @ metric.apply_inv_sqrt(e).scale(lrs)),
        metric.apply_inv_sqrt_transpose(xi),
        x0=None if start is None else metric.apply_sqrt(start),
        shift=1.0,
        tol=tol,
        max_iter=max_iter,
    )
    d = metric.apply_inv_sqrt(e)
    if warm_start:
        step.state.remember("solution", d)
    return d
