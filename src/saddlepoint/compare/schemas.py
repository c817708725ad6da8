"""Schemas of results and searches that are read back from files.

Anyone can compute the key of a run, so what is stored under it is validated.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, NonNegativeInt, ValidationError

from saddlepoint.errors import UsageError
from saddlepoint.training.config import Tree

Metrics = dict[str, FiniteFloat | None]


class Part(BaseModel):
    """Part of a file; keys that are not listed are allowed."""

    model_config = ConfigDict(extra="allow", frozen=True)


class PointSchema(Part):
    """An evaluation during a run."""

    progress: FiniteFloat
    metrics: Metrics
    losses: Metrics = {}
    gradient_norms: Metrics = {}
    step: FiniteFloat | None = None
    seconds: FiniteFloat
    gradient_equivalents: FiniteFloat | None = None
    picture: str | None = None


class RunSchema(Part):
    """The result of a run."""

    key: str
    status: Literal["finished", "diverged", "failed"]
    error: str | None
    steps: NonNegativeInt
    seconds: FiniteFloat = Field(ge=0)
    gradient_equivalents: FiniteFloat = Field(ge=0)
    peak_memory: FiniteFloat | None
    unconverged_solves: int
    metrics: Metrics | None
    points: list[PointSchema]
    made_with: dict[str, str] | None = None


class TrialSchema(Part):
    """A finished trial of a search."""

    number: int
    parameters: dict[str, Any]
    value: FiniteFloat | None
    final: FiniteFloat | None
    status: str
    error: str | None
    steps: NonNegativeInt
    seconds: FiniteFloat = Field(ge=0)
    made_with: dict[str, str] | None = None


class SearchSchema(BaseModel):
    """A finished search."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    space: dict[str, dict[str, Any]]
    trials: list[TrialSchema]
    best: dict[str, Any]


class RobustnessSchema(Part):
    """A robustness map."""

    runs: list[RunSchema]


class MethodSchema(Part):
    """The results of a method on a problem."""

    runs: list[RunSchema]
    robustness: RobustnessSchema | None
    tuning: SearchSchema | None


class ProblemSchema(Part):
    """The results on a problem."""

    methods: list[MethodSchema]


class ComparisonSchema(Part):
    """What ``comparison.json`` holds."""

    environment: dict[str, Any] = {}
    problems: list[ProblemSchema]


def validate_as(schema: type[BaseModel], value: Any, source: str) -> Tree:
    """Return ``value`` unchanged if it fits the schema.

    Raises:
        UsageError: it does not fit; the message names ``source`` and the key.
    """
    try:
        schema.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part)[:40] for part in first["loc"]) or "the whole content"
        raise UsageError(
            f"{source} is damaged, or another program wrote it: {key}: {first['msg']}. Delete it to"
            " make it again."
        ) from error
    tree: Tree = value
    return tree


def validate_metric(run: Tree, metric: str, source: str) -> None:
    """Check that all metrics of a result have the one that decides.

    Raises:
        UsageError: it is missing; the message names ``source``.
    """
    measured = [point["metrics"] for point in run["points"]]
    if run["metrics"] is not None:
        measured.append(run["metrics"])
    if any(metric not in metrics for metrics in measured):
        raise UsageError(
            f"{source} is damaged, or another program wrote it: it lacks the metric {metric}."
            " Delete it to make it again."
        )
