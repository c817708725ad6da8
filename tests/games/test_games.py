import math

import pytest
import torch

import saddlepoint as sp
from saddlepoint.games import (
    GAN_LOSSES,
    bilinear_matrix,
    cournot,
    dirac_gan,
    quadratic,
    with_spectrum,
    zero_sum,
)
from saddlepoint.testing import ANALYTIC_GAMES

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
    slopes = {
        name: torch.autograd.grad(g(logit)["fake"], logit)[0].item()
        for name, (_, g) in GAN_LOSSES.items()
    }
    assert abs(slopes["minimax"]) < 1e-12
    assert slopes["non-saturating"] == pytest.approx(-1.0)


def test_the_minimax_game_is_antisymmetric_in_its_interaction(tiny_gan):
    gan = tiny_gan(zero_sum=True)
    _, J = gan.dense()
    d, g = gan.sizes().values()
    torch.testing.assert_close(J[d, g], -J[g, d].T)


@pytest.mark.parametrize(
    "matrix",
    [
        torch.tensor([[1.0, 2.0], [0.0, 1.0]], dtype=torch.float64),
        torch.eye(3, dtype=torch.float64),
    ],
)
def test_quadratic_games_check_their_matrices(matrix):
    with pytest.raises(
        sp.UsageError, match=r'Player "x" needs a symmetric matrix of shape \(2, 2\)'
    ):
        quadratic({"x": 2}, {"x": matrix}, torch.zeros(2, dtype=torch.float64), "minimum")


DIRAC = {
    f"{loss} {options}": (loss, options)
    for loss in ("minimax", "non-saturating", "wasserstein")
    for options in ({}, {"r1": 0.3}, {"r2": 0.1, "noise": 0.5})
}
EVERY_GAME = {
    **ANALYTIC_GAMES,
    **{f"dirac {name}": lambda c=case: dirac_gan(c[0], **c[1]) for name, case in DIRAC.items()},
}


@pytest.mark.parametrize("name", EVERY_GAME)
def test_the_claimed_equilibrium_is_critical_and_has_the_claimed_jacobian(name):
    game = EVERY_GAME[name]()
    with torch.no_grad():
        flat = game.equilibrium
        for tensors in game.players.values():
            for p in tensors:
                p.copy_(flat[: p.numel()])
                flat = flat[p.numel() :]
    point = sp.linearize(game)
    torch.testing.assert_close(
        point.gradient.flatten(), torch.zeros_like(game.equilibrium), rtol=0, atol=1e-12
    )
    torch.testing.assert_close(point.jacobian.dense(), game.jacobian, rtol=0, atol=1e-12)
    assert game.distance() == 0


@pytest.mark.parametrize("name", EVERY_GAME)
def test_the_claimed_kind_is_what_the_jacobian_says(name):
    game = EVERY_GAME[name]()
    J, eigenvalues = game.jacobian, torch.linalg.eigvals(game.jacobian)
    smallest = torch.linalg.eigvalsh((J + J.T) / 2).min().item()
    if game.kind in ("minimum", "monotone"):
        assert smallest > 0
    elif game.kind == "rotating":
        assert abs(smallest) < 1e-12
        assert eigenvalues.imag.abs().max() > 0
    else:
        follower, schur = J[1, 1].item(), (J[0, 0] - J[0, 1] * J[1, 0] / J[1, 1]).item()
        assert (follower > 0 and schur > 0) == (game.kind == "local minimax")


@pytest.mark.parametrize(
    ("loss", "slope"), [("minimax", 0.5), ("non-saturating", 0.5), ("wasserstein", 1.0)]
)
@pytest.mark.parametrize("gamma", [0.0, 0.3, 3.0])
def test_the_dirac_gan_has_the_published_eigenvalues(loss, slope, gamma):
    """γ/2 ± √(γ²/4 − f'(0)²), in the direction of descent."""
    found = torch.linalg.eigvals(dirac_gan(loss, r1=gamma).jacobian)
    root = torch.sqrt(torch.tensor(gamma**2 / 4 - slope**2, dtype=torch.complex128))
    expected = torch.stack([gamma / 2 + root, gamma / 2 - root])
    order = lambda values: sorted(values.tolist(), key=lambda v: (v.real, v.imag))  # noqa: E731
    assert order(found) == pytest.approx(order(expected))


@pytest.mark.parametrize("loss", ["minimax", "non-saturating", "wasserstein"])
def test_the_dirac_gan_converges_with_r1_only(loss):
    distances = {}
    for r1 in (0.0, 1.0):
        game = dirac_gan(loss, r1=r1)
        optimizer = sp.GameOptimizer(
            {p: torch.optim.SGD(t, lr=0.1) for p, t in game.players.items()}
        )
        for _ in range(500):
            optimizer.step(game.losses)
        distances[r1] = game.distance()
    assert distances[1.0] < 1e-3
    # it circles, on the logistic losses at the radius where the step's growth and the losses'
    # flatness meet
    assert distances[0.0] > 0.1


def test_cournot_firms_find_the_equilibrium():
    game = cournot(5)
    optimizer = sp.GameOptimizer({p: torch.optim.SGD(t, lr=0.1) for p, t in game.players.items()})
    for _ in range(300):
        optimizer.step(game.losses)
    assert game.distance() < 1e-8


def test_large_bilinear_game_has_its_singular_values_and_is_solved():
    values = torch.linspace(0.5, 1.5, 100).tolist()
    game = bilinear_matrix(values, torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        torch.linalg.svdvals(game.jacobian[:100, 100:]).flip(0),
        torch.tensor(values, dtype=torch.float64),
    )
    optimizer = sp.GameOptimizer(
        {p: torch.optim.SGD(t, lr=0.5) for p, t in game.players.items()}, sp.rules.Extragradient()
    )
    before = game.distance()
    for _ in range(200):
        optimizer.step(game.losses)
    # the slowest direction contracts by |1 − h²s² + ihs| at hs = ¼
    assert game.distance() / before < (((1 - 1 / 16) ** 2 + 1 / 16) ** 0.5) ** 200 * 2


def test_chosen_spectrum():
    found = torch.linalg.eigvals(with_spectrum([1 + 2j, 0.5 + 0.1j]).jacobian)
    assert (
        sorted((round(v.real, 9), round(abs(v.imag), 9)) for v in found.tolist())
        == [(0.5, 0.1)] * 2 + [(1.0, 2.0)] * 2
    )
    assert zero_sum(1.0, 5.0, -1.0).kind == "monotone"


def test_mistakes():
    with pytest.raises(
        sp.UsageError, match=r'loss "wasserstien" is unknown\. Did you mean "wasserstein"'
    ):
        dirac_gan("wasserstien")
    with pytest.raises(sp.UsageError, match="must be at least 0"):
        dirac_gan(r1=-1.0)
    with pytest.raises(sp.UsageError, match="at least one firm"):
        cournot(0)
