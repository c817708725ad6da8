"""Measure, keep the numbers, and write the page.

    python -m benchmarks [steps] [peers] [scaling] [ranks] [--rounds 21] [--threads 2] [--device
    cuda] python -m benchmarks page

Each part leaves ``benchmarks/results/NAME.json`` with the machine that it was measured on;
``docs/performance.md`` is written from these files, also where only one of them is new. A GPU's
results stand in files of their own, ``NAME-cuda.json``.
"""

from __future__ import annotations

import argparse
import json

import torch

from benchmarks import page, peers, ranks, scaling, steps
from benchmarks.page import RESULTS
from benchmarks.timing import machine

PARTS = {
    "steps": steps.measure,
    "peers": peers.measure,
    "scaling": scaling.measure,
    "ranks": ranks.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "parts", nargs="*", help=f"{', '.join(PARTS)}, or page; all of them when left out"
    )
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    unknown = set(options.parts) - {*PARTS, "page"}
    if unknown:
        parser.error(f"unknown part {min(unknown)}; the parts are {', '.join(PARTS)} and page")
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    for name in options.parts or PARTS:
        if name in PARTS:
            result = {
                "machine": machine(device),
                "rounds": options.rounds,
                **PARTS[name](device, options.rounds),
            }
            suffix = "" if device.type == "cpu" else f"-{device.type}"
            (RESULTS / f"{name}{suffix}.json").write_text(json.dumps(result, indent=1) + "\n")
            print(f"{name}: measured", flush=True)
    missing = [name for name in PARTS if not (RESULTS / f"{name}.json").exists()]
    if missing:
        print(f"the page waits for {', '.join(missing)}")
    else:
        for name, text in page.PAGES.items():
            (RESULTS.parents[1] / "docs" / name).write_text(text())


if __name__ == "__main__":
    main()
