"""One layer on its own, with the arguments of a forward pass as tensors that can be differentiated and displaced."""

from __future__ import annotations

import warnings
from functools import cache

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.utils import _pytree as pytree

from saddlepoint.curvature.replay import Replay
from saddlepoint.diagnostics.doctor.calls import Arguments, floating_tensors
from saddlepoint.diagnostics.doctor.derivatives import (
    STEPS,
    Subject,
    displaced,
    normal_like,
    random_direction,
    relative_error,
)
from saddlepoint.game import Players
from saddlepoint.vectors import Vector

PARAMETERS, INPUTS = "parameters", "inputs"


class LayerProbe:
    """A layer in float64 with fixed arguments, and s = Σ ⟨w, output⟩ + ½ ‖output‖² with fixed random w.

    The square gives linear layers a second derivative too.

    Args:
        module: the layer.
        arguments: positional and keyword arguments; finite floating tensors among them are
            differentiated.
        generator: draws w.

    >>> probe = LayerProbe(nn.PReLU().double(), ((torch.ones(3, 2, dtype=torch.float64),), {}), torch.Generator().manual_seed(0))
    >>> [tuple(t.shape) for t in probe.players["inputs"]], len(probe.outputs())
    ([(3, 2)], 1)
    """

    def __init__(self, module: nn.Module, arguments: Arguments, generator: torch.Generator) -> None:
        self.module = module
        leaves, self._spec = pytree.tree_flatten(arguments)
        self._leaves = [_as_leaf(leaf) for leaf in leaves]
        self._names = [name for name, p in module.named_parameters() if p.requires_grad]
        inputs = tuple(
            leaf for leaf in self._leaves if isinstance(leaf, Tensor) and leaf.requires_grad
        )
        parameters = tuple(p for p in module.parameters() if p.requires_grad)
        self.players: Players = {PARAMETERS: parameters, INPUTS: inputs}
        self.replay = Replay([module], cuda=any(t.is_cuda for t in (*inputs, *parameters)))
        self._weights = [normal_like(output, generator) for output in self.values()]

    @property
    def subject(self) -> Subject:
        """The layer as a one-player game: its parameters and inputs together minimise s."""
        return Subject(
            {"layer": (*self.players[PARAMETERS], *self.players[INPUTS])},
            lambda: {"layer": self.scalar()},
            self.replay,
        )

    def outputs(self) -> tuple[Tensor, ...]:
        """Return the layer's floating outputs."""
        return floating_tensors(self._call(self._leaves))

    def values(self) -> list[Tensor]:
        """Return the outputs' values, with the randomness and buffers of every other evaluation."""
        with self.replay.again(), torch.no_grad():
            return [output.clone() for output in self.outputs()]

    def scalar(self) -> Tensor:
        """Return s."""
        outputs = self.outputs()
        parts = [
            (output * weight).sum() + output.square().sum() / 2
            for output, weight in zip(outputs, self._weights, strict=True)
        ]
        return torch.stack(parts).sum()

    def forward_error(self, generator: torch.Generator) -> float:
        """Return the relative error of forward-mode derivatives of the outputs against finite differences.

        Raises:
            RuntimeError: PyTorch refuses forward mode for an operation in the layer.
        """
        _start_forward_mode()
        v = random_direction(self.players, generator)
        tangent = self._tangent(v)
        best = float("inf")
        for step in STEPS:
            above, below = self._values_at(v, step), self._values_at(v, -step)
            noise = 50 * torch.finfo(torch.float64).eps * float(above.norm()) / step
            best = min(best, relative_error(tangent, (above - below) / (2 * step), noise=noise))
        return best

    def _tangent(self, v: Vector) -> Tensor:
        with self.replay.again(), torch.no_grad(), forward_ad.dual_level():
            directions = iter(v[INPUTS])
            leaves = [
                _dual(x, next(directions)) if isinstance(x, Tensor) and x.requires_grad else x
                for x in self._leaves
            ]
            state = {
                name: _dual(p, d)
                for name, p, d in zip(
                    self._names, self.players[PARAMETERS], v[PARAMETERS], strict=True
                )
            }
            buffers = {name: buffer.clone() for name, buffer in self.module.named_buffers()}
            outputs = floating_tensors(self._call(leaves, {**state, **buffers}))
            found = [forward_ad.unpack_dual(output) for output in outputs]  # type: ignore[no-untyped-call]
            return _flat(
                [
                    torch.zeros_like(dual.primal) if dual.tangent is None else dual.tangent
                    for dual in found
                ]
            )

    def _values_at(self, v: Vector, step: float) -> Tensor:
        with displaced(self.players, v, step):
            return _flat(self.values())

    def _call(self, leaves: list[object], state: dict[str, Tensor] | None = None) -> object:
        """Call the layer on copies, because it may overwrite its arguments."""
        args, kwargs = pytree.tree_unflatten(
            [x.clone() if isinstance(x, Tensor) else x for x in leaves], self._spec
        )
        return (
            self.module(*args, **kwargs)
            if state is None
            else functional_call(self.module, state, args, kwargs)
        )


def _as_leaf(leaf: object) -> object:
    if not isinstance(leaf, Tensor):
        return leaf
    # a mask of −∞ is no variable
    movable = leaf.is_floating_point() and bool(torch.isfinite(leaf).all())
    return leaf.detach().clone().requires_grad_(movable)


@cache
def _start_forward_mode() -> None:
    """Let PyTorch load what forward mode needs: in doing so it warns of parts of its own that it has deprecated."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore")
        _dual(torch.zeros(1), torch.ones(1))


def _dual(tensor: Tensor, direction: Tensor) -> Tensor:
    dual: Tensor = forward_ad.make_dual(tensor.detach().clone(), direction)  # type: ignore[no-untyped-call]
    return dual


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors]) if tensors else torch.zeros(0)
