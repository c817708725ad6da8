import math

import pytest
import torch

import saddlepoint as sp
from saddlepoint.optim import Grafted, NormalizedSubgradient


def parameters(*sizes, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    made = [torch.zeros(size, dtype=dtype, requires_grad=True) for size in sizes]
    for p in made:
        p.grad = torch.randn(p.shape, generator=generator, dtype=dtype)
    return made


class TestNormalized:
    def test_per_player_is_one_norm_over_all_groups(self):
        x, y = parameters(3, 4)
        whole = torch.cat([x.grad, y.grad])
        NormalizedSubgradient([{"params": [x]}, {"params": [y], "lr": 0.5}], lr=2.0).step()
        torch.testing.assert_close(x.detach(), -2.0 * x.grad / whole.norm())
        torch.testing.assert_close(y.detach(), -0.5 * y.grad / whole.norm())

    def test_per_tensor_every_tensor_moves_as_far(self):
        x, y = parameters(3, 4)
        NormalizedSubgradient([x, y], lr=2.0, per="tensor").step()
        torch.testing.assert_close(x.detach(), -2.0 * x.grad / x.grad.norm())
        assert float(y.detach().norm()) == pytest.approx(2.0)

    @pytest.mark.parametrize("size", [1e-36, 1e-30, 1e-20, 1.0, 1e20, 1e34])
    def test_the_length_does_not_depend_on_the_size_of_the_gradient_also_in_single_precision(
        self, size
    ):
        (x,) = parameters(300_000, dtype=torch.float32)
        x.grad = torch.linspace(-1, 1, 300_000) * size
        NormalizedSubgradient([x], lr=1.0).step()
        assert float(x.detach().double().norm()) == pytest.approx(1.0, rel=1e-4)

    def test_a_zero_gradient_does_not_move(self):
        x, y = parameters(3, 2)
        x.grad = torch.zeros(3, dtype=torch.float64)
        y.grad = torch.zeros(2, dtype=torch.float64)
        NormalizedSubgradient([x, y], lr=1.0).step()
        assert x.tolist() == [0.0, 0.0, 0.0]

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_non_finite_gradients_raise_and_nothing_moves(self, bad):
        x, y = parameters(3, 2)
        y.grad[0] = bad
        with pytest.raises(
            sp.DivergenceError, match=r"NormalizedSubgradient: gradient 1, shape \(2,\)"
        ):
            NormalizedSubgradient([x, y], lr=1.0).step()
        assert x.tolist() == [0.0, 0.0, 0.0]

    @pytest.mark.parametrize(
        ("options", "text"),
        [({"lr": -1.0}, r"lr=-1\.0"), ({"lr": 1.0, "per": "layer"}, 'per="layer" must be')],
    )
    def test_options_are_checked(self, options, text):
        with pytest.raises(sp.UsageError, match=text):
            NormalizedSubgradient(parameters(1), **options)


class TestGrafted:
    @pytest.mark.parametrize("per", ["player", "tensor"])
    def test_five_steps_by_hand(self, per):
        """Adam's length, the gradient's direction; Adam sees the gradients of the grafted path."""
        x, y = parameters(3, 2)
        copies = [p.detach().clone().requires_grad_() for p in (x, y)]
        grafted, adam = Grafted([x, y], lr=0.1, per=per), torch.optim.Adam(copies, lr=0.1)
        for _ in range(5):
            for p, c in zip((x, y), copies, strict=True):
                p.grad = 2 * (p.detach() - 1) * torch.arange(1.0, p.numel() + 1)
                c.grad = p.grad.clone()
            before = [c.detach().clone() for c in copies]
            adam.step()
            moves = [c.detach() - b for c, b in zip(copies, before, strict=True)]
            for c, b, m in zip(copies, before, moves, strict=True):
                length = m.norm() if per == "tensor" else torch.cat(moves).norm()
                norm = (
                    c.grad.norm() if per == "tensor" else torch.cat([c.grad for c in copies]).norm()
                )
                c.data = b - length * c.grad / norm
            grafted.step()
            for p, c in zip((x, y), copies, strict=True):
                torch.testing.assert_close(p, c)

    def test_onto_sgd_it_is_sgd(self):
        x, y = parameters(3, 2)
        Grafted([x, y], lr=0.5, magnitude=torch.optim.SGD).step()
        torch.testing.assert_close(y.detach(), -0.5 * y.grad)

    def test_schedulers_and_state_reach_the_inner_optimizer(self):
        def path(through_state):
            x, y = parameters(3, 2)
            optimizer = Grafted(
                [{"params": [x]}, {"params": [y], "lr": 0.5}], lr=0.1, options={"betas": (0.5, 0.9)}
            )
            schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
            for step in range(6):
                if through_state and step == 3:
                    state, rates = optimizer.state_dict(), schedule.state_dict()
                    optimizer = Grafted([{"params": [x]}, {"params": [y]}], lr=9.0)
                    optimizer.load_state_dict(state)
                    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
                    schedule.load_state_dict(rates)
                    for group, rate in zip(
                        optimizer.param_groups, schedule.get_last_lr(), strict=True
                    ):
                        group["lr"] = rate
                for p in (x, y):
                    p.grad = 2 * (p.detach() - 1)
                optimizer.step()
                schedule.step()
            assert optimizer.param_groups[1]["lr"] == 0.5 / 64
            return torch.cat([x, y]).detach()

        assert torch.equal(path(False), path(True))

    def test_options_are_checked(self):
        with pytest.raises(sp.UsageError, match="Grafted: the inner optimizer refuses its options"):
            Grafted(parameters(1), options={"momentum": 1.0})
        with pytest.raises(sp.UsageError, match="per="):
            Grafted(parameters(1), per="layer")

    def test_closures_zero_gradients_and_nothing_to_do(self):
        (x,) = parameters(2)
        optimizer = Grafted([x], lr=0.1)
        x.grad = None
        optimizer.step()

        def closure():
            x.grad = torch.zeros(2, dtype=torch.float64)
            return 3.0

        assert optimizer.step(closure) == 3.0
        assert x.tolist() == [0.0, 0.0]
