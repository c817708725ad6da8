"""Complex, mixed, empty and single numbers: every rule is right with them, or refuses them by name."""

import pytest
import torch

import saddlepoint as sp
from saddlepoint import rules

F64, C128 = torch.float64, torch.complex128
EXACT = {"tolerance": 1e-13, "budget": 200}
RULES = {
    "gradient": rules.Gradient(),
    "optimistic": rules.Optimistic(),
    "extragradient": rules.Extragradient(),
    "past extragradient": rules.PastExtragradient(),
    "runge-kutta": rules.RungeKutta(regularization=0.1, regularized="x"),
    "consensus": rules.Consensus(0.1),
    "sga": rules.SymplecticAdjustment(),
    "hamiltonian": rules.Hamiltonian(),
    "stochastic hamiltonian": rules.StochasticHamiltonian(),
    "jare": rules.JacobianRegularized(0.5),
    "lola": rules.OpponentShaping(0.1),
    "sos": rules.StableOpponentShaping(0.1),
    "cgd": rules.CompetitiveGradient(**EXACT),
    "lcgd": rules.LinearizedCompetitiveGradient(),
    "proximal": rules.ProximalPoint(**EXACT),
    "newton": rules.Newton(**EXACT),
    "newton, cg": rules.Newton(solver="cg", damping=10.0, **EXACT),
    "newton, minres": rules.Newton(solver="minres", damping=10.0, **EXACT),
    "newton, full": rules.Newton(part="full", **EXACT),
    "total gradient": rules.TotalGradient(leader="y", follower="x", damping=1.0, **EXACT),
    "unrolled": rules.Unrolled(leader="y", follower="x", unroll=2),
    "lookahead": rules.Lookahead(k=2),
    "averaged": rules.Averaged(),
    "clipped": rules.Clipped(norm=0.3),
    "every": rules.Every(rules.Consensus(0.1), k=2),
}
METRICS = {
    "acgd": rules.AdaptiveCompetitiveGradient(**EXACT),
    "cgd, rms": rules.CompetitiveGradient(scaling=rules.RMS(), **EXACT),
    "cgd, kronecker": rules.CompetitiveGradient(scaling=rules.Kronecker(), **EXACT),
    "proximal, rms": rules.ProximalPoint(scaling=rules.RMS(), **EXACT),
    "newton, kronecker": rules.Newton(scaling=rules.Kronecker(), **EXACT),
}
LOSSES_ONLY = {"smoothing": rules.RandomizedSmoothing(0.1, samples=2), "spsa": rules.SimultaneousPerturbation(c=0.1)}


def play(rule, players, losses, steps=3, lr=0.05):
    optimizer = sp.GameOptimizer({n: torch.optim.SGD(own, lr=lr) for n, own in players.items()}, rule)
    for _ in range(steps):
        optimizer.step(losses)
    return optimizer


def draw(*shape, dtype=F64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def coupled(z, w):
    """A general-sum game of a complex z and a real w, with interaction and curvature."""
    zero = (z * z.conj()).real.sum() + 0.3 * (z * w[0]).real.sum() + 0.2 * (z**3).imag.sum()
    return {"x": zero + (z.abs() + 1).log().sum(), "y": -zero + 0.5 * (w**2).sum() + 0.1 * (w[1] * z.imag).sum()}


@pytest.mark.parametrize("name", RULES)
def test_a_complex_parameter_is_a_pair_of_real_ones(name):
    start, w_start = draw(3, dtype=C128), draw(2, seed=1)
    z, w = start.clone().requires_grad_(), w_start.clone().requires_grad_()
    play(RULES[name], {"x": [z], "y": [w]}, lambda: coupled(z, w))
    pairs, w2 = torch.view_as_real(start).clone().requires_grad_(), w_start.clone().requires_grad_()
    play(RULES[name], {"x": [pairs], "y": [w2]}, lambda: coupled(torch.view_as_complex(pairs), w2))
    assert torch.allclose(torch.view_as_real(z.detach()), pairs, rtol=1e-9, atol=1e-12)
    assert torch.allclose(w, w2, rtol=1e-9, atol=1e-12)


def test_proximal_point_on_a_complex_bilinear_game():
    """θ⁺ = (I + J)⁻¹ θ at rate 1, from 1 and 0.5i, say: x moves to what the dense solve of the real form gives."""
    x, y = torch.tensor([1 + 0j], dtype=C128, requires_grad=True), torch.tensor([0.5j], dtype=C128, requires_grad=True)
    play(
        rules.ProximalPoint(**EXACT),
        {"x": [x], "y": [y]},
        lambda: {"x": (x * y.conj()).real.sum(), "y": -(x * y.conj()).real.sum()},
        1,
        1.0,
    )
    assert x.item() == pytest.approx(0.5 - 0.25j)
    assert y.item() == pytest.approx(0.5 + 0.25j)


@pytest.mark.parametrize("name", LOSSES_ONLY)
def test_rules_that_displace_refuse_complex_parameters(name):
    z = draw(2, dtype=C128).requires_grad_()
    with pytest.raises(sp.UsageError, match=r'Parameter 0 of player "x", shape \(2,\), is complex.*torch\.view_as_complex'):
        sp.GameOptimizer({"x": torch.optim.SGD([z], lr=0.1)}, LOSSES_ONLY[name])


def mixed_losses(a, b, c, d):
    """Players ("x": a, b) and ("y": c, d); every tensor in its own dtype, computed in float64."""
    a, b, c, d = (t.double() for t in (a, b, c, d))
    x, y = (a @ b + b).tanh(), (c @ d + d).sin()
    zero = (x * y).sum()
    return {"x": zero + 0.1 * (a**2).sum() + 0.2 * (b**2).sum(), "y": -zero + 0.3 * (c**2).sum() + 0.1 * (d**2).sum()}


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("name", [*RULES, *METRICS, *LOSSES_ONLY])
def test_players_and_tensors_of_different_precision(name, within):
    rule = {**RULES, **METRICS, **LOSSES_ONLY}[name]
    starts = [draw(2, 2, seed=seed).float() for seed in range(4)]
    kinds = (torch.float32, F64, F64, torch.float32) if within else (torch.float32, torch.float32, F64, F64)
    ends = []
    for dtypes in (kinds, (F64,) * 4):
        a, b, c, d = (s.to(t, copy=True).requires_grad_() for s, t in zip(starts, dtypes, strict=True))
        play(rule, {"x": [a, b], "y": [c, d]}, lambda a=a, b=b, c=c, d=d: mixed_losses(a, b, c, d))
        assert [p.dtype for p in (a, b, c, d)] == list(dtypes)
        ends.append(torch.cat([p.detach().double().reshape(-1) for p in (a, b, c, d)]))
    if name in LOSSES_ONLY:  # random numbers of another precision are others
        assert torch.isfinite(ends[0]).all()
    else:
        assert torch.allclose(
            *ends, rtol=2e-3 if "kronecker" in name or "acgd" in name else 1e-5, atol=1e-3 if "kronecker" in name else 1e-5
        )


@pytest.mark.parametrize("name", [*RULES, *METRICS, *LOSSES_ONLY])
@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), ()])
def test_empty_and_single_parameters(name, shape):
    rule = {**RULES, **METRICS, **LOSSES_ONLY}[name]
    a, b = draw(2, 2).requires_grad_(), draw(2, 2, seed=1).requires_grad_()
    odd = torch.ones(shape, dtype=F64, requires_grad=True)

    def losses():
        zero = (a @ b).tanh().sum() + (odd**2).sum() * b.sum()
        return {"x": zero + 0.1 * (a**2).sum(), "y": -zero + 0.1 * (b**2).sum()}

    play(rule, {"x": [a, odd], "y": [b]}, losses)
    assert all(torch.isfinite(p).all() for p in (a, b, odd))
    assert odd.shape == shape


@pytest.mark.parametrize("name", [*RULES, *METRICS])
def test_the_memory_layout_of_parameters_does_not_matter(name):
    rule = {**RULES, **METRICS}[name]
    start, other = draw(2, 3, 2, 2), draw(3, 2, seed=1)
    ends = []
    for layout in ("plain", "other"):
        a, b = start.clone(), other.clone()
        if layout == "other":
            a, b = a.to(memory_format=torch.channels_last), b.T.contiguous().T
        a, b = a.requires_grad_(), b.requires_grad_()

        def losses(a=a, b=b):
            zero = torch.einsum("ijkl,jm->", a.tanh(), b.sin()) + (a.sum(1).flatten() ** 2).sum() * b.sum()
            return {"x": 0.1 * zero + 0.1 * (a**2).sum(), "y": -0.1 * zero + 0.3 * (b**2).sum()}

        play(rule, {"x": [a], "y": [b]}, losses)
        assert a.is_contiguous(memory_format=torch.channels_last) == (layout == "other")
        ends.append(torch.cat([a.detach().reshape(-1), b.detach().reshape(-1)]))
    assert torch.allclose(*ends, rtol=1e-7, atol=1e-10)
