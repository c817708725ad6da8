import torch

from saddlepoint.models import MLP
from saddlepoint.models.averaging import moving_average


def test_the_formula_over_many_updates():
    network = MLP((2, 2), generator=torch.Generator().manual_seed(0)).double()
    average, g = moving_average(network, 0.9), torch.Generator().manual_seed(1)
    expected = None
    for t in range(200):
        with torch.no_grad():
            for p in network.parameters():
                p.copy_(torch.randn(p.shape, generator=g, dtype=p.dtype))
        average.update_parameters(network)
        current = torch.cat([p.detach().reshape(-1) for p in network.parameters()])
        d = min(0.9, (1 + t) / (10 + t))
        expected = current if expected is None else expected + (1 - d) * (current - expected)
    found = torch.cat([p.detach().reshape(-1) for p in average.module.parameters()])
    torch.testing.assert_close(found, expected)


def test_buffers_are_copied():
    norm = torch.nn.BatchNorm1d(1)
    average = moving_average(norm, 0.9)
    for value in (1.0, 5.0):
        norm.running_mean.fill_(value)
        average.update_parameters(norm)
    assert average.module.running_mean.item() == 5.0


def test_no_decay_copies():
    network = MLP((2, 2), generator=torch.Generator().manual_seed(0))
    average = moving_average(network, 0.0)
    for _ in range(2):
        average.update_parameters(network)
        with torch.no_grad():
            network.layers[1].weight.add_(1.0)
    assert torch.equal(average.module.layers[1].weight + 1.0, network.layers[1].weight)
