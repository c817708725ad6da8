"""Networks of the built-in problems, weight averaging and activation recomputation."""

from saddlepoint.models.activation_checkpointing import recompute_activations
from saddlepoint.models.averaging import moving_average
from saddlepoint.models.binary import BicubicUpsample, BinaryOutput
from saddlepoint.models.convolutional import SmallConvDiscriminator, SmallConvGenerator
from saddlepoint.models.mlp import ACTIVATIONS, MLP
from saddlepoint.models.radial import GaussianComponents, RadialFeatures

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "BicubicUpsample",
    "BinaryOutput",
    "GaussianComponents",
    "RadialFeatures",
    "SmallConvDiscriminator",
    "SmallConvGenerator",
    "moving_average",
    "recompute_activations",
]
