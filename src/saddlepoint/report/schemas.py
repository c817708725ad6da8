"""The files of runs and comparisons, read and validated with pydantic.

Every reader raises a UsageError that names the file, and the line or key, that is damaged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from saddlepoint.errors import UsageError
from saddlepoint.io.limits import (
    MAX_JSON_BYTES,
    MAX_LOG_BYTES,
    MAX_YAML_BYTES,
    parse_json,
    parse_yaml,
    read_bytes,
    refuse_symlinks,
)

DAMAGED = "The file is damaged or was written by another program; create it again."


def _none_if_not_finite(value: Any) -> Any:
    """Replace NaN and infinities by None."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _empty_if_none(value: Any) -> Any:
    """Replace None by an empty mapping."""
    return {} if value is None else value


Number = Annotated[float | None, BeforeValidator(_none_if_not_finite)]
"""A number, or None for one that was not measured or is not finite."""

Numbers = Annotated[dict[str, Number], BeforeValidator(_empty_if_none), Field(default_factory=dict)]
"""name → number."""

Texts = Annotated[dict[str, str], BeforeValidator(_empty_if_none), Field(default_factory=dict)]
"""name → text."""

Tree = Annotated[dict[str, Any], BeforeValidator(_empty_if_none), Field(default_factory=dict)]
"""Nested mappings and lists of plain values."""


class Record(BaseModel):
    """An object of a JSON file; keys that a report does not show are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


R = TypeVar("R", bound=Record)


def _read_text(path: Path, max_bytes: int) -> str:
    """Return the text of a file of at most ``max_bytes`` bytes."""
    try:
        return read_bytes(path, max_bytes).decode()
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a text file. {DAMAGED}") from error


def _read_json(path: Path) -> Any:
    """Return the content of a JSON file, with NaN and infinities as None."""
    text = _read_text(path, MAX_JSON_BYTES)
    try:
        return parse_json(text)
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}. {DAMAGED}") from error


def read_record(kind: type[R], path: Path) -> R:
    """Return a JSON file as a record."""
    return _validate(kind, _read_json(path), str(path))


def _read_lines(kind: type[R], path: Path) -> list[R]:
    """Return a file of JSON lines as records; an incomplete last line is skipped.

    The last line is incomplete while a running process writes it. A missing file has no lines.
    """
    records = []
    lines = _read_text(path, MAX_LOG_BYTES).splitlines(keepends=True) if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            value = parse_json(line)
        except ValueError as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise UsageError(f"{path}, line {number} is not JSON: {error}. {DAMAGED}") from error
        records.append(_validate(kind, value, f"{path}, line {number}"))
    return records


def _validate(kind: type[R], value: Any, where: str) -> R:
    """Return plain containers as a record; the UsageError names ``where`` and the invalid key."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the top level"
        reason = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{where} is invalid: {key}: {reason}. {DAMAGED}") from error


# Runs


class Meaning(Record):
    """What a metric means, and whether "larger", "smaller" or neither (None) is better."""

    meaning: str = ""
    better: str | None = None


class LossRange(Record):
    """The healthy range of a player's loss; None for a bound that it does not have."""

    low: Number = None
    chance: Number = None
    high: Number = None


class Finding(Record):
    """A finding of the checks on a run."""

    name: str
    player: str = ""
    message: str
    numbers: Numbers
    level: str = "warning"
    since: int | None = None


class Best(Record):
    """The best evaluation."""

    step: int


class Summary(Record):
    """``summary.json``, written when a run ends."""

    status: str
    steps: int
    seconds: Number = None
    seconds_per_step: Number = None
    seconds_here: Number = None
    observing_seconds: Number = None
    evaluating_seconds: Number = None
    probing_seconds: Number = None
    cost: Numbers
    unconverged_solves: int | None = None
    rollbacks: int | None = None
    metrics: Numbers
    best: Best | None = None
    findings: tuple[Finding, ...] = ()
    loss_ranges: dict[str, LossRange] = Field(default_factory=dict)
    metric_names: dict[str, Meaning] = Field(default_factory=dict)
    extractors: Texts
    error: str | None = None


class MetricResult(Record):
    """A metric's value with its interval and the conditions under which it was measured."""

    metric: str
    value: Number
    interval: tuple[Number, Number] | None = None
    level: Number = None
    replicates: int = 0
    generated: int
    real: int
    split: str
    extractor: str
    resize: str
    weights: str
    seed: int


class Evaluation(Record):
    """``evaluation.json``, written by ``saddlepoint evaluate``."""

    step: int | None = None
    extractors: Texts
    results: tuple[MetricResult, ...] = ()


class Spectrum(Record):
    """Eigenvalues of the game; complex ones as (re, im)."""

    leading: list[tuple[float, float]]
    smallest: tuple[tuple[float, float], ...] = ()
    own: dict[str, list[float]] = Field(default_factory=dict)
    classes: tuple[str, ...] = ()
    gradient_norm: Number = None
    converged: bool = True


class Diagnosis(Record):
    """``diagnosis.json``, written by ``saddlepoint diagnose``."""

    step: int
    findings: tuple[Finding, ...] = ()
    spectrum: Spectrum | None = None
    unmeasured: Tree


class Probe(Record):
    """The numbers of one probe that are drawn."""

    saturated: Numbers
    accuracy: Number = None
    membership_auc: Number = None
    antisymmetric: Number = None
    update_cosine: Numbers
    diversity: Number = None


class Trace(Record):
    """Losses of the steps between two lines of the log."""

    steps: tuple[int, ...] = ()
    losses: dict[str, list[Number]] = Field(default_factory=dict)


class Line(Record):
    """A line of ``metrics.jsonl``."""

    step: int
    seconds: Number = None
    gradient_equivalents: Number = None
    losses: Numbers
    gradient_norms: Numbers
    metrics: Numbers
    probe: Probe | None = None
    trace: Trace | None = None


@dataclass(frozen=True)
class RunFiles:
    """All files of a run that a report shows.

    Attributes:
        path: the run's directory.
        config_text: the text of ``config.yaml``.
        environment: versions, machine and command; empty if the file is missing.
        lines: the lines of the log.
        summary, evaluation, diagnosis: None if the file has not been written.
    """

    path: Path
    config_text: str
    environment: dict[str, Any]
    lines: list[Line]
    summary: Summary | None
    evaluation: Evaluation | None
    diagnosis: Diagnosis | None

    @classmethod
    def open(cls, path: Path) -> RunFiles:
        """Read a run's directory.

        Raises:
            UsageError: a file is damaged, or the directory holds a symbolic link.
        """
        refuse_symlinks(path)
        environment: Any = {}
        if (path / "environment.json").exists():
            environment = _read_json(path / "environment.json")
            if not isinstance(environment, dict):
                raise UsageError(f"{path / 'environment.json'} is not a mapping. {DAMAGED}")

        def read_optional(kind: type[R], name: str) -> R | None:
            return read_record(kind, path / name) if (path / name).exists() else None

        return cls(
            path=path,
            config_text=_read_text(path / "config.yaml", MAX_YAML_BYTES),
            environment=environment,
            lines=_read_lines(Line, path / "metrics.jsonl"),
            summary=read_optional(Summary, "summary.json"),
            evaluation=read_optional(Evaluation, "evaluation.json"),
            diagnosis=read_optional(Diagnosis, "diagnosis.json"),
        )

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration; raises a UsageError if it is not a YAML mapping."""
        path = self.path / "config.yaml"
        try:
            config = parse_yaml(self.config_text)
        except yaml.YAMLError as error:
            reason = " ".join(str(error).split())
            raise UsageError(f"{path} is not YAML: {reason}. {DAMAGED}") from error
        if not isinstance(config, dict):
            raise UsageError(f"{path} is not a mapping. {DAMAGED}")
        return config

    @property
    def sample_files(self) -> list[tuple[int, Path]]:
        """(step, file) of the pictures of samples, in order of their names."""
        found = []
        for file in sorted((self.path / "samples").glob("step-*.png")):
            step = file.stem.removeprefix("step-")
            if step.isdecimal():
                found.append((int(step), file))
        return found

    @property
    def metrics(self) -> dict[str, float | None]:
        """The latest metrics, from the log if there is no summary."""
        if self.summary is not None and self.summary.metrics:
            return self.summary.metrics
        return next((line.metrics for line in reversed(self.lines) if line.metrics), {})

    @property
    def meanings(self) -> dict[str, Meaning]:
        """metric without prefix → its meaning; empty until the run has ended."""
        return {} if self.summary is None else self.summary.metric_names


# Comparisons


class Point(Record):
    """One intermediate evaluation of a run."""

    progress: float
    step: Number = None
    seconds: Number = None
    gradient_equivalents: Number = None
    metrics: Numbers
    losses: Numbers
    gradient_norms: Numbers
    picture: str | None = None

    def at(self, axis: str) -> float | None:
        """Return the position on an axis: seconds, steps or gradient-equivalents."""
        return {
            "seconds": self.seconds,
            "steps": self.step,
            "gradient_equivalents": self.gradient_equivalents,
        }[axis]


class Run(Record):
    """The run of a method with one seed."""

    seed: int
    status: Literal["finished", "diverged", "failed"]
    error: str | None = None
    steps: Number = None
    seconds: Number = None
    gradient_equivalents: Number = None
    peak_memory: Number = None
    unconverged_solves: int | None = None
    metrics: Numbers
    points: tuple[Point, ...] = ()
    made_with: Texts


class Success(Record):
    """The share of runs that reach the target, with its interval."""

    rate: Number = None
    interval: tuple[Number, Number] | None = None
    runs: int = 0


class TimeToTarget(Record):
    """The median time to the target; how many runs reached it, how many did not (censored)."""

    median: Number = None
    reached: int = 0
    censored: int = 0


class MethodSummary(Record):
    """Statistics over the runs of a method."""

    median: Number = None
    interval: tuple[Number, Number] | None = None
    success: Success | None = None
    diverged: int = 0
    failed: int = 0
    time_to_target: TimeToTarget | None = None
    milliseconds_per_step: Number = None
    gradient_equivalents_per_step: Number = None
    peak_memory: Number = None


class Trial(Record):
    """One set of hyperparameters that was tried."""

    number: int
    parameters: Tree
    value: Number = None
    status: str = "finished"
    made_with: Texts


class Tuning(Record):
    """The search space of a method's hyperparameters, the trials and the best values."""

    space: Tree
    trials: tuple[Trial, ...] = ()
    best: Tree


class Robustness(Record):
    """Success and metric by factor of the tuned learning rate (rows) and seed (columns)."""

    factors: list[float]
    seeds: list[int]
    success: list[list[bool | None]]
    values: tuple[tuple[Number, ...], ...] = ()


class Method(Record):
    """A method with its configuration at the tuned values and its runs."""

    name: str
    family: str = ""
    description: str = ""
    config: Tree
    tuning: Tuning | None = None
    runs: tuple[Run, ...] = ()
    summary: Annotated[MethodSummary, BeforeValidator(_empty_if_none)] = MethodSummary()
    robustness: Robustness | None = None

    @property
    def example_run(self) -> Run | None:
        """The run of the smallest seed that has points, preferably one with pictures."""
        measured = sorted((run for run in self.runs if run.points), key=lambda run: run.seed)
        for run in measured:
            if any(point.picture for point in run.points):
                return run
        return measured[0] if measured else None


class Pair(Record):
    """The probability that a run of ``first`` is better than one of ``second``, with p-values."""

    first: str
    second: str
    better: Number = None
    p: Number = None
    p_adjusted: Number = None


class Problem(Record):
    """A problem of a comparison: budget, metric, target, and the results of every method."""

    name: str
    problem: Tree
    budget: Annotated[
        dict[Literal["seconds", "steps", "gradient_equivalents"], float], Field(min_length=1)
    ]
    metric: str
    better: Literal["smaller", "larger"]
    target: Number = None
    metrics: dict[str, Meaning] = Field(default_factory=dict)
    baseline: str | None = None
    methods: list[Method]
    pairs: tuple[Pair, ...] = ()

    @property
    def axis(self) -> str:
        """The axis of the budget, which is the same for all methods."""
        return next(iter(self.budget))

    @property
    def ranked(self) -> list[Method]:
        """The methods, best median first, those without a median last."""
        sign = 1 if self.better == "smaller" else -1

        def key(method: Method) -> tuple[bool, float]:
            median = method.summary.median
            return median is None, sign * (median or 0.0)

        return sorted(self.methods, key=key)


class Comparison(Record):
    """``comparison.json``: problems × methods × seeds."""

    format: Literal[1]
    name: str
    command: Any = None
    environment: Tree
    study: Tree
    problems: list[Problem]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a tree's leaves under their dotted paths.

    >>> flatten({"optimizer": {"name": "adam", "players": {"discriminator": {"lr": 1e-3}}}})
    {'optimizer.name': 'adam', 'optimizer.players.discriminator.lr': 0.001}
    """
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            leaves |= flatten(value, f"{path}.")
        else:
            leaves[path] = value
    return leaves
