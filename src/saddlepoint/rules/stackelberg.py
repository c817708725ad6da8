"""Rules for games with an order: a leader, and a follower that answers. They take two players, named explicitly.

The leader minimises f_L(θ_L, θ_F*(θ_L)), where the answer θ_F*(θ_L) minimises the follower's loss
f_F(θ_L, ·). With H = J_FF the follower's own Hessian, the answer moves by −H⁻¹ J_FL per move of the
leader, and the leader's total derivative is

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
    """What the rules of this page share: who leads, who follows, and the follower's solves.

    With H = J_FF the follower's own Hessian, linear systems (H + damping·I) v = b are solved with
    MINRES, which also takes a Hessian that is not positive definite. In a game that is not
    zero-sum, damping moves the point to which a rule converges.

    Args:
        leader: the player whose loss is minimised knowing the answer; a GAN's generator.
        follower: the player that answers; a GAN's discriminator.
        damping: added to the follower's Hessian; 0 is the published method, networks want about 1.
        tol: relative residual at which a solve ends.
        max_iter: the most products of a solve; the papers' codes use 5 to 20.
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

    def _answer(
        self, step: Step, point: Linearization, b: Vector, name: str | None = None
    ) -> Vector:
        """Solve (H + damping·I) v = b on the follower's parameters; the report is that of the follower unless it is called otherwise."""
        H = point.jacobian[self.follower, self.follower]
        v, _ = step.solve(
            name or self.follower,
            "minres",
            lambda v: H @ v,
            b,
            shift=self.damping,
            tol=self.tol,
            max_iter=self.max_iter,
        )
        return v

    def _total(self, step: Step, name: str) -> Vector:
        """Return the leader's total derivative, D f_L = ξ_L − J_FLᵀ H⁻¹ ∂_F f_L, from a solve that is reported as ``name``."""
        answer = self._answer(
            step,
            step.linearization,
            step.linearization.loss_gradient(self.leader).only([self.follower]),
            name,
        )
        through = step.linearization.jacobian[self.follower, self.leader].T @ answer
        return step.linearization.gradient.only([self.leader]) - through


@dataclass(frozen=True, kw_only=True)
class ZeroSumAware(Stackelberg):
    """The rules whose form depends on whether the game is zero-sum.

    Args:
        zero_sum: whether it is. None finds out whether J_LF = −J_FLᵀ, for two products in every
            tenth step, from the first on. Terms that belong to one player alone and that the
            other's loss leaves out do not matter for that, such as the follower's weight decay or
            the term of a GAN's real samples: ∂_F f_L counts as −ξ_F. False takes the leader's loss
            as it is written instead. True takes the user's word, for no products.
    """

    zero_sum: bool | None = field(default=None, metadata={"omit_default": True})

    @property
    def cross(self) -> Cross:
        return "unless_zero_sum" if self.zero_sum is None else not self.zero_sum

    def _is_zero_sum(self, step: Step) -> bool:
        return interacts_as_zero_sum(step) if self.zero_sum is None else self.zero_sum

    def _leading(self, step: Step) -> Vector:
        """Return the leader's direction: its gradient in a zero-sum game, else its total derivative."""
        return (
            step.linearization.gradient.only([self.leader])
            if self._is_zero_sum(step)
            else self._total(step, self.leader)
        )


@dataclass(frozen=True, kw_only=True)
class FollowTheRidge(ZeroSumAware):
    """Follow the ridge: the leader descends, the follower adds what keeps it on the ridge, d_F = ξ_F − (1/h_F) H⁻¹ J_FL h_L d_L.

    As the leader moves by h_L d_L, the follower's best answer moves by −H⁻¹ J_FL of that; the
    correction follows it. In a zero-sum game d_L = ξ_L, in any other d_L = D f_L = ξ_L − J_FLᵀ H⁻¹
    ∂_F f_L; see ``zero_sum``. The inner optimizer must be plain SGD: the ratio of the learning
    rates is part of the rule.

    Holds for: a leader and a follower, zero-sum or not.
    Cost: zero-sum, 2 gradients (with respect to both players), 1 + k products; else 2 + k + k'. 2
    products more in every tenth step. Guarantee: converges to and only to local minimax points, in
    other games to and only to local Stackelberg points, for small steps.

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
        leading = self._leading(step)
        correction = self._answer(
            step, step.linearization, J[self.follower, self.leader] @ leading.scale(lrs)
        )
        inverse = {self.follower: [1 / rate if rate else 0.0 for rate in lrs[self.follower]]}
        return Vector({**xi, **leading, **(xi.only([self.follower]) - correction.scale(inverse))})


@dataclass(frozen=True, kw_only=True)
class TotalGradient(Stackelberg):
    """Total gradient descent: the leader descends its total derivative, d_L = ξ_L − J_FLᵀ H⁻¹ ∂_F f_L, the follower its gradient.

    The second term is the change of the leader's loss through the follower's answer. The leader's
    loss is taken as it is written: the term of the real samples, which a GAN's generator usually
    leaves out, counts through ∂_F f_L.

    Holds for: a leader and a follower, zero-sum or not.
    Cost: 2 gradients (with respect to both players), 1 + k products.
    Guarantee: converges to local minimax points, in other games to local Stackelberg points, and
    only those when the follower is faster (2 to 10 times the leader's rate).

    References: Fiez, Chasnov and Ratliff (2020), Implicit learning dynamics in Stackelberg games,
    arXiv:1906.01217; Zhang et al. (2020), Newton-type methods for minimax optimization,
    arXiv:2006.14592.

    >>> TotalGradient(leader="generator", follower="discriminator").output
    'gradient'
    """

    cross = True
    evaluates_again = False

    def direction(self, step: Step) -> Vector:
        leading = self._total(step, self.follower)
        return Vector({**step.linearization.gradient, **leading})


@dataclass(frozen=True, kw_only=True)
class GradientNewton(ZeroSumAware):
    """Gradient descent for the leader, then Newton for the follower where the leader has gone: d_F = H⁻¹ ξ_F at (θ_L − h_L d_L, θ_F).

    In a zero-sum game d_L = ξ_L, as published; in any other d_L = D f_L = ξ_L − J_FLᵀ H⁻¹ ∂_F f_L,
    the step of TotalGradient; see ``zero_sum``. The inner optimizer must be plain SGD; the
    follower's rate is the share of Newton's step that is taken, 1 as published.

    Holds for: a leader and a follower, zero-sum or not.
    Cost: zero-sum, 3 gradients, k products, 2 loss evaluations; else 3 gradients (2 of them with
    respect to both players), 1 + k + k' products. 2 products more in every tenth step.
    Guarantee: converges to local minimax points, in other games to local Stackelberg points, and
    only those, linearly, at a rate that does not depend on the conditioning of the follower's
    problem.

    Reference: Zhang et al. (2020), Newton-type methods for minimax optimization, arXiv:2006.14592,
    for zero-sum games.

    >>> GradientNewton(leader="generator", follower="discriminator").output
    'update'
    """

    output = "update"

    def direction(self, step: Step) -> Vector:
        leading = self._leading(step)
        return Vector({**leading, **self._newton_at(step, leading)})

    def partial_direction(self, step: Step) -> Vector:
        """Return a lone follower's Newton step, a lone leader's gradient: the follower's rate is a share of Newton's step."""
        xi = step.linearization.gradient
        if self.follower not in xi:
            return xi
        return Vector({**xi, **self._answer(step, step.linearization, xi.only([self.follower]))})

    def _newton_at(self, step: Step, leading: Vector) -> Vector:
        """Return the follower's Newton step after the leader's step along ``leading``."""
        with step.displaced(leading.scale(step.lrs)):
            point = step.linearize(2)
            return self._answer(step, point, point.gradient_of(self.follower))


_ELSEWHERE = (
    "In other games the leader's Newton step needs third derivatives. Use TotalGradient,"
    " FollowTheRidge or GradientNewton, or losses that are zero-sum."
)


@dataclass(frozen=True, kw_only=True)
class CompleteNewton(GradientNewton):
    """Newton for both: the leader with the game's Schur complement, d_L = (J_LL − J_LF H⁻¹ J_FL)⁻¹ ξ_L, then the follower where it went.

    d_L is the leader's part of J⁻¹ (ξ_L, 0), one solve with GMRES. The inner optimizer must be
    plain SGD. The Schur complement is the Hessian of f_L(θ_L, θ_F*(θ_L)) in a zero-sum game only;
    elsewhere that Hessian needs third derivatives, so the first step refuses.

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
            raise UsageError(f"CompleteNewton: zero_sum=False is not possible. {_ELSEWHERE}")

    def direction(self, step: Step) -> Vector:
        if not self._is_zero_sum(step):
            raise UsageError(
                f'CompleteNewton: the game of the leader "{self.leader}" and the follower'
                f' "{self.follower}" is not zero-sum: their losses do not add up to terms of one'
                f" player alone, and J_LF is not −J_FLᵀ. {_ELSEWHERE} Where they are, and only the"
                " rounding of low precision hides it, set zero_sum=True."
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
        leading = d.only([self.leader])
        return Vector({**leading, **self._newton_at(step, leading)})


@dataclass(frozen=True, kw_only=True)
class Unrolled(Rule):
    """Unrolled GAN: the leader descends ∂_L f_L(θ_L, θ_F^K), differentiated through K gradient steps of the follower.

    θ_F^{k+1} = θ_F^k − η ξ_F(θ_L, θ_F^k). The derivative is exact: backwards through the steps with
    μ_K = ∂_F f_L, g ← g − η J_FLᵀ μ_{k+1}, μ_k = μ_{k+1} − η H μ_{k+1}. The follower's parameters
    and its optimizer's state are as before when the follower takes its own ordinary step.

    Args:
        leader: the player that looks ahead; a GAN's generator.
        follower: the player whose steps are unrolled; a GAN's discriminator.
        unroll: the number K of steps; 5 in the paper, which tries 0 to 10.
        rate: the length η of an unrolled step; None takes the follower's learning rate, which is
            the length of a gradient step where its optimizer is SGD. Under Adam give a number: what
            is unrolled are steps of gradient descent, not of Adam.

    Cost: 2K + 1 loss evaluations, 2K + 2 gradients (2 of one loss at the base point, K + 1 of the
    leader's or follower's on the way there, K on the way back), 2K products. K points are evaluated
    twice so that no graph is kept. Holds for: a leader and a follower, zero-sum or not; the
    leader's loss is taken as it is written, as by TotalGradient. Guarantee: none; it tends to
    TotalGradient's direction as K grows where the follower's steps converge.

    Reference: Metz et al. (2017), Unrolled generative adversarial networks, arXiv:1611.02163.

    >>> Unrolled(leader="generator", follower="discriminator").unroll
    5
    """

    leader: str
    follower: str
    unroll: int = 5
    rate: float | None = None

    games = "leader and follower"
    order = 2
    needs_all_players = True

    def __post_init__(self) -> None:
        if (
            self.leader == self.follower
            or self.unroll < 0
            or (self.rate is not None and not self.rate > 0)
        ):
            raise UsageError(
                "Unrolled: needs different leader and follower, unroll ≥ 0 and a positive rate or"
                " None."
            )

    def validate(self, players: Players) -> None:
        _check_two("Unrolled", self.leader, self.follower, players)

    def direction(self, step: Step) -> Vector:
        xi = step.linearization.gradient
        ahead, moved = self._unroll(step, xi.only([self.follower]))
        return Vector({**xi, **self._pull_back(step, ahead, moved)})

    def _rates(self, step: Step) -> dict[str, list[float]]:
        lrs = step.lrs[self.follower]
        return {self.follower: list(lrs) if self.rate is None else [self.rate] * len(lrs)}

    def _unroll(self, step: Step, first: Vector) -> tuple[Vector, list[Vector]]:
        """Return ∂f_L with respect to both players at the end, and how far the follower has moved before each step and at the end."""
        moved, gradient = [first.zeros()], first
        for k in range(self.unroll):
            moved.append(moved[-1] + gradient.scale(self._rates(step)))
            if k < self.unroll - 1:
                with step.displaced(moved[-1]):
                    gradient = step.linearize(1).gradient_of(self.follower)
        with step.displaced(moved[-1]):
            return step.linearize(1).loss_gradient(self.leader), moved[:-1]

    def _pull_back(self, step: Step, ahead: Vector, moved: list[Vector]) -> Vector:
        """Return the leader's total derivative."""
        g, mu = ahead.only([self.leader]), ahead.only([self.follower])
        for place in reversed(moved):
            with step.displaced(place):
                point = step.linearize(2)
                shorter = mu.scale(self._rates(step))
                pulled = point.vjp(
                    point.gradient_with_graph(self.follower),
                    shorter[self.follower],
                    point.active,
                    rows=1,
                )
            g, mu = g - pulled.only([self.leader]), mu - pulled.only([self.follower])
        return g


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
