"""Optimizers whose first step is their process's last, or waits for a file."""

import os
import signal
import time

import torch


class Deadly(torch.optim.SGD):
    def step(self, closure=None):
        os.kill(os.getpid(), signal.SIGKILL)


class Patient(torch.optim.SGD):
    def __init__(self, params, lr, until):
        super().__init__(params, lr)
        self._until = until

    def step(self, closure=None):
        while not os.path.exists(self._until):
            time.sleep(0.01)
        return super().step(closure)
