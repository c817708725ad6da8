"""Optimizers that torch does not have: ordinary ``torch.optim.Optimizer`` subclasses, usable with or without a game."""

from saddlepoint.optim.momentum import MomentumSGD
from saddlepoint.optim.sign import SignSubgradient

__all__ = ["MomentumSGD", "SignSubgradient"]
