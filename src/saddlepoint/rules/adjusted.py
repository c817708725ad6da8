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
            with a learning rate of 1e-4: a plain step of length h with γ diverges where
            h (σ + γσ²) > 2 for an eigenvalue σ of a symmetric J.

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
        _check_not_negative("Consensus", gamma=self.gamma)

    def direction(self, step: Step) -> Vector:
        xi = step.linearization.gradient
        return xi + self.gamma * (step.linearization.jacobian.T @ xi)


@dataclass(frozen=True)
class SymplecticGradientAdjustment(Rule):
    """Symplectic gradient adjustment (SGA): direction = ξ + λ Aᵀξ with A = (J − Jᵀ)/2.

    With alignment, the sign of λ is that of ⟨ξ, Jᵀξ⟩ ⟨Aᵀξ, Jᵀξ⟩ / d + 0.1 with d the number of
    parameters: the adjustment then points towards stable fixed points and away from unstable ones.

    For two players with J_xy = −J_yxᵀ, as in every zero-sum game, Aᵀξ is the part of Jᵀξ from the
    blocks between the players, which costs half as much; without alignment the players' own blocks
    are not needed either. Whether that holds is tested on a random vector in the first step and in
    every tenth after it.

    Args:
        strength: |λ|; 1 in the paper.
        align: whether to align the sign; without it λ = strength.

    Holds for: any number of players, zero-sum or not.
    Cost: two players, zero-sum, 2 gradients and 2 products (2 more in every tenth step); else n
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
    needs_all_players = True
    evaluates_again = False

    def __post_init__(self) -> None:
        _check_not_negative("SymplecticGradientAdjustment", strength=self.strength)

    def direction(self, step: Step) -> Vector:
        zero_sum = interacts_as_zero_sum(step)
        xi, J = step.linearization.gradient, step.linearization.jacobian
        if zero_sum and not self.align:
            return xi + self.strength * (J.off_diagonal.T @ xi)
        if zero_sum:
            # the symmetric own blocks cancel in A; between the players Jᵀ = −J
            own, adjustment = J.transpose_matmul_parts(xi)
            transposed = own + adjustment
        else:
            transposed = J.T @ xi
            adjustment = 0.5 * (transposed - J @ xi)
        sign = 1.0
        if self.align:
            product = float(xi.dot(transposed)) * float(adjustment.dot(transposed))
            sign = 1.0 if product / xi.dimension + 0.1 >= 0 else -1.0
        return xi + sign * self.strength * adjustment


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
    """Stochastic Hamiltonian gradient descent: direction = ½ (J_aᵀ ξ_b + J_bᵀ ξ_a).

    a and b are two independent sets of samples. The direction is unbiased for the gradient of
    ½‖E ξ‖², which that of Hamiltonian on one mini-batch is not. The closure must draw its samples
    itself, so that a second call draws new ones.

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
    """Jacobian regularisation (JARE): direction_i = ξ_i + γ ∂_i ½ Σ_{j≠i} ‖ξ_j‖².

    That is ξ + γ J_oᵀ ξ, where J_o has the blocks of J between different players.

    Args:
        gamma: γ ≥ 0; 0.1 here, which suits plain steps of 0.01 to 0.1. The published code uses 100
            on images and 1000 on mixtures, under RMSProp and Adam with learning rates of 1e-4.
            Where the players' interests are alike, J_o is symmetric with negative eigenvalues, and
            a large γ drives away from the equilibrium at any learning rate: in Cournot's game with
            demand of slope 1 from γ = 1 on.

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
        _check_not_negative("JacobianRegularized", gamma=self.gamma)

    def direction(self, step: Step) -> Vector:
        xi = step.linearization.gradient
        return xi + self.gamma * (step.linearization.jacobian.off_diagonal.T @ xi)


@dataclass(frozen=True)
class LOLA(Rule):
    """Learning with opponent-learning awareness (LOLA): direction = ξ − J_o A ξ − p χ.

    χ_i = Σ_{j≠i} J_jiᵀ A_j ∂_j f_i. Each player anticipates the others' next gradient step, of
    length A_j for player j (the second term), and its own influence on that step (the third).
    Without the third term it is look-ahead. All terms of a loss matter: the term of the real
    samples, which a GAN's generator usually leaves out, enters through ∂_j f_i.

    Args:
        alpha: the length of the anticipated step. None takes each player's learning rate, A = L,
            which is the step that the player takes where its inner optimizer is plain SGD; under
            Adam, whose learning rate is no length of a gradient step, give a number. A number α is
            A = α for all; 1 in the iterated prisoner's dilemma and 0.1 in the tandem game of the
            papers, whose losses are scaled for it. With too large an α the direction itself points
            away from a stable fixed point and diverges at every learning rate: look-ahead where
            α J_o has eigenvalues above 1, LOLA sooner.
        shaping: p in [0, 1]; 1 is LOLA, 0 look-ahead.

    Holds for: any number of players, zero-sum or not.
    Cost for n players: n gradients (with respect to all players), n products, and n(n − 1) more
    with shaping.
    Guarantee: look-ahead converges to stable fixed points for small α; LOLA may miss them.

    References: Foerster et al. (2018), Learning with opponent-learning awareness, arXiv:1709.04326;
    Letcher et al. (2019), Stable opponent shaping in differentiable games, arXiv:1811.08469.

    >>> LOLA(alpha=0.1, shaping=0.0)
    LOLA(alpha=0.1, shaping=0.0)
    """

    alpha: float | None = None
    shaping: float = 1.0

    order = 2
    cross = True
    needs_all_players = True
    evaluates_again = False

    def __post_init__(self) -> None:
        _check_not_negative("LOLA", alpha=self.alpha, shaping=self.shaping)

    def direction(self, step: Step) -> Vector:
        lengths = step_lengths(step, self.alpha)
        ahead = look_ahead(step, lengths)
        return ahead if self.shaping == 0 else ahead - self.shaping * influence(step, lengths)


@dataclass(frozen=True)
class StableOpponentShaping(Rule):
    """Stable opponent shaping (SOS): direction = ξ₀ − p χ with ξ₀ = ξ − J_o A ξ.

    It is LOLA with the largest p in [0, 1] that keeps the guarantees of look-ahead.
    χ_i = Σ_{j≠i} J_jiᵀ A_j ∂_j f_i as in LOLA, with A the lengths of the anticipated steps.
    p = min(p₁, p₂); p₁ = 1 where ⟨−χ, ξ₀⟩ ≥ 0, else min(1, −a ‖ξ₀‖² / ⟨−χ, ξ₀⟩); p₂ = ‖ξ‖² where
    ‖ξ‖ < b, else 1.

    Args:
        alpha: the length of the anticipated step; None takes each player's learning rate, a number
            is the same for all.
        a: how far p₁ lets χ reduce ⟨direction, ξ₀⟩; 0.5 in the paper.
        b: ‖ξ‖ below which p₂ < 1; 0.1 in the paper.

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
    needs_all_players = True
    evaluates_again = False

    def __post_init__(self) -> None:
        _check_not_negative("StableOpponentShaping", alpha=self.alpha, a=self.a, b=self.b)

    def direction(self, step: Step) -> Vector:
        lengths = step_lengths(step, self.alpha)
        ahead, shaping = look_ahead(step, lengths), -influence(step, lengths)
        product, length = float(shaping.dot(ahead)), float(step.linearization.gradient.norm())
        p1 = 1.0 if product >= 0 else min(1.0, -self.a * float(ahead.dot(ahead)) / product)
        p2 = length**2 if length < self.b else 1.0
        return ahead + min(p1, p2) * shaping


Lengths = Mapping[str, Sequence[float]]
"""Player → the length of the step that the others anticipate, for each parameter."""


def step_lengths(step: Step, alpha: float | None) -> Lengths:
    """Return A: each player's learning rates, or ``alpha`` for all."""
    if alpha is None:
        return step.lrs
    return {player: [alpha] * len(lrs) for player, lrs in step.lrs.items()}


def look_ahead(step: Step, lengths: Lengths) -> Vector:
    """Return ξ − J_o A ξ: the gradient after the others' next gradient step, to first order."""
    xi = step.linearization.gradient
    return xi - step.linearization.jacobian.off_diagonal @ xi.scale(lengths)


def influence(step: Step, lengths: Lengths) -> Vector:
    """Return χ_i = Σ_{j≠i} J_jiᵀ A_j ∂_j f_i, player i's influence on the others' steps.

    It is the derivative of what these steps do to f_i, with respect to θ_i through the steps.
    """
    found = step.linearization
    parts = {}
    for i in found.active:
        others = [j for j in found.active if j != i]
        if others:
            column = Jacobian(found, {(j, i) for j in others}, rows=others, columns=[i])
            parts[i] = (column.T @ found.loss_gradient(i).scale(lengths))[i]
        else:
            parts[i] = tuple(torch.zeros_like(t) for t in found.gradient[i])
    return Vector(parts)


def _check_not_negative(rule: str, **values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not value >= 0:
            raise UsageError(f"{rule}: {name}={value} must be at least 0.")
