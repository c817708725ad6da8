"""Projections and proximal maps, applied at the end of a subgradient step."""

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


class ProximalMap(ABC):
    """A proximal map, θ ← argmin_u ½‖u − θ‖² + h · r(u), with h the step size.

    For a projection, r is 0 inside of the set and ∞ outside.
    """

    @abstractmethod
    def apply(self, tensor: Tensor, step: float) -> Tensor:
        """Return the mapped tensor, of the same shape."""

    def check(self, tensor: Tensor) -> None:
        """Raise UsageError if the map is not defined for a tensor of this shape."""
        return


@dataclass(frozen=True)
class Box(ProximalMap):
    """Project onto low ≤ θ ≤ high, the weight clipping of Wasserstein GANs.

    None means no bound: Box(0.0, None) is θ ≥ 0.

    Raises:
        UsageError: a bound is not a number, or low is greater than high.

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
            raise UsageError(f"Box: low={self.low} must not be greater than high={self.high}.")

    def apply(self, tensor: Tensor, step: float) -> Tensor:
        return tensor.clamp(*self._bounds())

    def _bounds(self) -> tuple[float, float]:
        low = -math.inf if self.low is None else float(self.low)
        high = math.inf if self.high is None else float(self.high)
        return low, high


@dataclass(frozen=True)
class Ball(ProximalMap):
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
        # in float32, squares overflow or vanish
        norm = torch.linalg.vector_norm(tensor, dtype=torch.float64)
        factor: Tensor = self.radius / norm.clamp(min=self.radius)
        return tensor * factor.to(tensor.dtype)


@dataclass(frozen=True)
class L1(ProximalMap):
    """The proximal map of strength · ‖θ‖₁, soft thresholding, which makes weights exactly zero.

    θ ← sign(θ) · max(0, |θ| − h · strength).

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
class Simplex(ProximalMap):
    """Project onto the probability simplex: θ ≥ 0 and Σθ = 1 along the last dimension.

    Points of the simplex are the mixed strategies of matrix games.

    >>> Simplex().apply(torch.tensor([0.5, 1.5]), step=0.1).tolist()
    [0.0, 1.0]
    """

    def apply(self, tensor: Tensor, step: float) -> Tensor:
        return project_simplex(tensor)

    def check(self, tensor: Tensor) -> None:
        """Raise UsageError for a tensor without a dimension."""
        if tensor.dim() == 0:
            raise UsageError(
                "Simplex: the parameter has no dimension along which its entries could sum to 1."
                " Use a parameter of shape (n,)."
            )


@dataclass(frozen=True)
class SpectralNorm(ProximalMap):
    """Project each weight onto ‖W‖₂ ≤ bound by clipping its singular values.

    Weights with more than two dimensions are flattened to (outputs, rest). Unlike the usual
    spectral normalization, singular values below the bound do not change. Vectors (biases) do not
    change either. The cost is one singular value decomposition per weight.

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


PROXIMAL_MAPS: dict[str, type[ProximalMap]] = {
    "box": Box,
    "ball": Ball,
    "l1": L1,
    "simplex": Simplex,
    "spectral_norm": SpectralNorm,
}
"""name → proximal map, for configurations: ``{"name": "box", "low": -0.01, "high": 0.01}``."""


def project_simplex(x: Tensor) -> Tensor:
    """Return the Euclidean projection onto the probability simplex along the last dimension.

    Reference: Held, Wolfe and Crowder (1974), Math. Programming 6.

    >>> project_simplex(torch.tensor([[0.2, 0.2], [5.0, 0.0]])).tolist()
    [[0.5, 0.5], [1.0, 0.0]]
    """
    if x.numel() == 0:
        return x
    (wide,) = widen([x])
    descending = wide.sort(dim=-1, descending=True).values
    count = torch.arange(1, x.shape[-1] + 1, dtype=wide.dtype, device=x.device)
    shifts = (descending.cumsum(dim=-1) - 1) / count
    support = (descending > shifts).sum(dim=-1, keepdim=True)
    return (wide - shifts.gather(-1, support - 1)).clamp(min=0).to(x.dtype)


def _check_number(kind: str, option: str, value: object) -> None:
    if not isinstance(value, Real) and not (isinstance(value, Tensor) and value.numel() == 1):
        raise UsageError(f"{kind}: {option}={value!r} must be a number.")


def to_config(proximal: ProximalMap | Mapping[str, Any] | str | None) -> dict[str, Any] | None:
    """Return a proximal map as its name and options, as parameter groups store it.

    Raises:
        UsageError: an unknown name or option, or a class that is not in ``PROXIMAL_MAPS``.
    """
    if proximal is None:
        return None
    if isinstance(proximal, str):
        proximal = {"name": proximal}
    if isinstance(proximal, Mapping):
        proximal = from_config(proximal)
    if not isinstance(proximal, ProximalMap):
        raise UsageError(
            "A proximal map is an object of saddlepoint.optim.proximal, or a name with options"
            f' such as {{"name": "simplex"}}, not {proximal!r}.'
        )
    for name, kind in PROXIMAL_MAPS.items():
        if kind is type(proximal):
            return {"name": name, **asdict(proximal)}  # type: ignore[call-overload]
    own = type(proximal).__name__
    raise UsageError(
        f"The proximal map {own} has no name under which a state_dict could store it. Make it a"
        " dataclass and register it first:"
        f' saddlepoint.optim.PROXIMAL_MAPS["my-{own.lower()}"] = {own}.'
    )


def from_config(options: Mapping[str, Any]) -> ProximalMap:
    """Return the proximal map of a name with options, the inverse of ``to_config``."""
    name = str(options.get("name"))
    values = {key: value for key, value in options.items() if key != "name"}
    kind = PROXIMAL_MAPS.get(name)
    if kind is None:
        raise UsageError(f'Unknown proximal map "{name}".' + did_you_mean(name, PROXIMAL_MAPS))
    try:
        return kind(**values)
    except TypeError as error:
        raise UsageError(
            f"Proximal map {name} does not accept the options {values}: {error}."
        ) from error
