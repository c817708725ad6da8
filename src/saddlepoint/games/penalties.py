"""Gradient penalties: derivatives of a discriminator with respect to its inputs. Those to parameters are ``curvature.linearization``'s."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from saddlepoint.errors import UsageError


def gradient_penalty(judge: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """Return E‖∇ₓD(x)‖²: the squared norm of D's gradient at each sample, and their mean.

    ½ γ times this on real samples is R1, on generated ones R2. There is no square root in it, so it
    has a gradient, 0, where D is flat. It is differentiable with respect to D's parameters, and
    through ``inputs`` to the generator's where they come from there. Where gradients are switched
    off it is the same number without a graph. Inside the transforms of ``torch.func`` PyTorch
    refuses it.

    Args:
        judge: D, a module or function that gives one logit, or a few, to each sample. Samples must
            not see each other: BatchNorm mixes their gradients, and its buffers move once more.
        inputs: the samples x, shape (N, …), floating.

    Raises:
        UsageError: the logits do not depend on the inputs in a way that autograd sees.

    Reference: Mescheder, Geiger and Nowozin (2018), Which training methods for GANs do actually
    converge?, arXiv:1801.04406.

    >>> gradient_penalty(lambda x: x @ torch.tensor([3.0, 4.0]), torch.zeros(8, 2)).item()
    25.0
    """
    wanted = torch.is_grad_enabled()
    with torch.enable_grad():
        # a graph that leads to the generator is kept
        x = inputs if inputs.requires_grad else inputs.detach().requires_grad_()
        logits = judge(x)
        slope = (
            torch.autograd.grad(logits.sum(), x, create_graph=wanted, allow_unused=True)[0]
            if logits.requires_grad
            else None
        )
    if slope is None:
        raise UsageError(
            "gradient_penalty: the logits do not depend on the inputs, so they have no gradient to"
            " penalise. Compute them from the argument that judge is called with, without detach()"
            " or no_grad()."
        )
    return slope.square().sum() / len(inputs)
