"""Gradient penalties: derivatives of a discriminator with respect to its inputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from saddlepoint.errors import UsageError


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """Return E‖∇ₓD(x)‖²: the squared norm of D's gradient at each sample, and their mean.

    ½ γ times this on real samples is R1, on generated ones R2. There is no square root, so the
    gradient exists, and is 0, where D is flat. The penalty is differentiable with respect to D's
    parameters, and through ``inputs`` to the generator's if these depend on it. With gradients
    disabled it is the same number without a graph. PyTorch does not support it inside of transforms
    of ``torch.func``.

    Args:
        discriminator: D, a module or function that returns one or a few logits per sample. Logits
            must not depend on other samples: BatchNorm mixes their gradients, and its buffers are
            updated once more.
        inputs: the samples x, shape (N, …), floating.

    Raises:
        UsageError: the logits do not depend on the inputs, as far as autograd can tell.

    Reference: Mescheder, Geiger and Nowozin (2018), Which training methods for GANs do actually
    converge?, arXiv:1801.04406.

    >>> gradient_penalty(lambda x: x @ torch.tensor([3.0, 4.0]), torch.zeros(8, 2)).item()
    25.0
    """
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # keep the graph that leads to the generator
        x = inputs if inputs.requires_grad else inputs.detach().requires_grad_()
        logits = discriminator(x)
        gradient = None
        if logits.requires_grad:
            (gradient,) = torch.autograd.grad(
                logits.sum(), x, create_graph=create_graph, allow_unused=True
            )
    if gradient is None:
        raise UsageError(
            "gradient_penalty: the logits do not depend on the inputs, so they have no gradient to"
            " penalise. Compute them from the argument of the discriminator, without detach() or"
            " no_grad()."
        )
    return gradient.square().sum() / len(inputs)
