"""Run in two processes: what they do together, and what they say where they cannot; process 0
writes what it found."""

import json
import os
import time
from pathlib import Path

import torch
from torch import nn

import saddlepoint as sp
from saddlepoint.errors import RankError, UsageError
from saddlepoint.ranks import Ranks
from saddlepoint.training import Training, agreement, resolve
from tests.distributed.group import in_group

SHORT = {"problem": "mixture8", "steps": 6, "evaluation_samples": 3500, "batch_size": 8}


def together(ranks: Ranks) -> dict[str, object]:
    return {
        "evaluation": evaluation(ranks),
        "seed": refusal(
            lambda: agreement.check_agreement(
                Training(resolve({**SHORT, "seed": ranks.rank}), ranks=ranks)
            )
        ),
        "data": refusal(lambda: other_data(ranks)),
        "code": refusal(lambda: other_code(ranks)),
        "drift": refusal(lambda: drifted(ranks)),
        "first": refusal(lambda: ranks.from_first(lambda: 1 / 0)),
        "batch": refusal(lambda: Training(resolve({**SHORT, "batch_size": 9}), ranks=ranks)),
        "normalised": refusal(
            lambda: Training(resolve({"problem": "stacked-digits"}), ranks=ranks)
        ),
        "sharded": refusal(lambda: sharded(ranks)),
        "wrapped": refusal(lambda: wrapped(ranks)),
    }


def evaluation(ranks: Ranks) -> list[dict[str, float]]:
    """Return the metrics of two processes and of one with the same weights."""
    shared = Training(resolve(SHORT), ranks=ranks)
    for _ in range(SHORT["steps"]):
        shared.advance()
    alone = Training(resolve(SHORT))
    alone.load_state_dict(shared.state_dict())
    return [shared.evaluate(), alone.evaluate(), ranks.gathered(shared.evaluate())[1]]


def refusal(attempt) -> str:
    try:
        attempt()
    except (UsageError, RankError, ZeroDivisionError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was refused"


def other_data(ranks: Ranks) -> None:
    training = Training(resolve(SHORT), ranks=ranks)
    kind = type(training.problem)
    real = kind.real
    kind.real = lambda self, step, size, seed: real(self, step, size, seed) + ranks.rank
    try:
        agreement.check_agreement(training)
    finally:
        kind.real = real


def other_code(ranks: Ranks) -> None:
    source, agreement.code_digest = agreement.code_digest, lambda: f"version {ranks.rank}"
    try:
        agreement.check_agreement(Training(resolve(SHORT), ranks=ranks))
    finally:
        agreement.code_digest = source


def drifted(ranks: Ranks) -> None:
    training = Training(resolve(SHORT), ranks=ranks)
    agreement.check_parameters(training)
    with torch.no_grad():
        next(training.networks["generator"].parameters())[0, 0] += 1e-7 * ranks.rank
    agreement.check_parameters(training)


def sharded(ranks: Ranks) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    network = nn.Linear(4, 4, device="meta").to_empty(device="cpu")
    fully_shard(network, mesh=init_device_mesh("cpu", (ranks.world,)))
    sp.GameOptimizer({"x": torch.optim.SGD(network.parameters(), lr=0.1)}, ranks=ranks)


def wrapped(ranks: Ranks) -> None:
    network = nn.Linear(4, 4, device="meta").to_empty(device="cpu")
    sp.GameOptimizer(
        {"x": torch.optim.SGD(network.parameters(), lr=0.1)},
        modules=[nn.parallel.DistributedDataParallel(network)],
        ranks=ranks,
    )


def main(ranks: Ranks, case: str, out: str) -> None:
    if case == "together":
        found = together(ranks)
    else:
        training = Training(resolve(SHORT), ranks=ranks)
        training.advance()
        if ranks.rank == 1 and case == "silent":
            time.sleep(120)
        if ranks.rank == 1 and case == "dead":
            os._exit(1)
        found = {"said": refusal(training.advance)}
    if ranks.rank == 0:
        Path(out).write_text(json.dumps(found))
    if case != "together":
        os._exit(0)  # the group is broken, and taking it down would wait for the other


if __name__ == "__main__":
    in_group(main)
