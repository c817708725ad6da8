"""What a discriminator's outputs say: where they lie on the flat parts of the losses, and how well they separate."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from saddlepoint.curvature import Linearization
from saddlepoint.games.gan_losses import GanLoss, Terms

FLAT = 0.01
"""A loss is called flat where its slope is below this share of its largest slope between logits of −20 and 20."""


def saturation(loss: GanLoss, real: Tensor, fake: Tensor) -> dict[str, float]:
    """Return, for each player, the share of the discriminator's outputs at which that player's loss is flat.

    The discriminator is judged on real and generated samples, the generator on generated ones. A
    discriminator that is flat has learnt all that its loss asks; a generator that is flat learns
    nothing from it.

    Args:
        loss: a pair of ``GAN_LOSSES``.
        real: the logits of real samples.
        fake: the logits of generated samples.

    >>> from saddlepoint.games import GAN_LOSSES
    >>> logits = torch.full((8, 1), 9.0)
    >>> saturation(GAN_LOSSES["minimax"], logits, -logits), saturation(GAN_LOSSES["non-saturating"], logits, -logits)["generator"]
    ({'discriminator': 1.0, 'generator': 1.0}, 0.0)
    """
    judge, fool = loss
    nothing = torch.zeros(1, dtype=torch.float64)
    flat = torch.cat(
        [_flat(lambda t: judge(t, nothing), real), _flat(lambda t: judge(nothing, t), fake)]
    )
    return {"discriminator": _share(flat), "generator": _share(_flat(fool, fake))}


def _flat(term: Callable[[Tensor], Terms], logits: Tensor) -> Tensor:
    steepest = _slopes(term, torch.linspace(-20, 20, 81)).max()
    return _slopes(term, logits) < FLAT * steepest


def _slopes(term: Callable[[Tensor], Terms], logits: Tensor) -> Tensor:
    """Return |∂ term / ∂ logit| up to a factor that all logits share (terms are means; so the mean is undone)."""
    t = logits.detach().reshape(-1).double().cpu().requires_grad_()
    with torch.enable_grad():
        point = Linearization(
            {"logits": (t,)}, lambda: {"logits": term(t)}, order=1, check_finite=False
        )
        return point.gradient["logits"][0].abs() * len(t)


def _share(flat: Tensor) -> float:
    return float(flat.double().mean())


def accuracy(real: Tensor, fake: Tensor) -> float:
    """Return how well a threshold at 0 separates logits: (share of real ones above + share of generated ones below) / 2.

    What lies on the threshold counts half on each side, so that a constant discriminator is at
    chance.

    Where all lie on one side, as a critic's outputs may, the threshold is midway between the means
    instead: a critic has no zero.

    >>> accuracy(torch.tensor([1.0, 2.0, -1.0, 3.0]), torch.tensor([-1.0, -2.0, -3.0, -4.0]))
    0.875
    """
    both = torch.cat([real.reshape(-1), fake.reshape(-1)])
    one_sided = bool((both > 0).all() or (both < 0).all())
    threshold = float(real.mean() + fake.mean()) / 2 if one_sided else 0.0
    return (_above(real, threshold) + 1 - _above(fake, threshold)) / 2


def _above(logits: Tensor, threshold: float) -> float:
    return float(((logits > threshold).double() + 0.5 * (logits == threshold).double()).mean())


def memory(seen: Tensor, unseen: Tensor) -> float:
    """Return P(D(x) > D(x')) + ½ P(equal) for training samples x and held-out ones x'; ½ for a discriminator that learnt no sample by
    heart.

    The Mann–Whitney statistic of the two sets of outputs: it does not depend on the loss or on the
    scale of the outputs.

    >>> memory(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0]))
    0.875
    """
    a, b = seen.reshape(-1, 1), unseen.reshape(1, -1)
    return float(((a > b).double() + 0.5 * (a == b).double()).mean())
