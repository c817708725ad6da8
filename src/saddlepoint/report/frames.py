"""Pictures of the methods of a problem side by side, at the same share of the budget."""

from __future__ import annotations

from pathlib import Path

from saddlepoint.report.comparison_charts import first_run
from saddlepoint.report.comparison_file import Method, Point, Problem, Run
from saddlepoint.report.formatting import duration, share, whole
from saddlepoint.report.pictures import Frame, Picture, data_uri


def frames_of(problem: Problem, directory: Path) -> list[Frame]:
    """Return a frame for each point of the run that has the most of them; empty where no picture was kept."""
    runs = {method.name: first_run(method) for method in problem.ranked}
    measured = [run for run in runs.values() if run is not None]
    if not any(_kept(point, directory) for run in measured for point in run.points):
        return []
    moments = [point.progress for point in max(measured, key=lambda run: len(run.points)).points]
    return [_frame(problem, runs, moment, 0.5 / len(moments), directory) for moment in moments]


def _frame(
    problem: Problem, runs: dict[str, Run | None], moment: float, near: float, directory: Path
) -> Frame:
    pictures = [
        _picture(method, runs[method.name], moment, near, directory) for method in problem.ranked
    ]
    axis, amount = next(iter(problem.budget.items()))
    at = (
        duration(amount * moment)
        if axis == "seconds"
        else f"{whole(amount * moment)} {axis.replace('_', '-')}"
    )
    return Frame(label=f"{at}, {share(moment)} of the budget", pictures=pictures)


def _picture(
    method: Method, run: Run | None, moment: float, near: float, directory: Path
) -> Picture:
    point = None if run is None else min(run.points, key=lambda point: abs(point.progress - moment))
    if run is None:
        return Picture(name=method.name, source=None, description="no run yet")
    if point is None or abs(point.progress - moment) > near:
        return Picture(
            name=method.name,
            source=None,
            description=run.status if run.status != "finished" else "not measured here",
        )
    file = _kept(point, directory)
    if file is None:
        return Picture(name=method.name, source=None, description="picture not kept")
    said = f"Samples of {method.name}, seed {run.seed}, step {whole(point.step)}"
    return Picture(name=method.name, source=data_uri(file), description=said)


def _kept(point: Point, directory: Path) -> Path | None:
    """Return where a point's picture lies; None where it has none, where the file is gone, or where it is not of this directory."""
    if point.picture is None:
        return None
    try:
        file = (directory / point.picture).resolve()
        return file if file.is_relative_to(directory.resolve()) and file.is_file() else None
    except (OSError, ValueError):  # no name that a file can have
        return None
