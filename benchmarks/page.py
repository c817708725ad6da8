"""Write docs/performance*.md and docs/distributed.md from the committed results."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PARTS = ("steps", "peers", "scaling")
PRICE = HERE.parent / "studies" / "price" / "comparison.json"


def performance(page: str) -> str:
    """Return the text of one of the pages about the cost of a step."""
    found = {name: _result(name) for name in PARTS}
    template = _template(f"{page}.jinja")
    return template.render(**found, targets=targets(found), price=price()) + "\n"


def distributed() -> str:
    """Return the text of the page about many processes."""
    return (
        _template("distributed.md.jinja").render(distributed=_result("ranks"), model=model()) + "\n"
    )


def model() -> dict[str, Any]:
    """Return what a step of many processes would cost, from a formula and the assumptions that it
    takes."""
    batch_ms, bandwidth, latency, worlds = 50.0, 50.0, 5.0, (8, 64, 256, 1024)
    rows = []
    for parameters in (10**7, 10**8, 10**9):
        for rule, products in (
            ("gradients", 0),
            ("one product (consensus, Hamiltonian)", 1),
            ("ten products (competitive gradient)", 10),
        ):
            work = batch_ms * (1 + 2 * products)
            shares = []
            for world in worlds:
                once = (
                    2 * (world - 1) / world * 4 * parameters / (bandwidth * 1e9) * 1e3
                    + 2 * (world - 1) * latency * 1e-3
                )
                shares.append(f"{100 * work / (work + (1 + products) * once):.0f} %")
            rows.append({"parameters": f"{parameters:,}", "rule": rule, "efficiency": shares})
    return {
        "batch_ms": batch_ms,
        "bandwidth": bandwidth,
        "latency": latency,
        "worlds": worlds,
        "rows": rows,
    }


def _result(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["spread"] = spread
    return environment.get_template(name)


def price() -> list[dict[str, Any]]:
    """Return the problems of the study of time to a Fréchet distance, each method's row as it is
    shown, best first."""
    return [
        {**problem, "rows": [_priced(own) for own in _ranked(problem["methods"])]}
        for problem in json.loads(PRICE.read_text())["problems"]
    ]


def _ranked(methods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(methods, key=lambda own: own["summary"]["median"])


def _priced(method: dict[str, Any]) -> dict[str, str]:
    summary, (low, high) = method["summary"], method["summary"]["interval"]
    time, runs = summary["time_to_target"], summary["success"]["runs"]
    return {
        "name": method["name"],
        "distance": f"{summary['median']:.0f} ({low:.0f}–{high:.0f})",
        "reached": f"{time['reached']} of {runs}",
        "time": "–" if time["median"] is None else f"{time['median']:.1f} s",
        "ms": f"{summary['milliseconds_per_step']:.1f}",
    }


def spread(ratio: dict[str, Any]) -> str:
    """Return a ratio with its interval."""
    return f"{ratio['ratio']:.2f} ({ratio['low']:.2f}–{ratio['high']:.2f})"


def targets(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what was aimed at, what was reached on both networks, and whether that meets it."""
    mlp, conv = (found["steps"][name] for name in ("mlp", "dcgan28"))
    rows = [
        _row(
            "GameOptimizer + GradientDescent + Adam, to Adam called directly",
            1.03,
            mlp["parts"]["GradientDescent"],
            conv["parts"]["GradientDescent"],
        ),
        _row(
            "a Jacobian product `J.T @ v`, to one joint gradient",
            2.0,
            mlp["parts"]["J.T @ v"],
            conv["parts"]["J.T @ v"],
        ),
        *(
            _row(
                f"{name} + Adam, to simultaneous Adam", 2.5, mlp["parts"][name], conv["parts"][name]
            )
            for name in (
                "Consensus",
                "Hamiltonian",
                "SymplecticGradientAdjustment",
                "SymplecticGradientAdjustment(align=False)",
            )
        ),
    ]
    peers = found["peers"]
    if peers["competitive"]["mlp"] is not None:
        for tolerance in ("1e-06", "0.01"):
            pair = [peers["competitive"][name]["ACGD"] for name in ("mlp", "dcgan28")]
            label = f"ACGD, to CGDs' ACGD at tolerance {float(tolerance):g}"
            rows.append(
                _row(
                    label,
                    0.5,
                    *(own[tolerance] for own in pair),
                    void=max(own["gap"] for own in pair) > 1e-4,
                )
            )
    worst = [max(own["every"].values(), key=lambda r: r["ratio"]) for own in (mlp, conv)]
    rows.append(
        _row("`Every(5)` of the most expensive curvature rule, to simultaneous Adam", 1.5, *worst)
    )
    memory = [
        max(value for name, value in own["memory"].items() if name != "Adam, MiB")
        for own in (mlp, conv)
    ]
    rows.append(
        _row(
            "peak memory of the order-2 rule that needs most, to Adam",
            2.0,
            *({"ratio": value} for value in memory),
        )
    )
    rows.append(
        _row(
            "SignSubgradient, to torch SGD (foreach), 10⁷ parameters",
            1.05,
            peers["sign"]["SignSubgradient"],
        )
    )
    for label, ours, other, limit in (
        ("a training step with SOAP, to Adam", "SOAP", None, 1.5),
        ("the same with sides of at most 512", "SOAP(max_dimension=512)", None, 1.5),
        ("SOAP's own step, to pytorch_optimizer's", "SOAP", "pytorch_optimizer SOAP", 0.6),
        (
            "the same with sides of at most 512",
            "SOAP(max_dimension=512)",
            "pytorch_optimizer SOAP(512)",
            0.6,
        ),
    ):
        part = "soap" if other is None else "soap alone"
        rows.append(
            _row(
                label,
                limit,
                *(_found(peers[part][name], ours, other) for name in ("mlp", "dcgan28")),
            )
        )
    return rows


def _found(rows: list[dict[str, Any]], ours: str, other: str | None) -> dict[str, Any]:
    if other is None:
        return next(row["to Adam"] for row in rows if row.get("optimizer") == ours)
    return next(row for row in rows if row.get("ours") == ours and row["theirs"] == other)


def _row(what: str, limit: float, *reached: dict[str, Any], void: bool = False) -> dict[str, Any]:
    shown = [spread(r) if "low" in r else f"{r['ratio']:.2f}" for r in reached]
    met = [r["ratio"] <= limit for r in reached]
    verdict = (
        "void: not the same trajectory"
        if void
        else "met"
        if all(met)
        else "missed"
        if not any(met)
        else "met on one"
    )
    return {
        "what": what,
        "limit": f"≤ {limit:g}",
        "reached": [*shown, *["–"] * (2 - len(shown))],
        "verdict": verdict,
    }


PERFORMANCE = (
    "performance.md",
    "performance-rules.md",
    "performance-peers.md",
    "performance-time.md",
    "performance-attempts.md",
)
PAGES = {page: partial(performance, page) for page in PERFORMANCE} | {"distributed.md": distributed}
