"""Vectors of a game: player → tensors, with arithmetic over all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from saddlepoint.precision import widen, widest

Tensors = tuple[Tensor, ...]


class Vector(Mapping[str, Tensors]):
    """An immutable vector of a game's parameter space: player → one tensor per parameter.

    Arithmetic runs over all tensors at once with ``torch._foreach_*``. Two vectors can be combined
    only if they have the same players. Complex tensors count as pairs of real numbers, as in
    torch's optimizers: the inner product is the real one, Re Σ conj(a) b, and ``flatten``
    interleaves real and imaginary parts.

    >>> v = Vector({"x": [torch.tensor([1.0, 2.0])], "y": [torch.tensor(3.0)]})
    >>> (2 * v - v).flatten()
    tensor([1., 2., 3.])
    >>> float(v.dot(v)), round(float(v.norm()), 4)
    (14.0, 3.7417)
    """

    __slots__ = ("_parts",)

    def __init__(self, parts: Mapping[str, Iterable[Tensor]]) -> None:
        self._parts: dict[str, Tensors] = {}
        for player, tensors in parts.items():
            self._parts[player] = tuple(tensors)

    def __getitem__(self, player: str) -> Tensors:
        return self._parts[player]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __repr__(self) -> str:
        players = []
        for player, tensors in self._parts.items():
            players.append(f"{player}: {[tuple(t.shape) for t in tensors]}")
        return f"Vector({', '.join(players)})"

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, player after player."""
        return [tensor for tensors in self._parts.values() for tensor in tensors]

    def __add__(self, other: Vector) -> Vector:
        return self.rebuild(torch._foreach_add(self.tensors, self._matching(other)))

    def __sub__(self, other: Vector) -> Vector:
        return self.rebuild(torch._foreach_sub(self.tensors, self._matching(other)))

    def __mul__(self, factor: float | Vector) -> Vector:
        """Multiply by a number, or elementwise by a vector of the same players."""
        scale = self._matching(factor) if isinstance(factor, Vector) else factor
        return self.rebuild(torch._foreach_mul(self.tensors, scale))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float | Vector) -> Vector:
        scale = self._matching(divisor) if isinstance(divisor, Vector) else divisor
        return self.rebuild(torch._foreach_div(self.tensors, scale))

    def __neg__(self) -> Vector:
        return self.rebuild(torch._foreach_neg(self.tensors))

    def scale(self, factors: Mapping[str, Sequence[float]]) -> Vector:
        """Multiply each tensor by its own factor, given as player → one factor per tensor."""
        flat: list[float] = []
        for player in self:
            flat += factors[player]
        return self.rebuild(torch._foreach_mul(self.tensors, flat))

    def sqrt(self) -> Vector:
        """Return the elementwise square root."""
        return self.rebuild(torch._foreach_sqrt(self.tensors))

    def dot(self, other: Vector) -> Tensor:
        """Return the inner product ⟨self, other⟩ as a 0-d tensor in the widest of the dtypes."""
        own = [_flat_real(t) for t in self.tensors]
        others = [_flat_real(t) for t in self._matching(other)]
        dtype = widest(*(t.dtype for t in (*own, *others)))
        products = [a.to(dtype).dot(b.to(dtype)) for a, b in zip(own, others, strict=True)]
        return torch.stack(products).sum()

    def norm(self) -> Tensor:
        """Return the Euclidean norm over all players as a 0-d tensor."""
        norms = torch.stack(torch._foreach_norm(widen(self.tensors)))
        return torch.as_tensor(torch.linalg.vector_norm(norms))

    def norms(self) -> dict[str, float]:
        """Return each player's Euclidean norm as a number, with one transfer from the device."""
        sizes = {player: len(own) for player, own in self.items()}
        return norms_by_player(sizes, self.tensor_norms().tolist())

    def tensor_norms(self) -> Tensor:
        """Return the Euclidean norm of each tensor, shape (tensors,), on the device."""
        return torch.stack(torch._foreach_norm(self.tensors))

    def length(self) -> float:
        """Return the Euclidean norm as a number, computed in float64 to avoid overflow."""
        norms = torch._foreach_norm([_flat_real(t) for t in self.tensors], 2, torch.float64)
        return math.hypot(*(float(norm) for norm in norms))

    def only(self, players: Iterable[str]) -> Vector:
        """Return the parts of ``players``, in their order."""
        return Vector({player: self._parts[player] for player in players})

    def flatten(self) -> Tensor:
        """Return all entries as one real tensor of shape (dimension,).

        Its dtype is the widest of the tensors' dtypes, single precision at least.
        """
        entries = [_flat_real(t) for t in self.tensors]
        dtype = widest(*(t.dtype for t in entries))
        return torch.cat([t.to(dtype) for t in entries])

    def unflatten(self, flat: Tensor) -> Vector:
        """Return ``flat``, of shape (dimension,), with the shapes and dtypes of this vector.

        The tensors are views of ``flat`` where the dtypes agree.
        """
        tensors = self.tensors
        pieces = torch.split(flat, [_real_size(t) for t in tensors])
        shaped = []
        for piece, like in zip(pieces, tensors, strict=True):
            if like.is_complex():
                pairs = piece.view(*like.shape, 2).to(like.real.dtype)
                shaped.append(torch.view_as_complex(pairs.contiguous()))
            else:
                shaped.append(piece.view(like.shape).to(like.dtype))
        return self.rebuild(shaped)

    @property
    def dimension(self) -> int:
        """The number of real entries: the length of ``flatten()``."""
        return sum(_real_size(t) for t in self.tensors)

    def widened(self) -> Vector:
        """Return the vector in single precision at least."""
        return self.rebuild(widen(self.tensors))

    def typed(self, like: Vector) -> Vector:
        """Return the vector in the dtypes of another vector."""
        others = self._matching(like)
        return self.rebuild([t.to(o.dtype) for t, o in zip(self.tensors, others, strict=True)])

    def detach(self) -> Vector:
        """Return the vector detached from the graph."""
        return self.rebuild([t.detach() for t in self.tensors])

    def clone(self) -> Vector:
        """Return a copy that shares no memory with this vector."""
        return self.rebuild([t.detach().clone() for t in self.tensors])

    def zeros(self) -> Vector:
        """Return a vector of zeros of the same shapes."""
        return self.rebuild([torch.zeros_like(t) for t in self.tensors])

    def _matching(self, other: Vector) -> list[Tensor]:
        """Return the tensors of another vector in the order of this vector's players."""
        if list(other) == list(self):
            return other.tensors
        if set(other) != set(self):
            raise ValueError(
                f"vectors of the players {list(self)} and {list(other)} cannot be combined"
            )
        return other.only(self).tensors

    def rebuild(self, tensors: Sequence[Tensor]) -> Vector:
        """Return a vector of the same players with other tensors, in the order of ``tensors``."""
        remaining = iter(tensors)
        parts = {}
        for player, own in self._parts.items():
            parts[player] = [next(remaining) for _ in own]
        return Vector(parts)


def norms_by_player(sizes: Mapping[str, int], tensor_norms: Iterable[float]) -> dict[str, float]:
    """Return player → norm, from player → number of tensors and the norms of all tensors."""
    remaining = iter(tensor_norms)
    norms = {}
    for player, size in sizes.items():
        norms[player] = math.hypot(*[next(remaining) for _ in range(size)])
    return norms


def _real_size(tensor: Tensor) -> int:
    return tensor.numel() * (2 if tensor.is_complex() else 1)


def _flat_real(tensor: Tensor) -> Tensor:
    """Return the entries as a real 1-d tensor, with interleaved real and imaginary parts."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor.reshape(-1)
