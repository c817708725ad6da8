"""Loads what most runs need; imported once by the fork server that all runs are forked from.

The first network and optimizer make PyTorch import further modules.
"""

import torch

import saddlepoint.optim  # noqa: F401 -- loaded, not used
from saddlepoint.metrics import load_digit_cnn
from saddlepoint.problems import Mixture8

_network = Mixture8(hidden=1).networks(seed=0)["generator"]
torch.optim.Adam(_network.parameters())
load_digit_cnn()
