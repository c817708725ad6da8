"""Commands that compare methods: ``compare`` and ``tune``."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saddlepoint.cli.app import app, counted, make_console, path_given, say
from saddlepoint.cli.comparison_progress import Progress, Terminated
from saddlepoint.errors import UsageError, did_you_mean, quoted

if TYPE_CHECKING:
    from rich.console import Console

    from saddlepoint.compare import ProblemPlan, Study

Budget = Annotated[
    str | None,
    typer.Option(
        metavar="KIND=AMOUNT",
        help="seconds=60 (default), steps=5000 or gradient_equivalents=20000, of a run.",
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="Database of the tuning, sqlite:///FILE or postgresql+psycopg://…"
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        parser=counted(1),
        metavar="N",
        help="Runs at a time, one thread each; half of the cores by default.",
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(help="The metric that decides, with its prefix; the problem's own by default."),
]

Rerun = Annotated[
    str | None,
    typer.Option(
        metavar="RERUN_KINDS",
        help=(
            "Make finished runs and trials again, comma-separated: killed (their process ended"
            " without an outcome), failed (those and all others that failed), outdated (made with"
            " other versions)."
        ),
    ),
]


@app.command(
    epilog=(
        "Examples:\n\n`saddlepoint compare mixture8 --methods adam,sign,extragradient+adam,acgd"
        " --seeds 10 --budget seconds=60`\n\n`saddlepoint compare mixture8 --methods adam,soap"
        " --trials 20` · every method tuned with 20 trials first\n\n`saddlepoint compare study.yaml"
        " --jobs 2` · the same from a file; run it again to go on where it stopped"
    )
)
def compare(
    what: Annotated[str, typer.Argument(help="A problem, or a YAML file that describes a study.")],
    methods: Annotated[
        str | None, typer.Option(help="Comma-separated: RULE, OPTIMIZER or RULE+OPTIMIZER.")
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            parser=counted(1), metavar="N", help="So many runs of every method; 5 by default."
        ),
    ] = None,
    budget: Budget = None,
    trials: Annotated[
        int | None,
        typer.Option(
            parser=counted(1), metavar="N", help="Tune every method with so many trials first."
        ),
    ] = None,
    metric: Metric = None,
    target: Annotated[
        float | None, typer.Option(help="Value of the metric that counts as success.")
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(help="The method that others are compared with; the first by default."),
    ] = None,
    jobs: Jobs = None,
    storage: Storage = None,
    rerun: Rerun = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=path_given,
            metavar="PATH",
            help=(
                "The comparison's directory; comparisons/NAME by default, NAME-HASH where another"
                " study has that."
            ),
        ),
    ] = None,
) -> None:
    """Compare methods at equal budgets over several seeds, tuned alike; every outcome counts."""
    from saddlepoint.cli.comparison_table import print_comparison
    from saddlepoint.compare import compare as run
    from saddlepoint.compare import read_study

    console = make_console()
    if what.endswith((".yaml", ".yml")):
        given: dict[str, object] = {
            "--methods": methods,
            "--seeds": seeds,
            "--budget": budget,
            "--trials": trials,
        }
        given |= {"--metric": metric, "--target": target, "--baseline": baseline}
        clash = [name for name, value in given.items() if value is not None]
        if clash:
            raise UsageError(
                f"{what} describes the whole study, so {', '.join(clash)} cannot be given beside"
                " it. Change the file."
            )
        study = read_study(Path(what))
    else:
        study = _study(what, methods, seeds, budget, trials, metric, target, baseline)
    path = out or _default_place(console, study)
    say(console, f"{_size(study)}; results in {path}")
    with _stoppable(console), Progress(console) as shown:
        found = run(
            study, path, jobs=_jobs(jobs), storage=storage, watcher=shown, rerun=_rerun(rerun)
        )
    print_comparison(console, found)
    say(
        console,
        f"{path / 'comparison.json'}, {path / 'results.csv'}; report: saddlepoint report"
        f" {quoted(path)}",
    )


@app.command(
    epilog=(
        "Examples:\n\n`saddlepoint tune digits --method acgd --trials 20`\n\n`saddlepoint tune"
        " digits --method acgd --trials 100 --storage postgresql+psycopg://me@host/base` · the same"
        " command on many machines"
    )
)
def tune(
    problem: Annotated[str, typer.Argument(help="See `saddlepoint list problems`.")],
    method: Annotated[str, typer.Option(help="RULE, OPTIMIZER or RULE+OPTIMIZER.")],
    trials: Annotated[
        int,
        typer.Option(
            parser=counted(1),
            metavar="N",
            help="How many in all, of every process that works on it.",
        ),
    ] = 20,
    budget: Budget = "seconds=60",
    metric: Metric = None,
    seeds: Annotated[
        list[int] | None,
        typer.Option(
            "--seed",
            parser=counted(0),
            metavar="N",
            help="Of every trial; several for the mean over them. 100 by default.",
        ),
    ] = None,
    jobs: Jobs = None,
    storage: Storage = None,
    rerun: Rerun = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=path_given,
            metavar="PATH",
            help=(
                "Directory of the database; comparisons/tune-PROBLEM-METHOD by default, with a hash"
                " where another study has that."
            ),
        ),
    ] = None,
) -> None:
    """Search a method's hyperparameters; processes that run the same command share the work."""
    from saddlepoint.cli.comparison_table import print_trials
    from saddlepoint.compare import tune_method
    from saddlepoint.compare.runs import parameters_to_settings
    from saddlepoint.compare.storage import without_password
    from saddlepoint.compare.study import slug

    study = _study(
        problem,
        method,
        1,
        budget,
        trials,
        metric,
        None,
        None,
        tuning_seeds=seeds,
        name=f"tune-{problem}-{slug(method)}",
    )
    console, plan = make_console(), study.problems[0]
    path = out or _default_place(console, study)
    kept = path if storage is None else without_password(storage)
    say(
        console,
        f"{problem}, {method}: {trials} trials of {_budget_of(plan)} by {plan.metric}; kept in"
        f" {kept}",
    )
    with _stoppable(console), Progress(console) as shown:
        found, config = tune_method(
            study, path, jobs=_jobs(jobs), storage=storage, watcher=shown, rerun=_rerun(rerun)
        )
    print_trials(console, found)
    settings = " ".join(
        f"--set {quoted(f'{key}={json.dumps(value)}')}"
        for key, value in parameters_to_settings(found.best).items()
    )
    names = f"{problem} --rule {config.rule.name} --optimizer {config.optimizer.name}"
    say(console, f"train with the best: saddlepoint train {names} {settings}")


def _study(
    problem: str,
    methods: str | None,
    seeds: int | None,
    budget: str | None,
    trials: int | None,
    metric: str | None,
    target: float | None,
    baseline: str | None,
    *,
    tuning_seeds: list[int] | None = None,
    name: str | None = None,
) -> Study:
    """Return the study that options describe; it is what the same in a file would be."""
    from saddlepoint.compare.study import study_from_dict
    from saddlepoint.registry import trust_named

    trust_named(methods)
    plan = {
        "problem": problem,
        "budget": _budget("seconds=60" if budget is None else budget),
        "metric": metric,
        "target": target,
    }
    tuning = {"trials": trials, "seeds": tuning_seeds or [100]} if trials else None
    tree = {
        "name": name or problem,
        "seeds": seeds or 5,
        "tuning": tuning,
        "methods": ["adam", "sign", "acgd"] if methods is None else _names(methods, "--methods"),
        "baseline": baseline,
        "problems": [{key: value for key, value in plan.items() if value is not None}],
    }
    return study_from_dict(
        {key: value for key, value in tree.items() if value is not None}, "The comparison"
    )


def _names(text: str, option: str) -> list[str]:
    """Return comma-separated names; a UsageError says that one, or all of them, are empty."""
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise UsageError(
            f'{option} "{text}" has an empty name in it. Write names with commas between them, such'
            " as adam,sign."
        )
    return names


def _rerun(text: str | None) -> list[Any]:
    """Return which finished runs are made again."""
    from saddlepoint.compare.provenance import RERUN_KINDS

    names = [] if text is None else _names(text, "--rerun")
    for name in names:
        if name not in RERUN_KINDS:
            raise UsageError(f'--rerun: unknown kind "{name}".' + did_you_mean(name, RERUN_KINDS))
    return names


def _default_place(console: Console, study: Study) -> Path:
    """Return where a study goes without --out, and say so where another one has its place."""
    from saddlepoint.compare.directory import default_directory

    path = default_directory(study)
    if path.name != study.name:
        say(
            console,
            f"note: comparisons/{study.name} holds another study, so this one has a directory of"
            " its own.",
        )
    return path


def _budget(text: str) -> dict[str, float]:
    kind, _, amount = text.partition("=")
    try:
        return {kind.strip(): float(amount)}
    except ValueError:
        raise UsageError(
            f'--budget "{text}" is not of the form KIND=AMOUNT, for example seconds=60.'
        ) from None


def _budget_of(plan: ProblemPlan) -> str:
    return ", ".join(f"{amount:g} {kind.replace('_', '-')}" for kind, amount in plan.budget.items())


def _size(study: Study) -> str:
    cells = sum(len(study.methods_of(plan)) for plan in study.problems)
    trials = f" after {study.tuning.trials} trials each" if study.tuning else ""
    return (
        f"{len(study.problems)} problem(s), {cells} method(s) on them, {study.seeds} seeds{trials}"
    )


def _jobs(jobs: int | None) -> int:
    return jobs or max(1, (os.cpu_count() or 1) // 2)


@contextmanager
def _stoppable(console: Console) -> Iterator[None]:
    """Stop at Ctrl-C, SIGTERM and SIGHUP with a sentence; the exit code is 130 after Ctrl-C, 143 after the others.

    SIGHUP, which a terminal sends when it is closed, counts as SIGTERM. Where it is ignored, as
    under ``nohup``, it stays so.
    """

    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    stopping = [signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        stopping.append(signal.SIGHUP)
    before = {number: signal.signal(number, terminate) for number in stopping}
    try:
        yield
    except KeyboardInterrupt as interrupt:
        say(console, "Stopped. What is finished is kept; the same command goes on.")
        raise typer.Exit(143 if isinstance(interrupt, Terminated) else 130) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
