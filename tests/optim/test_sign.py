import math

import pytest
import torch

import saddlepoint as sp
from saddlepoint.games import bilinear
from saddlepoint.optim import SignSubgradient


def vector(*values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def step_with(optimizer, x, gradient):
    x.grad = torch.tensor(gradient, dtype=x.dtype)
    optimizer.step()
    return x.tolist()


def test_two_steps_by_hand():
    x = torch.tensor([3.0, -4.0, 0.0], requires_grad=True)
    y = torch.tensor(2.0, requires_grad=True)
    optimizer = SignSubgradient(
        [{"params": [x]}, {"params": [y], "lr": 0.01, "epsilon": 3.0}], lr=0.1, epsilon=2.0
    )
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


@pytest.mark.parametrize("size", [3, 300_000], ids=["small", "in blocks"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_gradients_raise_and_nothing_moves(bad, size):
    x, y = torch.ones(2, requires_grad=True), torch.ones(size, requires_grad=True)
    optimizer = SignSubgradient([{"params": [x]}, {"params": [y]}], lr=0.1)
    x.grad, y.grad = torch.ones(2), torch.ones(size)
    y.grad[1] = bad
    with pytest.raises(
        sp.DivergenceError, match=rf"SignSubgradient: gradient 1, shape \({size},\), is not finite"
    ):
        optimizer.step()
    assert x.tolist() == [1.0, 1.0]
    assert bool((y == 1).all())


def test_gradients_whose_squares_overflow_are_finite():
    x = torch.ones(2, requires_grad=True)
    assert step_with(SignSubgradient([x], lr=0.5), x, [3e38, -3e38]) == [0.5, 1.5]


def test_large_tensors_are_stepped_in_blocks_and_others_are_not():
    generator = torch.Generator().manual_seed(0)
    shapes = [(700, 900), (3,), (600_000,)]
    parameters = [torch.zeros(shape, requires_grad=True) for shape in shapes]
    transposed = torch.zeros(900, 700).T.requires_grad_()
    for p in [*parameters, transposed]:
        p.grad = torch.randn(p.shape, generator=generator)
    SignSubgradient([*parameters, transposed], lr=0.5).step()
    for p in [*parameters, transposed]:
        assert torch.equal(p, -0.5 * p.grad.sign())


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


def test_a_state_from_before_an_option_existed_gets_its_default():
    x = vector(1.0)
    state = SignSubgradient([x], lr=0.4).state_dict()
    del state["param_groups"][0]["dead_zone"]
    optimizer = SignSubgradient([x], lr=0.4)
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["dead_zone"] == 0.0


class TestSignum:
    def test_the_sign_is_of_the_running_mean(self):
        """m = 0.1·1 = 0.1, then 0.9·0.1 − 0.1·0.5 = 0.04: the gradient has turned, the mean has
        not."""
        x = vector(0.0)
        optimizer = SignSubgradient([x], lr=1.0, momentum=0.9)
        assert step_with(optimizer, x, [1.0]) == [-1.0]
        assert step_with(optimizer, x, [-0.5]) == [-2.0]
        assert step_with(optimizer, x, [-0.5]) == [-1.0]  # 0.9·0.04 − 0.05 < 0

    def test_the_buffer_is_saved(self):
        x = vector(0.0)
        first = SignSubgradient([x], lr=1.0, momentum=0.9)
        step_with(first, x, [1.0])
        second = SignSubgradient([x], lr=1.0, momentum=0.9)
        second.load_state_dict(first.state_dict())
        assert step_with(second, x, [-0.5]) == [-2.0]


def test_dead_zone():
    x = vector(0.0, 0.0, 0.0, 0.0)
    assert step_with(SignSubgradient([x], lr=1.0, dead_zone=0.5), x, [0.5, -0.6, 0.49, -0.1]) == [
        -1.0,
        1.0,
        0.0,
        0.0,
    ]


def test_weight_decay_is_decoupled():
    """θ ← (1 − lr·λ) θ − lr · sign(g), whatever the size of the gradient."""
    x = vector(2.0)
    assert step_with(SignSubgradient([x], lr=0.5, weight_decay=0.2), x, [1e-9])[0] == pytest.approx(
        0.9 * 2 - 0.5
    )


class TestRandomized:
    def test_its_mean_is_the_gradient_over_its_largest_entry(self):
        gradient = [4.0, -2.0, 1.0, 0.0]
        n, total = 4000, torch.zeros(4, dtype=torch.float64)
        x = vector(0.0, 0.0, 0.0, 0.0)
        optimizer = SignSubgradient([x], lr=1.0, randomized=True)
        for _ in range(n):
            before = x.detach().clone()
            step_with(optimizer, x, gradient)
            total += before - x.detach()
        assert set((before - x.detach()).tolist()) <= {-1.0, 1.0}
        torch.testing.assert_close(
            total / n,
            torch.tensor(gradient, dtype=torch.float64) / 4,
            rtol=0,
            atol=5 / math.sqrt(n),
        )

    def test_draws_are_a_function_of_seed_and_step(self):
        def path(seed, through_state):
            x = torch.zeros(50, dtype=torch.float64, requires_grad=True)
            optimizer = SignSubgradient([x], lr=1.0, randomized=True, seed=seed)
            for step in range(4):
                if through_state and step == 2:
                    state = optimizer.state_dict()
                    optimizer = SignSubgradient([x], lr=1.0, randomized=True, seed=seed)
                    optimizer.load_state_dict(state)
                step_with(optimizer, x, [0.1 * k for k in range(50)])
            return x.detach()

        assert torch.equal(path(0, False), path(0, True))
        assert not torch.equal(path(0, False), path(1, False))

    def test_tensors_draw_different_numbers_and_zero_gradients_stay(self):
        x, y, z = (torch.zeros(64, requires_grad=True) for _ in range(3))
        x.grad, y.grad, z.grad = torch.arange(64.0), torch.arange(64.0), torch.zeros(64)
        SignSubgradient([x, y, z], lr=1.0, randomized=True).step()
        assert not torch.equal(x, y)
        assert bool((z == 0).all())


class TestCapturable:
    def test_the_rate_may_be_a_tensor(self):
        x = vector(1.0, 1.0)
        rate = torch.tensor(0.25, dtype=torch.float64)
        optimizer = SignSubgradient([x], lr=rate, capturable=True, weight_decay=0.5)
        assert step_with(optimizer, x, [2.0, -2.0]) == pytest.approx([0.875 - 0.25, 0.875 + 0.25])

    def test_what_is_not_finite_shows_in_the_parameters(self):
        x = vector(1.0, 1.0, 1.0)
        moved = step_with(
            SignSubgradient([x], lr=0.5, capturable=True), x, [math.nan, math.inf, 1.0]
        )
        assert [math.isnan(value) for value in moved] == [True, True, False]


def test_constant_steps_end_in_a_cycle_of_the_size_of_the_step_around_the_bilinear_equilibrium():
    """The method's price: it neither converges nor diverges, and stays within a few steps of where
    it starts to circle."""
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
    ("options", "text"),
    [
        ({"lr": -1.0}, r"SignSubgradient: lr=-1\.0 must be at least 0"),
        ({"lr": 1.0, "epsilon": -1.0}, r"epsilon=-1\.0"),
        ({"lr": 1.0, "momentum": 1.0}, r"momentum=1\.0 must be less than 1"),
        ({"lr": 1.0, "dead_zone": -0.1}, r"dead_zone=-0\.1"),
        ({"lr": 1.0, "weight_decay": -0.1}, r"weight_decay=-0\.1"),
        (
            {"lr": 1.0, "randomized": True, "dead_zone": 0.1},
            "randomized cannot be combined with dead_zone",
        ),
        ({"lr": torch.tensor(1.0)}, "lr is a tensor"),
    ],
)
def test_options_are_checked(options, text):
    with pytest.raises(sp.UsageError, match=text):
        SignSubgradient([torch.ones(1, requires_grad=True)], **options)
