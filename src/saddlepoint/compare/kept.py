"""Outcomes and searches as files keep them, read as a stranger's: a key can be computed by anyone, so what lies under it is checked."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from saddlepoint.errors import UsageError
from saddlepoint.training.config import Tree

Amount = FiniteFloat | None
Numbers = dict[str, FiniteFloat | None]


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class _Point(_Part):
    progress: FiniteFloat
    metrics: Numbers
    losses: Numbers = {}
    gradient_norms: Numbers = {}
    step: Amount = None
    seconds: FiniteFloat
    gradient_equivalents: Amount = None
    picture: str | None = None


class _Run(_Part):
    key: str
    status: Literal["finished", "diverged", "failed"]
    error: str | None
    steps: int = Field(ge=0)
    seconds: FiniteFloat = Field(ge=0)
    gradient_equivalents: FiniteFloat = Field(ge=0)
    peak_memory: Amount
    unconverged_solves: int
    metrics: Numbers | None
    points: list[_Point]
    made_with: dict[str, str] | None = None


class _Trial(_Part):
    number: int
    parameters: dict[str, Any]
    value: Amount
    final: Amount
    status: str
    error: str | None
    steps: int = Field(ge=0)
    seconds: FiniteFloat = Field(ge=0)
    made_with: dict[str, str] | None = None


class _Search(_Part):
    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    space: dict[str, dict[str, Any]]
    trials: list[_Trial]
    best: dict[str, Any]


class _Robustness(_Part):
    runs: list[_Run]


class _Method(_Part):
    runs: list[_Run]
    robustness: _Robustness | None
    tuning: _Search | None


class _Problem(_Part):
    methods: list[_Method]


class _Comparison(_Part):
    environment: dict[str, Any] = {}
    problems: list[_Problem]


def checked_run(run: Any, where: str) -> Tree:
    """Return a run's outcome as it is; a UsageError says ``where`` and what is not of its kind."""
    return _checked(_Run, run, where)


def check_measured(run: Tree, metric: str, where: str) -> None:
    """Refuse an outcome whose metrics lack the one that decides; a UsageError says ``where``."""
    measured = [point["metrics"] for point in run["points"]] + (
        [] if run["metrics"] is None else [run["metrics"]]
    )
    if any(metric not in metrics for metrics in measured):
        raise UsageError(
            f"{where} is damaged, or another program wrote it: it lacks the metric {metric}. Delete"
            " it to make it again."
        )


def checked_trial(trial: Any, where: str) -> Tree:
    """Return a trial of a search as it is; a UsageError says ``where`` and what is not of its kind."""
    return _checked(_Trial, trial, where)


def checked_comparison(comparison: Any, where: str) -> Tree:
    """Return a comparison as it is; a UsageError says ``where`` and what is not of its kind."""
    return _checked(_Comparison, comparison, where)


def _checked(kind: type[BaseModel], value: Any, where: str) -> Tree:
    try:
        kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part)[:40] for part in first["loc"]) or "the whole"
        raise UsageError(
            f"{where} is damaged, or another program wrote it: {key}: {first['msg']}. Delete it to"
            " make it again."
        ) from error
    found: Tree = value
    return found
