"""Activation checkpointing and bfloat16: the same steps with less kept, and nearly the same with
less precision."""

import pytest
import torch

from saddlepoint.errors import UsageError
from saddlepoint.models import MLP, recompute_activations
from saddlepoint.training import Trainer, resolve

SMALL = {"problem": "mixture8", "batch_size": 16, "steps": 5}


def trained(steps=5, **settings):
    training = Trainer(resolve({**SMALL, **settings}))
    for _ in range(steps):
        training.train_step()
    return training


def theta(training):
    return torch.cat(
        [
            p.detach().reshape(-1)
            for network in training.networks.values()
            for p in network.parameters()
        ]
    )


@pytest.mark.parametrize(
    "rule",
    [
        "gradient",
        "extragradient",
        "consensus",
        "acgd",
        {"name": "newton", "tol": 0.9},
        "unrolled",
    ],
)
def test_checkpointing_changes_no_bit_of_any_derivative(rule):
    plain, recomputed = (
        trained(rule=rule, model={"checkpoint": wanted}) for wanted in (False, True)
    )
    assert torch.equal(theta(plain), theta(recomputed))
    assert list(plain.networks["generator"].state_dict()) == list(
        recomputed.networks["generator"].state_dict()
    )


def test_checkpointing_keeps_less():
    def kept(network):
        sizes = []

        def pack(tensor):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = network(torch.ones(256, 8)).square().mean()
        gradient, *_ = torch.autograd.grad(loss, list(network.parameters()))
        return sum(sizes), gradient

    deep = MLP((8, *[64] * 24, 1), activation="tanh", generator=torch.Generator().manual_seed(0))
    plain, reference = kept(deep)
    recompute_activations(deep)
    less, gradient = kept(deep)
    assert torch.equal(reference, gradient)
    assert less < 0.4 * plain


def test_checkpointing_refuses_batch_norm():
    with pytest.raises(
        UsageError,
        match=(
            r'Player "discriminator", layer layers\.1: batch normalisation cannot be used'
            r" with"
        ),
    ):
        Trainer(resolve({"problem": "stacked-digits", "model": {"checkpoint": True}}))


@pytest.mark.parametrize("rule", ["gradient", "consensus", "acgd"])
def test_bf16_keeps_every_vector_in_single_precision(rule):
    exact, narrow = trained(rule=rule), trained(rule=rule, model={"precision": "bf16"})
    start = Trainer(resolve(SMALL | {"rule": rule}))
    moved, apart = (
        float((theta(exact) - theta(start)).norm()),
        float((theta(exact) - theta(narrow)).norm()),
    )
    assert 0 < apart < 0.5 * moved
    state = narrow.state_dict()["optimizer"]["optimizers"]["generator"]["state"]
    tensors = [
        *theta(narrow).split(1000),
        *(t for own in state.values() for t in own.values() if isinstance(t, torch.Tensor)),
    ]
    assert {t.dtype for t in tensors} == {torch.float32}
    assert all(isinstance(loss, float) for loss in narrow.optimizer.last.losses.values())


def test_the_settings_decide_the_trajectory_only_where_they_are_not_the_default():
    plain = resolve(SMALL)
    assert "model" not in plain.non_defaults()
    assert resolve({**SMALL, "model": {"checkpoint": False}}).digest() == plain.digest()
    assert resolve({**SMALL, "model": {"precision": "bf16"}}).digest() != plain.digest()
