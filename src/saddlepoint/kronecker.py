"""Second moments of a tensor in Kronecker form and their eigenbases, for SOAP and preconditioners.

A gradient G of shape (d_1, …, d_n) has one factor F_i per side, the running mean of G_(i) G_(i)ᵀ
where G_(i) is the unfolding of shape (d_i, rest), and an orthogonal basis Q_i of shape (d_i, d_i)
with the eigenvectors of F_i as columns. A side without a factor has None in both places and is not
rotated: the side of a vector, of an empty tensor, of length 1, or longer than a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

Sides = list[Tensor | None]
"""One matrix per side of a tensor, None for a side without a factor."""

_REGULARIZATION = 1e-30
"""Added to the diagonal, so that the eigenvectors of a zero factor are those of the identity."""


def empty_factors(like: Tensor, max_dimension: int) -> Sides:
    """Return zero factors for the sides of a tensor.

    Vectors, empty tensors, sides of length 1 and sides longer than ``max_dimension`` have none.

    >>> factors = empty_factors(torch.zeros(3, 1, 20), max_dimension=10)
    >>> [None if F is None else tuple(F.shape) for F in factors]
    [(3, 3), None, None]
    """
    if like.dim() < 2 or like.numel() == 0:
        return [None] * like.dim()
    return [
        None if side == 1 or side > max_dimension else like.new_zeros(side, side)
        for side in like.shape
    ]


def accumulate(factors: Sequence[Tensor | None], G: Tensor, decay: float) -> None:
    """F_i ← decay · F_i + (1 − decay) · G_(i) G_(i)ᵀ, in place."""
    for side, factor in enumerate(factors):
        if factor is not None:
            unfolded = G.movedim(side, 0).reshape(len(factor), -1)
            factor.addmm_(unfolded, unfolded.T, beta=decay, alpha=1 - decay)


def rotate(G: Tensor, bases: Sequence[Tensor | None]) -> Tensor:
    """Return G in the eigenbases: every side i multiplied by Q_iᵀ.

    >>> Q = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    >>> rotate(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), [None, Q]).tolist()
    [[2.0, 1.0], [4.0, 3.0]]
    """
    if G.dim() == 2:
        left, right = bases
        G = G if left is None else left.T @ G
        return G if right is None else G @ right
    return _contracted(G, bases)


def rotate_back(G: Tensor, bases: Sequence[Tensor | None]) -> Tensor:
    """Return the inverse of ``rotate``: every side i multiplied by Q_i."""
    if G.dim() == 2:
        left, right = bases
        G = G if left is None else left @ G
        return G if right is None else G @ right.T
    return _contracted(G, [None if Q is None else Q.T for Q in bases])


def eigenbases(factors: Sequence[Tensor | None]) -> Sides:
    """Return the eigenvectors of each factor as columns, by descending eigenvalue."""
    bases: Sides = []
    for F in factors:
        if F is None:
            bases.append(None)
            continue
        # eigh does not support half precision
        precise = F if F.dtype == torch.float64 else F.float()
        identity = torch.eye(len(F), dtype=precise.dtype, device=F.device)
        vectors = torch.linalg.eigh(precise + _REGULARIZATION * identity).eigenvectors
        bases.append(vectors.flip(-1).contiguous().to(F.dtype))
    return bases


def update_eigenbases(
    factors: Sequence[Sequence[Tensor | None]], bases: Sequence[Sequence[Tensor | None]]
) -> tuple[list[Sides], list[Sides]]:
    """Update the eigenbases of several tensors by one step of power iteration, Q ← qr(F Q).

    The columns are sorted by descending Rayleigh quotient. Sides of equal length, of any tensors,
    are processed in one batch.

    Returns:
        The new bases, and for each side the order of its old columns in the new basis, by which
        ``permute`` sorts entries that were kept in the old basis.

    Reference: Wang, Zhao, Vyas et al. (2024), arXiv:2409.11321, algorithm 4.
    """
    new_bases: list[Sides] = [[None] * len(own) for own in bases]
    orders: list[Sides] = [[None] * len(own) for own in bases]
    batches: dict[tuple[int, torch.dtype, torch.device], list[tuple[int, int]]] = {}
    for index, own in enumerate(bases):
        for side, basis in enumerate(own):
            if basis is not None:
                key = len(basis), basis.dtype, basis.device
                batches.setdefault(key, []).append((index, side))
    for sides in batches.values():
        F = torch.stack([cast(Tensor, factors[index][side]) for index, side in sides])
        Q = torch.stack([cast(Tensor, bases[index][side]) for index, side in sides])
        FQ = F @ Q
        order = (Q * FQ).sum(-2).argsort(-1, descending=True)
        ordered = FQ.gather(-1, order.unsqueeze(-2).expand_as(FQ))
        # qr does not support half precision
        precise = ordered if ordered.dtype == torch.float64 else ordered.float()
        updated = torch.linalg.qr(precise)[0].to(Q.dtype)
        for number, (index, side) in enumerate(sides):
            new_bases[index][side], orders[index][side] = updated[number].clone(), order[number]
    return new_bases, orders


def permute(G: Tensor, orders: Sequence[Tensor | None]) -> Tensor:
    """Return G with the entries of each side in the order returned by ``update_eigenbases``."""
    for side, order in enumerate(orders):
        G = G if order is None else G.index_select(side, order)
    return G


def _contracted(G: Tensor, bases: Sequence[Tensor | None]) -> Tensor:
    """Multiply every side i by Q_iᵀ.

    Each pass multiplies the first side and moves it to the end, so that the sides are in their
    original order after the last pass.
    """
    if all(Q is None for Q in bases):
        return G
    for Q in bases:
        rest, unfolded = G.shape[1:], G.reshape(len(G), -1).T
        G = (unfolded if Q is None else unfolded @ Q).reshape(*rest, len(G))
    return G.contiguous()
