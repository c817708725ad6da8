"""Operations without a correct second derivative raise an error that names a remedy."""

import pytest
import torch
from torch.autograd.function import once_differentiable
from torch.nn.utils import parametrizations

import saddlepoint as sp
from saddlepoint import rules
from saddlepoint.models import MLP

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(6, 4, generator=GENERATOR)


def mlp(*sizes):
    return MLP(sizes, activation="tanh", generator=torch.Generator().manual_seed(0))


def weight_normed():
    net = mlp(4, 3, 1)
    parametrizations.weight_norm(net.layers[1])
    return net, lambda: {"x": net(X).pow(2).mean()}


def attending():
    net = mlp(4, 4)

    def losses():
        x = net(X)[None, None]
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
            return {"x": torch.nn.functional.scaled_dot_product_attention(x, x, x).pow(2).mean()}

    return net, losses


def measuring():
    net = mlp(4, 2)
    return net, lambda: {"x": torch.cdist(net(X), torch.ones(3, 2)).mean()}


def compiled():
    net = mlp(4, 3, 1)
    fast = torch.compile(net, backend="aot_eager")
    return net, lambda: {"x": fast(X).pow(2).mean()}


TRAPS = {
    "weight norm": (
        weight_normed,
        (
            r"weight_norm, whose second derivative is silently wrong .* Remedy: write the weight as"
            r" g \* v / v\.norm\(\)"
        ),
    ),
    "attention": (
        attending,
        (
            r"fused attention, which has no second derivative.* Remedy: run it under"
            r" .*sdpa_kernel\(SDPBackend\.MATH\)"
        ),
    ),
    "cdist": (
        measuring,
        r"torch\.cdist, which has no second derivative.* Remedy: write the distances out",
    ),
    "compiled": (
        compiled,
        (
            r"compiled with torch\.compile, which has no second derivative.* Remedy: use the module"
            r" before torch\.compile"
        ),
    ),
}


@pytest.mark.filterwarnings("ignore")  # torch.compile has many of its own
@pytest.mark.parametrize("name", TRAPS)
def test_each_trap_is_named_with_its_remedy_in_the_first_step(name):
    make, text = TRAPS[name]
    net, losses = make()
    with torch.random.fork_rng():
        optimizer = sp.GameOptimizer({"x": torch.optim.SGD(net.parameters(), lr=0.1)}, sp.Newton())
        with pytest.raises(sp.DoubleBackwardError, match=text):
            optimizer.step(losses)
        with pytest.raises(sp.DoubleBackwardError, match=text):
            sp.linearize(sp.Game({"x": net}, losses))
        # first-order rules may use it
        sp.GameOptimizer({"x": torch.optim.SGD(net.parameters(), lr=0.1)}).step(losses)


def test_weight_norm_really_is_wrong():
    """The reason for the refusal: against finite differences the Hessian is off by tens of per
    cent. When this fails, lift it."""
    net = weight_normed()[0].double()
    X64 = X.double()
    parameters = list(net.parameters())

    def gradient(create=False):
        return torch.cat(
            [
                g.reshape(-1)
                for g in torch.autograd.grad(
                    net(X64).pow(2).mean(), parameters, create_graph=create
                )
            ]
        )

    v = torch.ones(sum(p.numel() for p in parameters), dtype=torch.float64)
    product = torch.cat(
        [g.reshape(-1) for g in torch.autograd.grad(gradient(create=True) @ v, parameters)]
    )
    shift, sides = 1e-6, []
    for sign in (1, -1):
        with torch.no_grad():
            for p in parameters:
                p += sign * shift
        sides.append(gradient())
        with torch.no_grad():
            for p in parameters:
                p -= sign * shift
    truth = (sides[0] - sides[1]) / (2 * shift)
    assert (product - truth).norm() / truth.norm() > 0.05


class TestEvaluatingAgain:
    """Rules that evaluate the closure several times a step."""

    def spectral(self):
        with torch.random.fork_rng():
            net = mlp(4, 64, 64, 1)
            parametrizations.spectral_norm(net.layers[3])
        return net, lambda: {"x": net(X).pow(2).mean()}

    def test_spectral_norm_without_its_module_is_told(self):
        net, losses = self.spectral()
        optimizer = sp.GameOptimizer(
            {"x": torch.optim.SGD(net.parameters(), lr=0.1)}, rules.Extragradient()
        )
        with pytest.warns(
            sp.CurvatureWarning,
            match=r"evaluates the closure several times a step.*x: .*, then .*modules=\[G, D\]",
        ):
            optimizer.step(losses)
        optimizer.step(losses)  # said once

    def test_spectral_norm_with_its_module_is_the_same_function_in_every_evaluation(self):
        net, losses = self.spectral()
        seen = []

        def watched():
            seen.append(losses())
            return seen[-1]

        class Twice(sp.Rule):
            def direction(self, step):
                step.linearize(1)
                return step.linearization.gradient

        vectors = net.layers[3].parametrizations.weight[0]
        optimizer = sp.GameOptimizer(
            {"x": torch.optim.SGD(net.parameters(), lr=0.0)}, Twice(), modules=[net]
        )
        optimizer.step(watched)
        after_one_step = vectors._u.clone()
        assert seen[0]["x"].item() == seen[1]["x"].item()
        other, _ = self.spectral()
        other(X)  # one evaluation moves the vectors as far as the whole step did
        assert torch.equal(other.layers[3].parametrizations.weight[0]._u, after_one_step)

    def test_batch_norm_without_its_module_is_told(self):
        net = torch.nn.Sequential(mlp(4, 3), torch.nn.BatchNorm1d(3))
        optimizer = sp.GameOptimizer(
            {"x": torch.optim.SGD(net.parameters(), lr=0.1)}, rules.Extragradient()
        )
        with pytest.warns(sp.CurvatureWarning, match="BatchNorm updates its statistics"):
            optimizer.step(lambda: {"x": net(X).pow(3).mean()})

    def test_an_unknown_generator_is_told(self):
        net, g = mlp(4, 1), torch.Generator().manual_seed(0)

        def losses():
            return {"x": (net(X) * torch.rand(1, generator=g)).mean()}

        players = {"x": torch.optim.SGD(net.parameters(), lr=0.1)}
        with pytest.warns(sp.CurvatureWarning, match=r"generators=\[\.\.\.\]"):
            sp.GameOptimizer(players, rules.Extragradient()).step(losses)
        sp.GameOptimizer(players, rules.Extragradient(), generators=[g]).step(losses)

    def test_plain_networks_are_not_bothered(self):
        net = mlp(4, 1)
        optimizer = sp.GameOptimizer(
            {"x": torch.optim.SGD(net.parameters(), lr=0.1)}, rules.RungeKutta()
        )
        optimizer.step(lambda: {"x": net(X).pow(2).mean()})
        assert optimizer.cost == sp.Cost(gradients=4, products=0, losses=4)


class Cube(torch.autograd.Function):
    """x³, differentiable once only."""

    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x**3

    @staticmethod
    @once_differentiable
    def backward(context, gradient):
        (x,) = context.saved_tensors
        return 3 * gradient * x**2


class TwiceCube(Cube):
    """The same with a backward that can be differentiated."""

    @staticmethod
    def backward(context, gradient):
        (x,) = context.saved_tensors
        return 3 * gradient * x**2


class TestOnceDifferentiable:
    @pytest.mark.parametrize(
        "loss", [lambda x: Cube.apply(x).sum(), lambda x: Cube.apply(2 * x).pow(2).sum()]
    )
    def test_it_is_refused_where_torch_would_be_silent(self, loss):
        x = torch.ones(3, dtype=torch.float64, requires_grad=True)
        with pytest.raises(
            sp.DoubleBackwardError,
            match=r"marked once_differentiable.*silently zero.*Remedy: write its backward",
        ):
            sp.linearize(sp.Game({"x": [x]}, lambda: {"x": loss(x)}))

    def test_torch_is_silent(self):
        """The reason for the check: without it the Hessian of x³ at 1 would be 0, not 6. If this
        fails, torch has mended it."""
        x = torch.ones(1, requires_grad=True)
        (gradient,) = torch.autograd.grad(Cube.apply(x).sum(), x, create_graph=True)
        assert not gradient.requires_grad

    def test_other_functions_are_not_bothered(self):
        x = torch.ones(2, dtype=torch.float64, requires_grad=True)
        linearization = sp.linearize(sp.Game({"x": [x]}, lambda: {"x": TwiceCube.apply(x).sum()}))
        assert linearization.jacobian.dense().tolist() == [[6.0, 0.0], [0.0, 6.0]]

    def test_first_order_rules_take_it(self):
        x = torch.ones(1, requires_grad=True)
        sp.GameOptimizer({"x": torch.optim.SGD([x], lr=0.1)}).step(
            lambda: {"x": Cube.apply(x).sum()}
        )
        assert x.item() == pytest.approx(0.7)
