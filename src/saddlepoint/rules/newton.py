"""Newton's method for games."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from saddlepoint.curvature import Operator
from saddlepoint.errors import UsageError, did_you_mean
from saddlepoint.rules.base import Rule, check_limits
from saddlepoint.rules.preconditioners import (
    KroneckerPreconditioner,
    PreconditionerMatrix,
    RMSPreconditioner,
    update_preconditioner,
)
from saddlepoint.rules.step import Step
from saddlepoint.vectors import Vector

# Levenberg–Marquardt factors of Martens (2010), Deep learning via Hessian-free optimization
_RAISE, _LOWER = 3 / 2, 2 / 3
_MIN_DAMPING, _MAX_DAMPING = 1e-8, 1e8


@dataclass(frozen=True)
class Newton(Rule):
    """Damped Newton, matrix-free: (J_part + λP) d = ξ.

    J_part are the Hessians of the players' own losses, or the whole Jacobian of the game. P is the
    identity, or a preconditioner as in Marquardt's damping: with
    ``preconditioner=RMSPreconditioner()`` and λ = 1/α the step is that of RMSProp with learning
    rate α where the loss is flat, and Newton's where it is curved. The system is solved in the
    coordinates in which P is the identity.

    ``part="own"``: every active player solves (|H_i| + λ_i P) d_i = ξ_i with its own Hessian
    H_i = ∂_i∂_i f_i. The default solver "saddle_free" takes absolute eigenvalues on the Krylov
    space of ξ_i, so that d_i is a descent direction even where H_i is indefinite. "cg" stops before
    the first direction of negative curvature, and "minres" solves with H_i itself, without absolute
    values; where their d_i is no descent direction, P⁻¹ ξ_i / (|c| + λ_i) is taken, with c the
    smallest curvature met. A player's own curvature rescales time but does not cure rotation.

    ``part="full"``: (J + λP) d = ξ with GMRES, all players at once. It converges fast near any
    nondegenerate critical point, also near one that is no equilibrium, and no safeguard can tell
    these apart; use it near a solution.

    Levenberg–Marquardt damping (``adapt``): on the same batch, the decrease that the model predicts
    is compared with the true one at θ − d: for own parts that of the player's loss with the others
    held fixed, for the full Jacobian that of ‖ξ‖². A ratio above 3/4 multiplies λ by 2/3, one below
    1/4 multiplies it by 3/2, and a step without a decrease is not taken. λ = 0 stays 0: undamped.

    The inner optimizer must be plain SGD; its learning rate is the fraction of the step that is
    taken.

    Args:
        part: "own" or "full".
        solver: "saddle_free" (default), "cg" or "minres" for own parts, "gmres" for the full
            Jacobian; None takes the default.
        damping: the initial λ; 1.0 follows Martens and Sutskever (2012).
        adapt: whether λ follows the Levenberg–Marquardt rule.
        preconditioner: P of the damping; None is the identity.
        tol: relative residual at which a solve stops.
        max_iter: the largest number of Jacobian products of a solve.

    Holds for: any number of players, zero-sum or not.
    Cost for n active players and k products a solve: "own" n gradients and Σk products, and n loss
    evaluations with ``adapt``; "full" n gradients and nk products, and n gradients with ``adapt``.
    Guarantee: one undamped step lands on the minimum of a quadratic loss. On a bilinear game the
    own blocks are zero, so ``part="own"`` is damped gradient descent and diverges when
    simultaneous, with ``adapt`` ever faster: every loss decreases as its linear model predicts, so
    that λ falls and the steps grow. ``part="full"`` contracts it for any λ > 0.

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
    preconditioner: RMSPreconditioner | KroneckerPreconditioner | None = None
    tol: float = 1e-3
    max_iter: int = 10

    order = 2
    output = "update"

    def __post_init__(self) -> None:
        fitting = {"own": ("saddle_free", "cg", "minres"), "full": ("gmres",)}
        if self.part not in fitting:
            raise UsageError(
                f'Newton: part="{self.part}" is unknown.' + did_you_mean(self.part, fitting)
            )
        object.__setattr__(self, "solver", self.solver or fitting[self.part][0])
        if self.solver not in fitting[self.part]:
            raise UsageError(
                f'Newton: solver="{self.solver}" does not fit part="{self.part}"; use'
                f" {' or '.join(fitting[self.part])}."
            )
        check_limits("Newton", self.tol, self.max_iter)
        if not self.damping >= 0:
            raise UsageError(f"Newton: damping={self.damping} must be at least 0.")

    @property
    def cross(self) -> bool:
        return self.part == "full"

    @property
    def needs_all_players(self) -> bool:
        return self.part == "full"

    def direction(self, step: Step) -> Vector:
        if self.part == "full":
            return self._direction_of_all(step)
        linearization = step.linearization
        proposals = {}
        for player in linearization.active:
            g = linearization.gradient.only([player])
            H = linearization.jacobian[player, player]
            d, Hd, P = self._solve(step, player, g, H)
            if not float(g.dot(d)) > 0:
                curvature = abs(step.solves[player].curvature or 0.0)
                d = P.apply_inverse(g) / (curvature + self._damping(step, player) or 1.0)
                Hd = H @ d
            proposals[player] = d, float(g.dot(d) - 0.5 * d.dot(Hd))

        # the graph is no longer needed: trial points may move the parameters
        parts = {}
        for player, (d, predicted) in proposals.items():
            if self.adapt and self.damping > 0:
                with step.displaced(d):
                    after = step.linearize(0, check_finite=False).losses[player]
                decrease = linearization.losses[player] - after
                if not self._adapt_damping(step, player, decrease, predicted):
                    d = d.zeros()
            parts[player] = d[player]
        return Vector(parts)

    def partial_direction(self, step: Step) -> Vector:
        """Return P⁻¹ ξ / max(λ, 1) of players that move alone while ``part="full"`` needs all.

        It is the damped step without curvature.
        """
        xi = step.linearization.gradient
        P = update_preconditioner(self.preconditioner, step.state, "joint", xi)
        return P.apply_inverse(xi) / max(self._damping(step, "joint"), 1.0)

    def _direction_of_all(self, step: Step) -> Vector:
        """Return the step on the whole Jacobian, or zeros where ‖ξ‖² would not decrease."""
        xi, J = step.linearization.gradient, step.linearization.jacobian
        d, Jd, _ = self._solve(step, "joint", xi, J)
        if not (self.adapt and self.damping > 0):
            return d
        before = float(xi.dot(xi))
        with step.displaced(d):
            after = step.linearize(1, check_finite=False).gradient
        decrease, predicted = (
            before - float(after.dot(after)),
            before - float((xi - Jd).norm()) ** 2,
        )
        return d if self._adapt_damping(step, "joint", decrease, predicted) else d.zeros()

    def _solve(
        self, step: Step, name: str, b: Vector, A: Operator
    ) -> tuple[Vector, Vector, PreconditionerMatrix]:
        """Solve (A + λP) d = b; return d, A d and P."""
        P = update_preconditioner(self.preconditioner, step.state, name, b)
        e, image = step.solve(
            name,
            str(self.solver),
            lambda e: P.apply_inv_sqrt_transpose(A @ P.apply_inv_sqrt(e)),
            P.apply_inv_sqrt_transpose(b),
            shift=self._damping(step, name),
            tol=self.tol,
            max_iter=self.max_iter,
        )
        return P.apply_inv_sqrt(e), P.apply_sqrt_transpose(image), P

    def _damping(self, step: Step, name: str) -> float:
        return step.state.numbers.setdefault(f"damping.{name}", self.damping)

    def _adapt_damping(self, step: Step, name: str, decrease: float, predicted: float) -> bool:
        """Adapt λ to the ratio of true and predicted decrease; return whether there is one."""
        ratio = decrease / predicted if predicted > 0 else float("-inf")
        # a ratio that is NaN raises λ
        factor = _LOWER if ratio > 0.75 else 1.0 if ratio >= 0.25 else _RAISE
        damping = step.state.numbers[f"damping.{name}"] * factor
        step.state.numbers[f"damping.{name}"] = min(max(damping, _MIN_DAMPING), _MAX_DAMPING)
        return ratio > 0
