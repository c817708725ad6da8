"""Run in W processes: every rule on shares of a batch, beside one process on the whole batch;
process 0 writes what it found."""

import json
from functools import partial
from pathlib import Path

import torch

import saddlepoint as sp
from saddlepoint import registry
from saddlepoint.distributed import SingleProcess
from saddlepoint.models import MLP
from tests.distributed.group import in_group

STEPS, BATCH = 20, 8
SIGN_LIKE = ("sign", "signum", "random-coordinate", "grafted")
OTHERS = ("normalized", "subgradient", *SIGN_LIKE)
RATES = {
    "sgd": {"lr": 0.02},
    "adam": {"lr": 0.002, "betas": (0.5, 0.999)},
    "subgradient": {"lr": 0.1},
}
SHORT = 4
"""Largest max_dimension here: larger factors are singular, and eigenvectors of 0 are not unique."""


class Pair:
    """A GAN whose losses are means over a batch that is a function of the step."""

    def __init__(self, dtype: torch.dtype, width: int, zero_sum: bool) -> None:
        source = torch.Generator().manual_seed(3)
        self.G = MLP((3, width, 4), activation="tanh", generator=source).to(dtype)
        self.D = MLP((4, width, 1), activation="tanh", generator=source).to(dtype)
        self.dtype, self.zero_sum = dtype, zero_sum

    def closure(self, step: int, distributed: SingleProcess):
        source = torch.Generator().manual_seed(100 + step)
        share = distributed.batch_slice(BATCH)
        real = (torch.randn(BATCH, 4, generator=source, dtype=torch.float64) + 1).to(self.dtype)[
            share
        ]
        z = torch.randn(BATCH, 3, generator=source, dtype=torch.float64).to(self.dtype)[share]

        def losses():
            softplus, fake = torch.nn.functional.softplus, self.D(self.G(z))
            fooled = -softplus(fake).mean() if self.zero_sum else softplus(-fake).mean()
            return {
                "discriminator": softplus(-self.D(real)).mean() + softplus(fake).mean(),
                "generator": fooled,
            }

        return losses

    def theta(self) -> torch.Tensor:
        return torch.cat(
            [p.detach().double().reshape(-1) for net in (self.D, self.G) for p in net.parameters()]
        )


def trajectory(
    rule, inner, dtype: torch.dtype, distributed: SingleProcess, width: int, zero_sum: bool
):
    """Return the parameters after every step, and the optimizer."""
    pair = Pair(dtype, width, zero_sum)
    players = {
        "discriminator": inner(list(pair.D.parameters())),
        "generator": inner(list(pair.G.parameters())),
    }
    optimizer = sp.GameOptimizer(players, rule, modules=[pair.G, pair.D], distributed=distributed)
    thetas = []
    for step in range(STEPS):
        optimizer.step(pair.closure(step, distributed))
        thetas.append(pair.theta())
    return thetas, optimizer


def compared(
    rule,
    inner,
    distributed: SingleProcess,
    *,
    dtype: torch.dtype = torch.float64,
    width: int = 12,
    zero_sum: bool = False,
) -> dict[str, float]:
    """Return what process 0 finds; the others only take part."""
    bytes_before, calls_before = distributed.traffic.bytes, distributed.traffic.calls
    together, optimizer = trajectory(rule, inner, dtype, distributed, width, zero_sum)
    everywhere = distributed.all_gather(together[-1])
    if distributed.rank:
        return {}
    alone, _ = trajectory(rule, inner, dtype, SingleProcess(), width, zero_sum)
    shares = [
        float((a - b).abs().gt(1e-10).double().mean()) for a, b in zip(together, alone, strict=True)
    ]
    return {
        "gap": float((together[-1] - alone[-1]).abs().max()),
        "relative": float((together[-1] - alone[-1]).norm() / alone[-1].norm()),
        "moved": float((together[-1] - together[0]).norm()),
        "differing a step": max(share / (t + 1) for t, share in enumerate(shares)),
        "same everywhere": all(torch.equal(everywhere[0], other) for other in everywhere),
        "vectors": (distributed.traffic.bytes - bytes_before)
        / together[-1].numel()
        / dtype.itemsize,
        "calls": distributed.traffic.calls - calls_before,
        "gradients": optimizer.cost.gradients / 2,
        "products": optimizer.cost.products / 2,
    }


def everything(distributed: SingleProcess) -> dict[str, dict[str, float]]:
    found = {}
    for name, entry in registry.RULES.items():
        options = dict(registry.RECIPES[name].options)
        if name == "kronecker-cgd":
            found["kronecker-cgd, default"] = compared(
                registry.build_rule(name, options), inner("sgd"), distributed
            )
            options["preconditioner"] = {**options["preconditioner"], "max_dimension": SHORT}
        rule, slower = (
            registry.build_rule(name, options),
            ({"lr": 0.005} if name == "kronecker-cgd" else {}),
        )
        few = distributed.world_size > 2  # there are two cores to test on
        zero_sum = registry.load(entry.path).games.endswith("zero-sum")
        for optimizer in ("sgd", "adam") if rule.output == "gradient" and not few else ("sgd",):
            for dtype in (torch.float64,) if few else (torch.float64, torch.float32):
                key = f"{name}, {optimizer}, {str(dtype)[-7:]}"
                found[key] = compared(
                    rule, inner(optimizer, **slower), distributed, dtype=dtype, zero_sum=zero_sum
                )
    for name in OTHERS:
        found[f"gradient, {name}, float64"] = compared(
            sp.GradientDescent(), inner(name), distributed, width=512
        )
    found["gradient, soap, float64"] = compared(
        sp.GradientDescent(), inner("soap", max_dimension=SHORT), distributed
    )
    found["batched smoothing, sgd, float64"] = compared(
        sp.rules.RandomizedSmoothing(samples=4, batched=True), inner("sgd"), distributed
    )
    return found


def inner(name: str, **more):
    options = {**registry.OPTIMIZERS[name].options, **RATES.get(name, {}), **more}
    options.pop("players", None)
    return partial(_built, name, options)


def _built(name, options, parameters):
    return registry.build_optimizer(name, parameters, options)


def main(distributed: SingleProcess, out: str) -> None:
    found = everything(distributed)
    if distributed.rank == 0:
        Path(out).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    in_group(main)
