"""Fuzz everything that reads what a stranger may have written, for as many cases as one likes; a
finding ends with exit code 1.

    python scripts/fuzz.py --cases 100000 --out benchmarks/results/fuzz.json

Cases are drawn by Hypothesis; with ``--engine atheris`` (pip install atheris) they are steered by
the coverage of this library. Each target runs in a process of its own, whose addresses end at 12
GiB. Its result is written at once; when the script is started again, it runs the targets that have
no result in the file, or that had a finding.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
DEAR = {
    "study": 20,
    "state": 50,
    "report": 100,
    "comparison": 100,
    "search": 100,
    "command line": 50,
    "config": 4,
    "checkpoint": 4,
    "log": 4,
    "results": 4,
}
"""target → cost of a case relative to a parser's; the number of cases is divided by it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--cases", type=int, default=10_000, help="of each parser; of dearer targets a fixed share"
    )
    parser.add_argument("--target", help="one target only")
    parser.add_argument("--engine", choices=["hypothesis", "atheris"], default="hypothesis")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file of the results")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if given.here:
        fuzz(given.target, given.cases, given.engine, given.seed)
        return
    from tests.reliability.fuzzing import TARGETS

    found = json.loads(given.out.read_text()) if given.out and given.out.exists() else {}
    for name in [given.target] if given.target else TARGETS:
        key, cases = f"{name}, {given.engine}", max(1, given.cases // DEAR.get(name, 1))
        if found.get(key, {}).get("cases", 0) >= cases and not found[key]["findings"]:
            continue
        began = time.perf_counter()
        words = [
            "--here",
            "--target",
            name,
            "--cases",
            str(cases),
            "--engine",
            given.engine,
            "--seed",
            str(given.seed),
        ]
        done = subprocess.run(
            [sys.executable, __file__, *words], capture_output=True, text=True, check=False
        )
        seconds, peak = (
            time.perf_counter() - began,
            resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
        )
        found[key] = {
            "cases": cases,
            "findings": int(done.returncode != 0),
            "seconds": round(seconds),
            "peak_mib_so_far": peak,
        }
        print(key, found[key], flush=True)
        if done.returncode:
            print(done.stdout[-4000:], done.stderr[-4000:])
        if given.out:
            given.out.write_text(json.dumps(found, indent=2) + "\n")
    sys.exit(1 if any(entry["findings"] for entry in found.values()) else 0)


def fuzz(name: str, cases: int, engine: str, seed: int) -> None:
    """Take so many cases of a target in this process; whatever they raise ends it."""
    resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
    if engine == "atheris":
        import atheris

        with atheris.instrument_imports(include=["saddlepoint"]):
            from tests.reliability.fuzzing import TARGETS
    else:
        from tests.reliability.fuzzing import TARGETS
    import hypothesis

    target, strategy, _ = TARGETS[name]
    quiet = list(hypothesis.HealthCheck)

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=quiet,
        derandomize=False,
    )
    @hypothesis.given(strategy)
    def run(case: object) -> None:
        target(case)

    if engine == "hypothesis":
        run()
        return
    taken = [f"-atheris_runs={cases}", f"-seed={seed + 1}", "-timeout=60", "-rss_limit_mb=6000"]
    atheris.Setup([sys.argv[0], *taken], run.hypothesis.fuzz_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
