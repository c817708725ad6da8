"""Rules that use values of the losses only: for players whose losses have no gradient, or one that says nothing."""

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
    """Directions from differences of losses at randomly displaced points: d_i = mean over u of (f_i(θ + wu) − f_i(θ − wu)) / (2w) u_i.

    The displacements of a player depend on (seed, the player's name, how many steps were taken)
    alone, and are drawn flat: neither the order of the players nor the tensors that a player's
    parameters come in change them. All evaluations of a step see the same samples and the same
    randomness, so that a difference measures the displacement.

    Args:
        samples: how many displacements u are averaged.
        shared: displace all active by one draw, whose evaluation serves all of them: fewer
            evaluations, and each player's direction carries the noise of the others' displacements.
            False displaces one player at a time, the others held where they are.
        batched: evaluate all displacements in one pass (torch.func.vmap) over the modules that the
            optimizer was given; quicker from a few samples on, at the price of memory, and refused
            where a network moves buffers or branches on values.
        seed: decides the displacements.
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
        """Return how far step t looks, w."""

    @abstractmethod
    def draw(self, n: int, like: Tensor, generator: torch.Generator) -> Tensor:
        """Return the displacements u of one player's n parameters, shape (samples, n), with E[u uᵀ] = I and the dtype of ``like``."""

    def slopes(self, step: Step, u: Vector, width: float) -> Mapping[str, Tensor]:
        """Return mover → the slope of its loss along each displacement, shape (samples,); central differences."""
        both = Vector(
            {
                player: [torch.cat([-width * t, width * t]) for t in tensors]
                for player, tensors in u.items()
            }
        )  # one pass if batched
        halves = {
            player: losses.chunk(2)
            for player, losses in step.losses_at(both, batched=self.batched).items()
        }
        return {player: (ahead - back) / (2 * width) for player, (ahead, back) in halves.items()}

    def direction(self, step: Step) -> Vector:
        t = int(step.state.numbers.get("count", 0))
        step.state.numbers["count"] = t + 1
        active, width = step.active, self.width(t)
        here = Vector({player: step.players[player] for player in active})
        noise = {player: self._noise(player, here.only([player]).flatten(), t) for player in active}
        parts = {}
        for group in [active] if self.shared else [(player,) for player in active]:
            u = Vector({player: _stacked(noise[player], step.players[player]) for player in group})
            slopes = self.slopes(step, u, width)
            for player in group:
                weights = (slopes[player] / self.samples).to(noise[player])
                parts[player] = here.only([player]).unflatten(weights @ noise[player])[player]
        return Vector(parts).detach()

    def _noise(self, player: str, flat: Tensor, t: int) -> Tensor:
        generator = generator_for(self.seed, f"displacements of {player}", t)
        return self.draw(flat.numel(), flat, generator).to(flat.device)


@dataclass(frozen=True)
class RandomizedSmoothing(LossDifferences):
    """Evolution strategies: an estimate of the gradient of the smoothed loss E_u f_i(θ + σu), without bias.

    direction_i = mean of (f_i(θ + σu) − f_i(θ − σu)) / (2σ) u_i, or with ``antithetic=False`` of
    (f_i(θ + σu) − f_i(θ)) / σ u_i. Smoothing gives a slope to losses that have none, such as those
    of a generator whose output is quantised; σ must reach across the steps.

    Args:
        sigma: σ; the bias against the gradient of f itself is of order σ², where there is one.
        noise: "gaussian", or "sphere" for u uniform on the sphere of radius √n; both have E[u uᵀ] =
            I.
        antithetic: look both ways along u, which cancels every even term of f and with it most of
            the variance.
        samples: displacements per step, 16 unless said otherwise; the variance of a direction is
            about n ‖∂f‖² / samples.
        shared: displace all active at once, one evaluation serving all.
        batched: evaluate all displacements in one pass over the optimizer's modules.
        seed: decides the displacements.

    Holds for: any number of players, zero-sum or not.
    Cost: one evaluation of the closure, and 2·samples more for each mover (samples with
    ``antithetic=False``), or for all active together
        with ``shared``; no gradient.
    Guarantee: the expected direction is the gradient of the smoothed loss, so that it converges
    where gradient descent on that does, with
        lrs about n times smaller; on linear losses u uᵀ ∂f exactly.

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
        ahead, here = (
            step.losses_at(u * -width, batched=self.batched),
            step.first_linearization.losses,
        )
        return {player: (ahead[player] - here[player]) / width for player in ahead}


@dataclass(frozen=True)
class SimultaneousPerturbation(LossDifferences):
    """SPSA: two evaluations a step, all parameters displaced by ±c_t at once.

    direction_i = (f_i(θ + c_t Δ) − f_i(θ − c_t Δ)) / (2 c_t) Δ_i with independent signs Δ and gains
    c_t = c / (t + 1)^γ after t steps.

    Args:
        c: the first displacement of every parameter.
        gamma: γ, how fast displacements shrink; 0.101 is Spall's advice for finite runs, 1/6 the
            optimal rate.
        samples: draws of Δ that are averaged.
        shared: displace all active at once, one evaluation serving all.
        batched: evaluate all displacements in one pass over the optimizer's modules.
        seed: decides the signs.

    Holds for: any number of players, zero-sum or not.
    Cost: one evaluation of the closure, and 2·samples more for each mover, or for all active
    together with ``shared``; no gradient. Guarantee: converges almost surely to a minimum of smooth
    losses with step sizes a_t → 0, Σ a_t = ∞ and Σ (a_t / c_t)² < ∞; with
        constant ones it stays near. The bias is of order c_t².

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
        return (
            torch.randint(0, 2, (self.samples, n), generator=generator).mul(2).sub(1).to(like.dtype)
        )


def _stacked(noise: Tensor, parameters: tuple[Tensor, ...]) -> list[Tensor]:
    """Return rows of n numbers, shape (samples, n), cut into the shapes of the parameters, (samples, *shape) each."""
    pieces = torch.split(noise, [parameter.numel() for parameter in parameters], dim=1)
    return [
        piece.reshape(len(noise), *parameter.shape)
        for piece, parameter in zip(pieces, parameters, strict=True)
    ]
