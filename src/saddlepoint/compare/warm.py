"""Imported once, by the process that all runs are forked from: makes PyTorch load what the first network and optimizer would load."""

import torch

import saddlepoint.optim  # noqa: F401 -- loaded, not used
from saddlepoint.metrics import load_digit_cnn
from saddlepoint.problems import Mixture8

_network = Mixture8(hidden=1).networks(seed=0)["generator"]
torch.optim.Adam(_network.parameters())
load_digit_cnn()
