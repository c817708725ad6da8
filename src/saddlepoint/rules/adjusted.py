"""Rules that adjust the gradient by one or two Jacobian products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from saddlepoint.curvature import Jacobian
from saddlepoint.errors import UsageError
from saddlepoint.rules.base import Rule
from saddlepoint.rules.step import Step
from saddlepoint.rules.zero_sum import interacts_as_zero_sum
from saddlepoint.vectors import Vector


@dataclass(frozen=True)
class Consensus(Rule):
    """Consensus optimisation: direction = ξ + γ Jᵀξ = ξ + γ ∂ ½‖ξ‖².

    Args:
        gamma: γ ≥ 0; 0.1 as in the paper's examples in the plane. Its GANs have 10, under RMSProp
            with a rate of 1e-4: a plain step of length h with γ diverges where h (σ + γσ²) > 2 for
            an eigenvalue σ of a symmetric J.

    Holds for: any number of players, zero-sum or not.
    Cost for n players: n gradients, n products.
    Guarantee: on a bilinear game x·s·y it converges for γ > h/2 roughly and small h; large γ is
    drawn to any critical point where J is regular, equilibrium or not.

    Reference: Mescheder, Nowozin and Geiger (2017), The numerics of GANs, arXiv:1705.10461. Its
    code has the factor ½ as here.

    >>> Consensus()
    Consensus(gamma=0.1)
    """

    gamma: float = 0.1

    order = 2
    needs_all_players = True
    evaluates_again = False

    def __post_init__(self) -> None:
        _check("Consensus", gamma=self.gamma)

    def direction(self, step: Step) -> Vector:
        xi = step.linearization.gradient
        return xi + self.gamma * (step.linearization.jacobian.T @ xi)


@dataclass(frozen=True)
class SymplecticGradientAdjustment(Rule):
    """Symplectic gradient adjustment: direction = ξ + λ Aᵀξ with A = (J − Jᵀ)/2 and an aligned sign of λ.

    The sign of λ is that of ⟨ξ, Jᵀξ⟩ ⟨Aᵀξ, Jᵀξ⟩ / d + 0.1 with d the number of parameters: it
    points towards stable fixed points and away from unstable ones.

    Between two players with J_xy = −J_yxᵀ, as in every zero-sum game, Aᵀξ is the interaction's part
    of Jᵀξ, which costs half as much; without alignment the players' own blocks are not needed
    either. Whether that holds is found out on a random vector in every tenth step, from the first
    on.

    Args:
        strength: |λ|; 1 in the paper.
        align: whether to align the sign; without it λ = strength.

    Holds for: any number of players, zero-sum or not.
    Cost: two players, zero-sum, 2 gradients and 2 products (2 more in those steps); else n
    gradients (with respect to all players) and 2n products.
    Guarantee: converges on bilinear games and near stable fixed points for small h.

    Reference: Balduzzi et al. (2018), The mechanics of n-player differentiable games,
    arXiv:1802.05642.

    >>> SymplecticGradientAdjustment().strength
    1.0
    """

    strength: float = 1.0
    align: bool = True

    order = 2
    cross = "unless_zero_sum"
    cross = "unless_zero_sum"
    needs_all_players = True
    evaluates_again = False

    def __post_init__(self) -> None:
        _check("SymplecticGradientAdjustment", strength=self.strength)

    def direction(self, step: Step) -> Vector:
        zero_sum = interacts_as_zero_sum(step)
        if zero_sum and not self.align:
            xi = step.linearization.gradient
            return xi + self.strength * (step.linearization.jacobian.off_diagonal.T @ xi)
        transposed, adjustment = self._zero_sum(step) if zero_sum else self._general(step)
        xi = step.linearization.gradient
        sign = self._sign(xi, transposed, adjustment) if self.align else 1.0
        return xi + sign * self.strength * adjustment

    def _zero_sum(self, step: Step) -> tuple[Vector, Vector]:
        """Return Jᵀξ and Aᵀξ: the symmetric own blocks cancel in A, and between the players Jᵀ and −J are the same."""
        own, across = step.linearization.jacobian.transposed_parts(step.linearization.gradient)
        return own + across, across

    def _general(self, step: Step) -> tuple[Vector, Vector]:
        xi, J = step.linearization.gradient, step.linearization.jacobian
        transposed = J.T @ xi
        return transposed, 0.5 * (transposed - J @ xi)

    def _sign(self, xi: Vector, transposed: Vector, adjustment: Vector) -> float:
        alignment = (
            float(xi.dot(transposed)) * float(adjustment.dot(transposed)) / xi.dimension + 0.1
        )
        return 1.0 if alignment >= 0 else -1.0


@dataclass(frozen=True)
class Hamiltonian(Rule):
    """Hamiltonian gradient descent: direction = Jᵀξ, the gradient of ½‖ξ‖².

    Holds for: any number of players, zero-sum or not.
    Cost for n players: n gradients, n products.
    Guarantee: converges globally on bilinear and "sufficiently bilinear" games for h σ² < 2 with σ
    the largest singular value of J; finds any critical point, equilibrium or not.

    Reference: Abernethy, Lai and Wibisono (2019), Last-iterate convergence rates for min-max
    optimization, arXiv:1906.02027.
    """

    order = 2
    needs_all_players = True
    evaluates_again = False

    def direction(self, step: Step) -> Vector:
        return step.linearization.jacobian.T @ step.linearization.gradient


@dataclass(frozen=True)
class StochasticHamiltonian(Rule):
    """Stochastic Hamiltonian gradient descent: direction = ½ (J_aᵀ ξ_b + J_bᵀ ξ_a) from two independent sets of samples a and b.

    Unbiased for the gradient of ½‖E ξ‖², which Hamiltonian on one mini-batch is not. The closure
    must draw its samples itself, so that a second call draws new ones.

    Holds for: any number of players, zero-sum or not.
    Cost for n players: 2n gradients, 2n products.
    Guarantee: as Hamiltonian, in expectation, with steps that shrink like 1/t after a constant
    phase.

    Reference: Loizou et al. (2020), Stochastic Hamiltonian gradient methods for smooth games,
    arXiv:2007.04202.
    """

    order = 2
    needs_all_players = True

    def direction(self, step: Step) -> Vector:
        a, b = step.linearization, step.linearize(2, fresh=True)
        return 0.5 * (a.jacobian.T @ b.gradient + b.jacobian.T @ a.gradient)


@dataclass(frozen=True)
class JacobianRegularized(Rule):
    """JARE: direction_i = ξ_i + γ ∂_i ½ Σ_{j≠i} ‖ξ_j‖², that is ξ + γ J_oᵀ ξ with the blocks between players only.

    Args:
        gamma: γ ≥ 0; 0.1 here, which suits plain steps of 0.01 to 0.1. The published code uses 100
            on images and 1000 on mixtures, under RMSProp and Adam with rates of 1e-4. Where
            players' interests are alike, J_o is symmetric with negative eigenvalues and a large γ
            drives away from the equilibrium at any rate: in Cournot's game with demand of slope 1
                from γ = 1 on.

    Holds for: any number of players, zero-sum or not; the paper's form is for two.
    Cost for n players: n gradients, n products.
    Guarantee: local convergence where consensus is limited by the conditioning of the players' own
    curvature.

    Reference: Nie and Patel (2020), Towards a better understanding and regularization of GAN
    training dynamics, arXiv:1806.09235.

    >>> JacobianRegularized()
    JacobianRegularized(gamma=0.1)
    """

    gamma: float = 0.1

    order = 2
    needs_all_players = True
    evaluates_again = False

    def __post_init__(self) -> None:
        _check("JacobianRegularized", gamma=self.gamma)

    def direction(self, step: Step) -> Vector:
        xi = step.linearization.gradient
        return xi + self.gamma * (step.linearization.jacobian.off_diagonal.T @ xi)


@dataclass(frozen=True)
class LOLA(Rule):
    """LOLA: direction = ξ − J_o A ξ − p χ, with χ_i = Σ_{j≠i} J_jiᵀ A_j ∂_j f_i; look-ahead without the last term.

    Each player counts on the others' next gradient step, of length A_j for player j (the second
    term), and on its influence on that step (the third). A loss is taken as it is written: the term
    of the real samples, which a GAN's generator usually leaves out, counts through ∂_j f_i.

    Args:
        alpha: the length of the step that is counted on. None takes each player's learning rate, A
            = L, which is the step that it takes where its inner optimizer is plain SGD; under Adam,
            whose rate is no length of a gradient step, give a number. A number α is A = α for all;
            1 in the iterated prisoner's dilemma and 0.1 in the tandem game of the papers, whose
            losses are scaled for it. With too large an α the direction itself points away from a
            stable fixed point and diverges at every rate: look-ahead where α J_o has eigenvalues
                above 1, LOLA sooner.
        shaping: p in [0, 1]; 1 is LOLA, 0 look-ahead.

    Holds for: any number of players, zero-sum or not.
    Cost for n players: n gradients (with respect to all players), n products, and n(n − 1) more
    with shaping. Guarantee: look-ahead converges to stable fixed points for small α; LOLA may miss
    them.

    References: Foerster et al. (2018), Learning with opponent-learning awareness, arXiv:1709.04326;
    Letcher et al. (2019), Stable opponent shaping in differentiable games, arXiv:1811.08469.

    >>> LOLA(alpha=0.1, shaping=0.0)
    LOLA(alpha=0.1, shaping=0.0)
    """

    alpha: float | None = None
    shaping: float = 1.0

    order = 2
    cross = True
    cross = True
    needs_all_players = True
    evaluates_again = False

    def __post_init__(self) -> None:
        _check("LOLA", alpha=self.alpha, shaping=self.shaping)

    def direction(self, step: Step) -> Vector:
        lengths = step_lengths(step, self.alpha)
        ahead = look_ahead(step, lengths)
        return ahead if self.shaping == 0 else ahead - self.shaping * influence(step, lengths)


@dataclass(frozen=True)
class StableOpponentShaping(Rule):
    """SOS: LOLA with as much shaping p in [0, 1] as keeps look-ahead's guarantees, direction = ξ₀ − p χ with ξ₀ = ξ − J_o A ξ.

    χ_i = Σ_{j≠i} J_jiᵀ A_j ∂_j f_i as in LOLA, with A the lengths of the steps that are
    counted on. p = min(p₁, p₂); p₁ = 1 where ⟨−χ, ξ₀⟩ ≥ 0, else min(1, −a ‖ξ₀‖² / ⟨−χ, ξ₀⟩); p₂ =
    ‖ξ‖² where ‖ξ‖ < b, else 1.

    Args:
        alpha: the length of the step that is counted on; None takes each player's learning rate, a
            number is the same for all.
        a: 0.5 in the paper.
        b: 0.1 in the paper.

    Holds for: any number of players, zero-sum or not.
    Cost for n players: n gradients (with respect to all players), n² products.
    Guarantee: converges to stable fixed points and avoids strict saddles, for small α.

    Reference: Letcher et al. (2019), arXiv:1811.08469.

    >>> StableOpponentShaping().a
    0.5
    """

    alpha: float | None = None
    a: float = 0.5
    b: float = 0.1

    order = 2
    cross = True
    cross = True
    needs_all_players = True
    evaluates_again = False

    def __post_init__(self) -> None:
        _check("StableOpponentShaping", alpha=self.alpha, a=self.a, b=self.b)

    def direction(self, step: Step) -> Vector:
        lengths = step_lengths(step, self.alpha)
        ahead, shaping = look_ahead(step, lengths), -influence(step, lengths)
        return ahead + self._share(step.linearization.gradient, ahead, shaping) * shaping

    def _share(self, xi: Vector, ahead: Vector, shaping: Vector) -> float:
        product, length = float(shaping.dot(ahead)), float(xi.norm())
        first = 1.0 if product >= 0 else min(1.0, -self.a * float(ahead.dot(ahead)) / product)
        return min(first, length**2 if length < self.b else 1.0)


Lengths = Mapping[str, Sequence[float]]
"""Player → the length of the step that the others count on, for each parameter."""


def step_lengths(step: Step, alpha: float | None) -> Lengths:
    """Return A: each player's learning lrs, or ``alpha`` for all."""
    lrs = step.lrs
    return (
        lrs
        if alpha is None
        else {player: [alpha] * len(of_player) for player, of_player in lrs.items()}
    )


def look_ahead(step: Step, lengths: Lengths) -> Vector:
    """Return ξ − J_o A ξ: the gradient with the others' next gradient step counted in, to first order."""
    xi = step.linearization.gradient
    return xi - step.linearization.jacobian.off_diagonal @ xi.scale(lengths)


def influence(step: Step, lengths: Lengths) -> Vector:
    """Return χ_i = Σ_{j≠i} J_jiᵀ A_j ∂_j f_i: how player i's parameters change what the others' steps do to its loss."""
    point = step.linearization
    parts = {}
    for i in point.active:
        others = [j for j in point.active if j != i]
        if others:
            reach = Jacobian(point, {(j, i) for j in others}, rows=others, columns=[i])
            parts[i] = (reach.T @ point.loss_gradient(i).scale(lengths))[i]
        else:
            parts[i] = tuple(torch.zeros_like(t) for t in point.gradient[i])
    return Vector(parts)


def _check(rule: str, **values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not value >= 0:
            raise UsageError(f"{rule}: {name}={value} must be at least 0.")
