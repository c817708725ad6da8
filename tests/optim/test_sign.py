import math

import pytest
import torch

import saddlepoint as sp
from saddlepoint.games import bilinear
from saddlepoint.optim import SignSubgradient


def test_two_steps_by_hand():
    x = torch.tensor([3.0, -4.0, 0.0], requires_grad=True)
    y = torch.tensor(2.0, requires_grad=True)
    optimizer = SignSubgradient([{"params": [x]}, {"params": [y], "lr": 0.01, "epsilon": 3.0}], lr=0.1, epsilon=2.0)
    for _ in range(2):
        optimizer.zero_grad()
        ((x**2).sum() + y * 1e-20).backward()
        optimizer.step()
    torch.testing.assert_close(x.detach(), torch.tensor([3 - 0.4, -4 + 0.4, 0.0]))
    assert y.item() == pytest.approx(2 - 0.06)


def test_the_step_does_not_depend_on_the_size_of_the_gradient():
    for size in (1e-30, 1.0, 1e30):
        x = torch.ones(1, dtype=torch.float64, requires_grad=True)
        optimizer = SignSubgradient([x], lr=0.25)
        (size * x).sum().backward()
        optimizer.step()
        assert x.item() == 0.75


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_gradients_raise_and_nothing_moves(bad):
    x, y = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    optimizer = SignSubgradient([{"params": [x]}, {"params": [y]}], lr=0.1)
    x.grad, y.grad = torch.ones(2), torch.tensor([1.0, bad, 1.0])
    with pytest.raises(sp.DivergenceError, match=r"SignSubgradient: gradient 1, shape \(3,\), is not finite"):
        optimizer.step()
    assert x.tolist() == [1.0, 1.0]
    assert y.tolist() == [1.0, 1.0, 1.0]


def test_parameters_without_gradient_stay():
    x, y = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    optimizer = SignSubgradient([x, y], lr=0.1)
    x.sum().backward()
    optimizer.step()
    assert (round(x.item(), 6), y.item()) == (0.9, 1.0)
    SignSubgradient([y], lr=0.1).step()


def test_schedulers_closures_and_state_dict():
    x = torch.ones(1, requires_grad=True)
    optimizer = SignSubgradient([x], lr=0.4, epsilon=0.5)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)

    def closure():
        optimizer.zero_grad()
        loss = x.sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 1.0
    schedule.step()
    optimizer.step(closure)
    assert x.item() == pytest.approx(1 - 0.2 - 0.1)
    other = SignSubgradient([torch.ones(1, requires_grad=True)], lr=9.0)
    other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[0]["lr"] == 0.2
    assert other.param_groups[0]["epsilon"] == 0.5


def test_constant_steps_end_in_a_cycle_of_the_size_of_the_step_around_the_bilinear_equilibrium():
    """The method's price: it neither converges nor diverges, and stays within a few steps of where it starts to circle."""
    game = bilinear(start=(0.05, 0.03))
    optimizer = sp.GameOptimizer({p: SignSubgradient(t, lr=0.1) for p, t in game.players.items()})
    distances = []
    for _ in range(400):
        for player in game.players:
            optimizer.step(lambda player=player: {player: game.losses()[player]})
        distances.append(float(game.theta.detach().norm()))
    assert max(distances[200:]) == pytest.approx(max(distances[:200]))
    assert 0.05 < max(distances) < 0.2


@pytest.mark.parametrize(
    ("options", "text"), [({"lr": -1.0}, r"lr=-1\.0 must be at least 0"), ({"lr": 1.0, "epsilon": -1.0}, r"epsilon=-1\.0")]
)
def test_options_are_checked(options, text):
    with pytest.raises(sp.UsageError, match=text):
        SignSubgradient([torch.ones(1, requires_grad=True)], **options)
