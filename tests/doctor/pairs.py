"""Networks, good and bad, for the doctor's tests."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from saddlepoint.doctor import examine
from saddlepoint.models import MLP


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


Z, X = numbers(16, 4), numbers(16, 3, seed=1)


def mlp(*sizes, activation="leaky_relu", seed=0):
    return MLP(sizes, activation=activation, generator=torch.Generator().manual_seed(seed))


def built(make):
    """Return a network that PyTorch initialises, without touching the global random state."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def generator():
    return mlp(4, 8, 3)


def examined_with(*layers):
    """Examine an MLP generator with a discriminator of an MLP body and the given layers."""
    return examine(generator(), nn.Sequential(mlp(3, 8), *layers), Z, X)


def only(examination, check, level="error"):
    """Return the one finding of a check, at its level."""
    found = [finding for finding in examination.findings if finding.check == check]
    assert [finding.level for finding in found] == [level], examination.findings
    return found[0]


def errors(examination):
    return [finding.check for finding in examination.findings if finding.level == "error"]


class Attention(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.queries = nn.Linear(width, width)

    def forward(self, x):
        q = self.queries(x).view(len(x), 1, 2, -1)
        return F.scaled_dot_product_attention(q, q, q).flatten(1)


class Distances(nn.Module):
    def __init__(self):
        super().__init__()
        self.centres = nn.Parameter(numbers(5, 8))

    def forward(self, x):
        return torch.cdist(x, self.centres)


class Slope(torch.autograd.Function):
    """3x² for Cube's backward, whose own backward is wrong by a factor."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return 3 * x.square()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * 6 * x * Cube.factor


class Cube(torch.autograd.Function):
    factor = 0.5

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * Slope.apply(x)


class Cubed(nn.Module):
    def forward(self, x):
        return Cube.apply(x)


class Outer(nn.Module):
    """A layer around a layer, as real networks have them."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


class Detached(Outer):
    def forward(self, x):
        return self.inner(x).detach()


class Rounded(nn.Module):
    """A straight-through estimator: the gradient is on purpose not the derivative."""

    def forward(self, x):
        return x + (x.round() - x).detach()


class _Second(torch.autograd.Function):
    """6x with a wrong derivative."""

    @staticmethod
    def forward(ctx, x):
        return 6 * x

    @staticmethod
    def backward(ctx, gradient):
        return -6 * gradient


class _First(torch.autograd.Function):
    """3x² with a right derivative."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return 3 * x.square()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * _Second.apply(x)


class ThirdOrder(torch.autograd.Function):
    """x³ with right first and second, but wrong third derivatives."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * _First.apply(x)
