import pytest
import torch

import saddlepoint as sp
from saddlepoint.optim import RandomCoordinate


def run(steps, probability=0.25, seed=0, break_at=None):
    x = torch.zeros(1000, dtype=torch.float64, requires_grad=True)
    optimizer, moves = RandomCoordinate([x], lr=0.5, probability=probability, seed=seed), []
    for step in range(steps):
        if step == break_at:
            state = optimizer.state_dict()
            optimizer = RandomCoordinate([x], lr=9.0)
            optimizer.load_state_dict(state)
        before = x.detach().clone()
        x.grad = torch.full_like(x, 3.0)
        optimizer.step()
        moves.append(before - x.detach())
    return moves


def test_chosen_coordinates_move_by_the_gradient_over_the_probability():
    moves = run(20)
    for move in moves:
        assert set(move.round(decimals=9).tolist()) == {0.0, 0.5 * 3.0 / 0.25}
        assert 0.15 < float((move > 0).double().mean()) < 0.35
    assert not torch.equal(moves[0], moves[1])


def test_its_mean_is_gradient_descent():
    mean = torch.stack(run(400)).mean()
    assert float(mean) == pytest.approx(0.5 * 3.0, rel=0.02)


def test_probability_one_is_gradient_descent():
    assert all(bool((move == 1.5).all()) for move in run(2, probability=1.0))


def test_coordinates_are_a_function_of_seed_and_step():
    for a, b in zip(run(4), run(4, break_at=2), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert not torch.equal(run(1)[0], run(1, seed=1)[0])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"probability": 0.0}, r"probability=0\.0 must be in \(0, 1\]"),
        ({"lr": -1.0}, r"lr=-1\.0"),
        ({"seed": -1}, "seed"),
    ],
)
def test_options_are_checked(options, text):
    with pytest.raises(sp.UsageError, match=text):
        RandomCoordinate([torch.zeros(1, requires_grad=True)], **options)
