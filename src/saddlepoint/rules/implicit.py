"""Rules that solve one linear system with the interaction of the players, or the whole Jacobian, in it: (P + J_part L) d = ξ.

P is a metric, L the learning rates, and J_part the interaction blocks or the whole Jacobian.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from saddlepoint.curvature import Operator, schur_cg
from saddlepoint.rules.base import Rule, Step, check_limits
from saddlepoint.rules.scalings import RMS, unscaled
from saddlepoint.vectors import Vector


@dataclass(frozen=True)
class CompetitiveGradient(Rule):
    """Competitive gradient descent: the Nash equilibrium of the local bilinear game, (I + J_o L) d = ξ.

    J_o is the interaction, the blocks J_ij with i ≠ j, and L the inner learning rates, so that θ moves by L d. For two players
    with losses f and −f and one learning rate h this is
    Δx = −h (I + h² D_xy D_yx)⁻¹ (∂_x f + h D_xy ∂_y f), and its mirror image for y.

    Two players with J_yx = −J_xyᵀ, as in every zero-sum game, are solved with conjugate gradients on the Schur complement of the smaller
    one. Whether that holds is found out in the first step, on a random vector, and remembered. Any other game, of any number of players
    (then it is the polymatrix form), is solved with GMRES.

    The inner optimizer must be plain SGD: the learning rate is part of the solve.

    Args:
        tolerance: relative residual at which the solve ends; 1e-6 in the paper's experiments.
        budget: the most iterations of the solve.
        warm_start: start from the last step's solution, at the price of one iteration.

    Cost for k iterations: two players, zero-sum, 2 gradients and 2k + 1 products (2 more in the first step); else n gradients (with
    respect to all players) and n·k products.
    Guarantee: on the bilinear game x·s·y it contracts for every step size, |λ|² = 1 / (1 + h²s²).

    Reference: Schäfer and Anandkumar (2019), Competitive gradient descent, arXiv:1905.12103; for n players Ma et al. (2021),
    Polymatrix competitive gradient descent, arXiv:2111.08565.

    >>> import torch
    >>> from saddlepoint import GameOptimizer
    >>> x, y = (torch.ones(1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    >>> optimizer = GameOptimizer({n: torch.optim.SGD([p], lr=1.0) for n, p in (("x", x), ("y", y))}, CompetitiveGradient())
    >>> _ = optimizer.step(lambda: {"x": (x * y).sum(), "y": -(x * y).sum()})
    >>> abs(round(x.item(), 6)), round(y.item(), 6)
    (0.0, 1.0)
    """

    tolerance: float = 1e-6
    budget: int = 50
    warm_start: bool = False

    order = 2
    joint = True
    units = "step"

    def __post_init__(self) -> None:
        check_limits("CompetitiveGradient", self.tolerance, self.budget)

    def direction(self, step: Step) -> Vector:
        return _competitive(step, None, self.tolerance, self.budget, self.warm_start)


@dataclass(frozen=True)
class AdaptiveCompetitiveGradient(Rule):
    """Competitive gradient descent in the metric of RMSProp: (P + J_o L) d = ξ with P = diag((√v + ε) / √(1 − βᵗ)).

    v ← βv + (1 − β)ξ², the running mean of squares after t steps. The system is scaled by P^(−1/2) on both sides and solved as that of
    CompetitiveGradient.

    The inner optimizer must be plain SGD: the learning rate is part of the solve.

    Args:
        beta: decay of the running mean; 0.99 as published.
        epsilon: added to √v; 1e-5 as published.
        tolerance: relative residual at which the solve ends; the published code offers 1e-10 and its StyleGAN script 1e-4.
        budget: the most iterations of the solve.
        warm_start: start from the last step's solution, at the price of one iteration.

    Cost: as CompetitiveGradient.
    Guarantee: none proved; without the metric it is CompetitiveGradient.

    Reference: Schäfer, Zheng and Anandkumar (2020), Implicit competitive regularization in GANs, arXiv:1910.05852.

    >>> AdaptiveCompetitiveGradient(beta=0.9).epsilon
    1e-05
    """

    beta: float = 0.99
    epsilon: float = 1e-5
    tolerance: float = 1e-4
    budget: int = 20
    warm_start: bool = False

    order = 2
    joint = True
    units = "step"

    def __post_init__(self) -> None:
        check_limits("AdaptiveCompetitiveGradient", self.tolerance, self.budget)
        RMS(self.beta, self.epsilon)  # checks them

    def direction(self, step: Step) -> Vector:
        if not _is_zero_sum(step):
            step.point.rows()  # before the gradient, which then costs nothing more
        root = RMS(self.beta, self.epsilon).update(step.state, "joint", step.point.gradient).sqrt()
        return _competitive(step, root, self.tolerance, self.budget, self.warm_start)


@dataclass(frozen=True)
class LinearizedCompetitiveGradient(Rule):
    """Competitive gradient descent with its solve cut after one term: direction = ξ − J_o L ξ.

    Each player counts on one plain gradient step of the others. The inner optimizer must be plain SGD: the learning rate is part
    of the rule.

    Cost for n players: n gradients (with respect to all players), n products.
    Guarantee: on a bilinear game x·s·y it is extragradient and converges for h·s < 1.

    Reference: Schäfer and Anandkumar (2019), Competitive gradient descent, arXiv:1905.12103.
    """

    order = 2
    joint = True
    units = "step"

    def direction(self, step: Step) -> Vector:
        step.point.rows()
        xi = step.point.gradient
        return xi - step.point.jacobian.interaction @ xi.scale(step.learning_rates)


@dataclass(frozen=True)
class ProximalPoint(Rule):
    """Linearised proximal point: (I + J L) d = ξ, the implicit Euler step θ⁺ = θ − L ξ(θ⁺) with ξ linearised at θ.

    The inner optimizer must be plain SGD: the learning rate is part of the solve.

    Args:
        tolerance: relative residual at which the solve ends.
        budget: the most products of the solve.
        warm_start: start from the last step's solution, at the price of one product.

    Cost for n players, k iterations: n gradients (with respect to all players), n·k products.
    Guarantee: on a bilinear game x·s·y it contracts for every step size, |λ|² = 1 / (1 + h²s²); as h grows it becomes Newton's
    method on ξ and is drawn to any critical point.

    Reference: Rockafellar (1976), Monotone operators and the proximal point algorithm, SIAM J. Control Optim. 14.

    >>> ProximalPoint().units
    'step'
    """

    tolerance: float = 1e-6
    budget: int = 50
    warm_start: bool = False

    order = 2
    joint = True
    units = "step"

    def __post_init__(self) -> None:
        check_limits("ProximalPoint", self.tolerance, self.budget)

    def direction(self, step: Step) -> Vector:
        step.point.rows()
        return _implicit(step, step.point.jacobian, None, self.tolerance, self.budget, self.warm_start)


def _competitive(step: Step, root: Vector | None, tolerance: float, budget: int, warm_start: bool) -> Vector:
    """Solve (P + J_o L) d = ξ with ``root`` = P^(1/2), by the form that the game allows."""
    if _is_zero_sum(step):
        return _schur(step, root, tolerance, budget, warm_start)
    step.point.rows()
    return _implicit(step, step.point.jacobian.interaction, root, tolerance, budget, warm_start)


def _is_zero_sum(step: Step) -> bool:
    """Say whether two players interact as in a zero-sum game, J_xy = −J_yxᵀ; found out once, on a random vector."""
    numbers = step.state.numbers
    if "zero-sum" not in numbers:
        numbers["zero-sum"] = float(len(step.players) == 2 and _is_antisymmetric(step))
    return bool(numbers["zero-sum"])


def _is_antisymmetric(step: Step) -> bool:
    x, y = sorted(step.point.movers)
    J, generator = step.point.jacobian, torch.Generator().manual_seed(0)
    v = Vector({y: [torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p) for p in step.players[y]]})
    across, back = J[x, y] @ v, J[y, x].T @ v
    return float((across + back).norm()) <= 1e-4 * float(across.norm())


def _schur(step: Step, root: Vector | None, tolerance: float, budget: int, warm_start: bool) -> Vector:
    """Solve the system of a zero-sum game in e = A^(−1/2) L d with A = L P⁻¹: (I + K) e = A^(1/2) ξ, K antisymmetric.

    Only each player's own gradient is needed: J_xy v = −J_yxᵀ v is a derivative of ξ_y.
    """
    xi, J, memory = step.point.gradient, step.point.jacobian, step.state.vectors
    x, y = sorted(xi, key=lambda player: (sum(t.numel() for t in xi[player]), player))
    rates = {player: [rate**0.5 for rate in step.learning_rates[player]] for player in (x, y)}
    roots = {player: None if root is None else root.only([player]) for player in (x, y)}

    def scaled(player: str, v: Vector) -> Vector:
        return unscaled(v.scale(rates), roots[player])

    like = {player: xi.only([player]) for player in (x, y)}
    start = memory.get("solution")
    ex, ey, step.solves["joint"] = schur_cg(
        lambda v: -scaled(x, J[y, x].T @ scaled(y, like[y].unflatten(v))).flatten(),
        lambda u: scaled(y, J[x, y].T @ scaled(x, like[x].unflatten(u))).flatten(),
        scaled(x, like[x]).flatten(),
        scaled(y, like[y]).flatten(),
        x0=None if start is None else start.flatten(),
        tolerance=tolerance,
        budget=budget,
    )
    if warm_start:
        memory["solution"] = like[x].unflatten(ex)
    e = Vector({player: like[player].unflatten(flat)[player] for player, flat in ((x, ex), (y, ey))})
    inverse = {player: [1 / rate if rate else 0.0 for rate in own] for player, own in rates.items()}
    return unscaled(e.scale(inverse), None if root is None else Vector({player: root[player] for player in e}))


def _implicit(step: Step, J: Operator, root: Vector | None, tolerance: float, budget: int, warm_start: bool) -> Vector:
    """Solve (P + J L) d = ξ with ``root`` = P^(1/2), scaled on both sides by P^(−1/2)."""
    b, rates = unscaled(step.point.gradient, root), step.learning_rates
    memory = step.state.vectors
    e, _ = step.solve(
        "joint",
        "gmres",
        lambda v: unscaled(J @ unscaled(v, root).scale(rates), root),
        b,
        x0=memory.get("solution"),
        shift=1.0,
        tolerance=tolerance,
        budget=budget,
    )
    if warm_start:
        memory["solution"] = e
    return unscaled(e, root)
