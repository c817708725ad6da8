"""GAN losses and penalties, nonsmooth functions with chosen slopes, analytic games."""

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
from saddlepoint.games.estimators import bernoulli, gumbel, straight_through, threshold
from saddlepoint.games.gan_losses import (
    GAN_LOSSES,
    GanLoss,
    critic_generator,
    hinge_discriminator,
    minimax_discriminator,
    minimax_generator,
    non_saturating_generator,
    wasserstein_discriminator,
)
from saddlepoint.games.nonsmooth import (
    KINKS,
    absolute,
    hinge,
    l1_norm,
    largest,
    max_margin,
    positive_part,
)
from saddlepoint.games.penalties import gradient_penalty

__all__ = [
    "GAN_LOSSES",
    "KINKS",
    "AnalyticGame",
    "GanLoss",
    "absolute",
    "bernoulli",
    "bilinear",
    "bilinear_matrix",
    "bowl",
    "cournot",
    "critic_generator",
    "dirac_gan",
    "gradient_penalty",
    "gumbel",
    "hinge",
    "hinge_discriminator",
    "l1_norm",
    "largest",
    "matching_pennies",
    "max_margin",
    "minimax_discriminator",
    "minimax_generator",
    "non_saturating_generator",
    "positive_part",
    "quadratic",
    "ridge",
    "straight_through",
    "three_players",
    "threshold",
    "wasserstein_discriminator",
    "with_spectrum",
    "zero_sum",
]
