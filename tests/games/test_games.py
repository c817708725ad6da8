import math

import pytest
import torch

import saddlepoint as sp
from saddlepoint.games import GAN_LOSSES, QuadraticGame

EXTREME = torch.tensor([-1e4, -100.0, -1.0, 0.0, 1.0, 100.0, 1e4], dtype=torch.float64)


def test_minimax_is_the_published_loss():
    real, fake = torch.tensor([0.3, -1.0]), torch.tensor([0.8, 2.0])
    D = torch.sigmoid
    discriminator, generator = GAN_LOSSES["minimax"]
    expected = D(real).log().mean() + (1 - D(fake)).log().mean()
    torch.testing.assert_close(sum(discriminator(real, fake).values()), -expected)
    torch.testing.assert_close(generator(fake)["fake"], (1 - D(fake)).log().mean())
    torch.testing.assert_close(GAN_LOSSES["non-saturating"][1](fake)["fake"], -D(fake).log().mean())


@pytest.mark.parametrize("name", GAN_LOSSES)
@pytest.mark.parametrize("logit", EXTREME.tolist())
def test_losses_and_their_two_derivatives_are_finite_at_any_logit(name, logit):
    discriminator, generator = GAN_LOSSES[name]
    x = torch.tensor([logit], requires_grad=True)
    for loss in (discriminator(x, x), generator(x)):
        total = sum(loss.values())
        (slope,) = torch.autograd.grad(total, x, create_graph=True)
        (bend,) = torch.autograd.grad(slope.sum() + 0 * x.sum(), x)
        assert all(math.isfinite(v) for v in (total.item(), slope.item(), bend.item()))


def test_where_the_discriminator_wins_one_loss_is_flat_and_the_other_steep():
    logit = torch.tensor([-30.0], dtype=torch.float64, requires_grad=True)
    slopes = {name: torch.autograd.grad(g(logit)["fake"], logit)[0].item() for name, (_, g) in GAN_LOSSES.items()}
    assert abs(slopes["minimax"]) < 1e-12
    assert slopes["non-saturating"] == pytest.approx(-1.0)


def test_the_minimax_game_is_antisymmetric_in_its_interaction(tiny_gan):
    gan = tiny_gan(zero_sum=True)
    _, J = gan.dense()
    d, g = gan.sizes().values()
    torch.testing.assert_close(J[d, g], -J[g, d].T)


@pytest.mark.parametrize("matrix", [torch.tensor([[1.0, 2.0], [0.0, 1.0]], dtype=torch.float64), torch.eye(3, dtype=torch.float64)])
def test_quadratic_games_check_their_matrices(matrix):
    with pytest.raises(sp.UsageError, match=r'Player "x" needs a symmetric matrix of shape \(2, 2\)'):
        QuadraticGame({"x": 2}, {"x": matrix}, torch.zeros(2, dtype=torch.float64))
