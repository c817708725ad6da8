"""The Dirac-GAN: one parameter per player; two eigenvalues determine its convergence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import softplus

from saddlepoint.errors import UsageError, did_you_mean
from saddlepoint.games.analytic import AnalyticGame

# loss → (discriminator's loss, generator's loss) of the fake logit t, slope c of both at t = 0
_LOSSES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], float]] = {
    "minimax": (softplus, lambda t: -softplus(t), 0.5),
    "non-saturating": (softplus, lambda t: softplus(-t), 0.5),
    "wasserstein": (lambda t: t, lambda t: -t, 1.0),
}


def dirac_gan(
    loss: str = "minimax",
    *,
    r1: float = 0.0,
    r2: float = 0.0,
    noise: float = 0.0,
    start: Sequence[float] = (1.0, 1.0),
) -> AnalyticGame:
    """Return the Dirac-GAN: the data is the point 0, the generator θ, the discriminator D(x) = ψ x.

    J at θ = ψ = 0, ordered (discriminator, generator), is [[γ, c], [−c, 0]] with c = ½ for the
    logistic losses and 1 for the Wasserstein loss, and γ = r1 + r2 plus σ²/2 of instance noise
    under the logistic losses. Without regularisation the eigenvalues are ±ic: plain gradient
    descent does not converge.

    Args:
        loss: "minimax", "non-saturating" or "wasserstein" (without its Lipschitz constraint).
        r1: weight γ of ½ γ ψ², the gradient penalty on real data, ½ γ E‖∇D‖².
        r2: the same on generated data; D is linear, so it is the same penalty.
        noise: standard deviation σ of instance noise, modelled to second order in σ, which gives
            the exact J at the equilibrium.

    Raises:
        UsageError: an unknown loss or a negative weight.

    Reference: Mescheder, Geiger and Nowozin (2018), Which training methods for GANs do actually
    converge?, arXiv:1801.04406.

    >>> torch.linalg.eigvals(dirac_gan("wasserstein").jacobian).imag.abs().tolist()
    [1.0, 1.0]
    """
    if loss not in _LOSSES:
        raise UsageError(f'dirac_gan: loss "{loss}" is unknown.' + did_you_mean(loss, _LOSSES))
    if min(r1, r2, noise) < 0:
        raise UsageError(
            f"dirac_gan: r1, r2 and noise must be at least 0, not {r1}, {r2} and {noise}."
        )
    discriminator_loss, generator_loss, c = _LOSSES[loss]
    # noise of variance σ² adds the second derivative of softplus at 0, once for each of two terms
    curvature = 0.25 if loss != "wasserstein" else 0.0
    gamma = r1 + r2 + 2 * curvature * noise**2

    def losses_at(theta: Tensor) -> dict[str, Tensor]:
        psi, generated = theta
        logit = psi * generated
        return {
            "discriminator": discriminator_loss(logit) + 0.5 * gamma * psi**2,
            "generator": generator_loss(logit),
        }

    return AnalyticGame(
        {"discriminator": 1, "generator": 1},
        losses_at,
        start=torch.tensor(start),
        equilibrium=torch.zeros(2, dtype=torch.float64),
        jacobian=torch.tensor([[gamma, c], [-c, 0.0]], dtype=torch.float64),
        kind="rotating",
    )
