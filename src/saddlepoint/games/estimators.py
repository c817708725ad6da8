"""Binary outputs in {−1, 1} and gradient estimators for them.

Noise is an argument, uniform in [0, 1) and of the shape of the logits, so that a sample is a
function of its inputs. A NaN in the logits gives a NaN output.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saddlepoint.errors import UsageError


def threshold(logits: Tensor) -> Tensor:
    """Return 1 where logits ≥ 0 and −1 elsewhere; the gradient is exactly zero, at every order.

    Zero is the derivative almost everywhere but useless for training: this is for rules that use
    only values of the losses.

    >>> x = torch.tensor([-0.5, 0.0, 2.0], requires_grad=True)
    >>> y = threshold(x)
    >>> y.tolist(), torch.autograd.grad(y.sum(), x)[0].tolist()
    ([-1.0, 1.0, 1.0], [0.0, 0.0, 0.0])
    """
    # floor keeps the graph, with slope zero, and propagates NaN
    return torch.floor(logits).clamp(-1, 0) * 2 + 1


def bernoulli(logits: Tensor, uniform: Tensor) -> Tensor:
    """Return 1 where ``uniform`` < sigmoid(logits), −1 elsewhere; the gradient is exactly zero.

    >>> bernoulli(torch.zeros(3), torch.tensor([0.2, 0.5, 0.7])).tolist()
    [1.0, -1.0, -1.0]
    """
    return -threshold(uniform - torch.sigmoid(logits))


def straight_through(logits: Tensor) -> Tensor:
    """Return ``threshold(logits)`` with the derivatives of tanh: a biased estimator.

    Reference: Bengio, Léonard and Courville (2013), Estimating or propagating gradients through
    stochastic neurons for conditional computation, arXiv:1308.3432.

    >>> x = torch.tensor([0.0, 3.0], requires_grad=True)
    >>> y = straight_through(x)
    >>> y.tolist(), torch.autograd.grad(y.sum(), x)[0].mul(1e4).round().tolist()
    ([1.0, 1.0], [10000.0, 99.0])
    """
    return _threshold_with_slope_of(logits, torch.tanh(logits))


def gumbel(
    logits: Tensor, uniform: Tensor, temperature: float = 1.0, *, hard: bool = False
) -> Tensor:
    """Return binary concrete samples (Gumbel–softmax of two classes).

    tanh((logits + log u − log(1 − u)) / (2 T)). As T → 0 they tend to ±1 with P(1) =
    sigmoid(logits), and their gradients explode. ``hard`` rounds them to ±1, with the same
    probabilities at every T, and keeps the gradient of the soft samples.

    Args:
        logits: log-odds of 1.
        uniform: noise u, uniform in [0, 1).
        temperature: T.
        hard: round the samples.

    Raises:
        UsageError: a temperature that is not positive.

    References: Jang, Gu and Poole (2017), Categorical reparameterization with Gumbel–softmax,
    arXiv:1611.01144; Maddison, Mnih and Teh (2017), The concrete distribution, arXiv:1611.00712.

    >>> gumbel(torch.zeros(1), torch.tensor([0.5]), 0.5).item()
    0.0
    >>> gumbel(torch.zeros(2), torch.tensor([0.1, 0.9]), hard=True)
    tensor([-1.,  1.])
    """
    if not temperature > 0:
        raise UsageError(f"gumbel: temperature={temperature} must be positive.")
    perturbed = logits + torch.logit(uniform)
    soft = torch.tanh(perturbed / (2 * temperature))
    return _threshold_with_slope_of(perturbed, soft) if hard else soft


def _threshold_with_slope_of(logits: Tensor, soft: Tensor) -> Tensor:
    # the difference is exactly 0, so the values are exactly ±1
    return threshold(logits).detach() + (soft - soft.detach())
