"""Every optimizer of this package as either player's, under every rule."""

import copy
import pickle

import pytest
import torch

import saddlepoint as sp
from saddlepoint.games import zero_sum
from saddlepoint.optim import (
    SOAP,
    Box,
    Grafted,
    MomentumSGD,
    NormalizedSubgradient,
    RandomCoordinate,
    SignSubgradient,
    Subgradient,
)
from saddlepoint.rules import GradientDescent
from tests.conformance.test_rules import RULES, STACKELBERG

OPTIMIZERS = {
    "sign": lambda p: SignSubgradient(p, lr=0.05),
    "signum": lambda p: SignSubgradient(p, lr=0.05, momentum=0.9, weight_decay=0.1),
    "sign with a dead zone": lambda p: SignSubgradient(p, lr=0.05, dead_zone=1e-3),
    "randomised sign": lambda p: SignSubgradient(p, lr=0.05, randomized=True),
    "normalised": lambda p: NormalizedSubgradient(p, lr=0.05),
    "normalised per tensor": lambda p: NormalizedSubgradient(p, lr=0.05, per="tensor"),
    "grafted": lambda p: Grafted(p, lr=0.05),
    "subgradient": lambda p: Subgradient(p, lr=0.1, average="ergodic"),
    "subgradient in a box": lambda p: Subgradient(
        p, lr=0.1, step_size="inverse", proximal=Box(-0.7, 0.7), average="suffix"
    ),
    "random coordinates": lambda p: RandomCoordinate(p, lr=0.1, probability=0.5),
    "negative momentum": lambda p: MomentumSGD(p, lr=0.05),
    "soap": lambda p: SOAP(p, lr=0.05),
}
ALL_RULES = {**RULES, **STACKELBERG}
STEPPING = sorted(name for name, rule in ALL_RULES.items() if rule.output == "update")
SCALING = sorted(name for name, rule in ALL_RULES.items() if rule.output == "gradient")


def run(rule, make, which, steps=4, break_at=None):
    """The end of a short run in which the players named move by ``make`` and others by SGD, broken
    by a state_dict where wanted."""
    game = zero_sum(-6.0, 4.0, -2.0, (0.5, 0.3))

    def optimizer():
        inner = {
            p: make(t) if p in which else torch.optim.SGD(t, lr=0.05)
            for p, t in game.players.items()
        }
        return sp.GameOptimizer(inner, rule)

    current = optimizer()
    for step in range(steps):
        if step == break_at:
            state = copy.deepcopy(current.state_dict())
            current = optimizer()
            current.load_state_dict(state)
        current.step(game.losses)
    return game.theta.detach()


@pytest.mark.filterwarnings(
    "ignore::saddlepoint.errors.SolverWarning", "ignore::saddlepoint.errors.CurvatureWarning"
)
@pytest.mark.parametrize("rule", SCALING)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_for_either_player_under_every_rule_that_returns_a_gradient(name, rule):
    for which in (("x",), ("y",), ("x", "y")):
        straight = run(ALL_RULES[rule], OPTIMIZERS[name], which)
        assert bool(straight.isfinite().all())
        assert not torch.equal(straight, torch.tensor([0.5, 0.3], dtype=torch.float64))
        assert torch.equal(straight, run(ALL_RULES[rule], OPTIMIZERS[name], which, break_at=2)), (
            "a run through state_dict differs"
        )


@pytest.mark.parametrize("rule", STEPPING)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rules_that_return_updates_refuse_them_and_say_why(name, rule):
    with pytest.raises(
        sp.UsageError, match="returns updates that already contain the learning rate"
    ):
        run(ALL_RULES[rule], OPTIMIZERS[name], ("x",))


@pytest.mark.parametrize(
    "again",
    [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))],
    ids=["deepcopy", "pickle"],
)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_copy_goes_on_as_the_original_does(name, again):
    x = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64, requires_grad=True)
    optimizer = OPTIMIZERS[name]([x])
    ends = []
    for step in range(2):
        x.grad = 2 * x.detach() + step
        optimizer.step()
    for parameter, current in (again((x, optimizer)), (x, optimizer)):
        for step in range(3):
            parameter.grad = 2 * parameter.detach() - step
            current.step()
        ends.append(parameter.detach())
    assert torch.equal(*ends)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_checkpoint_loads_without_executing_anything(name, tmp_path):
    game = zero_sum(-6.0, 4.0, -2.0)
    optimizer = sp.GameOptimizer(
        {p: OPTIMIZERS[name](t) for p, t in game.players.items()}, GradientDescent()
    )
    optimizer.step(game.losses)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    optimizer.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    optimizer.step(game.losses)
