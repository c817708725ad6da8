"""An optimizer whose first step is its process's last."""

import os
import signal

import torch


class Deadly(torch.optim.SGD):
    def step(self, closure=None):
        os.kill(os.getpid(), signal.SIGKILL)
