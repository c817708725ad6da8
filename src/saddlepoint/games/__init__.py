"""Games: losses of GANs, and analytic games with known Jacobian and equilibrium."""

from saddlepoint.games.analytic import QuadraticGame, bilinear, bowl, three_players, zero_sum
from saddlepoint.games.gan_losses import GAN_LOSSES, GanLoss, minimax_discriminator, minimax_generator, non_saturating_generator

__all__ = [
    "GAN_LOSSES",
    "GanLoss",
    "QuadraticGame",
    "bilinear",
    "bowl",
    "minimax_discriminator",
    "minimax_generator",
    "non_saturating_generator",
    "three_players",
    "zero_sum",
]
