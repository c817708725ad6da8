"""Optimizers that torch does not have: ordinary ``torch.optim.Optimizer`` subclasses, usable with or without a game."""

from saddlepoint.optim.base import GradientOptimizer
from saddlepoint.optim.coordinates import RandomCoordinate
from saddlepoint.optim.maps import L1, MAPS, Ball, Box, Map, Simplex, SpectralNorm
from saddlepoint.optim.momentum import MomentumSGD
from saddlepoint.optim.normalized import Grafted, NormalizedSubgradient
from saddlepoint.optim.sign import SignSubgradient
from saddlepoint.optim.soap import SOAP
from saddlepoint.optim.subgradient import Subgradient

__all__ = [
    "L1",
    "MAPS",
    "SOAP",
    "Ball",
    "Box",
    "GradientOptimizer",
    "Grafted",
    "Map",
    "MomentumSGD",
    "NormalizedSubgradient",
    "RandomCoordinate",
    "SignSubgradient",
    "Simplex",
    "SpectralNorm",
    "Subgradient",
]
