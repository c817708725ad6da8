import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saddlepoint.kronecker import (
    accumulate,
    eigenbases,
    empty_factors,
    permute,
    rotate,
    rotate_back,
    update_eigenbases,
)

SHAPES = [(5,), (4, 3), (1, 6), (4, 1), (3, 2, 4), (4, 2, 3, 3)]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bases_for(G, max_dimension=100):
    factors = empty_factors(G, max_dimension)
    for seed in range(3):
        accumulate(factors, draw(*G.shape, seed=10 + seed), 0.5)
    return eigenbases(factors)


def dense(Q, length):
    return torch.eye(length, dtype=torch.float64) if Q is None else Q


@pytest.mark.parametrize("shape", SHAPES)
def test_a_rotation_is_the_kronecker_product_of_the_bases(shape):
    G = draw(*shape)
    Q = torch.ones(1, 1, dtype=torch.float64)
    for own, length in zip(bases_for(G), shape, strict=True):
        Q = torch.kron(Q, dense(own, length))
    torch.testing.assert_close(rotate(G, bases_for(G)).flatten(), Q.T @ G.flatten())
    torch.testing.assert_close(rotate_back(G, bases_for(G)).flatten(), Q @ G.flatten())


@pytest.mark.parametrize("shape", SHAPES)
def test_factors_are_running_means_of_unfoldings(shape):
    factors, G, H = empty_factors(draw(*shape), 100), draw(*shape, seed=1), draw(*shape, seed=2)
    accumulate(factors, G, 0.9)
    accumulate(factors, H, 0.9)
    for side, F in enumerate(factors):
        if F is not None:
            a, b = (t.movedim(side, 0).flatten(1) for t in (G, H))
            torch.testing.assert_close(F, 0.09 * a @ a.T + 0.1 * b @ b.T)
    assert [F is None for F in factors] == [len(shape) == 1 or length == 1 for length in shape]


@given(seed=st.integers(0, 1000), max_dimension=st.integers(1, 5))
def test_rotations_keep_lengths_and_turn_back(seed, max_dimension):
    G = draw(4, 3, 5, seed=seed)
    bases = bases_for(G, max_dimension)
    there = rotate(G, bases)
    torch.testing.assert_close(there.norm(), G.norm())
    torch.testing.assert_close(rotate_back(there, bases), G)


def test_eigenbases_diagonalise_their_factors_with_falling_eigenvalues():
    factors = empty_factors(draw(6, 4), 100)
    accumulate(factors, draw(6, 4), 0.0)
    for F, Q in zip(factors, eigenbases(factors), strict=True):
        D = Q.T @ F @ Q
        torch.testing.assert_close(D, torch.diag(D.diagonal()), rtol=0, atol=1e-12)
        assert bool((D.diagonal().diff() <= 1e-12).all())


def test_refreshing_again_and_again_finds_the_eigenbasis():
    """Power iteration: from any start to the eigenvectors, of many tensors at once."""
    tensors = [draw(4, 3, seed=1), draw(3, 4, seed=2), draw(2, 4, 3, seed=3)]
    factors = [empty_factors(t, 100) for t in tensors]
    for own, t in zip(factors, tensors, strict=True):
        accumulate(own, t, 0.0)
        accumulate(own, draw(*t.shape, seed=9), 0.5)
    bases = [
        [None if F is None else torch.linalg.qr(draw(*F.shape, seed=7))[0] for F in own]
        for own in factors
    ]
    for _ in range(2000):
        bases, _ = update_eigenbases(factors, bases)
    for own, found in zip(factors, bases, strict=True):
        for F, Q, exact in zip(own, found, eigenbases(own), strict=True):
            torch.testing.assert_close(
                (Q.T @ exact).abs(), torch.eye(len(F), dtype=torch.float64), rtol=0, atol=1e-6
            )


def test_the_order_belongs_to_the_columns():
    """A basis whose columns are in the wrong order comes back in the right one, and what is kept in
    it is sorted likewise."""
    factors = [[torch.diag(torch.tensor([1.0, 3.0, 2.0])), None]]
    bases, orders = update_eigenbases(factors, [[torch.eye(3), None]])
    assert bases[0][0].abs().tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    kept = torch.tensor([[10.0, 11.0], [30.0, 31.0], [20.0, 21.0]])
    assert permute(kept, orders[0])[:, 0].tolist() == [30, 20, 10]


def test_half_precision_is_turned_in_single():
    factors = [[torch.eye(3, dtype=torch.bfloat16), None]]
    (own,), _ = update_eigenbases(factors, [eigenbases(factors[0])])
    assert own[0].dtype == torch.bfloat16
