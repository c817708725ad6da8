"""Arithmetic on vectors that are split into players and, within a player, into one tensor per parameter."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from saddlepoint.precision import widen, widest

Tensors = tuple[Tensor, ...]


class Vector(Mapping[str, Tensors]):
    """An immutable vector of a game's parameter space: player → tensors, in the order of the parameters.

    Sums, differences and multiples run over all tensors at once with ``torch._foreach_*``. Two
    vectors combine only when they have the same players. Complex tensors count as pairs of real
    numbers, as in torch's optimizers: the inner product is the real one, Re Σ conj(a) b, and
    ``flatten`` writes real and imaginary parts side by side.

    >>> v = Vector({"x": [torch.tensor([1.0, 2.0])], "y": [torch.tensor(3.0)]})
    >>> (2 * v - v).flatten()
    tensor([1., 2., 3.])
    >>> float(v.dot(v)), round(float(v.norm()), 4)
    (14.0, 3.7417)
    """

    __slots__ = ("_parts",)

    def __init__(self, parts: Mapping[str, Iterable[Tensor]]) -> None:
        self._parts: dict[str, Tensors] = {
            player: tuple(tensors) for player, tensors in parts.items()
        }

    def __getitem__(self, player: str) -> Tensors:
        return self._parts[player]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __repr__(self) -> str:
        shapes = ", ".join(
            f"{player}: {[tuple(t.shape) for t in tensors]}" for player, tensors in self.items()
        )
        return f"Vector({shapes})"

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, player after player."""
        return [tensor for tensors in self._parts.values() for tensor in tensors]

    def __add__(self, other: Vector) -> Vector:
        return self.rebuild(torch._foreach_add(self.tensors, self._matching(other)))

    def __sub__(self, other: Vector) -> Vector:
        return self.rebuild(torch._foreach_sub(self.tensors, self._matching(other)))

    def __mul__(self, factor: float | Vector) -> Vector:
        """Multiply by a number, or element by element by a vector of the same players."""
        scale = self._matching(factor) if isinstance(factor, Vector) else factor
        return self.rebuild(torch._foreach_mul(self.tensors, scale))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float | Vector) -> Vector:
        scale = self._matching(divisor) if isinstance(divisor, Vector) else divisor
        return self.rebuild(torch._foreach_div(self.tensors, scale))

    def __neg__(self) -> Vector:
        return self.rebuild(torch._foreach_neg(self.tensors))

    def scale(self, factors: Mapping[str, Sequence[float]]) -> Vector:
        """Multiply each tensor by its own number: player → one factor per tensor."""
        return self.rebuild(
            torch._foreach_mul(self.tensors, [f for player in self for f in factors[player]])
        )

    def sqrt(self) -> Vector:
        """Return the element-wise square root."""
        return self.rebuild(torch._foreach_sqrt(self.tensors))

    def dot(self, other: Vector) -> Tensor:
        """Return the inner product ⟨self, other⟩ as a tensor without dimensions, in the widest of the dtypes."""
        own, others = (
            [_real(t) for t in tensors] for tensors in (self.tensors, self._matching(other))
        )
        wide = widest(*(t.dtype for t in (*own, *others)))
        return torch.stack(
            [a.to(wide).dot(b.to(wide)) for a, b in zip(own, others, strict=True)]
        ).sum()

    def norm(self) -> Tensor:
        """Return the Euclidean norm over all players as a tensor without dimensions."""
        return torch.as_tensor(
            torch.linalg.vector_norm(torch.stack(torch._foreach_norm(widen(self.tensors))))
        )

    def norms(self) -> dict[str, float]:
        """Return each player's Euclidean norm as a number, with one transfer from the device."""
        sizes = {player: len(own) for player, own in self.items()}
        return norms_by_player(sizes, self.tensor_norms().tolist())

    def tensor_norms(self) -> Tensor:
        """Return the Euclidean norm of each tensor, shape (tensors,), on the device."""
        return torch.stack(torch._foreach_norm(self.tensors))

    def length(self) -> float:
        """Return the Euclidean norm as a number, taken in float64: squares of float32 numbers overflow from 1e19 on."""
        norms = torch._foreach_norm([_real(t) for t in self.tensors], 2, torch.float64)
        return math.hypot(*(float(norm) for norm in norms))

    def only(self, players: Iterable[str]) -> Vector:
        """Return the part that belongs to ``players``, in their order."""
        return Vector({player: self._parts[player] for player in players})

    def flatten(self) -> Tensor:
        """Return all entries as one real tensor of shape (dimension,), in the widest dtype of the tensors, single precision at least."""
        entries = [_real(t) for t in self.tensors]
        wide = widest(*(t.dtype for t in entries))
        return torch.cat([t.to(wide) for t in entries])

    def unflatten(self, flat: Tensor) -> Vector:
        """Return ``flat``, of shape (dimension,), cut into the shapes and dtypes of this vector (views where these agree)."""
        tensors = self.tensors
        pieces = torch.split(flat, [_real_size(t) for t in tensors])
        return self.rebuild([_shaped(piece, t) for piece, t in zip(pieces, tensors, strict=True)])

    @property
    def dimension(self) -> int:
        """The number of real entries: the length of ``flatten()``."""
        return sum(_real_size(t) for t in self.tensors)

    def widened(self) -> Vector:
        """Return the same values in single precision at least."""
        return self.rebuild(widen(self.tensors))

    def typed(self, like: Vector) -> Vector:
        """Return the same values in the dtypes of another vector."""
        return self.rebuild(
            [t.to(own.dtype) for t, own in zip(self.tensors, self._matching(like), strict=True)]
        )

    def detach(self) -> Vector:
        """Return the same values without history."""
        return self.rebuild([t.detach() for t in self.tensors])

    def clone(self) -> Vector:
        """Return a copy that shares no memory with this vector."""
        return self.rebuild([t.detach().clone() for t in self.tensors])

    def zeros(self) -> Vector:
        """Return zeros of the same shapes."""
        return self.rebuild([torch.zeros_like(t) for t in self.tensors])

    def _matching(self, other: Vector) -> list[Tensor]:
        if list(other) == list(self):
            return other.tensors
        if set(other) != set(self):
            raise ValueError(
                f"vectors of the players {list(self)} and {list(other)} cannot be combined"
            )
        return [tensor for player in self for tensor in other[player]]

    def rebuild(self, tensors: Sequence[Tensor]) -> Vector:
        """Return other tensors, in the order of ``self.tensors``, as a vector of the same players."""
        pieces = iter(tensors)
        return Vector({player: [next(pieces) for _ in own] for player, own in self._parts.items()})


def norms_by_player(sizes: Mapping[str, int], tensor_norms: Iterable[float]) -> dict[str, float]:
    """Return each player's norm, ‖d_i‖² = Σ ‖tensor‖², from its number of tensors and their norms."""
    remaining = iter(tensor_norms)
    norms = {}
    for player, size in sizes.items():
        norms[player] = math.hypot(*[next(remaining) for _ in range(size)])
    return norms


def _real_size(tensor: Tensor) -> int:
    return tensor.numel() * (2 if tensor.is_complex() else 1)


def _real(tensor: Tensor) -> Tensor:
    """Return the entries as one real dimension, real and imaginary parts of complex ones side by side."""
    return (torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor).reshape(
        -1
    )


def _shaped(piece: Tensor, like: Tensor) -> Tensor:
    if like.is_complex():
        pairs = piece.view(*like.shape, 2).to(like.real.dtype)
        return torch.view_as_complex(pairs.contiguous())
    return piece.view(like.shape).to(like.dtype)
