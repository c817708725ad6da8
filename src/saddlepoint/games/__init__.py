"""Games: losses of GANs, and analytic games with known Jacobian and equilibrium."""

from saddlepoint.games.analytic import (
    AnalyticGame,
    bilinear,
    bilinear_matrix,
    bowl,
    cournot,
    matching_pennies,
    quadratic,
    ridge,
    three_players,
    with_spectrum,
    zero_sum,
)
from saddlepoint.games.dirac import dirac_gan
from saddlepoint.games.gan_losses import GAN_LOSSES, GanLoss, minimax_discriminator, minimax_generator, non_saturating_generator

__all__ = [
    "GAN_LOSSES",
    "AnalyticGame",
    "GanLoss",
    "bilinear",
    "bilinear_matrix",
    "bowl",
    "cournot",
    "dirac_gan",
    "matching_pennies",
    "minimax_discriminator",
    "minimax_generator",
    "non_saturating_generator",
    "quadratic",
    "ridge",
    "three_players",
    "with_spectrum",
    "zero_sum",
]
