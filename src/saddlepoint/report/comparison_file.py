"""The file of a comparison as a report reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from saddlepoint.report.reading import Number, Numbers, Record, Texts, Tree, filled
from saddlepoint.report.run_files import Meaning


class Point(Record):
    """One evaluation of a run on its way."""

    progress: float
    step: Number = None
    seconds: Number = None
    gradient_equivalents: Number = None
    metrics: Numbers
    losses: Numbers
    gradient_norms: Numbers
    picture: str | None = None


class Run(Record):
    """One seed of a method, and how it ended."""

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
    """The median time to the target, and how many runs reached it and how many never did."""

    median: Number = None
    reached: int = 0
    censored: int = 0


class MethodSummary(Record):
    """What the runs of a method say together."""

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
    """Where a method's hyperparameters were searched, and what was found."""

    space: Tree
    trials: tuple[Trial, ...] = ()
    best: Tree


class Robustness(Record):
    """Success and metric at multiples of the tuned learning rate: a row for each factor, a column for each seed."""

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
    summary: Annotated[MethodSummary, BeforeValidator(filled)] = MethodSummary()
    robustness: Robustness | None = None


class Pair(Record):
    """The probability that a run of the first method is better than one of the second, and how sure that is."""

    first: str
    second: str
    better: Number = None
    p: Number = None
    p_adjusted: Number = None


class Problem(Record):
    """A problem, what decides on it, and what every method did there."""

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
        """The axis on which the budget is equal."""
        return next(iter(self.budget))

    @property
    def ranked(self) -> list[Method]:
        """The methods, the best median first and those without one last."""
        sign = 1 if self.better == "smaller" else -1
        return sorted(
            self.methods,
            key=lambda method: (
                method.summary.median is None,
                sign * (method.summary.median or 0.0),
            ),
        )


class Comparison(Record):
    """Problems × methods × seeds."""

    format: Literal[1]
    name: str
    command: Any = None
    environment: Tree
    study: Tree
    problems: list[Problem]


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a tree's leaves under their paths.

    >>> flat({"optimizer": {"name": "adam", "players": {"discriminator": {"lr": 1e-3}}}})
    {'optimizer.name': 'adam', 'optimizer.players.discriminator.lr': 0.001}
    """
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        leaves |= flat(value, f"{path}.") if isinstance(value, Mapping) and value else {path: value}
    return leaves
