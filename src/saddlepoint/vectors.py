"""Arithmetic on vectors that are split into players and, within a player, into one tensor per parameter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from saddlepoint.precision import widen, widest

Tensors = tuple[Tensor, ...]


class Vector(Mapping[str, Tensors]):
    """An immutable vector of a game's parameter space: player → tensors, in the order of the parameters.

    Sums, differences and multiples run over all tensors at once with ``torch._foreach_*``. Two vectors combine only
    when they have the same players.

    >>> v = Vector({"x": [torch.tensor([1.0, 2.0])], "y": [torch.tensor(3.0)]})
    >>> (2 * v - v).flatten()
    tensor([1., 2., 3.])
    >>> float(v.dot(v)), round(float(v.norm()), 4)
    (14.0, 3.7417)
    """

    __slots__ = ("_parts",)

    def __init__(self, parts: Mapping[str, Iterable[Tensor]]) -> None:
        self._parts: dict[str, Tensors] = {player: tuple(tensors) for player, tensors in parts.items()}

    def __getitem__(self, player: str) -> Tensors:
        return self._parts[player]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{player}: {[tuple(t.shape) for t in tensors]}" for player, tensors in self.items())
        return f"Vector({shapes})"

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, player after player."""
        return [tensor for tensors in self._parts.values() for tensor in tensors]

    def __add__(self, other: Vector) -> Vector:
        return self._rebuild(torch._foreach_add(self.tensors, self._matching(other)))

    def __sub__(self, other: Vector) -> Vector:
        return self._rebuild(torch._foreach_sub(self.tensors, self._matching(other)))

    def __mul__(self, factor: float | Vector) -> Vector:
        """Multiply by a number, or element by element by a vector of the same players."""
        scale = self._matching(factor) if isinstance(factor, Vector) else factor
        return self._rebuild(torch._foreach_mul(self.tensors, scale))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float | Vector) -> Vector:
        scale = self._matching(divisor) if isinstance(divisor, Vector) else divisor
        return self._rebuild(torch._foreach_div(self.tensors, scale))

    def __neg__(self) -> Vector:
        return self._rebuild(torch._foreach_neg(self.tensors))

    def scale(self, factors: Mapping[str, Sequence[float]]) -> Vector:
        """Multiply each tensor by its own number: player → one factor per tensor."""
        return self._rebuild(torch._foreach_mul(self.tensors, [f for player in self for f in factors[player]]))

    def sqrt(self) -> Vector:
        """Return the element-wise square root."""
        return self._rebuild(torch._foreach_sqrt(self.tensors))

    def dot(self, other: Vector) -> Tensor:
        """Return the inner product ⟨self, other⟩ as a tensor without dimensions, in the widest of the types."""
        pairs = list(zip(self.tensors, self._matching(other), strict=True))
        wide = widest(*(t.dtype for pair in pairs for t in pair))
        return torch.stack([a.reshape(-1).to(wide).dot(b.reshape(-1).to(wide)) for a, b in pairs]).sum()

    def norm(self) -> Tensor:
        """Return the Euclidean norm over all players as a tensor without dimensions."""
        return torch.as_tensor(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(self.tensors))))

    def only(self, players: Iterable[str]) -> Vector:
        """Return the part that belongs to ``players``, in their order."""
        return Vector({player: self._parts[player] for player in players})

    def flatten(self) -> Tensor:
        """Return all entries as one tensor of shape (dimension,), in the widest of their types and single precision at least."""
        wide = widest(*(t.dtype for t in self.tensors))
        return torch.cat([t.reshape(-1).to(wide) for t in self.tensors])

    def unflatten(self, flat: Tensor) -> Vector:
        """Return ``flat``, of shape (dimension,), cut into the shapes and types of this vector (views where the type is the same)."""
        tensors = self.tensors
        pieces = torch.split(flat, [t.numel() for t in tensors])
        return self._rebuild([piece.view(t.shape).to(t.dtype) for piece, t in zip(pieces, tensors, strict=True)])

    def widened(self) -> Vector:
        """Return the same values in single precision at least."""
        return self._rebuild(widen(self.tensors))

    def typed(self, like: Vector) -> Vector:
        """Return the same values in the types of another vector."""
        return self._rebuild([t.to(own.dtype) for t, own in zip(self.tensors, self._matching(like), strict=True)])

    def detach(self) -> Vector:
        """Return the same values without history."""
        return self._rebuild([t.detach() for t in self.tensors])

    def clone(self) -> Vector:
        """Return a copy that shares no memory with this vector."""
        return self._rebuild([t.detach().clone() for t in self.tensors])

    def zeros(self) -> Vector:
        """Return zeros of the same shapes."""
        return self._rebuild([torch.zeros_like(t) for t in self.tensors])

    def _matching(self, other: Vector) -> list[Tensor]:
        if list(other) == list(self):
            return other.tensors
        if set(other) != set(self):
            raise ValueError(f"vectors of the players {list(self)} and {list(other)} cannot be combined")
        return [tensor for player in self for tensor in other[player]]

    def _rebuild(self, tensors: Sequence[Tensor]) -> Vector:
        pieces = iter(tensors)
        return Vector({player: [next(pieces) for _ in own] for player, own in self._parts.items()})
