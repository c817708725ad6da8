"""Time and memory of a gradient, a Jacobian product and a solve on the user's networks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saddlepoint.curvature import Linearization
from saddlepoint.doctor.findings import first_line
from saddlepoint.doctor.finite_differences import random_direction
from saddlepoint.doctor.pair import Pair
from saddlepoint.vectors import Vector

PRODUCTS = 10
"""A solve is estimated with this many products and as many basis vectors."""

_ROUNDS = 5
_TIME_LIMIT = 20.0  # seconds after which no further round begins


@dataclass(frozen=True)
class CostEstimate:
    """Time and memory on the given example; a field that was not measured is None.

    Attributes:
        batch: samples of real data in the example.
        rounds: number of interleaved rounds of which the medians are taken.
        gradient_ms: milliseconds of forward pass and joint gradient ξ.
        graph_ms: the same with the graph of the gradient, which curvature rules need.
        product_ms: one Jacobian product J @ v from that graph.
        solve_ms: the gradient with its graph and 10 products: one step of a rule that solves a
            linear system.
        parameter_bytes: the parameters of both networks.
        graph_bytes: tensors that the graphs of the losses keep for the gradient, including the
            examples, excluding parameters and buffers.
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
        """The times of "graph", "product" and "solve" as multiples of ``gradient_ms``.

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
        refused: why second derivatives are not measured, None to measure them.
        seed: seed of the direction v.

    >>> from saddlepoint.models import MLP
    >>> G, D = (MLP((2, size), generator=torch.Generator().manual_seed(0)) for size in (2, 1))
    >>> cost = estimate(Pair(G, D, torch.ones(3, 2), torch.ones(3, 2)))
    >>> cost.parameter_bytes, cost.solver_bytes, cost.reason
    (36, 360, None)
    """
    parameter_bytes = sum(t.numel() * t.element_size() for t in Vector(pair.players).tensors)
    known: dict[str, Any] = {"batch": len(pair.real), "parameter_bytes": parameter_bytes}
    try:
        known["graph_bytes"] = _saved_bytes(pair, order=1)
        known |= _median_times(pair, None)
    except Exception as error:
        return CostEstimate(**known, reason=f"The losses have no gradient: {first_line(error)}")
    if refused is not None:
        return CostEstimate(**known, reason=refused)
    try:
        second_graph_bytes = _saved_bytes(pair, order=2)
        v = random_direction(pair.players, torch.Generator().manual_seed(seed))
        times = _median_times(pair, v)
    except Exception as error:
        return CostEstimate(**known, reason=f"Second derivatives are refused: {first_line(error)}")
    return CostEstimate(
        **(known | times),
        second_graph_bytes=second_graph_bytes,
        solver_bytes=PRODUCTS * parameter_bytes,
    )


def _median_times(pair: Pair, v: Vector | None) -> dict[str, Any]:
    """Return medians over rounds after a first one that is not counted; with v of products too."""
    rounds: list[list[float]] = []
    began = time.perf_counter()
    with pair.replay().again():
        while len(rounds) < 2 or (
            len(rounds) <= _ROUNDS and time.perf_counter() - began < _TIME_LIMIT
        ):
            rounds.append(_one_round(pair, v))
    medians = [statistics.median(column) for column in zip(*rounds[1:], strict=True)]
    found: dict[str, Any] = {"rounds": len(rounds) - 1, "gradient_ms": medians[0]}
    if v is not None:
        found["graph_ms"], found["product_ms"] = medians[1:]
        found["solve_ms"] = found["graph_ms"] + PRODUCTS * found["product_ms"]
    return found


def _one_round(pair: Pair, v: Vector | None) -> list[float]:
    """Return the milliseconds of a gradient and, with v, of one with its graph and a product."""
    times: list[float] = []
    with _stopwatch(pair, times):
        gradient = Linearization(pair.players, pair.losses, order=1).gradient
    del gradient
    if v is not None:
        with _stopwatch(pair, times):
            point = Linearization(pair.players, pair.losses, cross=True)
            _ = point.gradient  # builds the graph that products need
        with _stopwatch(pair, times):
            product = point.jacobian @ v
        del product
    return times


@contextmanager
def _stopwatch(pair: Pair, times: list[float]) -> Iterator[None]:
    """Append the milliseconds of the block to ``times``, kernels on a GPU included."""
    if pair.on_cuda:
        torch.cuda.synchronize()
    began = time.perf_counter()
    yield
    if pair.on_cuda:
        torch.cuda.synchronize()
    times.append(1e3 * (time.perf_counter() - began))


def _saved_bytes(pair: Pair, *, order: int) -> int:
    """Return the size of the storages that the graphs keep, excluding parameters and buffers."""
    excluded = set()
    for network in pair.networks.values():
        for tensor in (*network.parameters(), *network.buffers()):
            excluded.add(tensor.untyped_storage().data_ptr())
    # holding the storages keeps their addresses from being used again
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in excluded:
            saved[storage.data_ptr()] = storage
        return tensor

    saving = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with pair.replay().again(), saving:
        point = Linearization(pair.players, pair.losses, order=order, cross=order > 1)
        if order > 1:
            point.check_second_derivatives()
            _ = point.gradient  # builds the graph that products need
    return sum(storage.nbytes() for storage in saved.values())
