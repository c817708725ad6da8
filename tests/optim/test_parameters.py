"""Every optimizer of this package on every kind of parameter: right, or refused by name before
anything moves."""

import copy
import pickle
import re

import pytest
import torch

import saddlepoint as sp
from saddlepoint.optim import (
    L1,
    SOAP,
    Ball,
    Box,
    Grafted,
    MomentumSGD,
    NormalizedSubgradient,
    RandomCoordinate,
    SignSubgradient,
    Simplex,
    SpectralNorm,
    Subgradient,
)
from saddlepoint.optim.random import uniform_like

OPTIMIZERS = {
    "sign": lambda p: SignSubgradient(p, lr=0.05),
    "signum": lambda p: SignSubgradient(p, lr=0.05, momentum=0.9, weight_decay=0.1),
    "dead zone": lambda p: SignSubgradient(p, lr=0.05, dead_zone=0.1),
    "randomised sign": lambda p: SignSubgradient(p, lr=0.05, randomized=True),
    "capturable sign": lambda p: SignSubgradient(p, lr=torch.tensor(0.05), capturable=True),
    "normalised": lambda p: NormalizedSubgradient(p, lr=0.05),
    "normalised per tensor": lambda p: NormalizedSubgradient(p, lr=0.05, per="tensor"),
    "grafted": lambda p: Grafted(p, lr=0.05),
    "grafted per tensor": lambda p: Grafted(p, lr=0.05, per="tensor"),
    "ergodic": lambda p: Subgradient(p, lr=0.1, average="ergodic"),
    "suffix": lambda p: Subgradient(p, lr=0.1, average="suffix"),
    "polyak, best": lambda p: Subgradient(p, lr=0.1, step_size="polyak", average="best"),
    "box": lambda p: Subgradient(p, lr=0.1, proximal=Box(-0.7, None)),
    "ball": lambda p: Subgradient(p, lr=0.1, proximal=Ball(1.0)),
    "l1": lambda p: Subgradient(p, lr=0.1, proximal=L1(0.1)),
    "spectral norm": lambda p: Subgradient(p, lr=0.1, proximal=SpectralNorm(1.0)),
    "random coordinates": lambda p: RandomCoordinate(p, lr=0.1),
    "negative momentum": lambda p: MomentumSGD(p, lr=0.05),
    "soap": lambda p: SOAP(p, lr=0.05, frequency=2),
}
LINEAR = (
    "normalised",
    "normalised per tensor",
    "grafted",
    "grafted per tensor",
    "ergodic",
    "suffix",
    "polyak, best",
    "negative momentum",
)
every = pytest.mark.parametrize("name", OPTIMIZERS)


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def path(name, parameters, steps=5, wanted=lambda step, index: True):
    """Move the parameters on gradients θ + noise; ``wanted`` says which have one."""
    optimizer = OPTIMIZERS[name](parameters)
    for step in range(steps):
        for index, p in enumerate(parameters):
            noise = draw(
                *p.shape,
                seed=100 * step + index,
                dtype=torch.complex128 if p.is_complex() else torch.float64,
            )
            p.grad = (p.detach() + 0.1 * noise).to(p.dtype) if wanted(step, index) else None
        optimizer.step(
            lambda: sum(float(p.detach().abs().double().square().sum()) for p in parameters)
        )
    return optimizer


def leaves(*tensors):
    return [t.detach().clone().requires_grad_() for t in tensors]


@every
def test_empty_tensors_change_nothing(name):
    alone, beside = (
        leaves(draw(3, 2)),
        leaves(draw(3, 2), *(torch.zeros(s) for s in ((0,), (0, 3), (3, 0), (2, 0, 3, 3)))),
    )
    path(name, alone), path(name, beside)
    assert torch.equal(alone[0], beside[0])
    path(name, leaves(torch.zeros(0)))


@every
def test_a_tensor_without_dimensions_moves_as_one_of_one_entry(name):
    single, vector = (
        leaves(torch.tensor(1.5, dtype=torch.float64)),
        leaves(torch.tensor([1.5], dtype=torch.float64)),
    )
    path(name, single), path(name, vector)
    assert single[0].item() == vector[0].item() != 1.5


@every
def test_strides_change_nothing(name):
    """channels_last, transposed, sliced: the values of a contiguous copy, in the strides that the
    parameter has."""
    given = [
        draw(4, 3, 2, 2).to(memory_format=torch.channels_last),
        draw(3, 4, seed=1).T,
        draw(8, 3, seed=2)[::2].t(),
    ]
    plain, strided = (
        leaves(*(t.contiguous() for t in given)),
        [t.clone(memory_format=torch.preserve_format).requires_grad_() for t in given],
    )
    strides = [p.stride() for p in strided]
    assert not any(p.is_contiguous() for p in strided[:2])
    path(name, plain), path(name, strided)
    for a, b in zip(plain, strided, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert [p.stride() for p in strided] == strides


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_follows_finer_precision_to_its_own_rounding(name, dtype):
    start = draw(4, 3)
    # each has draws of its own
    finer = torch.float32 if name in ("randomised sign", "random coordinates") else torch.float64
    half, fine = leaves(start.to(dtype)), leaves(start.to(dtype).to(finer))
    path(name, half), path(name, fine)
    assert half[0].dtype == dtype
    torch.testing.assert_close(half[0].to(finer), fine[0], rtol=0, atol=20 * torch.finfo(dtype).eps)


@every
def test_precisions_mix_in_a_group(name):
    """Each tensor moves as far as in double precision, to its own precision."""
    start = [draw(3, 2), draw(2, 2, 2, seed=1), draw(4, seed=2)]
    mixed = leaves(
        *(
            t.to(d)
            for t, d in zip(start, (torch.float32, torch.float64, torch.float32), strict=True)
        )
    )
    double = leaves(*(t.detach().double() for t in mixed))
    path(name, mixed), path(name, double)
    if name in ("randomised sign", "random coordinates"):  # float32 has draws of its own
        mixed, double = mixed[1:2], double[1:2]
    for a, b in zip(mixed, double, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=0, atol=1e-4)


@every
def test_complex_parameters_move_as_their_real_and_imaginary_parts_or_are_refused(name):
    start = draw(3, 2, dtype=torch.complex128)
    (z,) = leaves(start)
    if name not in LINEAR:
        text = (
            "parameter 0, shape (3, 2), is complex (torch.complex128), but the update is defined"
            " for real numbers. Use"
        )
        with pytest.raises(sp.UsageError, match=re.escape(text)) as caught:
            OPTIMIZERS[name]([z])
        assert "torch.view_as_real(p)" in str(caught.value)
        return
    (real,) = leaves(torch.view_as_real(start))
    of_complex, of_real = OPTIMIZERS[name]([z]), OPTIMIZERS[name]([real])
    for step in range(4):
        z.grad = z.detach() + draw(3, 2, seed=step, dtype=torch.complex128)
        real.grad = torch.view_as_real(z.grad)
        for optimizer in (of_complex, of_real):
            optimizer.step(lambda step=step: 5.0 - step)
    torch.testing.assert_close(torch.view_as_real(z.detach()), real.detach())
    if of_complex.state[z].get("average") is not None:
        torch.testing.assert_close(
            torch.view_as_real(of_complex.state[z]["average"]), of_real.state[real]["average"]
        )


@every
def test_complex_parameters_are_refused_also_in_a_group_that_is_added_and_the_group_is_not_kept(
    name,
):
    if name in LINEAR:
        return
    (x,) = leaves(draw(2))
    optimizer = OPTIMIZERS[name]([x])
    with pytest.raises(sp.UsageError, match="parameter 1, shape"):
        optimizer.add_param_group({"params": leaves(draw(2, dtype=torch.complex128))})
    assert len(optimizer.param_groups) == 1


@every
@pytest.mark.parametrize("named", [False, True])
def test_sparse_gradients_are_refused_by_name_and_nothing_moves(name, named):
    table = torch.nn.Embedding.from_pretrained(draw(5, 2), freeze=False, sparse=True)
    bias = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    weights = [("bias", bias), ("table.weight", table.weight)]
    optimizer = OPTIMIZERS[name](weights if named else [p for _, p in weights])
    (table(torch.tensor([1, 3])).sum() + bias.sum()).backward()
    before = table.weight.detach().clone()
    label = '"table.weight"' if named else "1"
    with pytest.raises(
        sp.UsageError,
        match=rf"the gradient of parameter {label}, shape \(5, 2\), is sparse.*sparse=False",
    ):
        optimizer.step(lambda: 1.0)
    assert bool((bias == 1).all())
    assert torch.equal(table.weight, before)


@every
def test_whether_others_have_a_gradient_changes_no_draw_and_no_memory_of_a_parameter(name):
    """Norms over the whole player are meant to depend on the others; Polyak's step and a fitted
    length are such norms."""
    if name in ("normalised", "grafted", "polyak, best"):
        return
    alone, all_of_them = leaves(draw(6), draw(3, 2, seed=1)), leaves(draw(6), draw(3, 2, seed=1))
    path(name, all_of_them)
    path(name, alone, wanted=lambda step, index: index == 1)  # the first is frozen throughout
    assert torch.equal(alone[1], all_of_them[1])
    thawed = leaves(draw(6), draw(3, 2, seed=1))
    path(name, thawed, wanted=lambda step, index: index == 1 or step >= 2)
    assert torch.equal(thawed[1], all_of_them[1])


@pytest.mark.parametrize("name", ["randomised sign", "random coordinates"])
def test_a_name_has_its_draws_in_whichever_order_it_is_given(name):
    ends = []
    for turned in (False, True):
        x, y = leaves(draw(40), draw(40, seed=1))
        given = [("x", x), ("y", y)]
        optimizer = OPTIMIZERS[name](given[::-1] if turned else given)
        x.grad, y.grad = draw(40, seed=2), draw(40, seed=3)
        optimizer.step()
        ends.append(torch.stack([x, y]))
    assert torch.equal(*ends)


def test_draws_in_half_precision_are_as_fine_as_in_single():
    """Numbers of eight bits would choose a coordinate of probability 0.001 four times too often."""
    drawn = uniform_like(torch.zeros(200_000, dtype=torch.bfloat16), 0, "0", 1)
    assert float((drawn < 1e-3).double().mean()) == pytest.approx(1e-3, rel=0.25)


class TestHalf:
    def test_a_running_mean_does_not_stall(self):
        """The ergodic mean of 0 … 1 over 1,000 steps; in bfloat16 the 1/t of a late iterate would
        be rounded off."""
        x = torch.zeros(1, dtype=torch.bfloat16, requires_grad=True)
        optimizer, sum_ = Subgradient([x], lr=1.0, step_size="constant", average="ergodic"), 0.0
        for step in range(1000):
            with torch.no_grad():
                x.fill_(step / 1000)
            sum_ += x.item()
            x.grad = torch.zeros(1, dtype=torch.bfloat16)
            optimizer.step()
        assert optimizer.state[x]["average"].item() == pytest.approx(sum_ / 1000, abs=1e-4)

    def test_momentum_sees_gradients_that_are_the_smallest_of_half_precision(self):
        x = torch.ones(1, dtype=torch.float16, requires_grad=True)
        optimizer = SignSubgradient([x], lr=0.25, momentum=0.99)
        x.grad = torch.full((1,), 6e-8, dtype=torch.float16)
        optimizer.step()
        assert x.item() == 0.75

    @pytest.mark.parametrize("per", ["player", "tensor"])
    def test_a_norm_below_the_range_of_half_precision(self, per):
        x = torch.ones(1, dtype=torch.float16, requires_grad=True)
        x.grad = torch.full((1,), 6e-8, dtype=torch.float16)
        NormalizedSubgradient([x], lr=0.25, per=per).step()
        assert x.item() == 0.75

    def test_a_large_tensor_s_norm_does_not_empty_a_ball(self):
        x = torch.full((100,), 300.0, dtype=torch.float16)
        torch.testing.assert_close(
            Ball(1.0).apply(x, 0.1), torch.full((100,), 0.1, dtype=torch.float16)
        )
        assert Ball(1.0).apply(torch.full((4,), 1e30), 0.1).tolist() == [0.5] * 4

    def test_maps_that_sum_or_decompose(self):
        wide = draw(3, 600).float()
        for proximal in (Simplex(), SpectralNorm(1.0)):
            found = proximal.apply(wide.bfloat16(), 0.1)
            assert found.dtype == torch.bfloat16
            torch.testing.assert_close(
                found.float(), proximal.apply(wide.bfloat16().float(), 0.1), rtol=0.01, atol=1e-3
            )

    @pytest.mark.parametrize("name", ["signum", "ergodic", "suffix", "negative momentum", "soap"])
    def test_a_state_keeps_the_precision_of_what_is_remembered(self, name):
        ends = []
        for interrupted in (False, True):
            parameters = leaves(draw(4, 3).bfloat16())
            optimizer = OPTIMIZERS[name](parameters)
            for step in range(6):
                if interrupted and step == 3:
                    state = optimizer.state_dict()
                    optimizer = OPTIMIZERS[name](parameters)
                    optimizer.load_state_dict(state)
                parameters[0].grad = draw(4, 3, seed=step).bfloat16()
                optimizer.step()
            ends.append(
                next(
                    v
                    for k, v in optimizer.state[parameters[0]].items()
                    if k in ("momentum_buffer", "average", "update", "exp_avg")
                )
            )
        assert ends[0].dtype == torch.float32
        assert torch.equal(*ends)


class TestFrozenAndThawed:
    def mean(self, average, moves, steps=13):
        """The mean of a path of which the second parameter's gradients are missing where ``moves``
        says so, and the path itself."""
        x, y = leaves(torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
        optimizer, points = Subgradient([x, y], lr=1.0, average=average), []
        for step in range(1, steps + 1):
            points.append(torch.cat([x, y]).detach())
            x.grad = -torch.ones(1, dtype=torch.float64)
            y.grad = -torch.ones(1, dtype=torch.float64) if moves(step) else None
            optimizer.step()
        with optimizer.averaged():
            return torch.stack(points), torch.cat([x, y]).detach()

    MOVES = {  # noqa: RUF012
        "late": lambda step: step >= 6,
        "frozen for a while": lambda step: step not in (3, 4, 5, 6, 7),
        "frozen over two powers of two": lambda step: step < 3 or step > 10,
        "frozen at the end": lambda step: step < 5,
        "every third": lambda step: step % 3 == 0,
    }

    @pytest.mark.parametrize("moves", MOVES.values(), ids=MOVES)
    def test_the_ergodic_mean_is_that_of_the_whole_player_s_iterates(self, moves):
        points, average = self.mean("ergodic", moves)
        h = torch.arange(1, len(points) + 1, dtype=torch.float64).rsqrt()[:, None]
        torch.testing.assert_close(average, (h * points).sum(0) / h.sum())

    @pytest.mark.parametrize("moves", MOVES.values(), ids=MOVES)
    def test_the_suffix_mean_likewise(self, moves):
        points, average = self.mean("suffix", moves)
        # since the power of two before the last one below 13
        torch.testing.assert_close(average, points[4 - 1 :].mean(0))

    def test_the_best_iterate_is_one_of_all_parameters(self):
        x, y = leaves(torch.ones(1), torch.full((1,), 5.0))
        optimizer = Subgradient([x, y], lr=1.0, step_size="constant", average="best")
        x.grad = torch.ones(1)
        optimizer.step(lambda: 0.0)  # the least loss, with y frozen at 5
        y.grad = torch.ones(1)
        optimizer.step(lambda: 1.0)
        with optimizer.averaged():
            assert (x.item(), y.item()) == (1.0, 5.0)
        assert (x.item(), y.item()) == (-1.0, 4.0)

    def test_polyak_s_target_is_remembered_when_the_first_group_is_frozen_and_another_added(self):
        x, y = leaves(torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
        optimizer = Subgradient([x], lr=1.0, step_size="polyak", slack=1.0)
        x.grad = torch.ones(1, dtype=torch.float64)
        optimizer.step(lambda: 2.0)
        optimizer.add_param_group({"params": [y]})
        x.grad, y.grad = None, torch.ones(1, dtype=torch.float64)
        optimizer.step(lambda: 5.0)  # target 2 − 1/√2, so that h = 5 − 2 + 1/√2
        assert y.item() == pytest.approx(-(3 + 0.5**0.5))

    @every
    def test_a_group_added_later_starts_as_it_would_in_an_optimizer_of_its_own(self, name):
        if name in (
            "normalised",
            "grafted",
            "polyak, best",
            "randomised sign",
            "random coordinates",
        ):
            return  # norms over the player, and draws by place, depend on what is there
        first, late = leaves(draw(3, 2), draw(3, 2, seed=1))
        (copied,) = leaves(draw(3, 2, seed=1))
        optimizer, own = OPTIMIZERS[name]([first]), OPTIMIZERS[name]([copied])
        for step in range(6):
            if step == 2:
                optimizer.add_param_group({"params": [late]})
            first.grad = draw(3, 2, seed=10 + step)
            late.grad = copied.grad = draw(3, 2, seed=20 + step)
            optimizer.step(lambda: 1.0)
            if step >= 2:
                own.step(lambda: 1.0)
        torch.testing.assert_close(late, copied)


class TestLive:
    """Options are options at any time: what a group is given after construction is checked in the
    step that would use it."""

    @every
    @pytest.mark.parametrize("option", ["lr", "maximize"])
    def test_a_bad_option_set_later_is_refused_and_nothing_moves(self, name, option):
        x, y = leaves(draw(2), draw(2, seed=1))
        optimizer = OPTIMIZERS[name]([{"params": [x]}, {"params": [y]}])
        x.grad, y.grad = draw(2, seed=2), draw(2, seed=3)
        if name.startswith("grafted") and option == "lr":
            return  # the rate is that of Adam, which judges it
        optimizer.param_groups[1][option] = {"lr": -0.1, "maximize": True}[option]
        before = x.detach().clone()
        with pytest.raises(
            sp.UsageError,
            match=r"lr=-0\.1 must be at least 0" if option == "lr" else "maximize=True",
        ):
            optimizer.step(lambda: 1.0)
        assert torch.equal(x, before)

    @every
    def test_a_bad_option_of_a_group_is_refused_at_construction(self, name):
        if name.startswith("grafted"):
            return
        with pytest.raises(sp.UsageError, match=r"lr=-1\.0 must be at least 0"):
            OPTIMIZERS[name]([{"params": leaves(draw(2)), "lr": -1.0}])

    def test_torch_s_options_that_an_optimizer_does_not_have_are_not_ignored(self):
        for make in (
            lambda g: MomentumSGD(g, lr=0.1),
            lambda g: RandomCoordinate(g),
            lambda g: Subgradient(g),
        ):
            with pytest.raises(
                sp.UsageError,
                match=r"sets weight_decay=0\.1, which \w+ does not have and would ignore",
            ):
                make([{"params": leaves(draw(2)), "weight_decay": 0.1}])

    def test_a_grafted_length_says_nothing_of_the_sign(self):
        with pytest.raises(sp.UsageError, match="Grafted: the inner optimizer has maximize=True"):
            Grafted(leaves(draw(2)), options={"maximize": True})
        with pytest.raises(sp.UsageError, match="Grafted: LBFGS evaluates a closure of its own"):
            Grafted(leaves(draw(2)), magnitude=torch.optim.LBFGS)

    @every
    def test_a_schedule_to_zero_ends_at_zero_also_up_to_rounding(self, name):
        (x,) = leaves(draw(3))
        optimizer = OPTIMIZERS[name]([x])
        before = x.detach().clone()
        optimizer.param_groups[0].update(
            lr=0.0, **({"weight_decay": 0.0} if name == "signum" else {})
        )
        x.grad = torch.ones_like(x)
        if name not in ("ball", "l1", "box"):
            for _ in range(2):
                optimizer.step(lambda: 1.0)
            torch.testing.assert_close(x, before)
        optimizer.param_groups[0]["lr"] = -1e-17
        optimizer.step(lambda: 1.0)

    @pytest.mark.parametrize(
        "name", [n for n in OPTIMIZERS if "sign" not in n and n not in ("dead zone", "signum")]
    )
    def test_a_rate_may_be_a_tensor(self, name):
        ends = []
        for rate in (0.05, torch.tensor(0.05, dtype=torch.float64)):
            (x,) = leaves(draw(3, 2))
            optimizer = OPTIMIZERS[name]([x])
            optimizer.param_groups[0]["lr"] = rate
            for step in range(3):
                x.grad = draw(3, 2, seed=step)
                optimizer.step(lambda: 1.0)
            ends.append(x.detach())
        torch.testing.assert_close(*ends)

    @pytest.mark.parametrize("rate", ["0.1", torch.ones(2), None])
    def test_a_rate_that_is_no_number(self, rate):
        with pytest.raises(sp.UsageError, match=r"MomentumSGD: lr=.* must be a number"):
            MomentumSGD(leaves(draw(2)), lr=rate)

    def test_a_map_may_be_set_as_itself(self):
        (x,) = leaves(torch.full((2,), -3.0))
        optimizer = Subgradient([x], lr=0.1)
        optimizer.param_groups[0]["proximal"] = Box(0.0, None)
        x.grad = torch.zeros(2)
        optimizer.step()
        assert x.tolist() == [0.0, 0.0]
        optimizer.param_groups[0]["proximal"] = {"name": "bxo"}
        with pytest.raises(sp.UsageError, match='Unknown proximal map "bxo"'):
            optimizer.step()


@pytest.mark.parametrize(
    "again",
    [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))],
    ids=["deepcopy", "pickle"],
)
def test_copies_of_a_grafted_optimizer_take_new_groups_and_schedules(again):
    (x,) = leaves(draw(2))
    x.grad = None
    x, optimizer = again((x, Grafted([x], lr=0.1)))
    optimizer.add_param_group({"params": leaves(draw(2, seed=1)), "lr": 0.5})
    assert [group["lr"] for group in optimizer._inner.param_groups] == [0.1, 0.5]
    assert optimizer.param_groups is optimizer._inner.param_groups


def test_a_group_added_to_a_grafted_subgradient_method_may_have_a_map():
    optimizer = Grafted(leaves(draw(2)), lr=0.1, magnitude=Subgradient)
    optimizer.add_param_group({"params": leaves(draw(2)), "proximal": Box(-1.0, 1.0)})
    assert optimizer.param_groups[1]["proximal"] == {"name": "box", "low": -1.0, "high": 1.0}
