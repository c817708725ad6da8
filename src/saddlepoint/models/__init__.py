"""Reference networks."""

from saddlepoint.models.averaging import moving_average
from saddlepoint.models.binary import Binary, Interpolated
from saddlepoint.models.convolutional import SmallConvDiscriminator, SmallConvGenerator
from saddlepoint.models.mlp import ACTIVATIONS, MLP

__all__ = ["ACTIVATIONS", "MLP", "Binary", "Interpolated", "SmallConvDiscriminator", "SmallConvGenerator", "moving_average"]
