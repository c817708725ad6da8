"""Metrics against dense matrices, and the implicit rules in them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import saddlepoint as sp
from saddlepoint import rules
from saddlepoint.kronecker import accumulate, eigenbases, empty_factors, update_eigenbases
from saddlepoint.rules import RuleState
from saddlepoint.vectors import Vector

TIGHT = {"tol": 1e-14, "max_iter": 200}
BETA, EPSILON, FREQUENCY = 0.8, 1e-3, 3


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def vector(seed):
    return Vector(
        {"x": [draw(3, 2, seed=seed), draw(4, seed=seed + 1)], "y": [draw(2, 2, 2, seed=seed + 2)]}
    )


class DenseKronecker:
    """P of each tensor as a matrix, from the definition; parameters in the order of the tensors."""

    def __init__(self, tensors):
        self.factors = [empty_factors(t, 100) for t in tensors]
        self.Q, self.v, self.t = (
            None,
            [torch.zeros(t.numel(), dtype=torch.float64) for t in tensors],
            0,
        )

    def update(self, gradients):
        self.t += 1
        first = self.Q is None
        if first:
            self._accumulate(gradients)
            self.Q = [eigenbases(own) for own in self.factors]
        blocks = []
        for n, g in enumerate(gradients):
            Q = self._dense(n, g.shape)
            self.v[n] = BETA * self.v[n] + (1 - BETA) * (Q.T @ g.flatten()) ** 2
            blocks.append(
                Q @ torch.diag((self.v[n].sqrt() + EPSILON) / (1 - BETA**self.t) ** 0.5) @ Q.T
            )
        if not first:
            self._accumulate(gradients)
        if self.t % FREQUENCY == 0:
            self.Q, orders = update_eigenbases(self.factors, self.Q)
            for n, (g, own) in enumerate(zip(gradients, orders, strict=True)):
                index = torch.arange(g.numel()).reshape(g.shape)
                for side, order in enumerate(own):
                    index = index if order is None else index.index_select(side, order)
                self.v[n] = self.v[n][index.flatten()]
        return torch.block_diag(*blocks)

    def _accumulate(self, gradients):
        for own, g in zip(self.factors, gradients, strict=True):
            accumulate(own, g, BETA)

    def _dense(self, n, shape):
        Q = torch.ones(1, 1, dtype=torch.float64)
        for own, length in zip(self.Q[n], shape, strict=True):
            Q = torch.kron(Q, torch.eye(length, dtype=torch.float64) if own is None else own)
        return Q


def kronecker():
    return rules.KroneckerPreconditioner(beta=BETA, epsilon=EPSILON, frequency=FREQUENCY)


@given(seed=st.integers(0, 1000), steps=st.integers(1, 5), diagonal=st.booleans())
def test_the_four_maps_of_a_metric_belong_together(seed, steps, diagonal):
    state, preconditioner = RuleState(), rules.RMSPreconditioner() if diagonal else kronecker()
    for step in range(steps):
        matrix = preconditioner.update(state, "name", vector(seed + step))
    a, b = vector(seed + 50), vector(seed + 60)
    for there, back in (
        (matrix.apply_inv_sqrt, matrix.apply_sqrt),
        (matrix.apply_inv_sqrt_transpose, matrix.apply_sqrt_transpose),
    ):
        torch.testing.assert_close(back(there(a)).flatten(), a.flatten())
    torch.testing.assert_close(
        matrix.apply_inv_sqrt(a).dot(b), a.dot(matrix.apply_inv_sqrt_transpose(b))
    )
    torch.testing.assert_close(
        matrix.only(["y"]).apply_inv_sqrt(a.only(["y"])).flatten(),
        matrix.apply_inv_sqrt(a).only(["y"]).flatten(),
    )


def test_kronecker_is_the_dense_metric_through_refreshes_and_a_state_dict():
    state, reference = RuleState(), DenseKronecker(vector(0).tensors)
    for step in range(8):
        xi, b = vector(10 * step), vector(1000 + step)
        P = reference.update(xi.tensors)
        matrix = kronecker().update(state, "name", xi)
        torch.testing.assert_close(
            matrix.apply_inv_sqrt(matrix.apply_inv_sqrt_transpose(b)).flatten(),
            torch.linalg.solve(P, b.flatten()),
        )
        torch.testing.assert_close(
            matrix.apply_sqrt_transpose(matrix.apply_sqrt(b)).flatten(), P @ b.flatten()
        )
        saved = state.state_dict()
        state = RuleState()
        state.load_state_dict(saved)


def test_without_sides_to_rotate_it_is_rms():
    states = [RuleState(), RuleState()]
    preconditioners = [
        rules.KroneckerPreconditioner(beta=BETA, epsilon=EPSILON, max_dimension=0),
        rules.RMSPreconditioner(beta=BETA, epsilon=EPSILON),
    ]
    for step in range(4):
        found = [
            preconditioner.update(state, "n", vector(step))
            for preconditioner, state in zip(preconditioners, states, strict=True)
        ]
        torch.testing.assert_close(
            *(matrix.apply_inv_sqrt(vector(99)).flatten() for matrix in found)
        )


@pytest.mark.parametrize("warm_start", [False, True])
@pytest.mark.parametrize("zero_sum", [False, True])
@pytest.mark.parametrize("part", ["interaction", "full"])
def test_implicit_rules_in_the_kronecker_metric_solve_the_dense_system(
    tiny_gan, zero_sum, part, warm_start
):
    gan, reference = tiny_gan(zero_sum=zero_sum), tiny_gan(zero_sum=zero_sum)
    kind = sp.CompetitiveGradient if part == "interaction" else rules.ProximalPoint
    lrs = {"discriminator": 0.02, "generator": 0.05}
    inner = {p: torch.optim.SGD(tensors, lr=lrs[p]) for p, tensors in gan.players.items()}
    optimizer = sp.GameOptimizer(
        inner, kind(preconditioner=kronecker(), warm_start=warm_start, **TIGHT)
    )
    tensors = [p for own in reference.players.values() for p in own]
    dense, L = (
        DenseKronecker([p.detach() for p in tensors]),
        torch.zeros(len(reference.theta()), dtype=torch.float64),
    )
    for player, rows in reference.sizes().items():
        L[rows] = lrs[player]
    for _ in range(7):
        xi, J = reference.dense()
        pieces = [
            g.view_as(p)
            for g, p in zip(xi.split([p.numel() for p in tensors]), tensors, strict=True)
        ]
        if part == "interaction":
            for rows in reference.sizes().values():
                J[rows, rows] = 0
        reference.move(-L * torch.linalg.solve(dense.update(pieces) + J * L, xi))
        optimizer.step(gan.losses)
    torch.testing.assert_close(gan.theta(), reference.theta(), rtol=0, atol=1e-8)


def test_competitive_gradient_with_rms_is_the_adaptive_one(tiny_gan):
    paths = []
    for rule in (
        sp.CompetitiveGradient(
            preconditioner=sp.RMSPreconditioner(beta=0.9), tol=1e-4, max_iter=20
        ),
        sp.AdaptiveCompetitiveGradient(beta=0.9, tol=1e-4, max_iter=20),
    ):
        gan = tiny_gan()
        optimizer = sp.GameOptimizer(
            {p: torch.optim.SGD(t, lr=0.02) for p, t in gan.players.items()}, rule
        )
        for _ in range(5):
            optimizer.step(gan.losses)
        paths.append(gan.theta())
    assert torch.equal(*paths)


@pytest.mark.parametrize("part", ["own", "full"])
def test_newton_s_damping_in_the_kronecker_metric(tiny_gan, part):
    """(J_part + λP) d = ξ, by dense algebra; |H| where the part is the players' own."""
    gan = tiny_gan()
    tensors = [p.detach() for own in gan.players.values() for p in own]
    xi, J = gan.dense()
    P = DenseKronecker(tensors).update(
        [g.view_as(p) for g, p in zip(xi.split([p.numel() for p in tensors]), tensors, strict=True)]
    )
    expected = torch.linalg.solve(J + 3.0 * P, xi)
    if part == "own":
        values, vectors = torch.linalg.eigh(P)
        half = vectors @ torch.diag(values**-0.5) @ vectors.T
        expected = torch.zeros_like(xi)
        for rows in gan.sizes().values():
            S = half[rows, rows]
            lam, V = torch.linalg.eigh(S @ J[rows, rows] @ S)
            expected[rows] = S @ V @ ((V.T @ S @ xi[rows]) / (lam.abs() + 3.0))
    before = gan.theta()
    inner = {p: torch.optim.SGD(t, lr=1.0) for p, t in gan.players.items()}
    sp.GameOptimizer(
        inner, sp.Newton(part=part, damping=3.0, adapt=False, preconditioner=kronecker(), **TIGHT)
    ).step(gan.losses)
    torch.testing.assert_close(before - gan.theta(), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: rules.KroneckerPreconditioner(beta=1.0),
            "KroneckerPreconditioner: needs 0 ≤ beta < 1 and epsilon > 0",
        ),
        (
            lambda: rules.KroneckerPreconditioner(frequency=0),
            "KroneckerPreconditioner: needs frequency ≥ 1 and max_dimension ≥ 0",
        ),
    ],
)
def test_options_are_checked_at_construction(make, text):
    with pytest.raises(sp.UsageError, match=text):
        make()
