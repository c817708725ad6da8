"""Options, studies and signals, which ``compare`` and ``tune`` share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saddlepoint.cli.app import integer
from saddlepoint.cli.progress import Terminated
from saddlepoint.cli.streams import print_text
from saddlepoint.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from rich.console import Console

    from saddlepoint.compare import Study

BudgetOption = Annotated[
    str | None,
    typer.Option(
        metavar="KIND=AMOUNT",
        help="Budget of a run: seconds=60, steps=5000 or gradient_equivalents=20000.",
        show_default="seconds=60",
    ),
]
MetricOption = Annotated[
    str | None,
    typer.Option(
        help="Metric that decides, with its prefix (ema/ for the moving average).",
        show_default="the problem's",
    ),
]
JobsOption = Annotated[
    int | None,
    typer.Option(
        parser=integer(1),
        metavar="N",
        help="Number of runs at the same time, with one thread each.",
        show_default="half of the cores",
    ),
]
StorageOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Database of the trials: sqlite:///FILE or postgresql+psycopg://…",
        show_default="a file in the directory",
    ),
]
RerunOption = Annotated[
    str | None,
    typer.Option(
        metavar="KINDS",
        help=(
            "Repeat finished runs and trials, comma-separated: killed (their process ended without"
            " a result), failed (killed and all others that failed), outdated (made with other"
            " versions)."
        ),
    ),
]

DEFAULT_JOBS = max(1, (os.cpu_count() or 1) // 2)


def study_from_options(
    problem: str,
    methods: str | None,
    *,
    seeds: int | None = None,
    budget: str | None = None,
    trials: int | None = None,
    metric: str | None = None,
    target: float | None = None,
    baseline: str | None = None,
    tuning_seeds: list[int] | None = None,
    name: str | None = None,
) -> Study:
    """Return the study that options describe, the same as from a file with these values.

    Raises:
        UsageError: an option is invalid; the message names it.
    """
    from saddlepoint.compare.study import study_from_dict
    from saddlepoint.io.imports import trust_modules_named_in

    trust_modules_named_in(methods)
    kind, _, amount = ("seconds=60" if budget is None else budget).partition("=")
    try:
        budgets = {kind.strip(): float(amount)}
    except ValueError:
        raise UsageError(
            f'--budget "{budget}" is not of the form KIND=AMOUNT, for example seconds=60.'
        ) from None
    plan = {"problem": problem, "budget": budgets, "metric": metric, "target": target}
    tree = {
        "name": name or problem,
        "seeds": seeds or 5,
        "tuning": {"trials": trials, "seeds": tuning_seeds or [100]} if trials else None,
        "methods": (
            ["adam", "sign", "acgd"] if methods is None else _split_names(methods, "--methods")
        ),
        "baseline": baseline,
        "problems": [{key: value for key, value in plan.items() if value is not None}],
    }
    given = {key: value for key, value in tree.items() if value is not None}
    return study_from_dict(given, "The comparison")


def parse_rerun(text: str | None) -> list[Any]:
    """Return the kinds of finished runs that ``--rerun`` names.

    Raises:
        UsageError: a kind is unknown.
    """
    from saddlepoint.compare.provenance import RERUN_KINDS

    names = [] if text is None else _split_names(text, "--rerun")
    for name in names:
        if name not in RERUN_KINDS:
            raise UsageError(f'--rerun: unknown kind "{name}".' + did_you_mean(name, RERUN_KINDS))
    return names


def _split_names(text: str, option: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise UsageError(
            f'{option} "{text}" contains an empty name. Separate names by commas, for example'
            " adam,sign."
        )
    return names


def default_path(console: Console, study: Study) -> Path:
    """Return the directory of a study without --out.

    Where another study is in ``comparisons/NAME``, the name gets a hash, and a note is printed.
    """
    from saddlepoint.compare.directory import default_directory

    path = default_directory(study)
    if path.name != study.name:
        print_text(
            console,
            f"note: comparisons/{study.name} holds another study, so this one has a directory of"
            " its own.",
        )
    return path


@contextmanager
def exit_on_signals(console: Console) -> Iterator[None]:
    """Exit at Ctrl-C, SIGTERM and SIGHUP with a message.

    The exit code is 130 after Ctrl-C and 143 after the others. SIGHUP, which a terminal sends when
    it is closed, counts as SIGTERM. Where it is ignored, as under ``nohup``, it stays ignored.
    """

    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    signals = [signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    before = {number: signal.signal(number, terminate) for number in signals}
    try:
        yield
    except KeyboardInterrupt as interrupt:
        print_text(
            console, "Stopped. Finished results are kept; the same command resumes the work."
        )
        raise typer.Exit(143 if isinstance(interrupt, Terminated) else 130) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
