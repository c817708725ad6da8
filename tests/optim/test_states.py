"""What a state says of where it comes from, and that nothing is changed where it does not fit."""

import copy
import re

import pytest
import torch

import saddlepoint as sp
from saddlepoint.optim import (
    SOAP,
    Grafted,
    MomentumSGD,
    NormalizedSubgradient,
    RandomCoordinate,
    SignSubgradient,
    Subgradient,
)
from tests.optim.test_parameters import OPTIMIZERS, draw, every, leaves, path


def snapshot(optimizer):
    return copy.deepcopy(optimizer.state_dict())


def refused(optimizer, state, text):
    """Check that the state is refused with ``text`` and that the optimizer, its options included,
    is as it was."""
    before = snapshot(optimizer)
    with pytest.raises(sp.UsageError, match=text):
        optimizer.load_state_dict(state)
    assert str(snapshot(optimizer)) == str(before)


@every
def test_a_state_is_refused_where_a_shape_differs_and_nothing_is_changed(name):
    """The second tensor of the second group: everything before it fits."""
    saved, other = leaves(draw(3, 2), draw(4), draw(2, 3)), leaves(draw(3, 2), draw(4), draw(3, 2))
    optimizer = OPTIMIZERS[name](saved)
    for p in saved:
        p.grad = draw(*p.shape)
    optimizer.step(lambda: 1.0)
    optimizer.param_groups[0]["lr"] = 0.5
    fresh = path(name, other)
    refused(
        fresh,
        snapshot(optimizer),
        r"parameter 2 has the shape \(3, 2\), entry 2 of group 0 of the state \(2, 3\)",
    )


@every
def test_a_state_is_refused_where_groups_differ(name):
    x, y = leaves(draw(3), draw(3))
    whole, apart = OPTIMIZERS[name]([x, y]), OPTIMIZERS[name]([{"params": [x]}, {"params": [y]}])
    refused(
        apart,
        snapshot(whole),
        re.escape("the state has parameter groups of [2] parameters, this optimizer of [1, 1]"),
    )


@every
def test_a_state_of_another_optimizer_is_refused(name):
    (x,) = leaves(draw(3))
    x.grad = draw(3)
    optimizer = OPTIMIZERS[name]([x])
    for foreign in (
        make([x])
        for make in (
            lambda p: torch.optim.Adam(p),
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        )
    ):
        foreign.step()
        # that is the state of its optimizer inside
        if not (isinstance(optimizer, Grafted) and isinstance(foreign, torch.optim.Adam)):
            refused(
                optimizer,
                foreign.state_dict(),
                "the state belongs to another optimizer; it has .* and lacks .*",
            )
    for kind, other in (
        ("MomentumSGD", MomentumSGD([x], lr=0.1)),
        ("RandomCoordinate", RandomCoordinate([x])),
        ("SOAP", SOAP([x])),
    ):
        if type(optimizer) is not type(other):
            refused(optimizer, other.state_dict(), f"the state belongs to the optimizer {kind}")


def test_what_is_no_state_at_all():
    for nothing in ({}, {"state": {}}, None, [1]):
        refused(
            MomentumSGD(leaves(draw(3)), lr=0.1), nothing, "is not the state_dict of an optimizer"
        )


@pytest.mark.parametrize(
    ("kind", "saved", "own", "text"),
    [
        (
            Subgradient,
            {"step_size": "polyak"},
            {"step_size": "constant"},
            "the state was saved with step_size='polyak', this optimizer has step_size='constant'",
        ),
        (
            Subgradient,
            {"average": "suffix"},
            {},
            "saved with average='suffix', this optimizer has average=None",
        ),
        (Subgradient, {"target": 1.0}, {"target": 2.0}, "saved with target=1.0"),
        (Subgradient, {"slack": 1.0}, {"slack": 2.0}, "saved with slack=1.0"),
        (
            NormalizedSubgradient,
            {"lr": 1.0},
            {"lr": 1.0, "per": "tensor"},
            "saved with per='player', this optimizer has per='tensor'",
        ),
        (Grafted, {}, {"per": "tensor"}, "saved with per='player'"),
        (
            Grafted,
            {"magnitude": Subgradient},
            {"magnitude": Subgradient, "options": {"step_size": "inverse"}},
            "saved with step_size='inverse_root'",
        ),
        (
            Grafted,
            {},
            {"magnitude": torch.optim.RMSprop},
            "saved with magnitude='Adam', this optimizer has magnitude='RMSprop'",
        ),
    ],
)
def test_options_that_are_in_no_group_are_compared(kind, saved, own, text):
    refused(
        kind(leaves(draw(3)), **own), kind(leaves(draw(3)), **saved).state_dict(), re.escape(text)
    )


def test_options_of_groups_come_with_the_state_as_in_torch_and_are_checked():
    optimizer = SignSubgradient(leaves(draw(3)), lr=0.1)
    state = SignSubgradient(leaves(draw(3)), lr=0.2, momentum=0.5).state_dict()
    optimizer.load_state_dict(state)
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]) == (0.2, 0.5)
    state["param_groups"][0]["momentum"] = 1.5
    refused(optimizer, state, r"momentum=1\.5 must be less than 1")


@every
def test_parameters_with_names_are_matched_by_name(name):
    """Saved as a, b; loaded into b, a: the path goes on as if the order had not changed."""
    # a norm over the player adds up in another order
    tolerance = 1e-12 if name in ("normalised", "grafted", "polyak, best") else 0.0
    ends = []
    for turned in (False, True):
        a, b = leaves(draw(3, 2), draw(3, 2, seed=1))
        optimizer = OPTIMIZERS[name]([("a", a), ("b", b)])
        for step in range(6):
            if turned and step == 3:
                state = snapshot(optimizer)
                optimizer = OPTIMIZERS[name]([("b", b), ("a", a)])
                optimizer.load_state_dict(state)
            a.grad, b.grad = draw(3, 2, seed=10 + step), draw(3, 2, seed=20 + step)
            optimizer.step(lambda: 1.0)
        ends.append(torch.stack([a, b]).detach())
    assert optimizer.param_groups[0]["param_names"] == ["b", "a"]
    torch.testing.assert_close(*ends, rtol=tolerance, atol=tolerance)


def test_other_names_are_refused():
    saved = MomentumSGD([("layer.weight", p) for p in leaves(draw(3))], lr=0.1).state_dict()
    optimizer = MomentumSGD([("head.weight", p) for p in leaves(draw(3))], lr=0.1)
    refused(
        optimizer,
        saved,
        r"group 0 of the state has parameters of other names: layer\.weight instead of"
        r" head\.weight",
    )


@every
def test_states_of_versions_that_did_not_say_where_they_come_from_load(name):
    parameters = leaves(draw(3, 2))
    optimizer = path(name, parameters)
    old = snapshot(optimizer)
    for group in old["param_groups"]:
        del group["saved_by"]
    for kept in old["state"].values():
        kept.pop("until", None)  # was added with it
    fresh = OPTIMIZERS[name](parameters)
    fresh.load_state_dict(old)
    assert str(snapshot(fresh)) == str(snapshot(optimizer))
    for current in (optimizer, fresh):
        assert "saved_by" not in current.param_groups[0]


def test_their_entries_are_compared_with_the_parameters():
    """What passes through tools that keep the groups' usual options only."""
    (x,) = leaves(draw(3))
    x.grad = draw(3)
    optimizer = SignSubgradient([x], lr=0.1, momentum=0.9)
    optimizer.step()
    state = snapshot(optimizer)
    del state["param_groups"][0]["saved_by"]
    refused(
        SignSubgradient(leaves(draw(4)), lr=0.1),
        state,
        r'parameter 0 has the shape \(4,\), "momentum_buffer" of the state \(3,\)',
    )


def test_a_state_of_other_sides_is_refused():
    """The factors of SOAP belong to the shape, which is compared."""
    W = leaves(draw(3, 2))
    path("soap", W)
    refused(
        SOAP(leaves(draw(2, 3))),
        path("soap", W).state_dict(),
        r"parameter 0 has the shape \(2, 3\)",
    )
