"""GAN losses as functions of the discriminator's logits, with named terms."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import softplus

from saddlepoint.games.nonsmooth import hinge

Terms = dict[str, Tensor]
GanLoss = tuple[Callable[[Tensor, Tensor], Terms], Callable[[Tensor], Terms]]
"""(discriminator loss of real and fake logits, generator loss of fake logits)."""


def minimax_discriminator(real: Tensor, fake: Tensor) -> Terms:
    """−E log D(x) − E log(1 − D(G(z))) with D = sigmoid(logit).

    Computed as softplus(−real) + softplus(fake), which does not overflow.

    Reference: Goodfellow et al. (2014), Generative adversarial nets, arXiv:1406.2661.
    """
    return {"real": softplus(-real).mean(), "fake": softplus(fake).mean()}


def minimax_generator(fake: Tensor) -> Terms:
    """E log(1 − D(G(z))) = −E softplus(fake): zero-sum, and flat where the discriminator wins."""
    return {"fake": -softplus(fake).mean()}


def non_saturating_generator(fake: Tensor) -> Terms:
    """−E log D(G(z)) = E softplus(−fake): general-sum, and steep where the discriminator wins."""
    return {"fake": softplus(-fake).mean()}


def hinge_discriminator(real: Tensor, fake: Tensor) -> Terms:
    """E max(0, 1 − real) + E max(0, 1 + fake): samples beyond the margin do not contribute.

    The slope at the margin is 0.

    Reference: Lim and Ye (2017), Geometric GAN, arXiv:1705.02894; Miyato et al. (2018), Spectral
    normalization, arXiv:1802.05957.
    """
    return {"real": hinge(real).mean(), "fake": hinge(-fake).mean()}


def wasserstein_discriminator(real: Tensor, fake: Tensor) -> Terms:
    """−E real + E fake, for Lipschitz critics; for others the loss has no minimum.

    To constrain the critic, clip its weights (the projected subgradient method of the paper) or
    bound their spectral norms. A gradient penalty on real data alone constrains a linear critic; a
    nonlinear one can be flat there and steep elsewhere.

    Reference: Arjovsky, Chintala and Bottou (2017), Wasserstein GAN, arXiv:1701.07875.
    """
    return {"real": -real.mean(), "fake": fake.mean()}


def critic_generator(fake: Tensor) -> Terms:
    """−E fake: the generator's part of the hinge and Wasserstein losses; its slope is constant."""
    return {"fake": -fake.mean()}


GAN_LOSSES: dict[str, GanLoss] = {
    "minimax": (minimax_discriminator, minimax_generator),
    "non-saturating": (minimax_discriminator, non_saturating_generator),
    "hinge": (hinge_discriminator, critic_generator),
    "wasserstein": (wasserstein_discriminator, critic_generator),
}
"""name → the losses of discriminator and generator."""
