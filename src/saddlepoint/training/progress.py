"""Progress of training: a bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import math
from collections.abc import Iterable
from time import perf_counter
from types import TracebackType

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from saddlepoint.step_result import StepResult
from saddlepoint.training.trainer import Trainer

_BAR_SECONDS, _LINE_SHARE = 0.2, 0.1

_WITH_STEP, _WITH_BAR, _WITH_NUMBERS, _WITH_ELAPSED = 26, 40, 70, 120
"""Widths from which step, bar, numbers and elapsed time are shown beside the remaining time."""

_BEFORE_NUMBERS = 46
"""Width of the columns before the numbers."""


class BarWatcher:
    """A bar with the time left, losses, gradient norms and the last metrics."""

    def __init__(self, console: Console) -> None:
        self._progress = _Progress(console)
        self._task = self._progress.add_task("", total=1.0, step=0, numbers="")
        self._shown = 0.0

    def __enter__(self) -> BarWatcher:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def update(self, trainer: Trainer, results: list[StepResult]) -> None:
        """Redraw at most five times a second."""
        now = perf_counter()
        if now - self._shown >= _BAR_SECONDS or trainer.progress >= 1:
            self._shown = now
            self._progress.update(
                self._task,
                completed=trainer.progress,
                step=trainer.step,
                numbers=_numbers(trainer, results),
            )

    def report(self, message: str) -> None:
        """Print a message above the bar."""
        self._progress.console.print(
            f"note: {message}", markup=False, highlight=False, soft_wrap=True
        )

    def evaluating(self, done: int, total: int) -> None:
        """Show the progress of the evaluation in place of the numbers."""
        self._progress.update(
            self._task, numbers=f"evaluating, {done} of {total} metrics", refresh=True
        )


class _Numbers(ProgressColumn):
    """Losses, gradient norms and the last metric, cut to the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self._width = width

    def render(self, task: Task) -> Text:
        return Text(task.fields["numbers"][: self._width])


class _Progress(Progress):
    """Columns that fit the terminal: remaining time first, then step, bar and numbers."""

    def __init__(self, console: Console) -> None:
        self._terminal = console  # rich asks for the renderables before it has set its own
        super().__init__(console=console)

    def get_renderables(self) -> Iterable[RenderableType]:
        width = self._terminal.width
        columns: list[ProgressColumn] = [TimeRemainingColumn()]
        if width >= _WITH_STEP:
            columns = [TextColumn("step {task.fields[step]}"), TextColumn("left"), *columns]
        if width >= _WITH_BAR:
            columns = [columns[0], BarColumn(bar_width=None), *columns[1:]]
        if width >= _WITH_NUMBERS:
            columns.append(_Numbers(width - _BEFORE_NUMBERS))
        if width >= _WITH_ELAPSED:
            columns.insert(2, TimeElapsedColumn())
        self.columns = tuple(columns)
        yield self.make_tasks_table(self.tasks)


class LineWatcher:
    """A line after every tenth of the budget."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = _LINE_SHARE

    def __enter__(self) -> LineWatcher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def update(self, trainer: Trainer, results: list[StepResult]) -> None:
        """Print the line when it is due."""
        if trainer.progress < self._next - 1e-9:
            return
        self._next = _LINE_SHARE * (math.floor(trainer.progress / _LINE_SHARE + 1e-9) + 1)
        share = f"{100 * trainer.progress:3.0f} %  step {trainer.step}  {trainer.seconds:.1f} s"
        self._console.print(
            f"{share}  {_numbers(trainer, results)}", markup=False, highlight=False, soft_wrap=True
        )

    def report(self, message: str) -> None:
        """Print a message."""
        self._console.print(f"note: {message}", markup=False, highlight=False, soft_wrap=True)

    def evaluating(self, done: int, total: int) -> None:
        """Show nothing: lines are printed for finished steps only."""


def watcher(console: Console) -> BarWatcher | LineWatcher:
    """Return the watcher that fits the console."""
    return BarWatcher(console) if console.is_terminal else LineWatcher(console)


def _numbers(trainer: Trainer, results: list[StepResult]) -> str:
    losses: dict[str, float] = {}
    norms: dict[str, float] = {}
    for result in results:
        losses |= result.losses
        norms |= result.gradient_norms
    parts = []
    for player, loss in losses.items():
        # rules of order 0 compute no gradient
        norm = f" (‖g‖ {norms[player]:.2g})" if player in norms else ""
        parts.append(f"{player[0].upper()} {loss:.3f}{norm}")
    metric = next((name for name in trainer.metrics if name.startswith("ema/")), None)
    if metric is not None:
        parts.append(f"{metric} {trainer.metrics[metric]:.4g}")
    return "  ".join(parts)
