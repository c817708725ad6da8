"""Showing how training goes: a bar on a terminal, plain lines anywhere else."""

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
from saddlepoint.training.training import Training

_BAR_SECONDS, _LINE_SHARE = 0.2, 0.1

_WITH_STEP, _WITH_BAR, _WITH_NUMBERS, _WITH_ELAPSED = 26, 40, 70, 120
"""Columns of a terminal from which on the step, the bar, the numbers and the time so far are shown beside the time left."""

_BEFORE_NUMBERS = 46
"""Columns that are kept for what stands before the numbers."""


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

    def update(self, training: Training, records: list[StepResult]) -> None:
        """Redraw at most five times a second."""
        now = perf_counter()
        if now - self._shown >= _BAR_SECONDS or training.progress >= 1:
            self._shown = now
            self._progress.update(
                self._task,
                completed=training.progress,
                step=training.step,
                numbers=_numbers(training, records),
            )

    def report(self, sentence: str) -> None:
        """Print what the user should know, above the bar."""
        self._progress.console.print(
            f"note: {sentence}", markup=False, highlight=False, soft_wrap=True
        )

    def evaluating(self, done: int, total: int) -> None:
        """Show how far the evaluation is in place of the numbers."""
        self._progress.update(
            self._task, numbers=f"evaluating, {done} of {total} metrics", refresh=True
        )


class _Numbers(ProgressColumn):
    """Losses, gradient norms and the last metric, as far as there is room."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room

    def render(self, task: Task) -> Text:
        return Text(task.fields["numbers"][: self._room])


class _Progress(Progress):
    """What fits into the terminal as it is at this moment: the time left first, then the step, the bar, and the numbers."""

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
    """A line whenever another tenth of the budget is used."""

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

    def update(self, training: Training, records: list[StepResult]) -> None:
        """Print the line when it is due."""
        if training.progress < self._next - 1e-9:
            return
        self._next = _LINE_SHARE * (math.floor(training.progress / _LINE_SHARE + 1e-9) + 1)
        share = f"{100 * training.progress:3.0f} %  step {training.step}  {training.seconds:.1f} s"
        self._console.print(
            f"{share}  {_numbers(training, records)}", markup=False, highlight=False, soft_wrap=True
        )

    def report(self, sentence: str) -> None:
        """Print what the user should know."""
        self._console.print(f"note: {sentence}", markup=False, highlight=False, soft_wrap=True)

    def evaluating(self, done: int, total: int) -> None:
        """Show nothing: lines are for what is done."""


def watcher(console: Console) -> BarWatcher | LineWatcher:
    """Return the watcher that fits the console."""
    return BarWatcher(console) if console.is_terminal else LineWatcher(console)


def _numbers(training: Training, records: list[StepResult]) -> str:
    losses = {player: loss for record in records for player, loss in record.losses.items()}
    norms = {player: norm for record in records for player, norm in record.gradient_norms.items()}
    # players of rules of order 0 have no gradient
    measured = {player: f" (‖g‖ {norm:.2g})" for player, norm in norms.items()}
    parts = [
        f"{player[0].upper()} {losses[player]:.3f}{measured.get(player, '')}" for player in losses
    ]
    main = next((name for name in training.metrics if name.startswith("ema/")), None)
    if main is not None:
        parts.append(f"{main} {training.metrics[main]:.4g}")
    return "  ".join(parts)
