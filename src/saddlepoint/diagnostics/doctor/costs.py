"""What a gradient, a Jacobian product and a solve cost in time and memory on the user's networks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from saddlepoint.curvature import Linearization
from saddlepoint.diagnostics.doctor.derivatives import random_direction
from saddlepoint.diagnostics.doctor.pair import Pair
from saddlepoint.diagnostics.doctor.remarks import first_line
from saddlepoint.vectors import Vector

Result = TypeVar("Result")

PRODUCTS = 10
"""A solve is estimated with this many products and as many basis vectors."""

_ROUNDS = 5
_PATIENCE = 20.0  # seconds after which no further round begins


@dataclass(frozen=True)
class CostEstimate:
    """Time and memory on the example as given. Fields that could not be measured are None, and ``reason`` says why.

    Attributes:
        batch: samples of real data in the example.
        rounds: how many interleaved rounds the medians are of.
        gradient_ms: milliseconds of forward pass and joint gradient ξ.
        graph_ms: the same where the gradient keeps its graph, as curvature rules need it.
        product_ms: one Jacobian product J @ v from that graph.
        solve_ms: the gradient with its graph and 10 products: one step of a rule that solves a
            linear system.
        parameter_bytes: both networks' parameters.
        graph_bytes: what the losses' graphs keep for the gradient, the examples included,
            parameters and buffers left out.
        second_graph_bytes: the same with the graph of the gradient.
        solver_bytes: 10 vectors of all parameters, the Krylov basis of a solve.
        reason: why a field is None.
    """

    batch: int
    rounds: int = 0
    gradient_ms: float | None = None
    graph_ms: float | None = None
    product_ms: float | None = None
    solve_ms: float | None = None
    parameter_bytes: int | None = None
    graph_bytes: int | None = None
    second_graph_bytes: int | None = None
    solver_bytes: int | None = None
    reason: str | None = None

    @property
    def ratios(self) -> dict[str, float]:
        """How many plain joint gradients each of the others costs, where both are known.

        >>> CostEstimate(batch=8, gradient_ms=2.0, product_ms=3.0).ratios
        {'product': 1.5}
        """
        others = {"graph": self.graph_ms, "product": self.product_ms, "solve": self.solve_ms}
        return {
            name: ms / self.gradient_ms
            for name, ms in others.items()
            if ms is not None and self.gradient_ms
        }


def estimate(pair: Pair, *, refused: str | None = None, seed: int = 0) -> CostEstimate:
    """Measure the pair on its whole example, in its own precision and on its own device.

    Args:
        pair: the networks; buffers and random state are restored.
        refused: why second derivatives are not to be measured, if so.
        seed: the direction v is a function of it.

    >>> from saddlepoint.models import MLP
    >>> G, D = (MLP((2, size), generator=torch.Generator().manual_seed(0)) for size in (2, 1))
    >>> cost = estimate(Pair(G, D, torch.ones(3, 2), torch.ones(3, 2)))
    >>> cost.parameter_bytes, cost.solver_bytes, cost.reason
    (36, 360, None)
    """
    sizes = [t.numel() * t.element_size() for own in pair.players.values() for t in own]
    known: dict[str, Any] = {"batch": len(pair.real), "parameter_bytes": sum(sizes)}
    try:
        known["graph_bytes"] = _saved_bytes(pair, order=1)
        known |= _timed(pair, None)
    except Exception as error:
        return CostEstimate(**known, reason=f"The losses have no gradient: {first_line(error)}")
    if refused is not None:
        return CostEstimate(**known, reason=refused)
    try:
        memory = _saved_bytes(pair, order=2)
        second = _timed(pair, random_direction(pair.players, torch.Generator().manual_seed(seed)))
    except Exception as error:
        return CostEstimate(**known, reason=f"Second derivatives are refused: {first_line(error)}")
    return CostEstimate(
        **(known | second), second_graph_bytes=memory, solver_bytes=PRODUCTS * sum(sizes)
    )


def _timed(pair: Pair, v: Vector | None) -> dict[str, Any]:
    """Return median times over interleaved rounds after one to warm up; of the second derivatives too where there is a direction v."""
    rounds: list[list[float]] = []
    began = time.perf_counter()
    with pair.replay().again():
        while len(rounds) <= _ROUNDS and (
            len(rounds) < 2 or time.perf_counter() - began < _PATIENCE
        ):
            rounds.append(_round(pair, v))
    counted = rounds[1:]
    times = [statistics.median(column) for column in zip(*counted, strict=True)]
    found: dict[str, Any] = {"rounds": len(counted), "gradient_ms": times[0]}
    if v is not None:
        found |= {
            "graph_ms": times[1],
            "product_ms": times[2],
            "solve_ms": times[1] + PRODUCTS * times[2],
        }
    return found


def _round(pair: Pair, v: Vector | None) -> list[float]:
    times = [_clocked(pair, lambda: _first(pair))[0]]
    if v is not None:
        graph_ms, point = _clocked(pair, lambda: _second(pair))
        product_ms, _ = _clocked(pair, lambda: point.jacobian @ v)
        times += [graph_ms, product_ms]
    return times


def _first(pair: Pair) -> Vector:
    return Linearization(pair.players, pair.losses, order=1).gradient


def _second(pair: Pair) -> Linearization:
    point = Linearization(pair.players, pair.losses, cross=True)
    _ = point.gradient  # takes what products need
    return point


def _clocked(pair: Pair, action: Callable[[], Result]) -> tuple[float, Result]:
    _finish(pair)
    began = time.perf_counter()
    result = action()
    _finish(pair)
    return 1e3 * (time.perf_counter() - began), result


def _finish(pair: Pair) -> None:
    if pair.on_cuda:
        torch.cuda.synchronize()


def _saved_bytes(pair: Pair, *, order: int) -> int:
    """Return the size of what the graphs keep, each storage once, leaving out parameters and buffers."""
    networks = pair.networks.values()
    known = [t for network in networks for t in (*network.parameters(), *network.buffers())]
    with pair.replay().again(), _counting({_address(t) for t in known}) as saved:
        point = Linearization(pair.players, pair.losses, order=order, cross=order > 1)
        if order > 1:
            point.check_second_derivatives()
            _ = point.gradient  # builds the graph that products need
    return sum(storage.nbytes() for storage in saved.values())


@contextmanager
def _counting(known: set[int]) -> Iterator[dict[int, torch.UntypedStorage]]:
    # holding the storages keeps their addresses from being used again
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        if _address(tensor) not in known:
            saved[_address(tensor)] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield saved


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
