"""Rules that use gradients only, at one point or at several."""

from __future__ import annotations

from dataclasses import dataclass

from saddlepoint.curvature import Jacobian
from saddlepoint.errors import UsageError, did_you_mean
from saddlepoint.game import Players
from saddlepoint.rules.base import Rule
from saddlepoint.rules.step import Step
from saddlepoint.vectors import Vector


@dataclass(frozen=True)
class GradientDescent(Rule):
    """Follow each player's own gradient: direction = ξ.

    With all players in the closure's mapping this is simultaneous gradient descent, with one player
    after the other it is the usual alternating training. With any inner optimizer it equals the
    hand-written loop exactly.

    Holds for: any number of players, zero-sum or not.
    Cost: one gradient per active player.
    Guarantee: on a bilinear game x·s·y simultaneous descent diverges, |λ|² = 1 + h²s², and
    alternating descent stays bounded, |λ| = 1 for h·s < 2; it converges where the eigenvalues of
    the Jacobian have positive real parts and h is small.

    Reference: Arrow, Hurwicz and Uzawa (1958), Studies in Linear and Non-Linear Programming.
    """

    order = 1
    evaluates_again = False

    def direction(self, step: Step) -> Vector:
        return step.linearization.gradient


@dataclass(frozen=True)
class Optimistic(Rule):
    """Optimistic gradient descent: direction = 2 ξ_t − ξ_{t−1}, and ξ_0 in the first step.

    ξ_{t−1} of a parameter is its gradient in the last step in which it moved. With Adam inside, the
    extrapolation is of gradients; extrapolating Adam's updates is another method (Daskalakis et al.
    2018) and differs by a few per cent.

    Holds for: any number of players, zero-sum or not.
    Cost: one gradient per active player; memory: one more vector.
    Guarantee: on a bilinear game x·s·y linear convergence for h·s < 1/√3.

    References: Popov (1980); Daskalakis et al. (2018), Training GANs with optimism,
    arXiv:1711.00141.

    >>> Optimistic().order
    1
    """

    order = 1
    evaluates_again = False

    def direction(self, step: Step) -> Vector:
        xi = step.linearization.gradient
        past = step.state.recall("past", default=xi)
        step.state.remember("past", xi)
        return 2 * xi - past


@dataclass(frozen=True)
class Extragradient(Rule):
    """Extragradient: direction = ξ(θ − h ξ(θ)), the gradient at an extrapolated point.

    The extrapolation is a trial step of the inner optimizers themselves; it is undone before the
    real step.

    Args:
        keep_state: whether the state of the inner optimizers sees the extrapolation. True with Adam
            inside is ExtraAdam, whose moments are updated twice a step; without state (SGD) it
            makes no difference.
        fresh_samples: evaluate the second gradient on newly drawn samples instead of the same ones;
            the closure must draw them.

    Holds for: any number of players, zero-sum or not.
    Cost: two gradients per active player.
    Guarantee: on a bilinear game x·s·y linear convergence for h·s < 1; monotone games converge for
    small h.

    References: Korpelevich (1976); Gidel et al. (2019), A variational inequality perspective on
    GANs, arXiv:1802.10551.

    >>> Extragradient(keep_state=False).fresh_samples
    False
    """

    keep_state: bool = True
    fresh_samples: bool = False

    order = 1

    def direction(self, step: Step) -> Vector:
        xi = step.linearization.gradient
        with step.extrapolated(xi, keep_state=self.keep_state, fresh=self.fresh_samples):
            return step.linearize(1, fresh=self.fresh_samples).gradient


@dataclass(frozen=True)
class PastExtragradient(Rule):
    """Extrapolation from the past: extragradient that extrapolates with the last step's gradient.

    θ' = θ − h ξ(θ'_{t−1}), direction = ξ(θ'). The step's losses are those at θ'. The state of the
    inner optimizers does not see the extrapolation.

    Holds for: any number of players, zero-sum or not.
    Cost: one gradient per player; memory: one more vector.
    Guarantee: as Optimistic, whose iterates are these extrapolated points when the inner optimizer
    is SGD.

    References: Popov (1980); Gidel et al. (2019), arXiv:1802.10551.

    >>> PastExtragradient().needs_all_players
    True
    """

    order = 1
    needs_all_players = True

    def direction(self, step: Step) -> Vector:
        here = Vector(step.players)
        if step.state.knows("past", here):
            # zeros: parameters that are new in the game are not extrapolated
            past = step.state.recall("past", default=here.zeros())
            # a clone, because optimizers may write to the gradient that they get
            with step.extrapolated(past.clone(), keep_state=False):
                xi = step.linearize(1).gradient
        else:
            xi = step.linearization.gradient
        step.state.remember("past", xi)
        return xi


@dataclass(frozen=True)
class RungeKutta(Rule):
    """Integrate the flow θ' = −ξ(θ) with a Runge–Kutta method, as ODE-GAN does.

    Four stages: direction = (k₁ + 2k₂ + 2k₃ + k₄)/6 with k₁ = ξ(θ), k₂ = ξ(θ − h k₁/2),
    k₃ = ξ(θ − h k₂/2), k₄ = ξ(θ − h k₃). Two stages (Heun): (k₁ + k₂)/2 with k₂ = ξ(θ − h k₁). All
    players move in every stage: with the opponent frozen it would be plain Euler on a bilinear
    game.

    ``regularization`` λ adds λ ∂_r ‖ξ_{others}‖² of the first stage to the direction of the player
    ``regularized``.

    The inner optimizer must be plain SGD: its learning rate is the time step.

    Args:
        stages: 2 or 4.
        regularization: λ; ODE-GAN uses 0.01 to 0.07.
        regularized: the player r that the regulariser moves, ODE-GAN's discriminator; needed where
            λ > 0.

    Holds for: any number of players, zero-sum or not.
    Cost for n players: ``stages``·n gradients, and n − 1 products with the regulariser.
    Guarantee: on a bilinear game x·s·y four stages are stable for h·s < 2√2 = 2.83.

    Reference: Qin et al. (2020), Training GANs by solving ordinary differential equations,
    arXiv:2010.15040.

    >>> RungeKutta(stages=2).order
    1
    >>> RungeKutta(regularization=0.01, regularized="discriminator").order
    2
    """

    stages: int = 4
    regularization: float = 0.0
    regularized: str | None = None

    needs_all_players = True
    output = "update"

    def __post_init__(self) -> None:
        if self.stages not in (2, 4):
            raise UsageError(f"RungeKutta: stages={self.stages} must be 2 or 4.")
        if not self.regularization >= 0 or (self.regularization > 0 and self.regularized is None):
            raise UsageError(
                "RungeKutta: needs regularization ≥ 0, and where it is positive the name of the"
                " player that it moves as regularized."
            )

    @property
    def order(self) -> int:
        return 2 if self.regularization > 0 else 1

    def validate(self, players: Players) -> None:
        if self.regularization > 0 and self.regularized not in players:
            raise UsageError(
                f'RungeKutta: no player "{self.regularized}".'
                + did_you_mean(str(self.regularized), players)
            )

    def direction(self, step: Step) -> Vector:
        xi = step.linearization.gradient
        penalty = None
        if self.regularization > 0:
            # λ ∂_r ‖ξ_others‖² = 2λ Σ_j J_jrᵀ ξ_j, zero for the other players
            r = str(self.regularized)
            others = [player for player in xi if player != r]
            blocks = {(j, r) for j in others}
            column = Jacobian(step.linearization, blocks, rows=others, columns=[r])
            penalty = Vector({**xi.zeros(), **(2 * self.regularization * (column.T @ xi))})
        k = [xi]
        for fraction in (0.5, 0.5, 1.0) if self.stages == 4 else (1.0,):
            with step.displaced(fraction * k[-1].scale(step.lrs)):
                k.append(step.linearize(1).gradient)
        d = (k[0] + 2 * k[1] + 2 * k[2] + k[3]) / 6 if self.stages == 4 else (k[0] + k[1]) / 2
        return d if penalty is None else d + penalty
