import pytest
import torch

import saddlepoint as sp
from saddlepoint.games import zero_sum
from saddlepoint.optim import MomentumSGD


def radius(h, beta, alternating):
    """Spectral radius of one round on x·y, from its action on (θ, last move)."""
    columns = []
    for start in torch.eye(4, dtype=torch.float64):
        game = zero_sum(0.0, 1.0, 0.0, start[:2].tolist())
        inner = {p: MomentumSGD(t, lr=h, momentum=beta) for p, t in game.players.items()}
        for (player, tensors), move in zip(game.players.items(), start[2:], strict=True):
            inner[player].state[tensors[0]]["update"] = move.reshape(1).clone()
        optimizer = sp.GameOptimizer(inner)
        for active in [("x",), ("y",)] if alternating else [("x", "y")]:
            losses = game.losses()
            optimizer.step(lambda active=active, losses=losses: {p: losses[p] for p in active})
        moves = [inner[p].state[t[0]]["update"] for p, t in game.players.items()]
        columns.append(torch.cat([game.theta.detach(), *moves]))
    return float(torch.linalg.eigvals(torch.stack(columns, dim=1)).abs().max())


def test_equals_torch_s_sgd_where_that_allows_it():
    """torch keeps v ← βv + g and moves by −lr·v: the same path at a constant learning rate."""
    x, y = (torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True) for _ in range(2))
    for p, optimizer in (
        (x, MomentumSGD([x], lr=0.1, momentum=0.6)),
        (y, torch.optim.SGD([y], lr=0.1, momentum=0.6)),
    ):
        for _ in range(5):
            optimizer.zero_grad()
            (p**4).sum().backward()
            optimizer.step()
    torch.testing.assert_close(x, y)


@pytest.mark.parametrize(("beta", "limit"), [(-0.5, 1.0), (-0.3, 1.4)])
def test_alternating_descent_converges_up_to_its_limit(beta, limit):
    assert radius(0.5 * limit, beta, alternating=True) < 1
    assert radius(0.97 * limit, beta, alternating=True) < 1
    assert radius(1.03 * limit, beta, alternating=True) > 1


@pytest.mark.parametrize("beta", [-0.9, -0.5, -0.1, 0.1, 0.5])
@pytest.mark.parametrize("h", [0.05, 0.5])
def test_simultaneous_descent_never_converges(beta, h):
    assert radius(h, beta, alternating=False) > 1


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_positive_momentum_does_not_converge(beta):
    assert radius(0.3, beta, alternating=True) > 1


def test_state_dict_and_skipped_parameters():
    x, unused = (torch.ones(1, requires_grad=True) for _ in range(2))
    first = MomentumSGD([x, unused], lr=0.1)
    x.sum().backward()
    first.step()
    second = MomentumSGD([x, unused], lr=9.0, momentum=0.0)
    second.load_state_dict(first.state_dict())
    second.step()
    assert x.item() == pytest.approx(1 - 0.1 - 0.1 + 0.05)
    assert unused.item() == 1.0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"lr": -1.0}, r"lr=-1\.0"),
        ({"lr": 1.0, "momentum": -1.0}, r"momentum=-1\.0 must be between"),
    ],
)
def test_options_are_checked(options, text):
    with pytest.raises(sp.UsageError, match=text):
        MomentumSGD([torch.ones(1, requires_grad=True)], **options)
