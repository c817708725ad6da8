"""Where a NaN or an infinity comes from: the first tensor that is not finite, on the way from the data to the gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from saddlepoint.curvature import Linearization
from saddlepoint.curvature.replay import Replay
from saddlepoint.game import Closure, Players

Place = Literal["data", "parameter", "output", "loss", "gradient", "update"]


@dataclass(frozen=True)
class Provenance:
    """The first tensor that is not finite.

    Attributes:
        place: "data", "parameter", "output" of a layer, "loss", "gradient", or "update" where all
            of these are finite and the rule or the inner optimizer made it.
        player: whose tensor it is; for data and for losses, whose loss.
        tensor: which one: a layer with its class, a parameter, an input, a term of the loss.
        share: the share of its entries that are not finite.
        largest: the largest finite magnitude that went in: of the layer's input, of the gradient's
            finite entries; NaN where it is not known.
    """

    place: Place
    player: str
    tensor: str
    share: float
    largest: float

    @property
    def sentence(self) -> str:
        """Say it in words."""
        share = f"{self.share:.0%} of its entries are not finite"
        into = f", from values up to {self.largest:.2g}" if math.isfinite(self.largest) else ""
        return {
            "data": f"The first bad tensor is in the data: {self.tensor} ({share}).",
            "parameter": (
                f"The first bad tensor is a parameter: {self.tensor} of the {self.player}"
                f" ({share})."
            ),
            "output": (
                f"The first bad tensor is the output of {self.tensor} of the {self.player}"
                f" ({share}{into})."
            ),
            "loss": (
                f"All layers are finite; the first bad number is {self.tensor} of the"
                f" {self.player}{into}."
            ),
            "gradient": (
                f"The losses are finite; the first bad tensor is a gradient: at {self.tensor} of"
                f" the {self.player} ({share})."
            ),
            "update": (
                f"Losses and gradients are finite (up to {self.largest:.2g}); the {self.player}'s"
                " update overflows in the rule or in the inner optimizer."
            ),
        }[self.place]

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes and the sentence in plain containers."""
        return {**asdict(self), "sentence": self.sentence}


def find_nonfinite(
    networks: Mapping[str, nn.Module], closure: Closure, data: Mapping[str, Tensor], *, player: str
) -> Provenance:
    """Return where the first NaN or infinity arises when the closure is evaluated again at the present parameters; nothing moves.

    The way is: data, parameters, outputs of layers in the order in which they are computed, terms
    of the losses, and gradients in the order in which backpropagation computes them.

    Args:
        networks: player → network.
        closure: the losses of the step that failed.
        data: name → tensor, what goes into the closure.
        player: whose loss or update was found not finite.

    >>> import torch
    >>> network = nn.Sequential(nn.Linear(1, 1, bias=False, device="meta").to_empty(device="cpu"), nn.Softplus())
    >>> _ = nn.init.constant_(network[0].weight, 1e30)
    >>> x = torch.full((4, 1), 1e30)
    >>> found = find_nonfinite({"critic": network}, lambda: {"critic": network(x).mean()}, {"x": x}, player="critic")
    >>> found.sentence
    'The first bad tensor is the output of 0 (Linear) of the critic (100% of its entries are not
    finite, from values up to 1e+30).'
    """
    for name, tensor in data.items():
        if not _finite(tensor):
            return Provenance("data", player, name, _share(tensor), math.nan)
    for owner, network in networks.items():
        for name, parameter in network.named_parameters():
            if not _finite(parameter):
                return Provenance(
                    "parameter",
                    owner,
                    f"{name}, shape {tuple(parameter.shape)}",
                    _share(parameter),
                    math.nan,
                )
    cuda = any(p.is_cuda for network in networks.values() for p in network.parameters())
    seen: list[Provenance] = []
    with Replay(networks.values(), cuda=cuda).again(), _watched(networks, seen):
        return _evaluated(networks, closure, seen, player)


def _evaluated(
    networks: Mapping[str, nn.Module], closure: Closure, seen: list[Provenance], player: str
) -> Provenance:
    parameters: Players = {
        owner: tuple(p for p in network.parameters() if p.requires_grad)
        for owner, network in networks.items()
    }
    point = Linearization(parameters, closure, order=1, check_finite=False)
    if seen:
        return seen[0]
    for owner, terms in point.terms.items():
        for term, value in terms.items():
            if not math.isfinite(value):
                return Provenance(
                    "loss",
                    owner,
                    f'the term "{term}" of the loss' if term else "the loss",
                    1.0,
                    math.nan,
                )
    for owner in point.active:
        gradient = point.gradient[owner]
        if seen:
            return seen[0]
        for (name, _), entry in zip(_trainable(networks[owner]), gradient, strict=True):
            if not _finite(entry):
                return Provenance("gradient", owner, name, _share(entry), math.nan)
    largest = max(_largest(entry) for owner in point.active for entry in point.gradient[owner])
    return Provenance("update", player, "the update", math.nan, largest)


@contextmanager
def _watched(networks: Mapping[str, nn.Module], seen: list[Provenance]) -> Iterator[None]:
    """Note bad outputs of modules, inner ones first, as they are computed, and bad gradients at their outputs as they arrive."""
    handles: list[RemovableHandle] = []
    for player, network in networks.items():
        for name, module in network.named_modules():
            where = f"{name} ({type(module).__name__})" if name else type(module).__name__
            note = partial(_note_output, seen=seen, handles=handles, player=player, where=where)
            handles.append(module.register_forward_hook(note))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _note_output(
    module: nn.Module,
    inputs: tuple[Any, ...],
    output: Any,
    *,
    seen: list[Provenance],
    handles: list[RemovableHandle],
    player: str,
    where: str,
) -> None:
    tensors = [
        t
        for t in (output if isinstance(output, tuple | list) else [output])
        if isinstance(t, Tensor)
    ]
    largest = max(
        [_largest(t) for t in inputs if isinstance(t, Tensor) and t.is_floating_point()],
        default=math.nan,
    )
    for tensor in tensors:
        if not _finite(tensor):
            seen.append(Provenance("output", player, where, _share(tensor), largest))
        elif tensor.requires_grad:
            note = _note_gradient(seen, player, f"the output of {where}")
            handles.append(tensor.register_hook(note))  # type: ignore[no-untyped-call]  # a module may return a parameter, which stays


def _note_gradient(seen: list[Provenance], player: str, where: str) -> Callable[[Tensor], None]:
    def note(gradient: Tensor) -> None:
        if not _finite(gradient):
            seen.append(Provenance("gradient", player, where, _share(gradient), _largest(gradient)))

    return note


def _trainable(network: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [
        (name, parameter)
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
    ]


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.detach().isfinite().all())


def _share(tensor: Tensor) -> float:
    return float((~tensor.detach().isfinite()).double().mean())


def _largest(tensor: Tensor) -> float:
    """Return the largest finite magnitude; NaN where no entry is finite."""
    values = tensor.detach()[tensor.detach().isfinite()]
    return float(values.abs().max()) if values.numel() else math.nan
