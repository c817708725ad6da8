"""The library beside others in one run: CGDs' competitive gradient, two SOAPs, torch's own Adam and
SGD.

The peers come with ``pip install -c constraints.txt '.[benchmark]'``; one that is not installed is
left out, and the page says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module
from time import perf_counter
from typing import Any

import pytorch_optimizer
import torch
from torch.optim import Adam, Optimizer

from benchmarks.contestants import Step, alternating_by_hand, plain_sgd, sign_steps, with_rule
from benchmarks.pairs import PAIRS, D, G, Pair
from benchmarks.timing import interleaved, median, ratio
from saddlepoint import AdaptiveCompetitiveGradient, CompetitiveGradient
from saddlepoint.optim import SOAP

RATE, TRAJECTORY = 1e-3, 20
TOLERANCES = (1e-6, 1e-2)
LONGEST = 512
FIRST = "torch Adam (fused)"


def measure(device: torch.device, rounds: int) -> dict[str, Any]:
    """Return what each comparison found."""
    found: dict[str, Any] = {
        "competitive": {},
        "soap": {},
        "soap alone": {},
        "sign": _sign(device, 3 * rounds),
    }
    for name, make in PAIRS.items():
        pair = partial(make, device)
        found["soap"][name] = _training_steps(pair, rounds)
        found["soap alone"][name] = _optimizer_steps(pair, 3 * rounds)
        try:
            found["competitive"][name] = _competitive(pair, import_module("CGDs"), rounds)
        except ImportError:
            found["competitive"][name] = None
    return found


def _competitive(make: Callable[..., Pair], package: Any, rounds: int) -> dict[str, Any]:
    """The same trajectory in float64 (tanh, so that one exists to high precision), then the time of
    a step in float32."""
    rows: dict[str, Any] = {}
    kinds = {
        "ACGD": (AdaptiveCompetitiveGradient, package.ACGD),
        "CGD": (CompetitiveGradient, package.BCGD),
    }
    for name, (ours, theirs) in kinds.items():
        exact: dict[str, Any] = {"dtype": torch.float64, "activation": "tanh", "batch": 32}
        mine, other = make(**exact), make(**exact)
        step, other_step = _ours(mine, ours, 1e-10), _theirs(other, theirs, 1e-10)
        for _ in range(TRAJECTORY):
            step()
            other_step()
        rows[name] = {
            "gap": float((mine.flat() - other.flat()).abs().max()),
            "moved": float((mine.flat() - make(**exact).flat()).abs().max()),
        }
        for tol in TOLERANCES:
            steps = {
                "ours": _ours(make(), ours, tol),
                "theirs": _theirs(make(), theirs, tol),
            }
            times = interleaved(steps, max(rounds // 3, 5) if tol < 1e-3 else rounds, warm_up=5)
            rows[name][f"{tol:g}"] = {who: median(times[who]) for who in times} | ratio(
                times, "ours", "theirs"
            )
    return rows


def _ours(pair: Pair, kind: Any, tol: float) -> Step:
    return with_rule(pair, kind(tol=tol, max_iter=200, warm_start=True), plain_sgd(pair, RATE))[0]


def _theirs(pair: Pair, kind: Any, tol: float) -> Step:
    """Their tol is on squared norms, so ours is squared. They maximise for one player what
    they minimise for the other."""
    inner = kind(
        max_params=pair.parameters(D),
        min_params=pair.parameters(G),
        lr_max=RATE,
        lr_min=RATE,
        tol=tol**2,
        atol=0.0,
    )

    def step() -> None:
        pair.draw()
        inner.zero_grad()
        inner.step(loss=-pair.losses()[D])

    return step


def soaps() -> dict[str, Callable[..., Optimizer]]:
    """Every optimizer that is compared, by a name for the table; all SOAPs with the published
    options and without weight decay."""
    found: dict[str, Callable[..., Optimizer]] = {
        FIRST: partial(Adam, fused=True),
        "torch Adam (foreach)": partial(Adam, foreach=True),
        "SOAP": partial(SOAP, weight_decay=0.0),
        f"SOAP(max_dimension={LONGEST})": partial(SOAP, weight_decay=0.0, max_dimension=LONGEST),
        "pytorch_optimizer SOAP": partial(pytorch_optimizer.SOAP, weight_decay=0.0),
        f"pytorch_optimizer SOAP({LONGEST})": partial(
            pytorch_optimizer.SOAP, weight_decay=0.0, max_precondition_dim=LONGEST
        ),
    }
    try:
        heavyball = import_module("heavyball")
    except ImportError:
        return found
    return found | {"heavyball SOAP": partial(heavyball.SOAP, weight_decay=0.0)}


def _training_steps(make: Callable[..., Pair], rounds: int) -> list[dict[str, Any]]:
    """A whole step of alternating training with each."""
    steps: dict[str, Step] = {}
    for name, kind in soaps().items():
        try:
            step = alternating_by_hand(make(), kind, lr=1e-4)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                started = perf_counter()
                step()
                print(f"{name}: first step {perf_counter() - started:.1f} s", flush=True)
        except Exception as error:  # a peer that does not run on this machine is a result
            print(f"{name} does not run here: {error}", flush=True)
            continue
        steps[name] = step
    # ten steps at a time: the bases of SOAP are refreshed in every tenth
    times = interleaved({name: _ten(step) for name, step in steps.items()}, rounds, warm_up=2)
    return [
        {
            "optimizer": name,
            "ms": round(median(times[name]) / 10, 3),
            "to Adam": ratio(times, name, FIRST),
        }
        for name in steps
    ] + _versus(times)


def _optimizer_steps(make: Callable[..., Pair], rounds: int) -> list[dict[str, Any]]:
    """The optimizer's step alone, on gradients that do not change."""
    steps: dict[str, Step] = {}
    for name, kind in soaps().items():
        if name.startswith("heavyball"):
            continue  # it consumes gradients
        pair = make()
        inner = [kind(pair.parameters(player), lr=1e-4) for player in (D, G)]
        source = torch.Generator().manual_seed(2)
        for player in (D, G):
            for p in pair.parameters(player):
                p.grad = torch.randn(p.shape, generator=source).to(p)
        steps[name] = partial(_all, inner)
    times = interleaved({name: _ten(step) for name, step in steps.items()}, rounds, warm_up=2)
    return [
        {
            "optimizer": name,
            "ms": round(median(times[name]) / 10, 3),
            "to Adam": ratio(times, name, FIRST),
        }
        for name in steps
    ] + _versus(times)


def _versus(times: dict[str, list[float]]) -> list[dict[str, Any]]:
    pairs = (
        ("SOAP", "pytorch_optimizer SOAP"),
        (f"SOAP(max_dimension={LONGEST})", f"pytorch_optimizer SOAP({LONGEST})"),
        ("SOAP", "heavyball SOAP"),
    )
    return [
        {"ours": one, "theirs": other, **ratio(times, one, other)}
        for one, other in pairs
        if one in times and other in times
    ]


def _all(inner: list[Optimizer]) -> None:
    for optimizer in inner:
        optimizer.step()


def _ten(step: Step) -> Step:
    def several() -> None:
        for _ in range(10):
            step()

    return several


def _sign(device: torch.device, rounds: int) -> dict[str, Any]:
    """SignSubgradient and similar optimizers beside torch's SGD: 10⁷ parameters, ten tensors."""
    times = interleaved(sign_steps(device), rounds)
    base = next(iter(times))
    return {name: {"ms": median(times[name]), **ratio(times, name, base)} for name in times}
