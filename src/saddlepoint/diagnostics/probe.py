"""A probe: measurements at one point of training, and those of them that need no gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from saddlepoint.curvature import Linearization
from saddlepoint.diagnostics.gradients import GradientHealth
from saddlepoint.games.gan_losses import GanLoss, Terms

FLAT = 0.01
"""A loss is flat where its slope is below this share of its largest between logits −20 and 20."""


@dataclass(frozen=True)
class Probe:
    """The numbers of one probe; a number that was not measured is None.

    Attributes:
        gradients: sizes, zeros and noise of the players' gradients.
        saturated: player → share of the discriminator's outputs where that player's loss is flat.
        accuracy: how well the discriminator separates training samples from generated ones; ½ is
            chance.
        membership_auc: P(D(training sample) > D(held-out sample)); ½ where the discriminator has
            memorised no training samples.
        antisymmetric: the share of rotation in the field, ‖Aξ‖² / (‖Aξ‖² + ‖Sξ‖²).
        update_cosine: player → cosine of the angle between its last two updates.
        diversity: mean pairwise distance of generated samples relative to that of real ones.
        unmeasured: name → reason why it was not measured.
    """

    gradients: GradientHealth
    saturated: dict[str, float]
    accuracy: float
    membership_auc: float | None
    antisymmetric: float | None
    update_cosine: dict[str, float] | None
    diversity: float
    unmeasured: dict[str, str]


def saturation(loss: GanLoss, real: Tensor, fake: Tensor) -> dict[str, float]:
    """Return player → share of the discriminator's outputs at which that player's loss is flat.

    The discriminator's loss is taken at real and generated samples, the generator's at generated
    ones. Where its loss is flat, a discriminator has nothing more to learn, and a generator gets no
    gradient from it.

    Args:
        loss: a pair of ``GAN_LOSSES``.
        real: the logits of real samples.
        fake: the logits of generated samples.

    >>> from saddlepoint.games import GAN_LOSSES
    >>> logits = torch.full((8, 1), 9.0)
    >>> saturation(GAN_LOSSES["minimax"], logits, -logits)
    {'discriminator': 1.0, 'generator': 1.0}
    >>> saturation(GAN_LOSSES["non-saturating"], logits, -logits)["generator"]
    0.0
    """
    discriminator_loss, generator_loss = loss
    nothing, grid = torch.zeros(1, dtype=torch.float64), torch.linspace(-20, 20, 81)
    terms: list[tuple[Callable[[Tensor], Terms], Tensor]] = [
        (lambda t: discriminator_loss(t, nothing), real),
        (lambda t: discriminator_loss(nothing, t), fake),
        (generator_loss, fake),
    ]
    flat_at_real, flat_at_fake, flat_for_generator = (
        (_slopes(term, logits) < FLAT * _slopes(term, grid).max()).double()
        for term, logits in terms
    )
    return {
        "discriminator": float(torch.cat([flat_at_real, flat_at_fake]).mean()),
        "generator": float(flat_for_generator.mean()),
    }


def _slopes(term: Callable[[Tensor], Terms], logits: Tensor) -> Tensor:
    """Return |∂ term / ∂ logit| for each logit, up to a common factor."""
    t = logits.detach().reshape(-1).double().cpu().requires_grad_()
    with torch.enable_grad():
        point = Linearization(
            {"logits": (t,)}, lambda: {"logits": term(t)}, order=1, check_finite=False
        )
        # a term is a mean over the logits, which divides each slope by their number
        return point.gradient["logits"][0].abs() * len(t)


def accuracy(real: Tensor, fake: Tensor) -> float:
    """Return (share of real logits above 0 + share of generated logits below 0) / 2.

    Logits equal to the threshold count half, so that a constant discriminator is at chance. Where
    all logits have the same sign, as those of a critic may, the threshold is midway between the
    means instead of 0.

    >>> accuracy(torch.tensor([1.0, 2.0, -1.0, 3.0]), torch.tensor([-1.0, -2.0, -3.0, -4.0]))
    0.875
    """
    both = torch.cat([real.reshape(-1), fake.reshape(-1)])
    one_sided = bool((both > 0).all() or (both < 0).all())
    threshold = float(real.mean() + fake.mean()) / 2 if one_sided else 0.0
    return (_share_above(real, threshold) + 1 - _share_above(fake, threshold)) / 2


def membership_auc(seen: Tensor, unseen: Tensor) -> float:
    """Return P(D(x) > D(x')) + ½ P(D(x) = D(x')) for training samples x and held-out samples x'.

    It is ½ for a discriminator that has memorised no training samples. As the Mann–Whitney
    statistic of the two sets of outputs it does not depend on the loss or on the scale of the
    outputs.

    >>> membership_auc(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0]))
    0.875
    """
    return _share_above(seen.reshape(-1, 1), unseen.reshape(1, -1))


def _share_above(values: Tensor, threshold: Tensor | float) -> float:
    above, equal = (values > threshold).double(), (values == threshold).double()
    return float((above + 0.5 * equal).mean())


def mean_pairwise_distance(samples: Tensor) -> float:
    """Return the root mean square distance between two different samples, √(2 Σ_j Var_j).

    Args:
        samples: shape (n, …), n ≥ 2; Var_j is the variance of coordinate j.

    >>> mean_pairwise_distance(torch.tensor([[0.0], [2.0]]))
    2.0
    """
    return math.sqrt(2 * float(samples.reshape(len(samples), -1).double().var(dim=0).sum()))
