"""The files of one run as a report reads them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from saddlepoint.errors import UsageError
from saddlepoint.reading import YAML_BYTES, parse_yaml, refuse_links
from saddlepoint.report.reading import (
    DAMAGED,
    Number,
    Numbers,
    Record,
    Texts,
    Tree,
    read_if_there,
    read_json,
    read_lines,
    read_text,
)


class Meaning(Record):
    """What a metric means and which way is better, "larger", "smaller" or neither."""

    meaning: str = ""
    better: str | None = None


class LossRange(Record):
    """The healthy range of a player's loss; None for an end that it does not have."""

    low: Number = None
    chance: Number = None
    high: Number = None


class Finding(Record):
    """A finding of the diagnosis."""

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
    """What a run wrote when it ended."""

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


class Card(Record):
    """A metric with its interval and its conditions."""

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
    """What ``saddlepoint evaluate`` wrote."""

    step: int | None = None
    extractors: Texts
    cards: tuple[Card, ...] = ()


class Spectrum(Record):
    """Eigenvalues of the game; complex ones as (re, im)."""

    leading: list[tuple[float, float]]
    smallest: tuple[tuple[float, float], ...] = ()
    own: dict[str, list[float]] = Field(default_factory=dict)
    classes: tuple[str, ...] = ()
    gradient_norm: Number = None
    converged: bool = True


class Diagnosis(Record):
    """What ``saddlepoint diagnose`` wrote."""

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
    """Losses between two lines of the log."""

    steps: tuple[int, ...] = ()
    losses: dict[str, list[Number]] = Field(default_factory=dict)


class Line(Record):
    """A line of the log."""

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
    """Everything about a run that a report shows.

    Attributes:
        path: the run's directory.
        config_text: the configuration as it stands in the file.
        environment: versions, machine and command; empty where the file is missing.
        lines: of the log.
        summary, evaluation, diagnosis: None where the run, or the command that makes it, has not
            written it.
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
        """Read a run's directory; a UsageError names the file that is damaged, or a symbolic link in it."""
        refuse_links(path)
        environment = path / "environment.json"
        return cls(
            path=path,
            config_text=read_text(path / "config.yaml", YAML_BYTES),
            environment=(
                _mapping(read_json(environment), environment) if environment.exists() else {}
            ),
            lines=read_lines(Line, path / "metrics.jsonl"),
            summary=read_if_there(Summary, path / "summary.json"),
            evaluation=read_if_there(Evaluation, path / "evaluation.json"),
            diagnosis=read_if_there(Diagnosis, path / "diagnosis.json"),
        )

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration; a UsageError where it is no YAML mapping."""
        path = self.path / "config.yaml"
        try:
            return _mapping(parse_yaml(self.config_text), path)
        except yaml.YAMLError as error:
            raise UsageError(
                f"{path} is not YAML: {' '.join(str(error).split())}. {DAMAGED}"
            ) from error

    @property
    def pictures(self) -> list[tuple[int, Path]]:
        """(step, file) of the sample grids, in their order."""
        found = sorted((self.path / "samples").glob("step-*.png"))
        return [
            (int(file.stem.removeprefix("step-")), file)
            for file in found
            if file.stem.removeprefix("step-").isdecimal()
        ]

    @property
    def metrics(self) -> dict[str, float | None]:
        """The latest metrics, from the log where there is no summary."""
        if self.summary is not None and self.summary.metrics:
            return self.summary.metrics
        return next((line.metrics for line in reversed(self.lines) if line.metrics), {})

    @property
    def meanings(self) -> dict[str, Meaning]:
        """metric without prefix → its meaning; empty until the run has ended."""
        return {} if self.summary is None else self.summary.metric_names


def _mapping(value: Any, path: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{path} holds no keys and values. {DAMAGED}")
    return value
