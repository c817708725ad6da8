"""Kill runs with SIGKILL, resume them, and compare what they become with runs that nobody killed.

    python scripts/kill_runs.py --kills 50              # goes on where it stopped; writes
    benchmarks/results/kills.json

Every second run is killed at a chosen moment: inside a step, an evaluation or a probe, while a line
of the log, a picture, a checkpoint or the summary is written (before, with half of it written,
before and after the file takes its name). The others are killed from outside at a random time, and
what the process was doing is counted. Some are killed once or twice more while they are resumed. At
the end everything is compared: every tensor and number of the last and the best checkpoint, the
log, the pictures, the summary, the names of all files; all but times.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# before torch, in every process; tiny networks gain nothing from threads
os.environ.setdefault("OMP_NUM_THREADS", "1")

RESULT = Path(__file__).parents[1] / "benchmarks" / "results" / "kills.json"

CADENCE = {
    "evaluate_every": 4,
    "sample_every": 3,
    "checkpoint_every": 5,
    "log_every": 2,
    "probe_every": 6,
    "trace_every": 1,
}
COMMON = {
    "problem": {"name": "mixture8", "hidden": 8, "latent": 2},
    "steps": 24,
    "batch_size": 8,
    "evaluation_samples": 160,
    **CADENCE,
}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "adam": {},
    "acgd": {"rule": {"name": "acgd", "warm_start": True}},
    "sign": {
        "optimizer": {"name": "sign", "lr": 1e-3},
        "lr_schedule": "linear",
        "discriminator_steps": 3,
    },
    # a NaN in step 12, once
    "soap with a roll-back": {
        "optimizer": {"name": "soap", "lr": 1e-3},
        "on_divergence": "roll_back",
    },
}

POINTS = {
    "step": (0, 1, 2, 3),
    "evaluation": (0, 1, 2, 3),
    "probe": (0, 3),
    "log": (0, 1, 2, 3),
    "sample": (0, 1, 2, 3, 4),
    "checkpoint": (0, 1, 2, 3, 4),
    "summary": (0, 1, 2, 3),
    "rewind": (0, 1, 2, 3),
}
"""What a process can be doing, and the points at which it can be killed, numbered in order."""
OUTSIDE = "outside"

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(
    [
        "saddlepoint.cli",
        "saddlepoint.training.progress",
        "saddlepoint.cli.tables",
        "saddlepoint.compare.preload",
    ]
)


@dataclass(frozen=True)
class Kill:
    """Where a process is killed: at the ``number``-th time of a moment, or from outside after some
    seconds."""

    moment: str
    point: int = 0
    number: int = 1
    seconds: float = 0.0


@dataclass
class Straight:
    """A run that nobody killed."""

    path: Path
    config: Path
    seconds: float
    counts: dict[str, int]


@dataclass
class Fate:
    """What happened to a run: the kills that hit it, what it was doing when those from outside did,
    and what differs at the end."""

    kills: list[str] = field(default_factory=list)
    started_again: int = 0
    differences: list[str] = field(default_factory=list)


# ----- in the killed process


def child(arguments: list[str], output: Path, doing: Any, kill: Kill | None) -> None:
    """Run a command of saddlepoint whose output goes to a file; ``doing`` is the number of what it
    does at present."""
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    counts: Counter[str] = Counter()
    plant(doing, counts, kill)
    from saddlepoint.cli import main

    try:
        main(arguments)
    finally:
        output.with_suffix(".counts").write_text(json.dumps(counts))


def plant(doing: Any, counts: Counter[str], kill: Kill | None) -> None:
    """Have the library say what it is doing, count it, and die where it should."""
    import saddlepoint.training.recorder as recorder
    import saddlepoint.training.run_directory as run_directory
    from saddlepoint.game_optimizer import GameOptimizer
    from saddlepoint.problems import Mixture8
    from saddlepoint.training import Evaluator, RunDirectory, Trainer

    names = ["", *POINTS]

    def reached(moment: str, point: int) -> bool:
        return kill is not None and (moment, point, counts[moment]) == (
            kill.moment,
            kill.point,
            kill.number,
        )

    def die_at(point: int, moment: str | None = None) -> None:
        if reached(names[doing.value] if moment is None else moment, point):
            os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def announced(moment: str) -> Iterator[None]:
        before, doing.value = doing.value, names.index(moment)
        counts[moment] += 1
        die_at(0)
        try:
            yield
            die_at(3)
        finally:
            doing.value = before

    def wrap(owner: Any, method: str, moment: str) -> None:
        original: Callable[..., Any] = getattr(owner, method)

        def wrapped(*arguments: Any, **options: Any) -> Any:
            with announced(moment):
                return original(*arguments, **options)

        setattr(owner, method, wrapped)

    wrap(Trainer, "train_step", "step")
    wrap(Evaluator, "evaluate", "evaluation")
    wrap(recorder, "take_probe", "probe")
    wrap(RunDirectory, "log", "log")
    wrap(RunDirectory, "save_picture", "sample")
    wrap(RunDirectory, "save_checkpoint", "checkpoint")
    wrap(RunDirectory, "write_summary", "summary")
    wrap(RunDirectory, "truncate_after", "rewind")

    step, measures, replace, append = (
        GameOptimizer.step,
        Mixture8.measures,
        Path.replace,
        run_directory.append_atomic,
    )

    def one_turn(self: Any, *arguments: Any, **options: Any) -> Any:
        die_at(1)  # with the run's own random state installed
        found = step(self, *arguments, **options)
        die_at(2)  # one player has moved, the other has not
        return found

    def metric_by_metric(self: Any, samples: Any) -> Iterator[Any]:
        for index, found in enumerate(measures(self, samples)):
            die_at(1 + (index > 0))
            yield found

    def rename(self: Path, target: Path) -> Path:
        if reached(names[doing.value], 4):
            os.truncate(self, self.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        die_at(1)  # everything is written, and has not its name
        found = replace(self, target)
        die_at(2)  # it has; the next file has not
        return found

    def half_a_line(path: Path, content: bytes) -> None:
        if reached("log", 1) or reached("log", 2):
            append(path, content[: len(content) // 2 if reached("log", 1) else -1])
            os.kill(os.getpid(), signal.SIGKILL)
        append(path, content)

    closure = Trainer._closure

    def spoilt_once(self: Any) -> Any:
        inner = closure(self)

        def losses() -> Any:
            terms = inner()
            if (
                self.config.on_divergence == "roll_back"
                and (self.step, self.rollbacks) == (11, 0)
                and "discriminator" in terms
            ):
                terms["discriminator"]["fake"] = terms["discriminator"]["fake"] * float("nan")
            return terms

        return losses

    planted: list[tuple[Any, str, Any]] = [
        (GameOptimizer, "step", one_turn),
        (Mixture8, "measures", metric_by_metric),
        (Path, "replace", rename),
        (run_directory, "append_atomic", half_a_line),
        (Trainer, "_closure", spoilt_once),
    ]
    for owner, name, value in planted:
        setattr(owner, name, value)


# ----- in the one that kills


def execute(arguments: list[str | Path], output: Path, kill: Kill | None = None) -> tuple[int, str]:
    """Run a command in a process that is perhaps killed; return its exit code and, if killed from
    outside, what it was doing."""
    doing = context.RawValue("i", 0)
    process = context.Process(target=child, args=([str(a) for a in arguments], output, doing, kill))
    process.start()
    if kill is not None and kill.moment == OUTSIDE:
        process.join(kill.seconds)
        process.kill()
    process.join()
    assert process.exitcode is not None
    return process.exitcode, ["between", *POINTS][doing.value]


def make_straight(name: str, place: Path) -> Straight:
    """Train a configuration to its end."""
    import yaml

    config = place / f"{name}.yaml"
    config.write_text(yaml.safe_dump({**COMMON, **CONFIGURATIONS[name]}))
    started = time.perf_counter()
    code, _ = execute(["train", "--config", config, "--out", place / name], place / f"{name}.txt")
    if code:
        raise SystemExit((place / f"{name}.txt").read_text())
    counts = json.loads((place / f"{name}.counts").read_text())
    return Straight(place / name, config, time.perf_counter() - started, counts)


def suffer(straight: Straight, place: Path, kills: list[Kill]) -> Fate:
    """Train a run in ``place`` that is killed as planned, resume it until it has ended, and compare
    it with the straight one."""
    fate, run, plan, output = Fate(), place / "run", [*kills], place / "output.txt"
    for _ in range(len(kills) + 2):
        begun = (run / "config.yaml").exists()
        command: list[str | Path] = (
            ["resume", run] if begun else ["train", "--config", straight.config, "--out", run]
        )
        if begun and not list((run / "checkpoints").glob("step-*.pt")):
            fate.started_again += 1
        kill = plan.pop(0) if plan else None
        output.unlink(missing_ok=True)
        code, doing = execute(command, output, kill)
        said = output.read_text() if output.exists() else ""  # killed before it could say anything
        if code == -signal.SIGKILL:
            assert kill is not None
            fate.kills.append(
                f"{kill.moment}, {doing}"
                if kill.moment == OUTSIDE
                else f"{kill.moment} {kill.point}"
            )
        elif code == 0 or (begun and "has used its budget" in said):
            fate.differences = differences(straight.path, run)
            return fate
        else:
            fate.differences = [f"exit code {code}: {said[-500:]}"]
            return fate
    fate.differences = ["it was never finished"]
    return fate


def differences(a: Path, b: Path) -> list[str]:
    """Return what differs between two run directories, but for times."""
    found = []
    names = [
        {str(path.relative_to(place)) for path in place.rglob("*") if path.name != ".lock"}
        for place in (a, b)
    ]
    found += [f"{name} is in one only" for name in sorted(names[0] ^ names[1])]
    for name in sorted(names[0] & names[1]):
        if (a / name).is_dir() or name == "environment.json":
            continue
        left, right = (_content(place / name) for place in (a, b))
        found += [f"{name}: {where}" for where in _unequal(left, right)]
    return found


def _content(path: Path) -> Any:
    """Return what a file says, in plain containers where it holds times."""
    from saddlepoint.io.checkpoint import decode

    if path.suffix == ".pt":
        return decode(path.read_bytes())
    if path.suffix == ".json":
        return json.loads(path.read_text())
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    return path.read_bytes()


def _unequal(a: Any, b: Any, where: str = "") -> list[str]:
    import torch

    if isinstance(a, dict) and isinstance(b, dict):
        keys = [key for key in a.keys() | b.keys() if "seconds" not in str(key)]
        return [
            text
            for key in sorted(keys, key=str)
            for text in _unequal(a.get(key), b.get(key), f"{where}.{key}")
        ]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [
            text
            for index, pair in enumerate(zip(a, b, strict=True))
            for text in _unequal(*pair, f"{where}[{index}]")
        ]
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and torch.equal(a, b)
    else:
        same = type(a) is type(b) and a == b
    return [] if same else [where or "content"]


def draw(number: int, straight: Straight) -> list[Kill]:
    """Return the kills of a run: a function of its number and of how often and how long the
    straight run did what."""
    draws = random.Random(number)

    def inside(moments: list[str]) -> Kill:
        moment = moments[(number // 2) % len(moments)]
        return Kill(
            moment, draws.choice(POINTS[moment]), draws.randint(1, straight.counts.get(moment, 1))
        )

    def outside() -> Kill:
        return Kill(OUTSIDE, seconds=draws.uniform(0, straight.seconds))

    planned = [
        inside([moment for moment in POINTS if moment != "rewind"]) if number % 2 else outside()
    ]
    while len(planned) < 3 and draws.random() < 0.4:
        planned.append(
            draws.choice(
                [
                    Kill("rewind", draws.choice(POINTS["rewind"])),
                    outside(),
                    inside(["step", "checkpoint"]),
                ]
            )
        )
    return planned


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--kills", type=int, default=50, help="number of runs that are killed at least once"
    )
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    known = json.loads(options.out.read_text())["runs"] if options.out.exists() else []
    runs = [run for run in known if run["number"] < options.kills]
    with tempfile.TemporaryDirectory() as folder:
        # starts the process that all others are forked from
        make_straight("adam", Path(tempfile.mkdtemp(dir=folder)))
        straights = {name: make_straight(name, Path(folder)) for name in CONFIGURATIONS}
        for number in range(len(runs), options.kills):
            name = list(CONFIGURATIONS)[number % len(CONFIGURATIONS)]
            fate, attempt = Fate(), 0
            # it may have ended before the first kill from outside
            while not fate.kills and not fate.differences:
                place = Path(folder) / f"run-{number}-{attempt}"
                place.mkdir()
                fate = suffer(
                    straights[name], place, draw(number + 100_000 * 2 * attempt, straights[name])
                )
                attempt += 1
            said = {
                "kills": fate.kills,
                "started_again": fate.started_again,
                "differences": fate.differences,
            }
            runs.append({"number": number, "configuration": name, **said})
            print(
                f"{number + 1:3d} {name}: {'; '.join(fate.kills)}:"
                f" {', '.join(fate.differences) or 'identical'}",
                flush=True,
            )
            options.out.write_text(json.dumps(summary(runs), indent=1) + "\n")
    if any(run["differences"] for run in runs):
        sys.exit(1)


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the runs and what they add up to."""
    kills = [kill for run in runs for kill in run["kills"]]
    counts = Counter(kill.removeprefix(f"{OUTSIDE}, ").rstrip(" 01234") for kill in kills)
    return {
        "killed_runs": len(runs),
        "identical": sum(not run["differences"] for run in runs),
        "kills": len(kills),
        "from_outside": sum(kill.startswith(OUTSIDE) for kill in kills),
        "started_again": sum(run["started_again"] for run in runs),
        "moments": dict(counts.most_common()),
        "runs": runs,
    }


if __name__ == "__main__":
    main()
