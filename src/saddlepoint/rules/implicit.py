"""Rules that solve one linear system with the game's curvature in it: (P + J_part L) d = ξ.

P is a metric, L the learning rates, and J_part the own blocks, the interaction blocks or the whole Jacobian.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from saddlepoint.curvature import Operator
from saddlepoint.errors import UsageError, did_you_mean
from saddlepoint.rules.base import Rule, Step
from saddlepoint.rules.scalings import RMS
from saddlepoint.vectors import Vector

_RAISE, _LOWER = 3 / 2, 2 / 3  # Levenberg–Marquardt factors of Martens (2010), Deep learning via Hessian-free optimization
_LEAST, _MOST = 1e-8, 1e8


@dataclass(frozen=True)
class Newton(Rule):
    """Damped Newton, matrix-free: (J_part + λP) d = ξ, each player on its own Hessian or all on the game's Jacobian.

    P is the identity, or a diagonal metric as in Marquardt's damping: with ``scaling=RMS()`` and λ = 1/α the step is that of
    RMSProp with learning rate α where the loss is flat, and Newton's where it is curved. The system is solved in the
    coordinates P^(1/2) d.

    ``part="own"``: every mover solves (|H_i| + λ_i P) d_i = ξ_i with its own Hessian H_i = ∂_i∂_i f_i. The default solver
    "saddle-free" takes absolute eigenvalues on the Krylov space of ξ_i, so that d_i is a descent direction even where H_i is
    indefinite. "cg" stops before the first direction of negative curvature and "minres" solves with H_i as it is; where
    their d_i is no descent direction, P⁻¹ ξ_i / (|c| + λ_i) is taken, c the smallest curvature met. A player's own curvature
    re-scales time but does not cure rotation.

    ``part="full"``: (J + λP) d = ξ with GMRES, all players at once. Converges fast near any nondegenerate critical point,
    also to one that is no equilibrium, which no safeguard can tell apart; use it near a solution.

    Levenberg–Marquardt damping (``adapt``): on the same batch, the model's gain is compared with the true one at θ − d — for
    own parts the player's loss with the others held, for the full Jacobian ‖ξ‖². A ratio above 3/4 multiplies λ by 2/3, one below
    1/4 by 3/2, and a step that gains nothing is not taken. λ = 0 stays 0: undamped.

    The inner optimizer must be plain SGD; its learning rate is the fraction of the step that is taken.

    Args:
        part: "own" or "full".
        solver: "saddle-free", "cg" or "minres" for own parts, "gmres" for the full Jacobian; None picks the first of them.
        damping: the initial λ; 1.0 follows Martens and Sutskever (2012).
        adapt: whether λ follows the Levenberg–Marquardt rule.
        scaling: the metric P of the damping; None is the identity.
        tolerance: relative residual at which a solve ends.
        budget: the most Jacobian products of a solve.

    Cost for n movers, k products a solve: own n gradients and Σk products, and n loss evaluations with ``adapt``; full n gradients
    and nk products, and n gradients with ``adapt``.

    Guarantee: one undamped step lands on the minimum of a quadratic loss. On a bilinear game the own blocks are zero, so
    ``part="own"`` is damped gradient descent and diverges when simultaneous; ``part="full"`` contracts it for any λ > 0.

    References: Martens (2010); Dauphin et al. (2014), arXiv:1406.2572, for |H|.

    >>> import torch
    >>> from saddlepoint import GameOptimizer
    >>> x = torch.ones(3, requires_grad=True)
    >>> optimizer = GameOptimizer({"x": torch.optim.SGD([x], lr=1.0)}, Newton(damping=0.0))
    >>> _ = optimizer.step(lambda: {"x": (x**2).sum()})
    >>> x.tolist()
    [0.0, 0.0, 0.0]
    """

    part: Literal["own", "full"] = "own"
    solver: str | None = None
    damping: float = 1.0
    adapt: bool = True
    scaling: RMS | None = None
    tolerance: float = 1e-3
    budget: int = 10

    order = 2
    units = "step"

    def __post_init__(self) -> None:
        fitting = {"own": ("saddle-free", "cg", "minres"), "full": ("gmres",)}
        if self.part not in fitting:
            raise UsageError(f'Newton: part="{self.part}" is unknown.' + did_you_mean(self.part, fitting))
        object.__setattr__(self, "solver", self.solver or fitting[self.part][0])
        if self.solver not in fitting[self.part]:
            raise UsageError(f'Newton: solver="{self.solver}" does not fit part="{self.part}"; use {" or ".join(fitting[self.part])}.')
        _check_limits("Newton", self.tolerance, self.budget)
        if not self.damping >= 0:
            raise UsageError(f"Newton: damping={self.damping} must be at least 0.")

    @property
    def joint(self) -> bool:
        return self.part == "full"

    def direction(self, step: Step) -> Vector:
        if self.part == "full":
            return self._full(step)
        proposals = [self._own(step, player) for player in step.point.movers]
        taken = [self._tested(step, d, gain) if self._adapts else d for d, gain in proposals]
        return Vector({player: d[player] for d in taken for player in d})

    def _own(self, step: Step, player: str) -> tuple[Vector, float]:
        """Return one player's step and the decrease of its loss that the quadratic model promises."""
        g, H = step.point.gradient.only([player]), step.point.jacobian[player, player]
        d, Hd, root = self._solved(step, player, g, H)
        if not float(g.dot(d)) > 0:
            d = _unscaled(_unscaled(g, root), root) / (abs(step.solves[player].curvature or 0.0) + self._damping(step, player) or 1.0)
            Hd = H @ d
        return d, float(g.dot(d) - 0.5 * d.dot(Hd))

    def _solved(self, step: Step, name: str, b: Vector, A: Operator) -> tuple[Vector, Vector, Vector | None]:
        """Solve (A + λP) d = b; return d, A d and P^(1/2)."""
        root = None if self.scaling is None else self.scaling.update(step.state, name, b).sqrt()
        e, image = step.solve(
            name,
            str(self.solver),
            lambda v: _unscaled(A @ _unscaled(v, root), root),
            _unscaled(b, root),
            shift=self._damping(step, name),
            tolerance=self.tolerance,
            budget=self.budget,
        )
        return _unscaled(e, root), image if root is None else image * root, root

    def _tested(self, step: Step, d: Vector, predicted: float) -> Vector:
        """Return one player's step, or none where its loss would not fall with the other players held."""
        (player,) = d
        with step.displaced(d):
            gain = step.point.losses[player] - step.evaluate(0, finite=False).losses[player]
        return d if self._trusts(step, player, gain, predicted) else d.zeros()

    def _full(self, step: Step) -> Vector:
        step.point.rows()
        xi, J = step.point.gradient, step.point.jacobian
        d, Jd, _ = self._solved(step, "joint", xi, J)
        if not self._adapts:
            return d
        before = float(xi.dot(xi))
        with step.displaced(d):
            after = step.evaluate(1, finite=False).gradient
        gain, predicted = before - float(after.dot(after)), before - float((xi - Jd).norm()) ** 2
        return d if self._trusts(step, "joint", gain, predicted) else d.zeros()

    @property
    def _adapts(self) -> bool:
        return self.adapt and self.damping > 0

    def _damping(self, step: Step, name: str) -> float:
        return step.state.numbers.setdefault(f"damping.{name}", self.damping)

    def _trusts(self, step: Step, name: str, gain: float, predicted: float) -> bool:
        """Adapt λ to the ratio of true and promised gain; say whether the step gains anything."""
        ratio = gain / predicted if predicted > 0 else float("-inf")
        factor = _LOWER if ratio > 0.75 else 1.0 if ratio >= 0.25 else _RAISE  # a ratio that is NaN raises λ
        key = f"damping.{name}"
        step.state.numbers[key] = min(max(step.state.numbers[key] * factor, _LEAST), _MOST)
        return ratio > 0


@dataclass(frozen=True)
class CompetitiveGradient(Rule):
    """Competitive gradient descent: the Nash equilibrium of the local bilinear game, (I + J_o L) d = ξ.

    J_o is the interaction, the blocks J_ij with i ≠ j, and L the inner learning rates, so that θ moves by L d. For two players
    with losses f and −f and one learning rate h this is
    Δx = −h (I + h² D_xy D_yx)⁻¹ (∂_x f + h D_xy ∂_y f), and its mirror image for y. Any number of players, zero-sum or not: the
    system is solved with GMRES in its non-symmetric form (the polymatrix form for more than two players).

    The inner optimizer must be plain SGD: the learning rate is part of the solve.

    Args:
        tolerance: relative residual at which the solve ends; 1e-6 in the paper's experiments.
        budget: the most products of the solve.
        warm_start: start from the last step's solution, at the price of one product.

    Cost for n players, k iterations: n gradients (with respect to all players), n·k products.
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
        _check_limits("CompetitiveGradient", self.tolerance, self.budget)

    def direction(self, step: Step) -> Vector:
        step.point.rows()
        return _implicit(step, step.point.jacobian.interaction, None, self.tolerance, self.budget, self.warm_start)


@dataclass(frozen=True)
class AdaptiveCompetitiveGradient(Rule):
    """Competitive gradient descent in the metric of RMSProp: (P + J_o L) d = ξ with P = diag((√v + ε) / √(1 − βᵗ)).

    v ← βv + (1 − β)ξ², the running mean of squares after t steps. The symmetrically scaled system
    (I + P^(−1/2) J_o L P^(−1/2)) e = P^(−1/2) ξ, d = P^(−1/2) e is solved with GMRES.

    The inner optimizer must be plain SGD: the learning rate is part of the solve.

    Args:
        beta: decay of the running mean; 0.99 as published.
        epsilon: added to √v; 1e-5 as published.
        tolerance: relative residual at which the solve ends; the published code offers 1e-10 and its StyleGAN script 1e-4.
        budget: the most products of the solve.
        warm_start: start from the last step's solution, at the price of one product.

    Cost for n players, k iterations: n gradients (with respect to all players), n·k products.
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
        _check_limits("AdaptiveCompetitiveGradient", self.tolerance, self.budget)
        RMS(self.beta, self.epsilon)  # checks them

    def direction(self, step: Step) -> Vector:
        step.point.rows()
        root = RMS(self.beta, self.epsilon).update(step.state, "joint", step.point.gradient).sqrt()
        return _implicit(step, step.point.jacobian.interaction, root, self.tolerance, self.budget, self.warm_start)


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
        _check_limits("ProximalPoint", self.tolerance, self.budget)

    def direction(self, step: Step) -> Vector:
        step.point.rows()
        return _implicit(step, step.point.jacobian, None, self.tolerance, self.budget, self.warm_start)


def _implicit(step: Step, J: Operator, root: Vector | None, tolerance: float, budget: int, warm_start: bool) -> Vector:
    """Solve (P + J L) d = ξ with ``root`` = P^(1/2), scaled on both sides by P^(−1/2)."""
    b, rates = _unscaled(step.point.gradient, root), step.learning_rates
    memory = step.state.vectors
    e, _ = step.solve(
        "joint",
        "gmres",
        lambda v: _unscaled(J @ _unscaled(v, root).scale(rates), root),
        b,
        x0=memory.get("solution"),
        shift=1.0,
        tolerance=tolerance,
        budget=budget,
    )
    if warm_start:
        memory["solution"] = e
    return _unscaled(e, root)


def _unscaled(e: Vector, root: Vector | None) -> Vector:
    """Return P^(−1/2) e, where ``root`` is P^(1/2) or None for the identity."""
    return e if root is None else e / root


def _check_limits(rule: str, tolerance: float, budget: int) -> None:
    if not tolerance >= 0 or budget < 1:
        raise UsageError(f"{rule}: needs tolerance ≥ 0 and budget ≥ 1, not {tolerance} and {budget}.")
