"""Second moments of a tensor in Kronecker form, and the eigenbases of its sides: what SOAP and the Kronecker metric share.

A gradient G of shape (d_1, …, d_n) has one factor F_i per side, the running mean of G_(i) G_(i)ᵀ
with G_(i) the unfolding of shape (d_i, rest), and an orthogonal basis Q_i of shape (d_i, d_i) with
the eigenvectors of F_i as columns. A side that has no factor (a vector's, one of a tensor without
entries, one of length 1, one longer than a limit) has None in both places and is not rotated.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Sides = list[Tensor | None]
"""One matrix per side of a tensor, or None where the side is left as it is."""

_REGULAR = 1e-30  # keeps the eigenvectors of an exactly zero factor those of the identity


def empty_factors(like: Tensor, longest: int) -> Sides:
    """Return zero factors for a tensor's sides; vectors, tensors without entries, sides of length 1 or above ``longest`` have none.

    >>> [None if f is None else tuple(f.shape) for f in empty_factors(torch.zeros(3, 1, 20), longest=10)]
    [(3, 3), None, None]
    """
    if like.dim() < 2 or like.numel() == 0:
        return [None] * like.dim()
    return [
        None if side == 1 or side > longest else like.new_zeros(side, side) for side in like.shape
    ]


def accumulate(factors: Sequence[Tensor | None], G: Tensor, decay: float) -> None:
    """F_i ← decay · F_i + (1 − decay) · G_(i) G_(i)ᵀ, in place."""
    for side, factor in enumerate(factors):
        if factor is not None:
            unfolded = G.movedim(side, 0).reshape(len(factor), -1)
            factor.addmm_(unfolded, unfolded.T, beta=decay, alpha=1 - decay)


def rotated(G: Tensor, bases: Sequence[Tensor | None]) -> Tensor:
    """Return G in the bases: every side i multiplied by Q_iᵀ.

    >>> Q = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    >>> rotated(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), [None, Q]).tolist()
    [[2.0, 1.0], [4.0, 3.0]]
    """
    if G.dim() == 2:
        left, right = bases
        G = G if left is None else left.T @ G
        return G if right is None else G @ right
    return _contracted(G, bases)


def rotated_back(G: Tensor, bases: Sequence[Tensor | None]) -> Tensor:
    """Return what ``rotated`` would turn into G: every side i multiplied by Q_i."""
    if G.dim() == 2:
        left, right = bases
        G = G if left is None else left @ G
        return G if right is None else G @ right.T
    return _contracted(G, [None if Q is None else Q.T for Q in bases])


def eigenbases(factors: Sequence[Tensor | None]) -> Sides:
    """Return the eigenvectors of the factors as columns, of falling eigenvalues."""
    return [None if F is None else _eigenvectors(F) for F in factors]


def refresh(
    factors: Sequence[Sequence[Tensor | None]], bases: Sequence[Sequence[Tensor | None]]
) -> tuple[list[Sides], list[Sides]]:
    """Take one step of power iteration for the bases of several tensors at once, Q ← qr(F Q), columns by falling Rayleigh quotient.

    Sides of the same length, of whichever tensors, are one batch.

    Returns:
        The new bases, and for each side the order in which its columns were taken, by which what is
        kept in the old basis entry by entry is to be sorted.

    Reference: Wang, Zhao, Vyas et al. (2024), arXiv:2409.11321, algorithm 4.
    """
    fresh, orders = ([list[Tensor | None]([None] * len(own)) for own in bases] for _ in range(2))
    alike: dict[tuple[int, torch.dtype, torch.device], list[tuple[int, int]]] = {}
    for which, own in enumerate(bases):
        for side, Q in enumerate(own):
            if Q is not None:
                alike.setdefault((len(Q), Q.dtype, Q.device), []).append((which, side))
    for places in alike.values():
        F = torch.stack([_present(factors[which][side]) for which, side in places])
        Q = torch.stack([_present(bases[which][side]) for which, side in places])
        FQ = F @ Q
        order = (Q * FQ).sum(-2).argsort(-1, descending=True)
        sorted_ = FQ.gather(-1, order.unsqueeze(-2).expand_as(FQ))
        # there is no QR in half precision
        precise = sorted_ if sorted_.dtype == torch.float64 else sorted_.float()
        turned = torch.linalg.qr(precise)[0].to(Q.dtype)
        for number, (which, side) in enumerate(places):
            fresh[which][side], orders[which][side] = turned[number].clone(), order[number]
    return fresh, orders


def reordered(G: Tensor, orders: Sequence[Tensor | None]) -> Tensor:
    """Return G with the entries of each side in the order that ``refresh`` gave."""
    for side, order in enumerate(orders):
        G = G if order is None else G.index_select(side, order)
    return G


def _contracted(G: Tensor, bases: Sequence[Tensor | None]) -> Tensor:
    """Multiply the first side and move it to the end, once for every side: after all of them the order is the old one."""
    if all(Q is None for Q in bases):
        return G
    for Q in bases:
        rest, unfolded = G.shape[1:], G.reshape(len(G), -1).T
        G = (unfolded if Q is None else unfolded @ Q).reshape(*rest, len(G))
    return G.contiguous()


def _eigenvectors(F: Tensor) -> Tensor:
    precise = F if F.dtype == torch.float64 else F.float()
    regular = precise + _REGULAR * torch.eye(len(F), dtype=precise.dtype, device=F.device)
    vectors: Tensor = torch.linalg.eigh(regular).eigenvectors
    return vectors.flip(-1).contiguous().to(F.dtype)


def _present(matrix: Tensor | None) -> Tensor:
    assert matrix is not None
    return matrix
