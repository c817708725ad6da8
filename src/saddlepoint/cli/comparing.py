"""Commands that compare methods: ``compare`` and ``tune``."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from saddlepoint.cli.app import app, make_console, say
from saddlepoint.errors import UsageError, quoted

if TYPE_CHECKING:
    from rich.console import Console

    from saddlepoint.compare import ProblemPlan, Study
    from saddlepoint.compare.execution import Outcome
    from saddlepoint.training.config import Tree

Budget = Annotated[str, typer.Option(metavar="KIND=AMOUNT", help="seconds=60, steps=5000 or gradient_equivalents=20000, for every run.")]
Storage = Annotated[str | None, typer.Option(metavar="URL", help="Database of the tuning, sqlite:///FILE or postgresql+psycopg://…")]
Jobs = Annotated[int | None, typer.Option(min=1, help="Runs at a time, one thread each; half of the cores by default.")]
Metric = Annotated[str | None, typer.Option(help="The metric that decides, with its prefix; the problem's own by default.")]


@app.command(
    epilog="Examples:\n\n`saddlepoint compare mixture8 --methods adam,sign,extragradient+adam,acgd --seeds 10 --budget seconds=60`\n\n"
    "`saddlepoint compare mixture8 --methods adam,soap --trials 20` · every method tuned with 20 trials first\n\n"
    "`saddlepoint compare study.yaml --jobs 2` · the same from a file; run it again to go on where it stopped"
)
def compare(
    what: Annotated[str, typer.Argument(help="A problem, or a YAML file that describes a study.")],
    methods: Annotated[str | None, typer.Option(help="Comma-separated: RULE, OPTIMIZER or RULE+OPTIMIZER.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="So many runs of every method; 5 by default.")] = None,
    budget: Budget = "",
    trials: Annotated[int | None, typer.Option(min=1, help="Tune every method with so many trials first.")] = None,
    metric: Metric = None,
    target: Annotated[float | None, typer.Option(help="Value of the metric that counts as success.")] = None,
    baseline: Annotated[str | None, typer.Option(help="The method that others are compared with; the first by default.")] = None,
    jobs: Jobs = None,
    storage: Storage = None,
    out: Annotated[Path | None, typer.Option(help="The comparison's directory; comparisons/NAME by default.")] = None,
) -> None:
    """Compare methods at equal budgets over several seeds, tuned alike; every outcome counts."""
    from saddlepoint.cli.comparison_table import print_comparison
    from saddlepoint.compare import compare as run
    from saddlepoint.compare import read_study

    console = make_console()
    if what.endswith((".yaml", ".yml")):
        given: dict[str, object] = {"--methods": methods, "--seeds": seeds, "--budget": budget or None, "--trials": trials}
        given |= {"--metric": metric, "--target": target, "--baseline": baseline}
        clash = [name for name, value in given.items() if value is not None]
        if clash:
            raise UsageError(f"{what} describes the whole study, so {', '.join(clash)} cannot be given beside it. Change the file.")
        study = read_study(Path(what))
    else:
        study = _study(what, methods, seeds, budget, trials, metric, target, baseline)
    path = out or Path("comparisons") / study.name
    say(console, f"{_size(study)}; results in {path}")
    with _stoppable(console):
        found = run(study, path, jobs=_jobs(jobs), storage=storage, watcher=_Lines(console))
    print_comparison(console, found)
    say(console, f"{path / 'comparison.json'}, {path / 'results.csv'}; report: saddlepoint report {quoted(path)}")


@app.command(
    epilog="Examples:\n\n`saddlepoint tune digits --method acgd --trials 20`\n\n"
    "`saddlepoint tune digits --method acgd --trials 100 --storage postgresql+psycopg://me@host/base` · the same command on many machines"
)
def tune(
    problem: Annotated[str, typer.Argument(help="See `saddlepoint list problems`.")],
    method: Annotated[str, typer.Option(help="RULE, OPTIMIZER or RULE+OPTIMIZER.")],
    trials: Annotated[int, typer.Option(min=1, help="How many in all, of every process that works on it.")] = 20,
    budget: Budget = "seconds=60",
    metric: Metric = None,
    seeds: Annotated[
        list[int] | None, typer.Option("--seed", help="Of every trial; several for the mean over them. 100 by default.")
    ] = None,
    jobs: Jobs = None,
    storage: Storage = None,
    out: Annotated[Path | None, typer.Option(help="Directory of the database; comparisons/tune-PROBLEM-METHOD by default.")] = None,
) -> None:
    """Search a method's hyperparameters; processes that run the same command share the work."""
    from saddlepoint.cli.comparison_table import print_trials
    from saddlepoint.compare import tune_method
    from saddlepoint.compare.configuration import settings_of
    from saddlepoint.compare.storage import without_password
    from saddlepoint.compare.study import slug

    study = _study(problem, method, 1, budget, trials, metric, None, None, tuning_seeds=seeds, name=f"tune-{problem}-{slug(method)}")
    path, console, plan = out or Path("comparisons") / study.name, make_console(), study.problems[0]
    kept = path if storage is None else without_password(storage)
    say(console, f"{problem}, {method}: {trials} trials of {_budget_of(plan)} by {plan.metric}; kept in {kept}")
    with _stoppable(console):
        found, config = tune_method(study, path, jobs=_jobs(jobs), storage=storage, watcher=_Lines(console))
    print_trials(console, found)
    settings = " ".join(f"--set {quoted(f'{key}={json.dumps(value)}')}" for key, value in settings_of(found.best).items())
    names = f"{problem} --rule {config.rule.name} --optimizer {config.optimizer.name}"
    say(console, f"train with the best: saddlepoint train {names} {settings}")


def _study(
    problem: str,
    methods: str | None,
    seeds: int | None,
    budget: str,
    trials: int | None,
    metric: str | None,
    target: float | None,
    baseline: str | None,
    *,
    tuning_seeds: list[int] | None = None,
    name: str | None = None,
) -> Study:
    """Return the study that options describe; it is what the same in a file would be."""
    from saddlepoint.compare.reading import study_from
    from saddlepoint.registry import trust_named

    trust_named(methods)
    plan = {"problem": problem, "budget": _budget(budget or "seconds=60"), "metric": metric, "target": target}
    tuning = {"trials": trials, "seeds": tuning_seeds or [100]} if trials else None
    tree = {
        "name": name or problem,
        "seeds": seeds or 5,
        "tuning": tuning,
        "methods": [method.strip() for method in (methods or "adam,sign,acgd").split(",") if method.strip()],
        "baseline": baseline,
        "problems": [{key: value for key, value in plan.items() if value is not None}],
    }
    return study_from({key: value for key, value in tree.items() if value is not None}, "The comparison")


def _budget(text: str) -> dict[str, float]:
    kind, _, amount = text.partition("=")
    try:
        return {kind.strip(): float(amount)}
    except ValueError:
        raise UsageError(f'--budget "{text}" is not of the form KIND=AMOUNT, for example seconds=60.') from None


def _budget_of(plan: ProblemPlan) -> str:
    return ", ".join(f"{amount:g} {kind.replace('_', '-')}" for kind, amount in plan.budget.items())


def _size(study: Study) -> str:
    cells = sum(len(study.methods_of(plan)) for plan in study.problems)
    trials = f" after {study.tuning.trials} trials each" if study.tuning else ""
    return f"{len(study.problems)} problem(s), {cells} method(s) on them, {study.seeds} seeds{trials}"


def _jobs(jobs: int | None) -> int:
    return jobs or max(1, (os.cpu_count() or 1) // 2)


class _Terminated(KeyboardInterrupt):
    """SIGTERM arrived."""


@contextmanager
def _stoppable(console: Console) -> Iterator[None]:
    """Stop at Ctrl-C and SIGTERM with a sentence; at Ctrl-C the shell's exit code 130, at SIGTERM 143."""

    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        say(console, "Stopped. What is finished is kept; the same command goes on.")
        raise typer.Exit(143 if isinstance(interrupt, _Terminated) else 130) from None
    finally:
        signal.signal(signal.SIGTERM, before)


class _Lines:
    """A line for every trial and run."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def trial(self, problem: str, method: str, trial: Tree) -> None:
        """Print what a trial found."""
        value = trial["status"] if trial["value"] is None else f"{trial['value']:.4g}"
        parameters = ", ".join(f"{key.removeprefix('optimizer.')}={found}" for key, found in trial["parameters"].items())
        seeds = ", ".join(str(seed) for seed in trial["seeds"])
        say(self._console, f"{problem}, {method}, trial {trial['number']}: {value} on seed {seeds} with {parameters}")

    def run(self, problem: str, method: str, run: str, outcome: Outcome) -> None:
        """Print how a run ended."""
        spent = f"{outcome['steps']} steps in {outcome['seconds']:.1f} s"
        why = "" if outcome["error"] is None else f": {outcome['error']}"
        say(self._console, f"{problem}, {method}, {run}: {outcome['status']}, {spent}{why}")
