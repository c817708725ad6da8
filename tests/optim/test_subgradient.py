import math

import pytest
import torch

import saddlepoint as sp
from saddlepoint.optim import Ball, Box, Simplex, Subgradient
from saddlepoint.rules import Averaged, Extragradient


def vector(*values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def minimise(x, f, steps, **options):
    """Return the losses before each step, and the optimizer."""
    optimizer = Subgradient([x], **options)

    def closure():
        optimizer.zero_grad()
        loss = f(x)
        loss.backward()
        return loss.detach()

    losses = [float(optimizer.step(closure)) for _ in range(steps)]
    return losses, optimizer


class TestSteps:
    @pytest.mark.parametrize(
        ("step_size", "lengths"),
        [
            ("constant", [1, 1, 1, 1]),
            ("inverse_root", [1, 2**-0.5, 3**-0.5, 0.5]),
            ("inverse", [1, 1 / 2, 1 / 3, 1 / 4]),
        ],
    )
    def test_lengths(self, step_size, lengths):
        x = vector(0.0)
        _, _ = minimise(x, lambda x: -2 * x.sum(), 4, lr=0.3, step_size=step_size)
        assert x.item() == pytest.approx(0.3 * 2 * sum(lengths))

    def test_polyak_with_known_target_by_hand(self):
        """h = (f − f*) / ‖g‖² over both tensors: on |x| + 2|y| from (1, 1), (3 − 0) / 5."""
        x, y = vector(1.0), vector(1.0)
        optimizer = Subgradient(
            [{"params": [x]}, {"params": [y]}], lr=1.0, step_size="polyak", target=0.0
        )
        loss = x.abs().sum() + 2 * y.abs().sum()
        loss.backward()
        optimizer.step(lambda: loss.detach())
        assert (x.item(), y.item()) == (pytest.approx(1 - 3 / 5), pytest.approx(1 - 6 / 5))

    def test_polyak_converges_linearly_on_a_sharp_function_where_others_do_not(self):
        def f(x):
            return (x - 1).abs().sum() + 3 * x[0].abs()

        def error(**options):
            return minimise(vector(2.0, -1.0), f, 100, **options)[0][-1] - 1

        assert error(lr=1.0, step_size="polyak", target=1.0) < 1e-10
        assert error(lr=0.5) > 1e-3

    def test_polyak_with_estimated_target_comes_near_without_knowing_it(self):
        losses, _ = minimise(
            vector(2.0, -1.0),
            lambda x: (x - 1).abs().sum() + 3 * x[0].abs() + 7,
            2000,
            lr=1.0,
            step_size="polyak",
        )
        assert min(losses) - 8 < 0.02

    def test_polyak_never_steps_uphill_where_the_target_is_too_high(self):
        x = vector(1.0)
        minimise(x, lambda x: x.abs().sum(), 1, lr=1.0, step_size="polyak", target=5.0)
        assert x.item() == 1.0

    @pytest.mark.parametrize("options", [{"step_size": "polyak"}, {"average": "best"}])
    def test_without_the_loss_they_say_so(self, options):
        x = vector(1.0)
        optimizer = Subgradient([x], **options)
        x.grad = torch.ones_like(x)
        with pytest.raises(
            sp.UsageError,
            match=r"needs the loss of every step, a finite number, not None\. Call step\(closure\)",
        ):
            optimizer.step()
        assert x.item() == 1.0


class TestAverages:
    def iterates(self, average, steps, **options):
        x = vector(4.0)
        path = []

        def f(x):
            path.append(x.detach().clone())
            return x.abs().sum()

        _, optimizer = minimise(x, f, steps, average=average, **options)
        with optimizer.averaged():
            inside = x.detach().clone()
        assert x.item() != inside.item() or steps == 1
        return torch.stack(path), inside

    @pytest.mark.parametrize("steps", [1, 2, 7, 20])
    def test_ergodic_is_the_mean_weighted_by_the_steps(self, steps):
        path, average = self.iterates("ergodic", steps, lr=1.0)
        h = torch.arange(1, steps + 1, dtype=torch.float64).rsqrt()[:, None]
        torch.testing.assert_close(average, (h * path).sum(0) / h.sum())

    @pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 8, 9, 20])
    def test_suffix_is_the_mean_since_the_power_of_two_before_the_last(self, steps):
        path, average = self.iterates("suffix", steps, lr=0.3, step_size="constant")
        first = max(1, (1 << (steps.bit_length() - 1)) // 2)
        torch.testing.assert_close(average, path[first - 1 :].mean(0))
        assert len(path[first - 1 :]) >= steps / 2

    def test_best_is_the_iterate_of_least_loss(self):
        path, average = self.iterates("best", 20, lr=3.0)
        assert average.abs().item() == path.abs().min().item()

    @pytest.mark.parametrize("average", ["ergodic", "suffix", "best"])
    def test_a_state_dict_in_the_middle_changes_nothing(self, average):
        def path(through_state):
            x = vector(4.0, -1.0)
            optimizer = Subgradient([x], lr=1.0, average=average)
            for step in range(11):
                if through_state and step == 5:
                    state = optimizer.state_dict()
                    optimizer = Subgradient([x], lr=1.0, average=average)
                    optimizer.load_state_dict(state)
                loss = x.abs().sum()
                (x.grad,) = torch.autograd.grad(loss, x)
                optimizer.step(lambda loss=loss: loss.detach())
            with optimizer.averaged():
                return x.detach().clone()

        assert torch.equal(path(False), path(True))

    def test_there_is_none_before_the_first_step_or_when_not_asked_for(self):
        for optimizer in (Subgradient([vector(1.0)], average="suffix"), Subgradient([vector(1.0)])):
            with (
                pytest.raises(
                    sp.UsageError, match="Subgradient: there is no average of the iterates"
                ),
                optimizer.averaged(),
            ):
                pass


class TestInGames:
    def players(self):
        return {"x": [vector(0.5, -0.2)], "y": [vector(0.3, 0.9)]}

    def optimizer(self, rule=None, **options):
        players = self.players()
        x, y = players["x"][0], players["y"][0]
        made = sp.GameOptimizer({p: Subgradient(t, **options) for p, t in players.items()}, rule)
        return made, (lambda: {"x": (x * y).sum(), "y": -(x * y).sum()}), x

    def test_averages_of_all_players_are_entered_at_once(self):
        optimizer, losses, x = self.optimizer(lr=0.1, average="ergodic")
        for _ in range(5):
            optimizer.step(losses)
        outside = x.detach().clone()
        with optimizer.averaged():
            assert not torch.equal(x, outside)
        assert torch.equal(x, outside)
        assert optimizer.keeps_average

    def test_the_rule_s_own_average_comes_first(self):
        optimizer, losses, x = self.optimizer(Averaged(), lr=0.1)
        optimizer.step(losses)
        after = x.detach().clone()
        optimizer.step(losses)
        mean = (after + x.detach()) / 2
        with optimizer.averaged():
            torch.testing.assert_close(x.detach(), mean)
        assert optimizer.keeps_average

    def test_extragradient_averages_the_points_it_steps_from(self):
        """Both half steps begin at θ_t, so the average is over those, each with the weight of its
        two half steps."""
        optimizer, losses, x = self.optimizer(
            Extragradient(), lr=0.1, step_size="constant", average="ergodic"
        )
        path = []
        for _ in range(6):
            path.append(x.detach().clone())
            optimizer.step(losses)
        with optimizer.averaged():
            torch.testing.assert_close(x.detach(), torch.stack(path).mean(0))

    def test_polyak_gets_the_player_s_own_loss(self):
        optimizer, losses, x = self.optimizer(lr=1.0, step_size="polyak", target=-1.0)
        before, f = x.detach().clone(), float(losses()["x"].detach())
        gradient = torch.tensor([0.3, 0.9], dtype=torch.float64)
        optimizer.step(losses)
        torch.testing.assert_close(
            x.detach(), before - (f + 1) / gradient.square().sum() * gradient
        )

    @pytest.mark.parametrize("options", [{"step_size": "polyak"}, {"average": "best"}])
    def test_rules_whose_directions_do_not_belong_to_the_loss_say_so(self, options):
        with pytest.raises(
            sp.UsageError,
            match=(
                'Player "x": this Subgradient uses the value of the loss, but the directions of'
                " Extragradient are not"
            ),
        ):
            self.optimizer(Extragradient(), **options)
        self.optimizer(Averaged(), **options)


def box_game(n=4):
    """‖x − a‖₁ + xᵀM y − ‖y − b‖₁ on the box [−1, 1]²ⁿ; with |M b|, |Mᵀ a| < 1 in every entry the
    saddle is (a, b), of value aᵀM b."""
    generator = torch.Generator().manual_seed(3)
    a, b = (torch.rand(n, generator=generator, dtype=torch.float64) - 0.5 for _ in range(2))
    M = torch.randn(n, n, generator=generator, dtype=torch.float64)
    M *= 0.95 / max(float((M @ b).abs().max()), float((M.T @ a).abs().max()))
    value = float(a @ M @ b)

    def f(x, y):
        return (x - a).abs().sum() + x @ M @ y - (y - b).abs().sum()

    def largest(slope, centre):
        """max over u in [−1, 1] of slope · u − |u − centre|, entry by entry: it is at a corner or
        at the kink."""
        corners = torch.stack([torch.full_like(centre, -1.0), centre, torch.full_like(centre, 1.0)])
        return (slope * corners - (corners - centre).abs()).max(dim=0).values.sum()

    def gap(x, y):
        return float(
            (x - a).abs().sum() + largest(M.T @ x, b) + (y - b).abs().sum() + largest(-(M @ y), a)
        )

    return f, gap, value, (a, b)


def test_the_box_game_s_saddle_and_gap():
    _, gap, value, (a, b) = box_game()
    f = box_game()[0]
    assert gap(a, b) == pytest.approx(0.0, abs=1e-12)
    assert float(f(a, b)) == pytest.approx(value)
    assert gap(a + 0.1, b) > 0.01


def ergodic_gaps(horizons):
    """The gap at the average of projected simultaneous subgradient steps c/√t from a corner."""
    f, gap, _, _ = box_game()
    x, y = vector(1.0, -1.0, 1.0, -1.0), vector(-1.0, -1.0, 1.0, 1.0)
    inner = {
        p: Subgradient([t], lr=0.5, proximal=Box(-1.0, 1.0), average="ergodic")
        for p, t in (("x", x), ("y", y))
    }
    optimizer = sp.GameOptimizer(inner)
    gaps = []
    for t in range(1, max(horizons) + 1):
        optimizer.step(lambda: {"x": f(x, y), "y": -f(x, y)})
        if t in horizons:
            with optimizer.averaged():
                gaps.append(gap(x.detach(), y.detach()))
    return gaps, gap(x.detach(), y.detach())


def test_the_ergodic_gap_falls_like_one_over_the_root_of_the_steps():
    """Nedić and Ozdaglar (2009): O(1/√T) on a convex–concave game with kinks, a slope of −½; the
    measured one must be at most −0.45."""
    horizons = [2**k for k in range(5, 12)]
    gaps, _ = ergodic_gaps(horizons)
    logs = torch.tensor([[math.log(t), 1.0] for t in horizons], dtype=torch.float64)
    slope = float(
        torch.linalg.lstsq(logs, torch.tensor(gaps, dtype=torch.float64).log()[:, None]).solution[0]
    )
    assert slope <= -0.45
    assert all(value > 0 for value in gaps)


def test_a_matrix_game_on_simplices():
    """Rock, paper, scissors: the average of projected steps comes to even odds, the last iterate
    circles."""
    M = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]], dtype=torch.float64)
    x, y = vector(0.8, 0.1, 0.1), vector(0.1, 0.8, 0.1)
    optimizer = sp.GameOptimizer(
        {
            p: Subgradient([t], lr=0.5, proximal=Simplex(), average="ergodic")
            for p, t in (("x", x), ("y", y))
        }
    )
    for _ in range(1500):
        optimizer.step(lambda: {"x": x @ M @ y, "y": -(x @ M @ y)})
        assert x.sum().item() == pytest.approx(1.0)
    last = float((M.T @ x.detach()).max() - (M @ y.detach()).min())
    with optimizer.averaged():
        averaged = float((M.T @ x.detach()).max() - (M @ y.detach()).min())
    assert averaged < 0.03
    assert averaged < 0.3 * last


def test_projected_steps_stay_in_the_ball():
    x = vector(3.0, 4.0)
    minimise(x, lambda x: -x.sum(), 60, lr=1.0, step_size="constant", proximal=Ball(2.0))
    torch.testing.assert_close(
        x.detach(), torch.full((2,), math.sqrt(2.0), dtype=torch.float64), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"lr": -1.0}, r"Subgradient: lr=-1\.0 must be at least 0"),
        ({"slack": -1.0}, r"slack=-1\.0"),
        ({"step_size": "invers"}, r'step_size="invers" is unknown. Did you mean "inverse"\?'),
        ({"average": "sufix"}, r'average="sufix" is unknown. Did you mean "suffix"\?'),
    ],
)
def test_options_are_checked(options, text):
    with pytest.raises(sp.UsageError, match=text):
        Subgradient([vector(1.0)], **options)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_gradients_raise_and_nothing_moves(bad):
    x = vector(1.0, 1.0)
    x.grad = torch.tensor([1.0, bad], dtype=torch.float64)
    with pytest.raises(sp.DivergenceError, match="Subgradient: gradient 0"):
        Subgradient([x]).step()
    assert x.tolist() == [1.0, 1.0]
