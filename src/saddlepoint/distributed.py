"""Data-parallel training: reductions between the processes that train one game together."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from saddlepoint.errors import DistributedError, UsageError
from saddlepoint.vectors import Vector

T = TypeVar("T")


@dataclass
class Traffic:
    """Counts of the reductions of vectors by this process.

    Attributes:
        bytes: total size of the vectors.
        calls: number of reductions.
    """

    bytes: int = 0
    calls: int = 0


class SingleProcess:
    """One process that trains alone; ``Distributed``, its subclass, is for several.

    Attributes:
        rank: the number of this process, from 0.
        world_size: the number of processes.
        traffic: the reductions of vectors so far.

    >>> SingleProcess().batch_slice(64)
    slice(0, 64, None)
    """

    def __init__(self) -> None:
        self.rank, self.world_size = 0, 1
        self.traffic = Traffic()

    def batch_slice(self, size: int) -> slice:
        """Return this process's part of a batch of ``size`` samples.

        Raises:
            UsageError: the batch cannot be split evenly; the message names sizes that can.
        """
        each, rest = divmod(size, self.world_size)
        if rest:
            below, above = size - rest, size - rest + self.world_size
            multiples = f"{below} or {above}" if below else f"{above}"
            raise UsageError(
                f"A batch of {size} samples cannot be split over {self.world_size} processes. Use a"
                f" multiple, such as {multiples}."
            )
        return slice(self.rank * each, (self.rank + 1) * each)

    def start_mean(self, vector: Vector) -> Callable[[], Vector]:
        """Start to reduce a vector to its mean over the processes; calling the result waits."""
        return lambda: vector

    def mean(self, vector: Vector) -> Vector:
        """Return the mean of a vector over the processes."""
        return self.start_mean(vector)()

    def all_reduce_mean(self, numbers: Tensor) -> Tensor:
        """Return the mean of each number over the processes; not counted as traffic."""
        return numbers

    def all_reduce_max(self, number: float) -> float:
        """Return the largest number of all processes."""
        return number

    def broadcast(self, make: Callable[[], T]) -> T:
        """Return to every process what ``make`` returns in process 0; it is called there only."""
        return make()

    def all_gather(self, own: T) -> list[T]:
        """Return the values of all processes, in the order of their ranks."""
        return [own]


class Distributed(SingleProcess):
    """The processes of a ``torch.distributed`` group, such as ``torchrun`` starts.

    Every process evaluates the losses on its part of the batch. A loss must be a mean over the
    batch. Then the mean over the processes of gradients, and of products of the Jacobian with the
    same vector, is what one process would compute on the whole batch, so every rule takes the same
    step. (The mean of *directions* would be wrong for every rule that is not linear in the batch.)
    Each derivative is reduced once, as one flat tensor. BatchNorm breaks this, because its
    statistics couple the samples of a batch.

    Args:
        group: the process group; the default group of ``torch.distributed`` if None. Call
            ``torch.distributed.init_process_group`` first.

    Raises:
        UsageError: there is no process group.
        DistributedError: a reduction failed, because another process ended or did not answer in
            time.

    Reference: Li et al. (2020), PyTorch distributed: experiences on accelerating data parallel
    training, arXiv:2006.15704.

    Under torchrun, ``init_process_group()`` needs no further arguments:

    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> distributed = Distributed()
    >>> distributed.batch_slice(64)
    slice(0, 64, None)
    >>> distributed.mean(Vector({"x": [torch.ones(2)]})).flatten().tolist()
    [1.0, 1.0]
    >>> distributed.traffic.bytes
    8
    >>> dist.destroy_process_group()
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        super().__init__()
        if not dist.is_available() or not dist.is_initialized():
            raise UsageError(
                "Distributed needs a process group. Start the program with torchrun and call"
                " torch.distributed.init_process_group first."
            )
        self._group = group
        self.rank, self.world_size = dist.get_rank(group), dist.get_world_size(group)
        # of numbers and objects; NCCL reduces tensors on CUDA devices only
        self._device = torch.device("cpu")
        if dist.get_backend(group) == "nccl":
            self._device = torch.device("cuda", torch.cuda.current_device())

    def start_mean(self, vector: Vector) -> Callable[[], Vector]:
        flat = vector.detach().flatten()
        self.traffic.bytes += flat.numel() * flat.element_size()
        self.traffic.calls += 1
        with self._waiting_for("the mean of a derivative"):
            work = dist.all_reduce(flat, group=self._group, async_op=True)

        def finish() -> Vector:
            with self._waiting_for("the mean of a derivative"):
                work.wait()
            # the flat tensor has the widest of the dtypes
            means = vector.unflatten(flat.div_(self.world_size))
            if all(tensor.dtype == flat.dtype for tensor in vector.tensors):
                return means
            return means.typed(vector)

        return finish

    def all_reduce_mean(self, numbers: Tensor) -> Tensor:
        sums = numbers.detach().to(self._device, copy=True)
        with self._waiting_for("the mean of the losses"):
            dist.all_reduce(sums, group=self._group)
        return (sums / self.world_size).to(numbers.device)

    def all_reduce_max(self, number: float) -> float:
        numbers = torch.tensor([number], dtype=torch.float64, device=self._device)
        with self._waiting_for("the largest of a number"):
            dist.all_reduce(numbers, op=dist.ReduceOp.MAX, group=self._group)
        return numbers.item()

    def broadcast(self, make: Callable[[], T]) -> T:
        message: list[Any] = [None, None]  # the value, and the text of an error in process 0
        failure: Exception | None = None
        if self.rank == 0:
            try:
                message = [make(), None]
            except Exception as error:
                failure, message = error, [None, str(error) or type(error).__name__]
        with self._waiting_for("a value from process 0"):
            dist.broadcast_object_list(message, group=self._group, group_src=0, device=self._device)
        if failure is not None:
            raise failure
        value, error_text = message
        if error_text is not None:
            raise DistributedError(f"Process 0 has failed: {error_text}", told=True)
        return value  # type: ignore[no-any-return]

    def all_gather(self, own: T) -> list[T]:
        values: list[Any] = [None] * self.world_size
        with self._waiting_for("the values of all processes"):
            dist.all_gather_object(values, own, group=self._group)
        return values

    @contextmanager
    def _waiting_for(self, awaited: str) -> Iterator[None]:
        """Raise a backend's error as a DistributedError."""
        try:
            yield
        except (RuntimeError, dist.DistError) as error:
            late = any(word in str(error).lower() for word in ("timed out", "timeout"))
            why = (
                "another process did not answer in time: it hangs, or is far slower"
                if late
                else "another process has ended"
            )
            raise DistributedError(
                f"Process {self.rank} of {self.world_size} waited for {awaited}, but {why}. See the"
                " output of the other processes for the reason; checkpoints are unchanged."
                f" ({' '.join(str(error).split())[:200]})"
            ) from error


def check_same_everywhere(distributed: SingleProcess, layout: Mapping[str, Any]) -> None:
    """Raise UsageError unless all processes have the same players with the same parameters.

    Derivatives are averaged as flat tensors, player after player: where names, order or shapes
    differ, wrong entries would be averaged without an error.
    """
    layouts = distributed.all_gather([[player, own] for player, own in layout.items()])
    for number, other in enumerate(layouts):
        for (player, ours), (their_player, theirs) in zip(layouts[0], other, strict=False):
            if player != their_player or ours != theirs:
                raise UsageError(
                    f'Processes 0 and {number} differ in their players: "{player}" with {len(ours)}'
                    f' parameters against "{their_player}" with {len(theirs)}. Build the same'
                    " optimizers in the same order in every process."
                )
        if len(other) != len(layouts[0]):
            raise UsageError(
                f"Process 0 has {len(layouts[0])} players, process {number} has {len(other)}."
            )


def check_plain(players: Mapping[str, Sequence[Tensor]], modules: Iterable[nn.Module]) -> None:
    """Raise UsageError where parameters are sharded or a network is in DistributedDataParallel.

    Both act on ``backward`` only. The hooks of ``fully_shard`` (FSDP2) do not gather and scatter
    around ``torch.autograd.grad``, and its gathered parameters are freed before a second
    derivative (tested on two processes).
    """
    # if it was not imported, no parameter is sharded
    sharded = sys.modules.get("torch.distributed.tensor")
    for player, tensors in players.items():
        if sharded is not None and any(isinstance(tensor, sharded.DTensor) for tensor in tensors):
            raise UsageError(
                f'Player "{player}": its parameters are sharded (DTensor, as by fully_shard), which'
                " works for backward() only, not for the derivatives that rules need. Use complete"
                " networks in every process, with distributed=Distributed(); to save memory use"
                " activation checkpointing and bfloat16."
            )
    for module in modules:
        if isinstance(module, nn.parallel.DistributedDataParallel):
            raise UsageError(
                "A network is wrapped in DistributedDataParallel, which does not reduce gradients"
                " of torch.autograd.grad: the networks of the processes would diverge. Use the"
                " network itself, and GameOptimizer(..., distributed=Distributed())."
            )
