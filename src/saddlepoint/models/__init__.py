"""Reference networks."""

from saddlepoint.models.averaging import moving_average
from saddlepoint.models.mlp import ACTIVATIONS, MLP

__all__ = ["ACTIVATIONS", "MLP", "moving_average"]
