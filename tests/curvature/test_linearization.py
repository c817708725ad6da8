import pytest
import torch

import saddlepoint as sp


@pytest.fixture
def x():
    return torch.tensor([3.0], requires_grad=True)


def evaluate(x, returned, order=1):
    return sp.Linearization(
        {"x": (x,), "y": (torch.ones(1, requires_grad=True),)}, lambda: returned, order=order
    )


def test_named_terms_are_summed(x):
    linearization = evaluate(x, {"x": {"data": (x**2).sum(), "penalty": 2 * x.sum()}})
    assert linearization.losses == {"x": 15.0}
    assert linearization.gradient["x"][0].tolist() == [8.0]


@pytest.mark.parametrize(
    ("returned", "text"),
    [
        ({}, "must return a mapping of player → loss, not dict"),
        ([], "must return a mapping of player → loss, not list"),
        ({"z": torch.ones(())}, r'unknown player "z"\. Known: x, y\.'),
        ({"x": 1.0}, 'loss of player "x" must be a scalar tensor, not a float'),
        (
            {"x": torch.ones(2)},
            r"must be a scalar tensor, not a tensor of shape \(2,\)\. Reduce it",
        ),
        ({"x": {}}, 'no terms for the loss of player "x"'),
        ({"x": {"real": torch.ones(2)}}, 'Term "real" of the loss of player "x" must be a scalar'),
    ],
)
def test_what_a_closure_may_not_return(x, returned, text):
    with pytest.raises(sp.UsageError, match=text):
        evaluate(x, returned)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_losses_name_player_and_term(x, value):
    with pytest.raises(
        sp.DivergenceError, match=rf'Term "real" of the loss of player "x" is {value}'
    ) as caught:
        evaluate(x, {"x": {"fake": x.sum(), "real": x.sum() * value}})
    assert (caught.value.player, caught.value.term) == ("x", "real")


def test_a_loss_that_depends_on_nothing(x):
    with pytest.raises(
        sp.UsageError,
        match=r'loss of player "x" does not depend on any parameter .* without detach\(\)',
    ):
        _ = evaluate(x, {"x": x.detach().sum()}).gradient


def test_order_zero_builds_no_graph_and_knows_no_gradient(x):
    linearization = sp.Linearization({"x": (x,)}, lambda: {"x": (x**2).sum()}, order=0)
    assert not linearization._losses["x"].requires_grad
    with pytest.raises(sp.UsageError, match="order 0 and holds losses only"):
        _ = linearization.gradient


def test_a_game_refuses_shared_and_missing_parameters(x):
    with pytest.raises(
        sp.UsageError, match=r'Parameter 0 of player "b", shape \(1,\), also belongs to player "a"'
    ):
        sp.Game({"a": [x], "b": [x]}, dict)
    with pytest.raises(sp.UsageError, match='Player "a" has no parameters that require gradients'):
        sp.Game({"a": [torch.ones(1)]}, dict)
    with pytest.raises(sp.UsageError, match="at least one player"):
        sp.Game({}, dict)
