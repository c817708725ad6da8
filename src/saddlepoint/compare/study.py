"""What is compared: problems × methods × seeds, budgets and tuning, as a file describes it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from saddlepoint.errors import did_you_mean
from saddlepoint.registry import PROBLEMS, find
from saddlepoint.training.config import BUDGETS, MAX_STEPS, Component, Tree

RATIO = "ratio"
"""The one tuned value that is no key of a run's configuration: the discriminator's learning rate divided by the generator's."""

_LONGEST_SLUG = 60  # characters, of up to four bytes each

MOST = 100_000
"""Seeds, trials, points: a file that asks for more asks for years, and its list alone would fill the memory."""

Seed = Annotated[int, Field(ge=0, lt=1 << 63)]

Family = Literal["first-order", "second-order", "subgradient"]


class Range(BaseModel):
    """The values a hyperparameter is searched over: ``log: [low, high]``, ``uniform: [low, high]`` or ``choices: [...]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    log: tuple[FiniteFloat, FiniteFloat] | None = None
    uniform: tuple[FiniteFloat, FiniteFloat] | None = None
    choices: tuple[Any, ...] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        bounds = self.log or self.uniform
        if [self.log, self.uniform, self.choices].count(None) != 2:
            raise ValueError(
                "give one of log: [low, high], uniform: [low, high] and choices: [...]"
            )
        if bounds and not bounds[0] < bounds[1]:
            raise ValueError(f"low must be below high, not {list(bounds)}")
        if self.log and not self.log[0] > 0:
            raise ValueError(f"log needs low > 0, not {self.log[0]}")
        if self.choices == ():
            raise ValueError("choices are empty")
        return self

    def nearest(self, value: Any) -> Any:
        """Return the value itself where it is in the range, else the nearest number that is; None where it is no number."""
        if self.choices is not None:
            numbers = [
                choice
                for choice in self.choices
                if isinstance(choice, int | float) and not isinstance(choice, bool)
            ]
            if value in self.choices or not isinstance(value, int | float) or not numbers:
                return value if value in self.choices else None
            return min(numbers, key=lambda choice: abs(choice - value))
        low, high = self.log or self.uniform or (value, value)
        return min(max(value, low), high)


Space = dict[str, Range]
"""key path of a run's configuration, or "ratio" → where it is searched."""


class MethodPlan(BaseModel):
    """A method: rule + optimizer + settings, and the space its hyperparameters are searched in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: Component = Component(name="gradient")
    optimizer: Component | None = None
    family: Family
    settings: dict[str, Any] = {}
    space: Space = {}

    @model_validator(mode="after")
    def _ratio_needs_a_rate(self) -> Self:
        if RATIO in self.space and "optimizer.lr" not in self.space:
            raise ValueError('"ratio" is searched only together with optimizer.lr')
        return self


class Robustness(BaseModel):
    """A map of success around the tuned learning rate: factors × the first so many seeds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    factors: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field(
        default=(0.1, 0.316, 3.16, 10.0), max_length=100
    )
    seeds: int = Field(default=3, ge=1, le=MOST)


class ProblemPlan(BaseModel):
    """A problem with its budget, the metric that decides, and what counts as success.

    ``metric`` has the prefix of the weights that are measured ("ema/" for the moving average); left
    out it is the one that the problem is registered with. ``target`` is the value that a successful
    run reaches. ``settings`` and ``space`` hold for all methods. ``points`` evaluations are spread
    evenly over the budget. ``trials`` of every method, where it is not the study's number.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    problem: Component
    budget: dict[
        Literal["seconds", "steps", "gradient_equivalents"],
        Annotated[float, Field(gt=0, le=MAX_STEPS, allow_inf_nan=False)],
    ]
    metric: str
    target: FiniteFloat | None = None
    methods: tuple[str, ...] | None = None
    settings: dict[str, Any] = {}
    space: Space = {}
    points: int = Field(default=10, ge=1, le=MOST)
    trials: int | None = Field(default=None, ge=1, le=MOST)
    robustness: Robustness | None = None

    @model_validator(mode="before")
    @classmethod
    def _what_the_problem_brings(cls, value: Any) -> Any:
        problem = value.get("problem") if isinstance(value, Mapping) else None
        name = problem.get("name") if isinstance(problem, Mapping) else problem
        if not isinstance(name, str):
            return value  # the schema says what is wrong with it
        return {"name": name, "metric": find("problem", PROBLEMS, name).metric, **value}

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if len(self.budget) != 1:
            raise ValueError(f"budget: give one of {', '.join(sorted(BUDGETS))}")
        if not self.budget.get("steps", 1.0).is_integer():
            raise ValueError(f"budget: steps={self.budget['steps']:g} is not a whole number")
        return self


class TuningPlan(BaseModel):
    """How every method is tuned on a problem: so many trials, whose value is the mean over ``seeds``.

    The best ``finalists`` are run on ``final_seeds`` too, and the best over all of these seeds
    wins. None of them is a reported seed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    trials: int = Field(default=10, ge=1, le=MOST)
    seeds: tuple[Seed, ...] = Field(default=(100,), min_length=1, max_length=MOST)
    finalists: int = Field(default=3, ge=1, le=MOST)
    final_seeds: tuple[Seed, ...] = Field(default=(101,), max_length=MOST)

    @model_validator(mode="after")
    def _other_seeds(self) -> Self:
        if set(self.seeds) & set(self.final_seeds):
            raise ValueError("final_seeds must be others than seeds")
        return self


class Study(BaseModel):
    """Problems × methods × seeds. ``tuning`` left out: every method runs with what it brings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[\w+-][\w.+-]*$", max_length=100)
    seeds: int = Field(default=5, ge=1, le=MOST)
    tuning: TuningPlan | None = None
    baseline: str
    methods: dict[str, MethodPlan]
    problems: tuple[ProblemPlan, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for names, what in (
            ([p.name for p in self.problems], "problems"),
            (list(self.methods), "methods"),
        ):
            if not names:
                raise ValueError(f"{what}: there are none")
            if len({slug(name) for name in names}) < len(names):
                raise ValueError(
                    f"{what}: two of them have the same name, or names that differ in punctuation"
                    " only"
                )
        for plan in self.problems:
            for name in plan.methods or ():
                if name not in self.methods:
                    raise ValueError(
                        f'problem "{plan.name}": unknown method "{name}".'
                        + did_you_mean(name, self.methods)
                    )
        if self.baseline not in self.methods:
            raise ValueError(
                f'baseline "{self.baseline}" is no method of the study.'
                + did_you_mean(self.baseline, self.methods)
            )
        tuned = {*self.tuning.seeds, *self.tuning.final_seeds} if self.tuning else set()
        if shared := {seed for seed in tuned if seed < self.seeds}:
            raise ValueError(
                f"tuning: {sorted(shared)} are reported seeds too; tune on others, such as 100"
            )
        return self

    def methods_of(self, plan: ProblemPlan) -> dict[str, MethodPlan]:
        """Return the methods that a problem compares, in the study's order."""
        return {
            name: method
            for name, method in self.methods.items()
            if plan.methods is None or name in plan.methods
        }

    def tuning_of(self, plan: ProblemPlan) -> TuningPlan | None:
        """Return how the methods of a problem are tuned."""
        if self.tuning is None or plan.trials is None:
            return self.tuning
        return self.tuning.model_copy(update={"trials": plan.trials})

    def to_dict(self) -> Tree:
        """Return the study in plain containers, without what was left out."""
        return self.model_dump(mode="json", exclude_none=True)


def slug(name: str) -> str:
    """Return a name as it stands in file names: one part of a path, never longer than a file system takes.

    >>> slug("mixture8, leaky-relu")
    'mixture8-leaky-relu'
    """
    return re.sub(r"[^\w.+]+", "-", name).strip("-.")[:_LONGEST_SLUG].strip("-.") or "-"


def digest(value: Any) -> str:
    """Return a short hash of plain containers."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
