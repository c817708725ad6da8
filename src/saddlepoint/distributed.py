"""The processes that train one game together, and what they tell each other."""

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
    """What this process gave into reductions of vectors so far.

    Attributes:
        bytes: size of the vectors.
        calls: how many reductions they took.
    """

    bytes: int = 0
    calls: int = 0


class SingleProcess:
    """One process alone: every mean is its own value. ``Distributed`` is for several.

    Attributes:
        rank: this process's number, from 0.
        world: how many processes there are.
        traffic: what was reduced so far.

    >>> SingleProcess().share(64)
    slice(0, 64, None)
    """

    def __init__(self) -> None:
        self.rank, self.world = 0, 1
        self.traffic = Traffic()

    def share(self, size: int) -> slice:
        """Return which part of a batch of ``size`` samples is this process's.

        Raises:
            UsageError: the batch cannot be split evenly; the message says which sizes can.
        """
        each, rest = divmod(size, self.world)
        if rest:
            below, above = size - rest, size - rest + self.world
            works = f"{below} or {above}" if below else f"{above}"
            raise UsageError(
                f"A batch of {size} samples cannot be split over {self.world} processes. Use a"
                f" multiple, such as {works}."
            )
        return slice(self.rank * each, (self.rank + 1) * each)

    def start(self, vector: Vector) -> Callable[[], Vector]:
        """Begin to take the mean of a vector over the processes; calling the result waits for it."""
        return lambda: vector

    def mean(self, vector: Vector) -> Vector:
        """Return the mean of a vector over the processes."""
        return self.start(vector)()

    def all_reduce_mean(self, numbers: Tensor) -> Tensor:
        """Return the mean of a few numbers, which are not counted as traffic."""
        return numbers

    def all_reduce_max(self, number: float) -> float:
        """Return the largest of the processes' numbers."""
        return number

    def broadcast(self, make: Callable[[], T]) -> T:
        """Return what ``make`` returns in process 0; it is called there only."""
        return make()

    def all_gather(self, own: T) -> list[T]:
        """Return every process's value, in the order of distributed."""
        return [own]


class Distributed(SingleProcess):
    """The processes of a ``torch.distributed`` group, such as ``torchrun`` starts; every process evaluates its share of the batch.

    A loss must be a mean over the batch. Then the mean over W processes of gradients, and of
    products with the Jacobian at the same vector, is what one process would find on the whole
    batch, so every rule takes the same step; the mean of *directions* would be wrong for every rule
    that is not linear in the batch. Each derivative is reduced once, as one flat tensor. BatchNorm,
    whose statistics couple the samples of a batch, breaks this.

    Args:
        group: the process group; the default one when left out.
            ``torch.distributed.init_process_group`` was called before.

    Raises:
        UsageError: there is no process group.
        DistributedError: a reduction failed, because another process ended or did not answer in time.

    Reference: Li et al. (2020), PyTorch distributed: experiences on accelerating data parallel
    training, arXiv:2006.15704.

    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # torchrun's variables say it otherwise
    >>> distributed = Distributed()
    >>> distributed.share(64), distributed.mean(Vector({"x": [torch.ones(2)]})).flatten().tolist(), distributed.traffic.bytes
    (slice(0, 64, None), [1.0, 1.0], 8)
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
        self.rank, self.world = dist.get_rank(group), dist.get_world_size(group)
        # alone; beside gloo, numbers and objects stay on the CPU
        nccl = dist.get_backend(group) == "nccl"
        self._device = (
            torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
        )

    def start(self, vector: Vector) -> Callable[[], Vector]:
        flat = vector.detach().flatten()
        self.traffic.bytes += flat.numel() * flat.element_size()
        self.traffic.calls += 1
        with self._named("the mean of a derivative"):
            work = dist.all_reduce(flat, group=self._group, async_op=True)

        def finish() -> Vector:
            with self._named("the mean of a derivative"):
                work.wait()
            means = vector.unflatten(flat.div_(self.world))
            return (
                means
                if all(t.dtype == flat.dtype for t in vector.tensors)
                else _cast(means, vector)
            )

        return finish

    def all_reduce_mean(self, numbers: Tensor) -> Tensor:
        sums = numbers.detach().to(self._device, copy=True)
        with self._named("the mean of the losses"):
            dist.all_reduce(sums, group=self._group)
        return (sums / self.world).to(numbers.device)

    def all_reduce_max(self, number: float) -> float:
        numbers = torch.tensor([number], dtype=torch.float64, device=self._device)
        with self._named("the agreement on going on"):
            dist.all_reduce(numbers, op=dist.ReduceOp.MAX, group=self._group)
        return numbers.item()

    def broadcast(self, make: Callable[[], T]) -> T:
        said: list[Any] = [None, None]
        failure: Exception | None = None
        if self.rank == 0:
            try:
                said = [make(), None]
            except Exception as error:
                failure, said = error, [None, str(error) or type(error).__name__]
        with self._named("what process 0 has to say"):
            dist.broadcast_object_list(said, group=self._group, group_src=0, device=self._device)
        if failure is not None:
            raise failure
        value, complaint = said
        if complaint is not None:
            raise DistributedError(f"Process 0 could not go on: {complaint}", told=True)
        return value  # type: ignore[no-any-return]

    def all_gather(self, own: T) -> list[T]:
        every: list[Any] = [None] * self.world
        with self._named("what every process has to say"):
            dist.all_gather_object(every, own, group=self._group)
        return every

    @contextmanager
    def _named(self, awaited: str) -> Iterator[None]:
        """Turn a backend's error into a sentence."""
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
                f"Process {self.rank} of {self.world} waited for {awaited}, but {why}. Look at the"
                " output of the others for the reason; checkpoints are as they were."
                f" ({' '.join(str(error).split())[:200]})"
            ) from error


def check_same_everywhere(distributed: SingleProcess, layout: Mapping[str, Any]) -> None:
    """Raise UsageError where the processes hold other players, or the parameters of a player in another order or of other shapes.

    Derivatives are averaged as flat memory, player after player: what differs would be mixed
    without a word.
    """
    layouts = distributed.all_gather(
        [[player, parameters] for player, parameters in layout.items()]
    )
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
    """Raise UsageError where parameters are sharded or a network is wrapped: both reduce gradients behind the library's back, or cannot.

    Tried with ``fully_shard`` (FSDP2) on two processes: its hooks gather and scatter around
    ``backward``, not around ``torch.autograd.grad``, and a second derivative finds the gathered
    parameters freed.
    """
    # where it was not imported, nothing is sharded
    sharded = sys.modules.get("torch.distributed.tensor")
    for player, tensors in players.items():
        if sharded is not None and any(isinstance(tensor, sharded.DTensor) for tensor in tensors):
            raise UsageError(
                f'Player "{player}": its parameters are sharded (DTensor, as by fully_shard), which'
                " works for backward() only, not for the derivatives that rules take. Keep whole"
                " networks in every process, with distributed=Distributed(); to save memory use"
                " activation checkpointing and bf16."
            )
    for module in modules:
        if isinstance(module, nn.parallel.DistributedDataParallel):
            raise UsageError(
                "A network is wrapped in DistributedDataParallel, whose hooks do not see"
                " torch.autograd.grad: the processes would part. Give the network itself, and the"
                " optimizer distributed=Distributed()."
            )


def _cast(vector: Vector, like: Vector) -> Vector:
    """Return a vector in the types of another: what is reduced as one tensor has the widest of them."""
    return Vector(
        {
            player: [a.to(b.dtype) for a, b in zip(tensors, like[player], strict=True)]
            for player, tensors in vector.items()
        }
    )
