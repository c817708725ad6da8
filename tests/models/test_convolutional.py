import pytest
import torch
from torch import nn

from saddlepoint.models import SmallConvDiscriminator, SmallConvGenerator


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def size(network):
    return sum(p.numel() for p in network.parameters())


class TestThePublishedArchitecture:
    """Table 3 of Lin et al. (2018), arXiv:1712.04086."""

    def test_the_generator(self):
        G = SmallConvGenerator(256, generator=seeded())
        shapes, x = [], torch.randn(2, 256, generator=seeded(1))
        for layer in G.layers:
            x = layer(x)
            if isinstance(layer, nn.ReLU | nn.Tanh):
                shapes.append(tuple(x.shape[1:]))
        assert shapes == [(64, 4, 4), (32, 7, 7), (16, 14, 14), (8, 28, 28), (3, 28, 28)]
        assert size(G) == 287_875
        linear, normalised = 256 * 1024 + 1024, 2 * (64 + 32 + 16 + 8)
        convolutions = 9 * (64 * 32 + 32 * 16 + 16 * 8 + 8 * 3) + 32 + 16 + 8 + 3
        assert size(G) == linear + convolutions + normalised

    def test_the_discriminator(self):
        D = SmallConvDiscriminator(0.25, generator=seeded())
        shapes, x = [], torch.randn(2, 3, 28, 28, generator=seeded(1))
        for layer in D.layers:
            x = layer(x)
            if isinstance(layer, nn.LeakyReLU):
                shapes.append(tuple(x.shape[1:]))
                assert layer.negative_slope == 0.3
        assert shapes == [(2, 14, 14), (4, 7, 7), (8, 4, 4)]
        assert x.shape == (2, 1)
        assert size(D) == 585

    @pytest.mark.parametrize(
        ("relative", "widths"), [(0.5, [4, 8, 16]), (1.0, [8, 16, 32]), (0.01, [1, 1, 1])]
    )
    def test_other_sizes(self, relative, widths):
        D = SmallConvDiscriminator(relative, generator=seeded())
        assert [layer.out_channels for layer in D.layers if isinstance(layer, nn.Conv2d)] == widths

    def test_without_normalisation_samples_do_not_see_each_other(self):
        G, D = (
            make(batch_norm=False, generator=seeded())
            for make in (lambda **o: SmallConvGenerator(8, **o), SmallConvDiscriminator)
        )
        assert not any(
            isinstance(module, nn.BatchNorm2d) for network in (G, D) for module in network.modules()
        )
        z = torch.randn(4, 8, generator=seeded(1))
        torch.testing.assert_close(D(G(z))[:1], D(G(z[:1])))
        coupled = SmallConvGenerator(8, generator=seeded())
        assert not torch.allclose(coupled(z)[:1], coupled(z[:2])[:1])

    def test_channels(self):
        assert SmallConvGenerator(4, channels=1, generator=seeded())(torch.zeros(2, 4)).shape == (
            2,
            1,
            28,
            28,
        )
        assert SmallConvDiscriminator(channels=1, generator=seeded())(
            torch.zeros(2, 1, 28, 28)
        ).shape == (2, 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda g: SmallConvGenerator(64, generator=g),
        lambda g: SmallConvDiscriminator(1.0, generator=g),
    ],
)
class TestInitialWeights:
    def test_come_from_the_generator_alone(self, make):
        before = torch.get_rng_state()
        first, again, other = make(seeded(0)), make(seeded(0)), make(seeded(1))
        assert torch.equal(torch.get_rng_state(), before)
        assert all(
            torch.equal(a, b)
            for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True)
        )
        weights = [
            (a, b)
            for (name, a), b in zip(first.named_parameters(), other.parameters(), strict=True)
            if name.endswith("weight")
        ]
        assert not any(torch.equal(a, b) for a, b in weights)

    def test_have_the_deviation_of_dcgan(self, make):
        for module in make(seeded()).modules():
            if isinstance(module, nn.BatchNorm2d):
                assert torch.equal(module.bias, torch.zeros_like(module.bias))
                assert torch.equal(module.running_mean, torch.zeros_like(module.bias))
                assert torch.equal(module.running_var, torch.ones_like(module.bias))
                assert float((module.weight.detach() - 1).abs().max()) < 0.1
                assert float((module.weight.detach() - 1).abs().max()) > 0
            elif isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                weights, n = module.weight.detach(), module.weight.numel()
                assert abs(float(weights.std()) - 0.02) < 5 * 0.02 / (2 * n) ** 0.5
                assert abs(float(weights.mean())) < 5 * 0.02 / n**0.5
                assert not bool(module.bias.any())
