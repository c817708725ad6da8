"""Projections onto sets and proximal maps, which a subgradient step ends with."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from saddlepoint.errors import UsageError, did_you_mean
from saddlepoint.precision import widen


class Map(ABC):
    """A map that a step ends with: θ ← argmin_u ½‖u − θ‖² + h · r(u), with h the step; for a set r is 0 inside and ∞ outside."""

    @abstractmethod
    def apply(self, tensor: Tensor, step: float) -> Tensor:
        """Return the mapped tensor, of the same shape."""

    def check(self, tensor: Tensor) -> None:
        """Raise UsageError where the map is not defined for a tensor of this shape."""
        return


@dataclass(frozen=True)
class Box(Map):
    """Project onto low ≤ θ ≤ high, the weight clipping of Wasserstein GANs; None leaves a side open, and Box(0.0, None) is θ ≥ 0.

    Raises:
        UsageError: a bound is no number, or low is above high.

    Reference: Arjovsky, Chintala and Bottou (2017), Wasserstein GAN, arXiv:1701.07875, with ±0.01.

    >>> Box(-1.0, 1.0).apply(torch.tensor([-3.0, 0.5]), step=0.1).tolist()
    [-1.0, 0.5]
    """

    low: float | None
    high: float | None

    def __post_init__(self) -> None:
        for option, value in (("low", self.low), ("high", self.high)):
            if value is not None:
                _check_number("Box", option, value)
        low, high = self._bounds()
        if not low <= high:
            raise UsageError(f"Box: low={self.low} must not be above high={self.high}.")

    def apply(self, tensor: Tensor, step: float) -> Tensor:
        return tensor.clamp(*self._bounds())

    def _bounds(self) -> tuple[float, float]:
        return -math.inf if self.low is None else float(self.low), (
            math.inf if self.high is None else float(self.high)
        )


@dataclass(frozen=True)
class Ball(Map):
    """Project each tensor onto ‖θ‖ ≤ radius, Euclidean.

    >>> Ball(1.0).apply(torch.tensor([3.0, 4.0]), step=0.1).tolist()
    [0.6000000238418579, 0.800000011920929]
    """

    radius: float

    def __post_init__(self) -> None:
        _check_number("Ball", "radius", self.radius)
        if not self.radius > 0:
            raise UsageError(f"Ball: radius={self.radius} must be positive.")

    def apply(self, tensor: Tensor, step: float) -> Tensor:
        # squares overflow and vanish in less
        norm = torch.linalg.vector_norm(tensor, dtype=torch.float64)
        factor: Tensor = self.radius / norm.clamp(min=self.radius)
        return tensor * factor.to(tensor.dtype)


@dataclass(frozen=True)
class L1(Map):
    """The proximal map of strength · ‖θ‖₁: soft thresholding, sign(θ) · max(0, |θ| − h · strength), which makes weights exactly zero.

    Reference: Daubechies, Defrise and De Mol (2004), Commun. Pure Appl. Math. 57.

    >>> L1(1.0).apply(torch.tensor([0.25, -2.0]), step=0.5).tolist()
    [0.0, -1.5]
    """

    strength: float

    def __post_init__(self) -> None:
        _check_number("L1", "strength", self.strength)
        if not self.strength >= 0:
            raise UsageError(f"L1: strength={self.strength} must be at least 0.")

    def apply(self, tensor: Tensor, step: float) -> Tensor:
        return torch.nn.functional.softshrink(tensor, self.strength * step)


@dataclass(frozen=True)
class Simplex(Map):
    """Project onto the probability simplex, θ ≥ 0 and Σθ = 1 along the last dimension: mixed strategies of matrix games.

    >>> Simplex().apply(torch.tensor([0.5, 1.5]), step=0.1).tolist()
    [0.0, 1.0]
    """

    def apply(self, tensor: Tensor, step: float) -> Tensor:
        return project_simplex(tensor)

    def check(self, tensor: Tensor) -> None:
        """Raise UsageError for a tensor without dimensions."""
        if tensor.dim() == 0:
            raise UsageError(
                "Simplex: the parameter has no dimension along which its entries could sum to 1."
                " Give it the shape (n,)."
            )


@dataclass(frozen=True)
class SpectralNorm(Map):
    """Project each weight of two or more dimensions onto ‖W‖₂ ≤ bound, by clipping the singular values of its (outputs, rest) matrix.

    Unlike the usual spectral normalisation it leaves smaller singular values as they are. Vectors
    (biases) are not touched. It costs a singular value decomposition of each weight.

    Reference: for the constraint, Miyato et al. (2018), Spectral normalization for GANs,
    arXiv:1802.05957.

    >>> SpectralNorm(1.0).apply(torch.diag(torch.tensor([3.0, 0.5])), step=0.1).diagonal().tolist()
    [1.0, 0.5]
    """

    bound: float = 1.0

    def __post_init__(self) -> None:
        _check_number("SpectralNorm", "bound", self.bound)
        if not self.bound > 0:
            raise UsageError(f"SpectralNorm: bound={self.bound} must be positive.")

    def apply(self, tensor: Tensor, step: float) -> Tensor:
        if tensor.dim() < 2:
            return tensor
        (wide,) = widen([tensor])
        U, S, V = torch.linalg.svd(wide.flatten(1), full_matrices=False)
        clipped: Tensor = (U * S.clamp(max=self.bound)) @ V
        return clipped.view_as(tensor).to(tensor.dtype)


MAPS: dict[str, type[Map]] = {
    "box": Box,
    "ball": Ball,
    "l1": L1,
    "simplex": Simplex,
    "spectral-norm": SpectralNorm,
}
"""name → map, as configurations name them: ``{"name": "box", "low": -0.01, "high": 0.01}``."""


def project_simplex(x: Tensor) -> Tensor:
    """Return the Euclidean projection onto the probability simplex along the last dimension.

    Reference: Held, Wolfe and Crowder (1974), Math. Programming 6.

    >>> project_simplex(torch.tensor([[0.2, 0.2], [5.0, 0.0]])).tolist()
    [[0.5, 0.5], [1.0, 0.0]]
    """
    if x.numel() == 0:
        return x
    (wide,) = widen([x])
    falling = wide.sort(dim=-1, descending=True).values
    count = torch.arange(1, x.shape[-1] + 1, dtype=wide.dtype, device=x.device)
    shifts = (falling.cumsum(dim=-1) - 1) / count
    support = (falling > shifts).sum(dim=-1, keepdim=True)
    return (wide - shifts.gather(-1, support - 1)).clamp(min=0).to(x.dtype)


def _check_number(kind: str, option: str, value: object) -> None:
    if not isinstance(value, Real) and not (isinstance(value, Tensor) and value.numel() == 1):
        raise UsageError(f"{kind}: {option}={value!r} must be a number.")


def plain(proximal: Map | Mapping[str, Any] | str | None) -> dict[str, Any] | None:
    """Return a map as its name and options, the form that parameter groups and configurations hold."""
    if proximal is None:
        return None
    if isinstance(proximal, str):
        proximal = {"name": proximal}
    if not isinstance(proximal, Map | Mapping):
        raise UsageError(
            'A map is one of saddlepoint.optim.maps, or a name with options such as {"name":'
            f' "simplex"}}, not {proximal!r}.'
        )
    if isinstance(proximal, Map):
        names = [name for name, kind in MAPS.items() if kind is type(proximal)]
        if not names:
            own = type(proximal).__name__
            raise UsageError(
                f"The map {own} has no name by which a state_dict could hold it. Make it a"
                " dataclass, and register it before: "
                f'saddlepoint.optim.MAPS["my-{own.lower()}"] = {own}.'
            )
        return {"name": names[0], **asdict(proximal)}  # type: ignore[call-overload]
    return plain(build(proximal))


def build(options: Mapping[str, Any]) -> Map:
    """Return the map of a name with options, the inverse of ``plain``."""
    values = {key: value for key, value in options.items() if key != "name"}
    kind = MAPS.get(str(options.get("name")))
    if kind is None:
        raise UsageError(
            f'Unknown map "{options.get("name")}".' + did_you_mean(str(options.get("name")), MAPS)
        )
    try:
        return kind(**values)
    except TypeError as error:
        raise UsageError(f"Map {options['name']} refuses its options {values}: {error}.") from error
