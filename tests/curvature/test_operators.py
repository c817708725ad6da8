import pytest
import torch

import saddlepoint as sp
from saddlepoint.models import MLP

EXACT = {"rtol": 0.0, "atol": 1e-10}


def linearization_of(gan):
    return sp.linearize(sp.Game(gan.players, gan.losses))


@pytest.mark.parametrize("activation", ["tanh", "softplus", "leaky_relu"])
@pytest.mark.parametrize("zero_sum", [True, False])
class TestAgainstTheDenseJacobian:
    def test_gradient_and_jacobian(self, tiny_gan, activation, zero_sum):
        gan = tiny_gan(activation=activation, zero_sum=zero_sum)
        xi, J = gan.dense()
        linearization = linearization_of(gan)
        torch.testing.assert_close(linearization.gradient.flatten(), xi, **EXACT)
        torch.testing.assert_close(linearization.jacobian.dense(), J, **EXACT)
        torch.testing.assert_close(linearization.jacobian.T.dense(), J.T, **EXACT)

    def test_parts(self, tiny_gan, activation, zero_sum):
        gan = tiny_gan(activation=activation, zero_sum=zero_sum)
        _, J = gan.dense()
        part, slices = linearization_of(gan).jacobian, gan.sizes()
        own = torch.zeros_like(J)
        for player, rows in slices.items():
            own[rows, rows] = J[rows, rows]
            for other, columns in slices.items():
                torch.testing.assert_close(part[player, other].dense(), J[rows, columns], **EXACT)
                torch.testing.assert_close(
                    part[player, other].T.dense(), J[rows, columns].T, **EXACT
                )
        for found, expected in [(part.block_diagonal, own), (part.off_diagonal, J - own)]:
            torch.testing.assert_close(found.dense(), expected, **EXACT)
            torch.testing.assert_close(found.T.dense(), expected.T, **EXACT)

    def test_combinations(self, tiny_gan, activation, zero_sum):
        gan = tiny_gan(activation=activation, zero_sum=zero_sum)
        _, J = gan.dense()
        A = linearization_of(gan).jacobian
        for found, expected in [
            (A + A.T, J + J.T),
            (0.5 * (A.T - A), (J.T - J) / 2),
            (-A, -J),
            ((2 * A).T, 2 * J.T),
        ]:
            torch.testing.assert_close(found.dense(), expected, **EXACT)
            torch.testing.assert_close(found.T.dense(), expected.T, **EXACT)


def test_order_of_asking_does_not_matter(tiny_gan):
    gan = tiny_gan()
    first, second = linearization_of(gan), linearization_of(gan)
    second.cross = True
    torch.testing.assert_close(first.gradient.flatten(), second.gradient.flatten(), **EXACT)


def test_products_are_counted(tiny_gan):
    linearization = linearization_of(tiny_gan())
    v = linearization.gradient
    assert linearization.cost == sp.Cost(gradients=2, products=0, losses=1)
    _ = linearization.jacobian.T @ v
    assert linearization.cost == sp.Cost(gradients=2, products=2, losses=1)
    _ = linearization.jacobian["generator", "generator"] @ v
    assert linearization.cost == sp.Cost(gradients=2, products=3, losses=1)
    _ = (
        linearization.jacobian @ v
    )  # across players it needs each loss's gradient with respect to all
    assert linearization.cost == sp.Cost(gradients=4, products=5, losses=1)


def test_declaring_cross_saves_the_second_gradient(tiny_gan):
    gan = tiny_gan()
    linearization = sp.linearize(sp.Game(gan.players, gan.losses), cross=True)
    _ = linearization.jacobian @ linearization.gradient
    assert linearization.cost == sp.Cost(gradients=2, products=2, losses=1)


def test_a_linear_loss_has_a_zero_hessian_and_an_unused_bias():
    critic = MLP((2, 1), generator=torch.Generator().manual_seed(0)).double()
    x, y = torch.ones(3, 2, dtype=torch.float64), torch.zeros(3, 2, dtype=torch.float64)
    game = sp.Game({"critic": critic}, lambda: {"critic": critic(x).mean() - critic(y).mean()})
    assert sp.linearize(game).jacobian.dense().tolist() == torch.zeros(3, 3).tolist()


def test_unknown_block():
    x = torch.ones(1, requires_grad=True)
    linearization = sp.linearize(sp.Game({"left": [x]}, lambda: {"left": (x**2).sum()}))
    with pytest.raises(
        sp.UsageError, match=r'No player "lfet" moves at this point\. Did you mean "left"\?'
    ):
        _ = linearization.jacobian["lfet", "left"]


def test_products_need_order_two():
    x = torch.ones(1, requires_grad=True)
    linearization = sp.Linearization({"x": (x,)}, lambda: {"x": (x**2).sum()}, order=1)
    with pytest.raises(
        sp.UsageError, match="need a linearization of order 2; this one has order 1"
    ):
        _ = linearization.jacobian


class TestOperationsWithoutSecondDerivative:
    def test_fused_attention(self):
        g = torch.Generator().manual_seed(0)
        q = torch.randn(1, 1, 4, 8, generator=g).requires_grad_()

        def losses():
            with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
                return {"x": torch.nn.functional.scaled_dot_product_attention(q, q, q).pow(2).sum()}

        linearization = sp.Linearization(
            {"x": (q,)}, losses
        )  # not checked beforehand, as linearize would
        with pytest.raises(sp.DoubleBackwardError, match=r"sdpa_kernel\(SDPBackend\.MATH\)"):
            _ = linearization.jacobian @ linearization.gradient

    def test_other_errors_keep_their_own_text(self):
        x = torch.ones(1, requires_grad=True)
        linearization = sp.Linearization({"x": (x,)}, lambda: {"x": (x**2).sum()}, order=2)
        _ = linearization.gradient
        with torch.no_grad():
            x.add_(1.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            _ = linearization.jacobian @ linearization.gradient
