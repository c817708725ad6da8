"""The result of a step, and how often a step waits for the device."""

import copy
import math
from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import saddlepoint as sp

ONE_TRANSFER = {
    "gradient": sp.GradientDescent(),
    "optimistic": sp.Optimistic(),
    "past extragradient": sp.PastExtragradient(),
    "extragradient": sp.Extragradient(keep_state=False),
    "runge-kutta": sp.RungeKutta(),
    "consensus": sp.Consensus(),
    "hamiltonian": sp.Hamiltonian(),
    "jare": sp.JacobianRegularized(),
    "lola": sp.LOLA(alpha=0.1),
    "linearised cgd": sp.LinearizedCompetitiveGradient(),
    "lookahead": sp.Lookahead(k=2),
    "averaged": sp.Averaged(),
}


class Transfers(TorchDispatchMode):
    """Counts what makes the host wait for a device: .item(), float(), bool() and .tolist()."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            self.count += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def counted(monkeypatch):
    transfers, tolist = Transfers(), torch.Tensor.tolist

    def counted_tolist(tensor):
        transfers.count += 1
        return tolist(tensor)

    with monkeypatch.context() as patch, transfers:
        patch.setattr(torch.Tensor, "tolist", counted_tolist)
        yield transfers


def game():
    x, y = (torch.full((3,), 0.5, requires_grad=True) for _ in range(2))

    def losses():
        f = (x * y).sum() + 0.1 * x.square().sum() - 0.1 * y.square().sum()
        return {"x": f, "y": {"payoff": -f, "decay": 0.1 * y.square().sum()}}

    return {"x": x, "y": y}, losses


def optimizer_of(players, rule, **options):
    inner = {p: torch.optim.SGD([t], lr=0.1, foreach=False) for p, t in players.items()}
    return sp.GameOptimizer(inner, rule, **options)


@pytest.mark.parametrize("name", ONE_TRANSFER)
def test_a_step_waits_for_the_device_once(name, monkeypatch):
    players, losses = game()
    optimizer = optimizer_of(players, ONE_TRANSFER[name])
    optimizer.step(losses)  # the first step makes checks that later ones need not repeat
    with counted(monkeypatch) as transfers:
        result = optimizer.step(losses)
        assert transfers.count == 1
        assert set(result.losses) == set(result.direction_norms) == {"x", "y"}
    assert transfers.count == 1


@pytest.mark.parametrize("name", ONE_TRANSFER)
def test_unchecked_steps_do_not_wait_before_the_result_is_read(name, monkeypatch):
    (checked, losses), (unchecked, same_losses) = game(), game()
    with_check = optimizer_of(checked, ONE_TRANSFER[name])
    without = optimizer_of(unchecked, ONE_TRANSFER[name], check_finite=False)
    with_check.step(losses), without.step(same_losses)
    due = with_check.step(losses)
    with counted(monkeypatch) as transfers:
        result = without.step(same_losses)
        assert transfers.count == 0
        assert result.losses == due.losses
        assert result.terms == due.terms
        assert result.gradient_norms == due.gradient_norms
        assert result.direction_norms == due.direction_norms
        assert transfers.count == 1
    assert all(torch.equal(checked[p], unchecked[p]) for p in checked)


def test_unchecked_steps_take_what_is_not_finite():
    x = torch.ones(2, requires_grad=True)
    optimizer = optimizer_of({"x": x}, sp.GradientDescent(), check_finite=False)
    result = optimizer.step(lambda: {"x": (x * math.nan).sum()})
    assert math.isnan(result.losses["x"])
    assert x.isnan().all()


@pytest.mark.parametrize("check_finite", [True, False])
def test_a_solve_that_meets_what_is_not_finite_moves_nothing(check_finite):
    """f = ⅔ x^(3/2) has a slope at 0, and no curvature there."""
    x = torch.ones(2, requires_grad=True)
    optimizer = optimizer_of({"x": x}, sp.Newton(), check_finite=check_finite)
    optimizer.step(lambda: {"x": x.square().sum()})
    with torch.no_grad():
        x.zero_()
    with pytest.raises(sp.DivergenceError, match='The solve "x" of Newton met a number'):
        optimizer.step(lambda: {"x": x.sum() + (x**1.5).sum()})
    assert torch.equal(x, torch.zeros(2))


@pytest.mark.parametrize("rule", [sp.Extragradient(keep_state=False), sp.Extragradient()])
def test_a_loss_that_is_not_finite_is_named_and_moves_nothing(rule):
    x = torch.ones(2, requires_grad=True)
    optimizer = sp.GameOptimizer({"x": torch.optim.Adam([x], lr=0.1)}, rule)
    optimizer.step(lambda: {"x": x.square().sum()})
    before, state = x.detach().clone(), copy.deepcopy(optimizer.state_dict())
    with pytest.raises(sp.DivergenceError, match='The loss of player "x" is nan'):
        optimizer.step(lambda: {"x": (x * math.nan).sum()})
    assert torch.equal(x, before)
    found = optimizer.state_dict()["optimizers"]["x"]["state"][0]
    for key, value in state["optimizers"]["x"]["state"][0].items():
        assert torch.equal(found[key], value), key


def test_the_result_holds_no_graph():
    players, losses = game()
    result = optimizer_of(players, sp.Consensus(), check_finite=False).step(losses)
    held = [value for value in vars(result).values() if isinstance(value, torch.Tensor)]
    assert not any(value.requires_grad for value in held)
