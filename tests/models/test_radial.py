import pytest
import torch

import saddlepoint as sp
from saddlepoint.models import GaussianComponents, RadialFeatures


def test_components_are_affine_in_the_noise():
    network = GaussianComponents(torch.tensor([1.0, -2.0, 5.0]), torch.tensor([0.0, 0.5, -1.0]))
    z, which = torch.randn(9, 1, generator=torch.Generator().manual_seed(0)), torch.arange(9) % 3
    expected = network.means[which] + network.log_deviations.exp()[which] * z.squeeze(1)
    torch.testing.assert_close(
        network(torch.cat([z, torch.eye(3)[which]], dim=1)), expected.unsqueeze(1)
    )


def test_radial_features_are_linear_in_the_weights():
    x, centres = torch.linspace(-2, 2, 7).unsqueeze(1), torch.tensor([-1.0, 0.5])
    one, two = (RadialFeatures(centres, 0.7, torch.eye(2)[k])(x) for k in (0, 1))
    torch.testing.assert_close(
        RadialFeatures(centres, 0.7, torch.tensor([3.0, -2.0]))(x), 3 * one - 2 * two
    )
    torch.testing.assert_close(one.squeeze(1), torch.exp(-((x.squeeze(1) + 1) ** 2) / (2 * 0.49)))


def test_the_initial_values_are_copied():
    means = torch.zeros(2)
    network = GaussianComponents(means, torch.zeros(2))
    with torch.no_grad():
        network.means.add_(1)
    assert means.tolist() == [0, 0]


def test_mistakes():
    with pytest.raises(sp.UsageError, match=r"equal length, got \(2,\) and \(3,\)"):
        GaussianComponents(torch.zeros(2), torch.zeros(3))
    with pytest.raises(
        sp.UsageError, match="a positive width and a weight for each centre, got width 0"
    ):
        RadialFeatures(torch.zeros(2), 0, torch.zeros(2))
    with pytest.raises(sp.UsageError, match=r"centres \(2,\) and weights \(3,\)"):
        RadialFeatures(torch.zeros(2), 1.0, torch.zeros(3))
