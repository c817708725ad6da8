"""Nonsmooth functions whose slope at a kink can be chosen: |x|, max(0, x), maxima and hinge losses.

PyTorch picks one slope at each kink, and a different one for each spelling of the same function: at
0, ``relu`` has 0, ``clamp(min=0)`` 1 and ``maximum(x, 0)`` ½; ``amax`` divides the weight between
ties, ``max(dim)`` gives it to the first. Here the caller chooses:

- ``"minimum_norm"``: the subgradient nearest to 0. A point that minimises the function is
  stationary. The default.
- ``"one_sided"``: for a function of one variable the derivative from the right, for a maximum the
  gradient of the first of the tied entries.
- ``"random"``: uniform over the subgradients (over the weights of tied entries), drawn from
  ``generator`` for every entry, at a kink or not, so that the generator advances by the same amount
  at every point. Under ``torch.func.vmap`` use ``randomness="different"``.

Every function is computed as its argument times a fixed slope, |x| = s · x, so values are PyTorch's
and second derivatives are exactly zero. A NaN in the arguments gives a NaN value and a NaN slope
with every selection.

All functions are convex, and the selected slope is a subgradient. **Selections for single functions
do not give a subgradient of their composition.** relu(x) − relu(−x) is x, with slope 1; at 0
PyTorch returns 0, and of the deterministic selections one returns 0 and the other 2. Subgradients
obey the sum and chain rules where convexity is preserved by composition (a sum with weights ≥ 0, a
non-decreasing convex function of a convex one, a convex function of a linear one), which does not
hold for networks. There, differentiate near the kinks, where all selections agree, and average:
``sum(f(x + delta * torch.randn(x.shape, generator=generator)) for _ in range(n)) / n`` almost
surely has an average of true gradients as its gradient, and its expectation is a smooth function
within O(delta) of f (Duchi, Bartlett and Wainwright 2012, Randomized smoothing for stochastic
optimization, arXiv:1103.4296).

References: Clarke (1983), Optimization and Nonsmooth Analysis; Kakade and Lee (2018), Provably
correct automatic subdifferentiation for qualified programs, arXiv:1809.08530; Bolte and Pauwels
(2019), Conservative set valued fields, arXiv:1909.10300.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saddlepoint.errors import UsageError, did_you_mean

KINKS = ("minimum_norm", "one_sided", "random")
"""The selections of a slope at a kink."""


def absolute(
    x: Tensor, *, kink: str = "minimum_norm", generator: torch.Generator | None = None
) -> Tensor:
    """Return |x|, elementwise. Its slope at 0 is 0, 1 or uniform in [−1, 1].

    Args:
        x: any shape.
        kink: the selection, one of ``KINKS``.
        generator: generator of the random numbers for "random".

    Raises:
        UsageError: an unknown selection, or "random" without a generator.

    >>> x = torch.zeros(1, requires_grad=True)
    >>> absolute(x, kink="one_sided").backward()
    >>> x.grad.item()
    1.0
    """
    return _times(_slope(x, -1.0, 1.0, kink, generator), x)


def positive_part(
    x: Tensor, *, kink: str = "minimum_norm", generator: torch.Generator | None = None
) -> Tensor:
    """Return max(0, x), elementwise. Its slope at 0 is 0, 1 or uniform in [0, 1].

    Args:
        x: any shape.
        kink: the selection, one of ``KINKS``.
        generator: generator of the random numbers for "random".

    Raises:
        UsageError: an unknown selection, or "random" without a generator.

    >>> positive_part(torch.tensor([-torch.inf, -1.0, 0.0, 2.0, torch.nan])).tolist()
    [0.0, 0.0, 0.0, 2.0, nan]
    """
    return _times(_slope(x, 0.0, 1.0, kink, generator), x)


def largest(
    x: Tensor,
    dim: int = -1,
    *,
    kink: str = "minimum_norm",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return max_i x_i along a dimension.

    Computed as Σ w_i x_i with weights w ≥ 0 on the tied entries, Σ w_i = 1.

    Args:
        x: a tensor with at least one dimension.
        dim: the dimension to reduce.
        kink: the selection, one of ``KINKS``: equal weights, all weight on the first tied entry, or
            weights uniform on the simplex.
        generator: generator of the random numbers for "random".

    Raises:
        UsageError: an unknown selection, or "random" without a generator.

    >>> x = torch.tensor([1.0, 3.0, 3.0], requires_grad=True)
    >>> largest(x).backward()
    >>> x.grad.tolist()
    [0.0, 0.5, 0.5]
    """
    _check(kink, generator)
    top = x.detach().amax(dim, keepdim=True)
    weights = (x.detach() == top).to(x.dtype)
    if kink == "one_sided":
        weights = weights * (weights.cumsum(dim) == 1)
    elif generator is not None and kink == "random":
        # exponentially distributed, and never 0
        weights = weights * (torch.finfo(x.dtype).tiny - torch.log1p(-_uniform(x, generator)))
    # a NaN is not equal to itself, so its weight is 0 / 0
    weights = weights / weights.sum(dim, keepdim=True)
    # so that the result is exact, although the weights sum to 1 only up to rounding
    base = top.where(top.isfinite(), 0.0)
    return base.squeeze(dim) + _times(weights, x - base).sum(dim)


def l1_norm(
    x: Tensor, *, kink: str = "minimum_norm", generator: torch.Generator | None = None
) -> Tensor:
    """Return Σ |x_i| over all entries. Where x_i = 0 its slope is 0, 1 or uniform in [−1, 1].

    Args:
        x: any shape.
        kink: the selection, one of ``KINKS``.
        generator: generator of the random numbers for "random".

    Raises:
        UsageError: an unknown selection, or "random" without a generator.

    >>> l1_norm(torch.tensor([[1.0, -2.0], [0.0, 3.0]])).item()
    6.0
    """
    return absolute(x, kink=kink, generator=generator).sum()


def hinge(
    margin: Tensor, *, kink: str = "minimum_norm", generator: torch.Generator | None = None
) -> Tensor:
    """Return max(0, 1 − margin), elementwise.

    Its slope at margin 1 is 0, 0 (the slope from the right) or uniform in [−1, 0].

    Args:
        margin: label times score, any shape.
        kink: the selection, one of ``KINKS``.
        generator: generator of the random numbers for "random".

    Raises:
        UsageError: an unknown selection, or "random" without a generator.

    >>> hinge(torch.tensor([-1.0, 0.5, 1.0, 7.0])).tolist()
    [2.0, 0.5, 0.0, 0.0]
    """
    beyond = margin - 1
    return _times(_slope(beyond, -1.0, 0.0, kink, generator), beyond)


def max_margin(
    scores: Tensor,
    labels: Tensor,
    *,
    kink: str = "minimum_norm",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the multiclass hinge loss of Crammer and Singer.

    The mean over the samples of max(0, max_{j ≠ y} 1 + s_j − s_y).
    ``torch.nn.functional.multi_margin_loss`` is another function: it sums over j. The subgradient
    is the product of those of ``positive_part`` and ``largest``, which is a subgradient of the
    composition; "minimum_norm" is the nearest to 0 in the space of the scores.

    Args:
        scores: one score per class, shape (…, classes).
        labels: the correct class y of each sample, shape (…).
        kink: the selection, one of ``KINKS``.
        generator: generator of the random numbers for "random".

    Raises:
        UsageError: labels that do not have the shape of scores without its last dimension, an
            unknown selection, or "random" without a generator.

    Reference: Crammer and Singer (2001), On the algorithmic implementation of multiclass
    kernel-based vector machines, JMLR 2.

    >>> max_margin(torch.tensor([[3.0, 1.0, 2.5], [0.0, 5.0, 1.0]]), torch.tensor([0, 1])).item()
    0.25
    """
    if labels.shape != scores.shape[:-1]:
        raise UsageError(
            "max_margin: labels must hold one class for each row of scores, shape"
            f" {tuple(scores.shape[:-1])}, not {tuple(labels.shape)}."
        )
    right = labels.unsqueeze(-1)
    excess = 1 + scores - scores.gather(-1, right)
    classes = torch.arange(scores.shape[-1], device=scores.device)
    others = excess.masked_fill(classes == right, -torch.inf)
    worst = largest(others, kink=kink, generator=generator)
    return positive_part(worst, kink=kink, generator=generator).mean()


def _slope(
    x: Tensor, below: float, above: float, kink: str, generator: torch.Generator | None
) -> Tensor:
    """Return the slope at x of the function with slope ``below`` for x < 0, ``above`` for x > 0."""
    _check(kink, generator)
    x = x.detach()
    if generator is not None and kink == "random":
        chosen = below + (above - below) * _uniform(x, generator)
    else:
        chosen = torch.full_like(x, above if kink == "one_sided" else min(max(below, 0.0), above))
    chosen = chosen.masked_fill(x < 0, below).masked_fill(x > 0, above)
    return chosen.masked_fill(x.isnan(), torch.nan)


def _times(slope: Tensor, x: Tensor) -> Tensor:
    """Return slope · x with 0 · ∞ = 0, so that max(0, −∞) = 0."""
    return slope * x.masked_fill(slope == 0, 0.0)


def _uniform(x: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=generator.device)
    return drawn.to(x.device)


def _check(kink: str, generator: torch.Generator | None) -> None:
    if kink not in KINKS:
        raise UsageError(f'kink="{kink}" is not a known selection.' + did_you_mean(kink, KINKS))
    if kink == "random" and generator is None:
        raise UsageError(
            'kink="random" draws random slopes and needs a generator: pass'
            " generator=torch.Generator().manual_seed(0)."
        )
