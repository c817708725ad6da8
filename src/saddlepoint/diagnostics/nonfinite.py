"""The origin of a NaN or an infinity: the first non-finite tensor from data to gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from saddlepoint.curvature import Linearization
from saddlepoint.curvature.replay import Replay
from saddlepoint.game import Closure

Place = Literal["data", "parameter", "output", "loss", "gradient", "update"]


@dataclass(frozen=True)
class NonFiniteOrigin:
    """The first non-finite tensor of a step.

    Attributes:
        place: "data", "parameter", "output" of a layer, "loss", "gradient", or "update" where all
            of these are finite and the rule or the inner optimizer overflows.
        player: the player that the tensor belongs to; for data and losses the player whose loss was
            evaluated.
        tensor: a layer with its class, a parameter, an input, or a term of the loss.
        share: the share of its entries that are not finite.
        largest: the largest finite magnitude: of the layer's inputs, or of the gradient's entries;
            NaN where it is not known.
    """

    place: Place
    player: str
    tensor: str
    share: float
    largest: float

    @property
    def description(self) -> str:
        """The origin with its numbers, as a sentence."""
        share = f"{self.share:.0%} of its entries are not finite"
        largest = f"{self.largest:.2g}"
        inputs = f", from values up to {largest}" if math.isfinite(self.largest) else ""
        where = f"{self.tensor} of the {self.player}"
        if self.place == "data":
            return f"The first non-finite tensor is in the data: {self.tensor} ({share})."
        if self.place == "parameter":
            return f"The first non-finite tensor is a parameter: {where} ({share})."
        if self.place == "output":
            return f"The first non-finite tensor is the output of {where} ({share}{inputs})."
        if self.place == "loss":
            return f"All layers are finite; the first non-finite number is {where}."
        if self.place == "gradient":
            return (
                "The losses are finite; the first non-finite tensor is a gradient: at"
                f" {where} ({share})."
            )
        return (
            f"Losses and gradients are finite (up to {largest}); the {self.player}'s update"
            " overflows in the rule or in the inner optimizer."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes and the description as a dictionary of plain values."""
        return {**asdict(self), "description": self.description}


def find_nonfinite(
    networks: Mapping[str, nn.Module],
    closure: Closure,
    data: Mapping[str, Tensor],
    *,
    player: str,
) -> NonFiniteOrigin:
    """Find where a step first became non-finite, by evaluating it again at the present parameters.

    The order is: data, parameters, outputs of layers in the order of computation, terms of the
    losses, gradients in the order of backpropagation. Nothing changes, neither buffers nor random
    states.

    Args:
        networks: player → network.
        closure: the losses of the step that failed.
        data: name → tensor, the inputs of the closure.
        player: the player whose loss or update is not finite.

    >>> import torch
    >>> linear = nn.Linear(1, 1, bias=False, device="meta").to_empty(device="cpu")
    >>> _ = nn.init.constant_(linear.weight, 1e30)
    >>> critic, x = nn.Sequential(linear, nn.Softplus()), torch.full((4, 1), 1e30)
    >>> closure = lambda: {"critic": critic(x).mean()}
    >>> found = find_nonfinite({"critic": critic}, closure, {"x": x}, player="critic")
    >>> found.place, found.tensor
    ('output', '0 (Linear)')
    """
    for name, tensor in data.items():
        if origin := _origin_in(tensor, "data", player, name):
            return origin
    parameters: dict[str, tuple[Tensor, ...]] = {}
    on_cuda = False
    for owner, network in networks.items():
        for name, p in network.named_parameters():
            what = f"{name}, shape {tuple(p.shape)}"
            if origin := _origin_in(p, "parameter", owner, what):
                return origin
            on_cuda = on_cuda or p.is_cuda
        parameters[owner] = tuple(p for p in network.parameters() if p.requires_grad)

    with Replay(networks.values(), cuda=on_cuda).again(), _watched(networks) as seen:
        point = Linearization(parameters, closure, order=1, check_finite=False)
        if seen:
            return seen[0]
        for owner, terms in point.terms.items():
            for term, value in terms.items():
                if not math.isfinite(value):
                    what = f'the term "{term}" of the loss' if term else "the loss"
                    return NonFiniteOrigin("loss", owner, what, 1.0, math.nan)
        magnitudes = []
        for owner in point.active:
            gradient = point.gradient[owner]
            if seen:
                return seen[0]
            named = [name for name, p in networks[owner].named_parameters() if p.requires_grad]
            for name, entry in zip(named, gradient, strict=True):
                if origin := _origin_in(entry, "gradient", owner, name):
                    return origin
                magnitudes.append(_largest(entry))
    return NonFiniteOrigin("update", player, "the update", math.nan, max(magnitudes))


@contextmanager
def _watched(networks: Mapping[str, nn.Module]) -> Iterator[list[NonFiniteOrigin]]:
    """Collect non-finite outputs of modules, inner ones first, and non-finite gradients at them."""
    seen: list[NonFiniteOrigin] = []
    handles: list[RemovableHandle] = []

    def check_gradient(gradient: Tensor, *, player: str, where: str) -> None:
        what = f"the output of {where}"
        if origin := _origin_in(gradient, "gradient", player, what, _largest(gradient)):
            seen.append(origin)

    def check_output(
        module: nn.Module, inputs: tuple[Any, ...], output: Any, *, player: str, where: str
    ) -> None:
        tensors = [t for t in inputs if isinstance(t, Tensor) and t.is_floating_point()]
        largest = max([_largest(t) for t in tensors], default=math.nan)
        for tensor in output if isinstance(output, tuple | list) else [output]:
            if not isinstance(tensor, Tensor):
                continue
            if origin := _origin_in(tensor, "output", player, where, largest):
                seen.append(origin)
            elif tensor.requires_grad:
                # to be removed too: a module may return a parameter, which outlives the graph
                hook = partial(check_gradient, player=player, where=where)
                handles.append(tensor.register_hook(hook))  # type: ignore[no-untyped-call]

    for player, network in networks.items():
        for name, module in network.named_modules():
            where = f"{name} ({type(module).__name__})" if name else type(module).__name__
            check = partial(check_output, player=player, where=where)
            handles.append(module.register_forward_hook(check))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _origin_in(
    tensor: Tensor, place: Place, player: str, what: str, largest: float = math.nan
) -> NonFiniteOrigin | None:
    """Return the origin if an entry of ``tensor`` is not finite, otherwise None."""
    finite = tensor.detach().isfinite()
    if not tensor.is_floating_point() or bool(finite.all()):
        return None
    return NonFiniteOrigin(place, player, what, float((~finite).double().mean()), largest)


def _largest(tensor: Tensor) -> float:
    """Return the largest finite magnitude; NaN where no entry is finite."""
    values = tensor.detach()[tensor.detach().isfinite()]
    return float(values.abs().max()) if values.numel() else math.nan
