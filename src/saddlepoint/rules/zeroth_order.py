"""Rules that use values of the losses only, for players without a useful gradient."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from saddlepoint.data.stream import generator_for
from saddlepoint.errors import UsageError, did_you_mean
from saddlepoint.rules.base import Rule
from saddlepoint.rules.step import Step
from saddlepoint.vectors import Vector


@dataclass(frozen=True, kw_only=True)
class LossDifferences(Rule):
    """Base of the rules that use differences of losses at randomly displaced points.

    d_i = mean over u of (f_i(θ + wu) − f_i(θ − wu)) / (2w) u_i

    The displacements u of a player depend on the seed, the player's name and the number of steps
    taken, and are drawn as one flat vector: the order of the players and the shapes of their
    parameters do not change them. All evaluations of a step see the same samples and the same
    randomness, so that a difference measures the displacement alone.

    Args:
        samples: number of displacements u that are averaged.
        shared: whether to displace all active players at once, so that an evaluation serves all of
            them: fewer evaluations, but each player's direction contains the noise of the others'
            displacements. False displaces one player at a time, with the others held fixed.
        batched: whether to evaluate all displacements in one pass (torch.func.vmap) over the
            modules that the optimizer was given; faster from a few samples on, needs more memory,
            and raises UsageError where a network changes buffers or branches on values.
        seed: seed of the displacements.
    """

    samples: int = 1
    shared: bool = False
    batched: bool = False
    seed: int = 0

    order = 0

    def __post_init__(self) -> None:
        if self.samples < 1 or self.seed < 0:
            raise UsageError(
                f"{type(self).__name__}: needs samples ≥ 1 and seed ≥ 0, not {self.samples} and"
                f" {self.seed}."
            )

    @abstractmethod
    def width(self, t: int) -> float:
        """Return w, the length of a displacement in step t."""

    @abstractmethod
    def draw(self, n: int, like: Tensor, generator: torch.Generator) -> Tensor:
        """Return the displacements of one player's n parameters, shape (samples, n), E[u uᵀ] = I.

        They have the dtype of ``like``.
        """

    def slopes(self, step: Step, u: Vector, width: float) -> Mapping[str, Tensor]:
        """Return player → the slope of its loss along each displacement, shape (samples,).

        Slopes are central differences.
        """
        both_sides = {}
        for player, tensors in u.items():
            both_sides[player] = [torch.cat([-width * t, width * t]) for t in tensors]
        slopes = {}
        for player, losses in step.losses_at(Vector(both_sides), batched=self.batched).items():
            ahead, back = losses.chunk(2)
            slopes[player] = (ahead - back) / (2 * width)
        return slopes

    def direction(self, step: Step) -> Vector:
        t = int(step.state.numbers.get("count", 0))
        step.state.numbers["count"] = t + 1
        active, width = step.active, self.width(t)
        here = Vector({player: step.players[player] for player in active})
        noise, displacements = {}, {}
        for player in active:
            flat = here.only([player]).flatten()
            generator = generator_for(self.seed, f"displacements of {player}", t)
            noise[player] = self.draw(flat.numel(), flat, generator).to(flat.device)
            sizes = [parameter.numel() for parameter in step.players[player]]
            pieces = torch.split(noise[player], sizes, dim=1)
            displacements[player] = [
                piece.reshape(len(piece), *parameter.shape)
                for piece, parameter in zip(pieces, step.players[player], strict=True)
            ]
        parts = {}
        for group in [active] if self.shared else [(player,) for player in active]:
            u = Vector({player: displacements[player] for player in group})
            slopes = self.slopes(step, u, width)
            for player in group:
                weights = (slopes[player] / self.samples).to(noise[player])
                parts[player] = here.only([player]).unflatten(weights @ noise[player])[player]
        return Vector(parts).detach()


@dataclass(frozen=True)
class RandomizedSmoothing(LossDifferences):
    """Evolution strategies: an unbiased gradient of the smoothed loss E_u f_i(θ + σu).

    direction_i = mean of (f_i(θ + σu) − f_i(θ − σu)) / (2σ) u_i, or with ``antithetic=False`` of
    (f_i(θ + σu) − f_i(θ)) / σ u_i. Smoothing gives a slope to piecewise constant losses, such as
    those of a generator whose output is quantised; σ must be larger than the steps of the loss.

    Args:
        sigma: σ; the bias against the gradient of f itself is of order σ², where there is one.
        noise: "gaussian", or "sphere" for u uniform on the sphere of radius √n; both have E[u uᵀ] =
            I.
        antithetic: whether to evaluate at θ + σu and θ − σu, which cancels every even term of f and
            with it most of the variance.
        samples: displacements per step, 16 by default; the variance of a direction is about
            n ‖∂f‖² / samples.
        shared: whether to displace all active players at once, so that an evaluation serves all.
        batched: whether to evaluate all displacements in one pass over the optimizer's modules.
        seed: seed of the displacements.

    Holds for: any number of players, zero-sum or not.
    Cost: one evaluation of the closure, and 2·samples more for each active player (samples with
    ``antithetic=False``), or for all of them together with ``shared``; no gradient.
    Guarantee: the expected direction is the gradient of the smoothed loss, so that it converges
    where gradient descent on that loss does, with learning rates about n times smaller; on linear
    losses it is u uᵀ ∂f exactly.

    References: Nesterov and Spokoiny (2017), Random gradient-free minimization of convex functions,
    Found. Comput. Math. 17; Salimans et al. (2017), Evolution strategies as a scalable alternative
    to reinforcement learning, arXiv:1703.03864, antithetic.

    >>> RandomizedSmoothing(0.1, noise="sphere").order
    0
    """

    sigma: float = 0.01
    noise: str = "gaussian"
    antithetic: bool = True
    samples: int = field(default=16, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.sigma < math.inf:
            raise UsageError(
                f"RandomizedSmoothing: sigma={self.sigma} must be positive and finite."
            )
        if self.noise not in ("gaussian", "sphere"):
            raise UsageError(
                f'RandomizedSmoothing: noise "{self.noise}" is unknown.'
                + did_you_mean(self.noise, ("gaussian", "sphere"))
            )

    def width(self, t: int) -> float:
        return self.sigma

    def draw(self, n: int, like: Tensor, generator: torch.Generator) -> Tensor:
        u = torch.randn(self.samples, n, generator=generator, dtype=like.dtype)
        return u if self.noise == "gaussian" else u * (math.sqrt(n) / u.norm(dim=1, keepdim=True))

    def slopes(self, step: Step, u: Vector, width: float) -> Mapping[str, Tensor]:
        if self.antithetic:
            return super().slopes(step, u, width)
        ahead = step.losses_at(u * -width, batched=self.batched)
        here = step.first_linearization.losses
        return {player: (ahead[player] - here[player]) / width for player in ahead}


@dataclass(frozen=True)
class SimultaneousPerturbation(LossDifferences):
    """Simultaneous perturbation (SPSA): all parameters are displaced by ±c_t at once.

    direction_i = (f_i(θ + c_t Δ) − f_i(θ − c_t Δ)) / (2 c_t) Δ_i with independent random signs Δ
    and c_t = c / (t + 1)^γ after t steps.

    Args:
        c: the first displacement of every parameter.
        gamma: γ, the exponent of the decay; 0.101 is Spall's advice for finite runs, 1/6 is
            asymptotically optimal.
        samples: number of draws of Δ that are averaged.
        shared: whether to displace all active players at once, so that an evaluation serves all.
        batched: whether to evaluate all displacements in one pass over the optimizer's modules.
        seed: seed of the signs.

    Holds for: any number of players, zero-sum or not.
    Cost: one evaluation of the closure, and 2·samples more for each active player, or for all of
    them together with ``shared``; no gradient.
    Guarantee: converges almost surely to a minimum of smooth losses with step sizes a_t → 0,
    Σ a_t = ∞ and Σ (a_t / c_t)² < ∞; with constant ones it stays near. The bias is of order c_t².

    Reference: Spall (1992), Multivariate stochastic approximation using a simultaneous perturbation
    gradient approximation, IEEE Trans. Automatic Control 37(3).

    >>> rule = SimultaneousPerturbation(c=0.1)
    >>> [round(rule.width(t), 4) for t in (0, 1, 99)]
    [0.1, 0.0932, 0.0628]
    """

    c: float = 0.01
    gamma: float = 0.101

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.c < math.inf or not self.gamma >= 0:
            raise UsageError(
                f"SimultaneousPerturbation: needs a finite c > 0 and gamma ≥ 0, not {self.c} and"
                f" {self.gamma}."
            )

    def width(self, t: int) -> float:
        return self.c / float((t + 1) ** self.gamma)

    def draw(self, n: int, like: Tensor, generator: torch.Generator) -> Tensor:
        bits = torch.randint(0, 2, (self.samples, n), generator=generator)
        return bits.mul(2).sub(1).to(like.dtype)
