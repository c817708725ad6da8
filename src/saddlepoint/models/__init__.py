"""Reference networks."""

from saddlepoint.models.averaging import moving_average
from saddlepoint.models.binary import Binary, Interpolated
from saddlepoint.models.convolutional import SmallConvDiscriminator, SmallConvGenerator
from saddlepoint.models.mlp import ACTIVATIONS, MLP
from saddlepoint.models.radial import GaussianComponents, RadialFeatures
from saddlepoint.models.recomputing import recompute_activations

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "Binary",
    "GaussianComponents",
    "Interpolated",
    "RadialFeatures",
    "SmallConvDiscriminator",
    "SmallConvGenerator",
    "moving_average",
    "recompute_activations",
]
