"""Rules for a leader and a follower (Stackelberg games): two players, named explicitly.

The leader minimises f_L(θ_L, θ_F*(θ_L)), where θ_F*(θ_L) is the follower's best response, the
minimum of its loss f_F(θ_L, ·). With H = J_FF the follower's own Hessian, the best response changes
by −H⁻¹ J_FL per change of θ_L, and the leader's total derivative is

    D f_L = ξ_L − J_FLᵀ H⁻¹ ∂_F f_L.

In a zero-sum game ∂_F f_L = −ξ_F, so that the second term vanishes on the ridge, where ξ_F = 0:
FollowTheRidge and GradientNewton then leave it out, as published, and need it in every other game.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

from saddlepoint.curvature import Linearization
from saddlepoint.errors import UsageError
from saddlepoint.game import Players
from saddlepoint.rules.base import Cross, Rule
from saddlepoint.rules.step import Step
from saddlepoint.rules.zero_sum import interacts_as_zero_sum
from saddlepoint.vectors import Vector


@dataclass(frozen=True, kw_only=True)
class Stackelberg(Rule):
    """Base of the rules with a leader, a follower, and solves with the follower's Hessian.

    With H = J_FF the follower's own Hessian, linear systems (H + damping·I) v = b are solved with
    MINRES, which also works for a Hessian that is not positive definite. In a game that is not
    zero-sum, damping moves the point to which a rule converges.

    Args:
        leader: the player that minimises its loss at the follower's best response; a GAN's
            generator.
        follower: the player that responds; a GAN's discriminator.
        damping: added to the follower's Hessian; 0 is the published method, networks need about 1.
        tol: relative residual at which a solve stops.
        max_iter: the largest number of products of a solve; the papers' codes use 5 to 20.
    """

    games = "leader and follower"

    leader: str
    follower: str
    damping: float = 0.0
    tol: float = 1e-6
    max_iter: int = 20

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.leader == self.follower:
            raise UsageError(
                f'{name}: leader and follower are both "{self.leader}"; they must be different'
                " players."
            )
        if not (self.damping >= 0 and self.tol >= 0 and self.max_iter >= 1):
            raise UsageError(f"{name}: needs damping ≥ 0, tol ≥ 0 and max_iter ≥ 1.")

    @property
    def order(self) -> int:
        return 2

    @property
    def needs_all_players(self) -> bool:
        return True

    def validate(self, players: Players) -> None:
        _check_two(type(self).__name__, self.leader, self.follower, players)

    @abstractmethod
    def direction(self, step: Step) -> Vector:
        """Return the directions of leader and follower."""

    def _solve_follower(self, step: Step, found: Linearization, b: Vector, name: str) -> Vector:
        """Return v with (H + damping·I) v = b; ``step.solves[name]`` reports the solve."""
        H = found.jacobian[self.follower, self.follower]
        v, _ = step.solve(
            name,
            "minres",
            lambda v: H @ v,
            b,
            shift=self.damping,
            tol=self.tol,
            max_iter=self.max_iter,
        )
        return v

    def _total_derivative(self, step: Step, name: str) -> Vector:
        """Return D f_L = ξ_L − J_FLᵀ H⁻¹ ∂_F f_L; ``step.solves[name]`` reports the solve."""
        found = step.linearization
        b = found.loss_gradient(self.leader).only([self.follower])
        v = self._solve_follower(step, found, b, name)
        through_follower = found.jacobian[self.follower, self.leader].T @ v
        return found.gradient.only([self.leader]) - through_follower


@dataclass(frozen=True, kw_only=True)
class ZeroSumAware(Stackelberg):
    """Base of the rules whose form depends on whether the game is zero-sum.

    Args:
        zero_sum: whether the game is zero-sum. None tests J_LF = −J_FLᵀ, at the cost of two
            products in the first step and in every tenth after it. Terms that depend on one player
            alone and that the other's loss leaves out pass this test, such as the follower's weight
            decay or the term of a GAN's real samples: ∂_F f_L then counts as −ξ_F. False uses
            ∂_F f_L of the leader's loss itself. True skips the test.
    """

    zero_sum: bool | None = field(default=None, metadata={"omit_default": True})

    @property
    def cross(self) -> Cross:
        return "unless_zero_sum" if self.zero_sum is None else not self.zero_sum

    def _is_zero_sum(self, step: Step) -> bool:
        return interacts_as_zero_sum(step) if self.zero_sum is None else self.zero_sum

    def _leader_direction(self, step: Step) -> Vector:
        """Return the leader's gradient in a zero-sum game, else its total derivative."""
        if self._is_zero_sum(step):
            return step.linearization.gradient.only([self.leader])
        return self._total_derivative(step, self.leader)


@dataclass(frozen=True, kw_only=True)
class FollowTheRidge(ZeroSumAware):
    """Follow the ridge: d_F = ξ_F − (1/h_F) H⁻¹ J_FL h_L d_L keeps the follower on the ridge.

    As the leader moves by h_L d_L, the follower's best response moves by −H⁻¹ J_FL of that; the
    second term follows it. In a zero-sum game d_L = ξ_L, in any other
    d_L = D f_L = ξ_L − J_FLᵀ H⁻¹ ∂_F f_L; see ``zero_sum``. The inner optimizer must be plain SGD:
    the ratio of the learning rates is part of the rule.

    Holds for: a leader and a follower, zero-sum or not.
    Cost: zero-sum, 2 gradients (with respect to both players), 1 + k products; else 2 + k + k'. 2
    products more in every tenth step.
    Guarantee: converges to and only to local minimax points, in other games to and only to local
    Stackelberg points, for small steps.

    Reference: Wang, Zhang and Ba (2020), On solving minimax optimization locally: a
    follow-the-ridge approach, arXiv:1910.07512, which has both forms.

    >>> FollowTheRidge(leader="generator", follower="discriminator").output
    'update'
    """

    cross = True
    output = "update"
    evaluates_again = False

    def direction(self, step: Step) -> Vector:
        xi, J, lrs = step.linearization.gradient, step.linearization.jacobian, step.lrs
        leader = self._leader_direction(step)
        b = J[self.follower, self.leader] @ leader.scale(lrs)
        correction = self._solve_follower(step, step.linearization, b, self.follower)
        inverse_lrs = {self.follower: [1 / lr if lr else 0.0 for lr in lrs[self.follower]]}
        follower = xi.only([self.follower]) - correction.scale(inverse_lrs)
        return Vector({**xi, **leader, **follower})


@dataclass(frozen=True, kw_only=True)
class TotalGradient(Stackelberg):
    """Total gradient descent: d_L = ξ_L − J_FLᵀ H⁻¹ ∂_F f_L, the leader's total derivative.

    The second term is the change of the leader's loss through the follower's best response. The
    follower descends its gradient. All terms of the leader's loss matter: the term of the real
    samples, which a GAN's generator usually leaves out, enters through ∂_F f_L.

    Holds for: a leader and a follower, zero-sum or not.
    Cost: 2 gradients (with respect to both players), 1 + k products.
    Guarantee: converges to local minimax points, in other games to local Stackelberg points, and
    only those when the follower is faster (2 to 10 times the leader's learning rate).

    References: Fiez, Chasnov and Ratliff (2020), Implicit learning dynamics in Stackelberg games,
    arXiv:1906.01217; Zhang et al. (2020), Newton-type methods for minimax optimization,
    arXiv:2006.14592.

    >>> TotalGradient(leader="generator", follower="discriminator").output
    'gradient'
    """

    cross = True
    evaluates_again = False

    def direction(self, step: Step) -> Vector:
        leader = self._total_derivative(step, self.follower)
        return Vector({**step.linearization.gradient, **leader})


@dataclass(frozen=True, kw_only=True)
class GradientNewton(ZeroSumAware):
    """Gradient step of the leader, then Newton: d_F = H⁻¹ ξ_F at (θ_L − h_L d_L, θ_F).

    In a zero-sum game d_L = ξ_L, as published; in any other d_L = D f_L = ξ_L − J_FLᵀ H⁻¹ ∂_F f_L,
    the step of TotalGradient; see ``zero_sum``. The inner optimizer must be plain SGD; the
    follower's learning rate is the fraction of Newton's step that is taken, 1 as published.

    Holds for: a leader and a follower, zero-sum or not.
    Cost: zero-sum, 3 gradients, k products, 2 loss evaluations; else 3 gradients (2 of them with
    respect to both players), 1 + k + k' products. 2 products more in every tenth step.
    Guarantee: converges to local minimax points, in other games to local Stackelberg points, and
    only those, linearly, as fast for an ill-conditioned problem of the follower as for another.

    Reference: Zhang et al. (2020), Newton-type methods for minimax optimization, arXiv:2006.14592,
    for zero-sum games.

    >>> GradientNewton(leader="generator", follower="discriminator").output
    'update'
    """

    output = "update"

    def direction(self, step: Step) -> Vector:
        return self._follower_newton(step, self._leader_direction(step))

    def partial_direction(self, step: Step) -> Vector:
        """Return the Newton step of a follower that moves alone, the gradient of a leader alone.

        The follower's learning rate is a fraction of Newton's step in its extra turns too.
        """
        xi = step.linearization.gradient
        if self.follower not in xi:
            return xi
        b = xi.only([self.follower])
        return Vector({**xi, **self._solve_follower(step, step.linearization, b, self.follower)})

    def _follower_newton(self, step: Step, leader: Vector) -> Vector:
        """Return the leader's direction, and the follower's Newton step after the leader's."""
        with step.displaced(leader.scale(step.lrs)):
            found = step.linearize(2)
            b = found.gradient_of(self.follower)
            follower = self._solve_follower(step, found, b, self.follower)
        return Vector({**leader, **follower})


_OTHER_GAMES = (
    "In other games the leader's Newton step needs third derivatives. Use TotalGradient,"
    " FollowTheRidge or GradientNewton, or losses that are zero-sum."
)


@dataclass(frozen=True, kw_only=True)
class CompleteNewton(GradientNewton):
    """Newton steps of both players: d_L = (J_LL − J_LF H⁻¹ J_FL)⁻¹ ξ_L, then the follower.

    d_L is the leader's part of J⁻¹ (ξ_L, 0), one solve with GMRES; the follower then takes its
    Newton step where the leader has moved, as in GradientNewton. The inner optimizer must be plain
    SGD. J_LL − J_LF H⁻¹ J_FL, the Schur complement, is the Hessian of f_L(θ_L, θ_F*(θ_L)) in a
    zero-sum game only; in other games that Hessian needs third derivatives, and the first step
    raises UsageError.

    Holds for: a leader and a follower in a zero-sum game, J_LF = −J_FLᵀ; see ``zero_sum``.
    Cost: 3 gradients (2 of them with respect to both players), 2k + k' products, 2 loss
    evaluations. 2 products more in every tenth step.
    Guarantee: quadratic convergence, over two steps, near local minimax points, and to **any**
    other nondegenerate critical point too.

    Reference: Zhang et al. (2020), Newton-type methods for minimax optimization, arXiv:2006.14592.

    >>> CompleteNewton(leader="generator", follower="discriminator").max_iter
    20
    """

    games = "leader and follower, zero-sum"
    cross = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.zero_sum is False:
            raise UsageError(f"CompleteNewton: zero_sum=False is not possible. {_OTHER_GAMES}")

    def direction(self, step: Step) -> Vector:
        if not self._is_zero_sum(step):
            raise UsageError(
                f'CompleteNewton: the game of the leader "{self.leader}" and the follower'
                f' "{self.follower}" is not zero-sum: their losses do not add up to terms of one'
                f" player alone, and J_LF is not −J_FLᵀ. {_OTHER_GAMES} If the game is zero-sum and"
                " rounding in low precision hides it, set zero_sum=True."
            )
        xi, J = step.linearization.gradient, step.linearization.jacobian
        b = Vector({**xi.zeros(), **xi.only([self.leader])})
        d, _ = step.solve(
            "joint",
            "gmres",
            lambda v: J @ v,
            b,
            shift=self.damping,
            tol=self.tol,
            max_iter=self.max_iter,
        )
        return self._follower_newton(step, d.only([self.leader]))


@dataclass(frozen=True, kw_only=True)
class Unrolled(Rule):
    """Unrolled GAN: d_L = d/dθ_L f_L(θ_L, θ_F^K(θ_L)), through K gradient steps of the follower.

    θ_F^{k+1} = θ_F^k − η ξ_F(θ_L, θ_F^k). The derivative is exact: backwards through the steps with
    μ_K = ∂_F f_L, g ← g − η J_FLᵀ μ_{k+1}, μ_k = μ_{k+1} − η H μ_{k+1}. The follower itself takes
    an ordinary gradient step, from where it was.

    Args:
        leader: the player that differentiates through the other's steps; a GAN's generator.
        follower: the player whose steps are unrolled; a GAN's discriminator.
        unroll: the number K of steps; 5 in the paper, which tries 0 to 10.
        lr: the length η of an unrolled step; None takes the follower's learning rate, which is the
            length of a gradient step where its optimizer is SGD. Under Adam give a number: the
            unrolled steps are those of gradient descent, not of Adam.

    Holds for: a leader and a follower, zero-sum or not; all terms of the leader's loss matter, as
    in TotalGradient.
    Cost: 2K + 1 loss evaluations, 2K + 2 gradients (one of each player at the current point, K + 1
    on the way forwards, K on the way back), 2K products. K points are evaluated twice so that no
    graph is kept.
    Guarantee: none; it tends to TotalGradient's direction as K grows where the follower's steps
    converge.

    Reference: Metz et al. (2017), Unrolled generative adversarial networks, arXiv:1611.02163.

    >>> Unrolled(leader="generator", follower="discriminator").unroll
    5
    """

    leader: str
    follower: str
    unroll: int = 5
    lr: float | None = None

    games = "leader and follower"
    order = 2
    needs_all_players = True

    def __post_init__(self) -> None:
        lr_fits = self.lr is None or self.lr > 0
        if self.leader == self.follower or self.unroll < 0 or not lr_fits:
            raise UsageError(
                "Unrolled: needs different leader and follower, unroll ≥ 0 and a positive lr or"
                " None."
            )

    def validate(self, players: Players) -> None:
        _check_two("Unrolled", self.leader, self.follower, players)

    def direction(self, step: Step) -> Vector:
        leader, follower = [self.leader], [self.follower]
        xi = step.linearization.gradient
        lrs = step.lrs[self.follower]
        eta = {self.follower: lrs if self.lr is None else [self.lr] * len(lrs)}

        # forwards: how far the follower has moved before each step and after the last one
        gradient = xi.only(follower)
        moved = [gradient.zeros()]
        for k in range(self.unroll):
            moved.append(moved[-1] + gradient.scale(eta))
            if k < self.unroll - 1:
                with step.displaced(moved[-1]):
                    gradient = step.linearize(1).gradient_of(self.follower)
        with step.displaced(moved[-1]):
            at_last = step.linearize(1).loss_gradient(self.leader)

        # backwards
        g, mu = at_last.only(leader), at_last.only(follower)
        for displacement in reversed(moved[:-1]):
            with step.displaced(displacement):
                found = step.linearize(2)
                product = found.vjp(
                    found.gradient_with_graph(self.follower),
                    mu.scale(eta)[self.follower],
                    found.active,
                    rows=1,
                )
            g, mu = g - product.only(leader), mu - product.only(follower)
        return Vector({**xi, **g})


def _check_two(rule: str, leader: str, follower: str, players: Players) -> None:
    """Raise UsageError unless leader and follower are the players."""
    if set(players) == {leader, follower}:
        return
    names = ", ".join(f'"{player}"' for player in players)
    others = " PerPlayer gives further players another rule." if len(players) > 2 else ""
    raise UsageError(
        f'{rule} has the leader "{leader}" and the follower "{follower}", but the players are'
        f" {names}. It is defined for two players; name them.{others}"
    )
