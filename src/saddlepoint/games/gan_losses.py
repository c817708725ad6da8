"""The losses of GANs from the discriminator's logits, each as the named terms of what the two players minimise."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import softplus

Terms = dict[str, Tensor]
GanLoss = tuple[Callable[[Tensor, Tensor], Terms], Callable[[Tensor], Terms]]
"""(discriminator, generator): the first takes the logits of real and of generated samples, the second those of generated ones."""


def minimax_discriminator(real: Tensor, fake: Tensor) -> Terms:
    """−E log D(x) − E log(1 − D(G(z))) with D = sigmoid(logit), as softplus(−real) + softplus(fake): no overflow at any logit.

    Reference: Goodfellow et al. (2014), Generative adversarial nets, arXiv:1406.2661.
    """
    return {"real": softplus(-real).mean(), "fake": softplus(fake).mean()}


def minimax_generator(fake: Tensor) -> Terms:
    """E log(1 − D(G(z))) = −E softplus(fake): zero-sum with the discriminator, and flat where the discriminator wins."""
    return {"fake": -softplus(fake).mean()}


def non_saturating_generator(fake: Tensor) -> Terms:
    """−E log D(G(z)) = E softplus(−fake): same equilibrium, general-sum, steep where the discriminator wins."""
    return {"fake": softplus(-fake).mean()}


GAN_LOSSES: dict[str, GanLoss] = {
    "minimax": (minimax_discriminator, minimax_generator),
    "non-saturating": (minimax_discriminator, non_saturating_generator),
}
"""name → the losses of discriminator and generator."""
