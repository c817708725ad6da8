"""Optimizers that torch lacks: ``torch.optim.Optimizer`` subclasses, usable without games too."""

from saddlepoint.optim.base import GradientOptimizer
from saddlepoint.optim.coordinates import RandomCoordinate
from saddlepoint.optim.momentum import MomentumSGD
from saddlepoint.optim.normalized import Grafted, NormalizedSubgradient
from saddlepoint.optim.proximal import (
    L1,
    PROXIMAL_MAPS,
    Ball,
    Box,
    ProximalMap,
    Simplex,
    SpectralNorm,
)
from saddlepoint.optim.sign import SignSubgradient
from saddlepoint.optim.soap import SOAP
from saddlepoint.optim.subgradient import Subgradient

__all__ = [
    "L1",
    "PROXIMAL_MAPS",
    "SOAP",
    "Ball",
    "Box",
    "GradientOptimizer",
    "Grafted",
    "MomentumSGD",
    "NormalizedSubgradient",
    "ProximalMap",
    "RandomCoordinate",
    "SignSubgradient",
    "Simplex",
    "SpectralNorm",
    "Subgradient",
]
