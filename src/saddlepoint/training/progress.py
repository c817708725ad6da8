"""Showing how training goes: a bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import math
from time import perf_counter
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from saddlepoint.game_optimizer import Record
from saddlepoint.training.training import Training

_BAR_SECONDS, _LINE_SHARE = 0.2, 0.1


class BarWatcher:
    """A bar with the time left, losses, gradient norms and the last metrics."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("step {task.fields[step]}"),
            BarColumn(bar_width=None),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}", markup=False),
            console=console,
        )
        self._task = self._progress.add_task("", total=1.0, step=0, numbers="")
        self._shown = 0.0

    def __enter__(self) -> BarWatcher:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def update(self, training: Training, records: list[Record]) -> None:
        """Redraw at most five times a second."""
        now = perf_counter()
        if now - self._shown >= _BAR_SECONDS or training.progress >= 1:
            self._shown = now
            self._progress.update(self._task, completed=training.progress, step=training.step, numbers=_numbers(training, records))

    def report(self, sentence: str) -> None:
        """Print what the user should know, above the bar."""
        self._progress.console.print(f"note: {sentence}", markup=False, highlight=False, soft_wrap=True)

    def evaluating(self, done: int, total: int) -> None:
        """Show how far the evaluation is in place of the numbers."""
        self._progress.update(self._task, numbers=f"evaluating, {done} of {total} metrics", refresh=True)


class LineWatcher:
    """A line whenever another tenth of the budget is used."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = _LINE_SHARE

    def __enter__(self) -> LineWatcher:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def update(self, training: Training, records: list[Record]) -> None:
        """Print the line when it is due."""
        if training.progress < self._next - 1e-9:
            return
        self._next = _LINE_SHARE * (math.floor(training.progress / _LINE_SHARE + 1e-9) + 1)
        share = f"{100 * training.progress:3.0f} %  step {training.step}  {training.seconds:.1f} s"
        self._console.print(f"{share}  {_numbers(training, records)}", markup=False, highlight=False, soft_wrap=True)

    def report(self, sentence: str) -> None:
        """Print what the user should know."""
        self._console.print(f"note: {sentence}", markup=False, highlight=False, soft_wrap=True)

    def evaluating(self, done: int, total: int) -> None:
        """Show nothing: lines are for what is done."""


def watcher(console: Console) -> BarWatcher | LineWatcher:
    """Return the watcher that fits the console."""
    return BarWatcher(console) if console.is_terminal else LineWatcher(console)


def _numbers(training: Training, records: list[Record]) -> str:
    losses = {player: loss for record in records for player, loss in record.losses.items()}
    norms = {player: norm for record in records for player, norm in record.gradient_norms.items()}
    measured = {player: f" (‖g‖ {norm:.2g})" for player, norm in norms.items()}  # players of rules of order 0 have no gradient
    parts = [f"{player[0].upper()} {losses[player]:.3f}{measured.get(player, '')}" for player in losses]
    main = next((name for name in training.metrics if name.startswith("ema/")), None)
    if main is not None:
        parts.append(f"{main} {training.metrics[main]:.4g}")
    return "  ".join(parts)
