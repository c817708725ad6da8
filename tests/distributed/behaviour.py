"""Run in two processes: what they do together, and what they say where they cannot; process 0
writes what it found."""

import json
import os
import time
from pathlib import Path

import torch
from torch import nn

import saddlepoint as sp
from saddlepoint.distributed import SingleProcess
from saddlepoint.errors import DistributedError, UsageError
from saddlepoint.training import Evaluator, Trainer, agreement, resolve
from tests.distributed.group import in_group

SHORT = {"problem": "mixture8", "steps": 6, "evaluation_samples": 3500, "batch_size": 8}


def together(distributed: SingleProcess) -> dict[str, object]:
    return {
        "evaluation": evaluation(distributed),
        "seed": refusal(
            lambda: agreement.check_agreement(
                Trainer(resolve({**SHORT, "seed": distributed.rank}), distributed=distributed)
            )
        ),
        "data": refusal(lambda: other_data(distributed)),
        "code": refusal(lambda: other_code(distributed)),
        "drift": refusal(lambda: drifted(distributed)),
        "first": refusal(lambda: distributed.broadcast(lambda: 1 / 0)),
        "batch": refusal(
            lambda: Trainer(resolve({**SHORT, "batch_size": 9}), distributed=distributed)
        ),
        "normalised": refusal(
            lambda: Trainer(resolve({"problem": "stacked-digits"}), distributed=distributed)
        ),
        "sharded": refusal(lambda: sharded(distributed)),
        "wrapped": refusal(lambda: wrapped(distributed)),
    }


def evaluation(distributed: SingleProcess) -> list[dict[str, float]]:
    """Return the metrics of two processes and of one with the same weights."""
    shared = Trainer(resolve(SHORT), distributed=distributed)
    for _ in range(SHORT["steps"]):
        shared.train_step()
    alone = Trainer(resolve(SHORT))
    alone.load_state_dict(shared.state_dict())
    of_all = Evaluator(shared).evaluate()
    return [of_all, Evaluator(alone).evaluate(), distributed.all_gather(of_all)[1]]


def refusal(attempt) -> str:
    try:
        attempt()
    except (UsageError, DistributedError, ZeroDivisionError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was refused"


def other_data(distributed: SingleProcess) -> None:
    trainer = Trainer(resolve(SHORT), distributed=distributed)
    kind = type(trainer.problem)
    real = kind.real
    kind.real = lambda self, step, size, seed: real(self, step, size, seed) + distributed.rank
    try:
        agreement.check_agreement(trainer)
    finally:
        kind.real = real


def other_code(distributed: SingleProcess) -> None:
    source, agreement.code_digest = agreement.code_digest, lambda: f"version {distributed.rank}"
    try:
        agreement.check_agreement(Trainer(resolve(SHORT), distributed=distributed))
    finally:
        agreement.code_digest = source


def drifted(distributed: SingleProcess) -> None:
    trainer = Trainer(resolve(SHORT), distributed=distributed)
    agreement.check_parameters(trainer)
    with torch.no_grad():
        next(trainer.networks["generator"].parameters())[0, 0] += 1e-7 * distributed.rank
    agreement.check_parameters(trainer)


def sharded(distributed: SingleProcess) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    network = nn.Linear(4, 4, device="meta").to_empty(device="cpu")
    fully_shard(network, mesh=init_device_mesh("cpu", (distributed.world_size,)))
    sp.GameOptimizer({"x": torch.optim.SGD(network.parameters(), lr=0.1)}, distributed=distributed)


def wrapped(distributed: SingleProcess) -> None:
    network = nn.Linear(4, 4, device="meta").to_empty(device="cpu")
    sp.GameOptimizer(
        {"x": torch.optim.SGD(network.parameters(), lr=0.1)},
        modules=[nn.parallel.DistributedDataParallel(network)],
        distributed=distributed,
    )


def main(distributed: SingleProcess, case: str, out: str) -> None:
    if case == "together":
        found = together(distributed)
    else:
        trainer = Trainer(resolve(SHORT), distributed=distributed)
        trainer.train_step()
        if distributed.rank == 1 and case == "silent":
            time.sleep(120)
        if distributed.rank == 1 and case == "dead":
            os._exit(1)
        found = {"said": refusal(trainer.train_step)}
    if distributed.rank == 0:
        Path(out).write_text(json.dumps(found))
    if case != "together":
        os._exit(0)  # the group is broken, and taking it down would wait for the other


if __name__ == "__main__":
    in_group(main)
