import copy

import torch
from torch import nn

from saddlepoint.models import MLP, BicubicUpsample, BinaryOutput


def test_interpolation_is_the_cubic_one_of_torch():
    images = torch.randn(3, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        BicubicUpsample(7, 28)(images),
        nn.Upsample(size=28, mode="bicubic")(images),
        rtol=1e-5,
        atol=1e-5,
    )
    assert torch.equal(BicubicUpsample(7, 7)(images), images)


def test_the_columns_after_the_network_s_are_the_output_s_noise():
    network = MLP((2, 6), shape=(2, 3), generator=torch.Generator().manual_seed(0))
    seen = []

    def output(logits, *noise):
        seen.append(noise)
        return logits

    binary, inputs = BinaryOutput(network, 2, output), torch.arange(16.0).view(2, 8)
    assert torch.equal(binary(inputs), network(inputs[:, :2]))
    assert torch.equal(seen[0][0], inputs[:, 2:].view(2, 2, 3))
    binary(inputs[:, :2])
    assert seen[1] == ()
    assert [name for name, _ in copy.deepcopy(binary).named_parameters()] == [
        "logits.layers.1.weight",
        "logits.layers.1.bias",
    ]
