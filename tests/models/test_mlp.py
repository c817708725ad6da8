import math

import pytest
import torch

import saddlepoint as sp
from saddlepoint.models import ACTIVATIONS, MLP


def test_the_networks_of_the_reference_gan():
    g = torch.Generator().manual_seed(0)
    D = MLP((784, 128, 128, 1), generator=g)
    assert [tuple(p.shape) for p in D.parameters()] == [
        (128, 784),
        (128,),
        (128, 128),
        (128,),
        (1, 128),
        (1,),
    ]
    assert D(torch.zeros(3, 1, 28, 28)).shape == (3, 1)


def test_weights_depend_on_the_generator_alone():
    first, second = (MLP((3, 4, 1), generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert all(
        torch.equal(p, q) for p, q in zip(first.parameters(), second.parameters(), strict=True)
    )


def test_initial_weights_have_the_spread_of_torch_s_own():
    weight = MLP((400, 300), generator=torch.Generator().manual_seed(0)).layers[1].weight
    bound = 1 / math.sqrt(400)
    assert weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_has_second_derivatives(activation):
    net = MLP((2, 5, 1), activation=activation, generator=torch.Generator().manual_seed(0)).double()
    x = torch.ones(4, 2, dtype=torch.float64)
    point = sp.linearize(sp.Game({"x": net}, lambda: {"x": net(x).pow(2).mean()}))
    assert bool((point.jacobian @ point.gradient).flatten().isfinite().all())


def test_unknown_activation():
    with pytest.raises(
        sp.UsageError, match=r'activation="rellu" is unknown\. Did you mean "relu"\?'
    ):
        MLP((1, 1), activation="rellu", generator=torch.Generator())
