"""Rules on parameters of every type, shape and layout: the path of the same game in contiguous
double precision."""

import pytest
import torch

import saddlepoint as sp
from saddlepoint import rules
from saddlepoint.vectors import Vector

TIGHT = {"tol": 1e-6, "max_iter": 50}
XY = {"leader": "x", "follower": "y"}
RMS, KRONECKER = sp.RMSPreconditioner(epsilon=1e-2), sp.KroneckerPreconditioner(epsilon=1e-2)
SOLVING = {
    "cgd": sp.CompetitiveGradient(**TIGHT),
    "cgd warm": sp.CompetitiveGradient(warm_start=True, **TIGHT),
    "rms cgd": sp.CompetitiveGradient(preconditioner=RMS, **TIGHT),
    "kronecker cgd": sp.CompetitiveGradient(preconditioner=KRONECKER, warm_start=True, **TIGHT),
    "acgd": sp.AdaptiveCompetitiveGradient(epsilon=1e-2, warm_start=True, **TIGHT),
    "proximal point": rules.ProximalPoint(warm_start=True, **TIGHT),
    "kronecker proximal point": rules.ProximalPoint(preconditioner=KRONECKER, **TIGHT),
    "newton": sp.Newton(preconditioner=KRONECKER, **TIGHT),
    "newton cg": sp.Newton(solver="cg", **TIGHT),
    "newton minres": sp.Newton(solver="minres", damping=10.0, **TIGHT),
    "newton full": sp.Newton(part="full", preconditioner=RMS, **TIGHT),
}
OTHERS = {
    "linearised cgd": rules.LinearizedCompetitiveGradient(),
    "gradient": sp.GradientDescent(),
    "optimistic": rules.Optimistic(),
    "extragradient": rules.Extragradient(),
    "past extragradient": rules.PastExtragradient(),
    "runge-kutta": rules.RungeKutta(regularization=0.1, regularized="x"),
    "hamiltonian": rules.Hamiltonian(),
    "every": rules.Every(rules.Consensus(gamma=0.5), k=2),
    "consensus": rules.Consensus(gamma=0.5),
    "sga": rules.SymplecticGradientAdjustment(),
    "stochastic hamiltonian": rules.StochasticHamiltonian(),
    "jare": rules.JacobianRegularized(gamma=0.5),
    "lola": rules.LOLA(alpha=0.5),
    "sos": rules.StableOpponentShaping(alpha=0.5),
    "averaged lookahead": rules.Averaged(rules.Lookahead(k=2)),
    "clipped": rules.Clipped(rules.Consensus(gamma=0.5), norm=0.5),
    "total gradient": rules.TotalGradient(**XY, damping=0.5, **TIGHT),
    "gradient newton": rules.GradientNewton(**XY, damping=0.5, **TIGHT),
    "complete newton": rules.CompleteNewton(**XY, damping=0.5, **TIGHT),
    "follow the ridge": rules.FollowTheRidge(**XY, damping=0.5, **TIGHT),
    "unrolled": rules.Unrolled(**XY, unroll=2, lr=0.1),
}
DISPLACING = {
    "smoothing": rules.RandomizedSmoothing(0.1, samples=2),
    "spsa": rules.SimultaneousPerturbation(c=0.1),
}
F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64


def draw(*shape, seed=0):
    return 0.7 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def players(*types):
    """Two tensors for each of two players, of these types."""
    made = [draw(3, 2, seed=1), draw(2, seed=2), draw(2, 2, seed=3), draw(3, seed=4)]
    a, b, c, d = (t.to(kind) for t, kind in zip(made, types, strict=True))
    return [a, b], [c, d]


def with_more(x, y):
    own_x, own_y = players(F64, F64, F64, F64)
    return own_x + x, own_y + y


KINDS = {  # parameters, and how far apart the paths may be
    "float32 against float64": (players(F32, F32, F64, F64), 1e-5),
    "float64 against float32": (players(F64, F64, F32, F32), 1e-5),
    "mixed within the players": (players(F32, F64, F64, F32), 1e-5),
    "half": (players(BF16, BF16, BF16, BF16), 2e-2),
    "half, single and double": (players(BF16, F32, F64, F16), 2e-2),
    "empty": (
        with_more([torch.zeros(0, 3, dtype=F64)], [torch.zeros(3, 0, dtype=F32), torch.zeros(0)]),
        1e-9,
    ),
    "without dimensions": (
        with_more([torch.tensor(0.3, dtype=F64)], [torch.tensor(0.2, dtype=F64)]),
        1e-9,
    ),
    "channels last and transposed": (
        with_more(
            [draw(2, 3, 2, 2, seed=7).to(memory_format=torch.channels_last)], [draw(2, 3, seed=5).T]
        ),
        1e-9,
    ),
}


def losses(x, y, zero_sum):
    X, Y = (torch.cat([t.double().reshape(-1) for t in own]) for own in (x, y))
    f = (
        X @ draw(len(X), len(Y), seed=9) @ Y
        + 0.3 * X.square().sum()
        - 0.2 * Y.square().sum()
        + 0.2 * Y.sin().sum()
    )
    return {"x": f, "y": -f if zero_sum else -f + 0.1 * X[:2].square().sum() * Y.sum()}


def end(rule, parts, zero_sum):
    x, y = ([t.detach().clone().requires_grad_() for t in own] for own in parts)
    optimizer = sp.GameOptimizer(
        {"x": torch.optim.SGD(x, lr=0.05), "y": torch.optim.SGD(y, lr=0.05)}, rule
    )
    for _ in range(3):
        optimizer.step(lambda: losses(x, y, zero_sum))
    return [t.detach() for t in (*x, *y)]


def check(rule, kind, zero_sum):
    parts, tol = KINDS[kind]
    moved = end(rule, parts, zero_sum)
    expected = end(rule, [[t.double().contiguous() for t in own] for own in parts], zero_sum)
    for given, found, reference in zip((*parts[0], *parts[1]), moved, expected, strict=True):
        assert (found.dtype, found.stride()) == (given.dtype, given.stride())
        torch.testing.assert_close(found.double(), reference, rtol=0, atol=tol)
        assert found.numel() == 0 or not torch.equal(found, given)


@pytest.mark.filterwarnings(
    "ignore::saddlepoint.errors.SolverWarning", "ignore::saddlepoint.errors.CurvatureWarning"
)
@pytest.mark.parametrize("zero_sum", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SOLVING)
def test_solves_on_every_kind_of_parameter(name, kind, zero_sum):
    check(SOLVING[name], kind, zero_sum)


@pytest.mark.filterwarnings(
    "ignore::saddlepoint.errors.SolverWarning", "ignore::saddlepoint.errors.CurvatureWarning"
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OTHERS)
def test_other_rules_likewise(name, kind):
    check(OTHERS[name], kind, zero_sum=True)


def test_vectors_are_flattened_to_the_widest_type_and_cut_back_to_their_own():
    v = Vector(
        {
            "x": [torch.ones(2, dtype=BF16)],
            "y": [torch.full((1,), 1 / 3, dtype=F64), torch.zeros(0)],
        }
    )
    flat = v.flatten()
    assert (flat.dtype, flat.shape) == (F64, (3,))
    assert [t.dtype for t in v.unflatten(flat).tensors] == [BF16, F64, F32]
    assert v.dot(v).dtype == F64
    assert float(v.dot(v)) == pytest.approx(2 + 1 / 9, rel=1e-15)
    assert Vector({"x": [torch.ones(2, dtype=BF16)]}).flatten().dtype == F32


def test_a_metric_in_half_precision_sees_squares_that_half_precision_does_not_hold():
    """Squares of 1e-4 are zero in float16; P⁻¹ ξ is a sign all the same."""
    for preconditioner in (
        sp.RMSPreconditioner(epsilon=1e-8),
        sp.KroneckerPreconditioner(epsilon=1e-8),
    ):
        state, xi = rules.RuleState(), Vector({"x": [torch.tensor([1e-4, -1e-4], dtype=F16)]})
        matrix = preconditioner.update(state, "x", xi)
        found = matrix.apply_inv_sqrt(matrix.apply_inv_sqrt_transpose(xi))["x"][0]
        assert found.dtype == F16
        assert found.tolist() == pytest.approx([1.0, -1.0], rel=1e-2)
        assert state.parameters["x"]["0"]["square.x"].dtype == F32


def complex_end(rule, as_real):
    """The end of a game of complex players that mixes real and imaginary parts, written in either
    form."""
    start = [
        torch.complex(draw(3, seed=1), draw(3, seed=2)),
        torch.complex(draw(2, seed=3), draw(2, seed=4)),
    ]
    x, y = (
        torch.view_as_real(t).clone().requires_grad_() if as_real else t.clone().requires_grad_()
        for t in start
    )
    M = torch.complex(draw(3, 2, seed=5), draw(3, 2, seed=6))

    def losses():
        u, v = (torch.view_as_complex(t) if as_real else t for t in (x, y))
        f = (
            (u @ M @ v).real
            + (u @ M.sin() @ v.conj()).imag
            + 0.3 * u.abs().square().sum()
            - 0.2 * v.abs().square().sum()
        )
        return {"x": f + 0.1 * u.real.pow(3).sum(), "y": -f}

    optimizer = sp.GameOptimizer(
        {"x": torch.optim.SGD([x], lr=0.05), "y": torch.optim.SGD([y], lr=0.05)}, rule
    )
    for _ in range(3):
        optimizer.step(losses)
    return [t.detach() if as_real else torch.view_as_real(t.detach()) for t in (x, y)]


@pytest.mark.filterwarnings(
    "ignore::saddlepoint.errors.SolverWarning", "ignore::saddlepoint.errors.CurvatureWarning"
)
@pytest.mark.parametrize("rule", [*SOLVING.values(), *OTHERS.values()], ids=[*SOLVING, *OTHERS])
def test_complex_parameters_are_pairs_of_real_ones_or_refused(rule):
    if getattr(rule, "preconditioner", None) is not None or isinstance(
        rule, sp.AdaptiveCompetitiveGradient
    ):
        with pytest.raises(
            sp.UsageError,
            match=(
                r'parameter 0 of player "x", shape \(3,\), is complex .* torch\.view_as_real\(p\)'
            ),
        ):
            complex_end(rule, as_real=False)
        return
    for found, reference in zip(
        complex_end(rule, as_real=False), complex_end(rule, as_real=True), strict=True
    ):
        torch.testing.assert_close(found, reference, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", DISPLACING)
class TestRulesThatDisplace:
    @pytest.mark.parametrize("kind", KINDS)
    def test_move_every_kind_of_parameter(self, name, kind):
        """Random numbers of another type are others, so there is no path to compare with."""
        parts, _ = KINDS[kind]
        moved = end(DISPLACING[name], parts, zero_sum=True)
        for given, found in zip((*parts[0], *parts[1]), moved, strict=True):
            assert (found.dtype, found.shape) == (given.dtype, given.shape)
            assert found.isfinite().all()
            assert found.numel() == 0 or not torch.equal(found, given)

    def test_refuse_complex_parameters(self, name):
        with pytest.raises(
            sp.UsageError,
            match=r'Parameter 0 of player "x", shape \(3,\), is complex.*torch\.view_as_complex',
        ):
            complex_end(DISPLACING[name], as_real=False)


def test_proximal_point_on_a_complex_bilinear_game():
    """θ⁺ = (I + J)⁻¹ θ with a learning rate of 1, from 1 and 0.5i."""
    x = torch.tensor([1 + 0j], dtype=torch.complex128, requires_grad=True)
    y = torch.tensor([0.5j], dtype=torch.complex128, requires_grad=True)
    optimizer = sp.GameOptimizer(
        {"x": torch.optim.SGD([x], lr=1.0), "y": torch.optim.SGD([y], lr=1.0)},
        rules.ProximalPoint(tol=1e-12),
    )
    optimizer.step(lambda: {"x": (x * y.conj()).real.sum(), "y": -(x * y.conj()).real.sum()})
    assert x.item() == pytest.approx(0.5 - 0.25j)
    assert y.item() == pytest.approx(0.5 + 0.25j)
