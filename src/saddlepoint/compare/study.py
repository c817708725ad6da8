"""The schema of a study: problems × methods × seeds, budgets and tuning; methods by name."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    model_validator,
)

from saddlepoint import registry
from saddlepoint.errors import UsageError, did_you_mean
from saddlepoint.io.schemas import BOOL_AS_NUMBER, find_bool_as_number
from saddlepoint.training.config import BUDGETS, MAX_STEPS, Component, Tree, read_yaml
from saddlepoint.training.evaluator import bare_metric

RATIO = "ratio"
"""The discriminator's learning rate / the generator's: tuned, but not a configuration key."""

MAX_COUNT = 100_000
"""Most seeds, trials or points; a study file with larger numbers would fill the memory."""

_MAX_SLUG = 60  # characters, of up to four bytes each

Seed = Annotated[int, Field(ge=0, lt=1 << 63)]
Factor = Annotated[float, Field(gt=0, allow_inf_nan=False)]

Family = Literal["first-order", "second-order", "subgradient"]


class Range(BaseModel):
    """The search range of a hyperparameter.

    Exactly one of ``log: [low, high]``, ``uniform: [low, high]`` and ``choices: [...]``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    log: tuple[FiniteFloat, FiniteFloat] | None = None
    uniform: tuple[FiniteFloat, FiniteFloat] | None = None
    choices: tuple[Any, ...] | None = None

    @model_validator(mode="after")
    def _validate_bounds(self) -> Self:
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
        """Return ``value`` if it is in the range, else the nearest number in it.

        None where ``value`` is no number, or the choices have none.
        """
        if self.choices is None:
            low, high = self.log or self.uniform or (value, value)
            return min(max(value, low), high)
        if value in self.choices:
            return value
        numbers = [
            choice
            for choice in self.choices
            if isinstance(choice, int | float) and not isinstance(choice, bool)
        ]
        if not isinstance(value, int | float) or not numbers:
            return None
        return min(numbers, key=lambda choice: abs(choice - value))


Space = dict[str, Range]
"""Key path of a run's configuration, or "ratio" → its search range."""


class MethodPlan(BaseModel):
    """A method: rule, optimizer, settings, and the search space of its hyperparameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: Component = Component(name="gradient")
    optimizer: Component | None = None
    family: Family
    settings: dict[str, Any] = {}
    space: Space = {}

    @model_validator(mode="after")
    def _validate_ratio(self) -> Self:
        if RATIO in self.space and "optimizer.lr" not in self.space:
            raise ValueError('"ratio" is searched only together with optimizer.lr')
        return self


class Robustness(BaseModel):
    """A map of success around the tuned learning rate: factors × the first ``seeds`` seeds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    factors: tuple[Factor, ...] = Field(default=(0.1, 0.316, 3.16, 10.0), max_length=100)
    seeds: int = Field(default=3, ge=1, le=MAX_COUNT)


class ProblemPlan(BaseModel):
    """A problem with its budget, the metric that decides, and the target that counts as success.

    Attributes:
        name: of the problem in the study; the problem's registered name by default.
        problem: the registered problem and its options.
        budget: one of ``seconds``, ``steps`` and ``gradient_equivalents``.
        metric: with the prefix of the weights ("ema/" for the moving average); the problem's
            registered metric by default.
        target: value of the metric that a successful run reaches.
        methods: the methods compared on this problem; all of the study's by default.
        settings, space: configuration values and search ranges of all methods.
        points: evaluations during a run, evenly spaced over the budget.
        trials: of every method, where it is not the study's number.
        robustness: which learning rates and seeds the robustness map has.
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
    points: int = Field(default=10, ge=1, le=MAX_COUNT)
    trials: int | None = Field(default=None, ge=1, le=MAX_COUNT)
    robustness: Robustness | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults(cls, value: Any) -> Any:
        problem = value.get("problem") if isinstance(value, Mapping) else None
        name = problem.get("name") if isinstance(problem, Mapping) else problem
        if not isinstance(name, str):
            return value  # the schema reports what is wrong with it
        metric = registry.find("problem", registry.PROBLEMS, name).metric
        return {"name": name, "metric": metric, **value}

    @model_validator(mode="after")
    def _validate_budget(self) -> Self:
        if len(self.budget) != 1:
            raise ValueError(f"budget: give one of {', '.join(sorted(BUDGETS))}")
        if not self.budget.get("steps", 1.0).is_integer():
            raise ValueError(f"budget: steps={self.budget['steps']:g} is not a whole number")
        return self

    def smaller_is_better(self) -> bool:
        """Return whether smaller values of the metric are better.

        Raises:
            UsageError: the problem has no such metric, or the metric has no direction.
        """
        known = registry.build_problem(self.problem.name, self.problem.options).metric_names
        info = known.get(bare_metric(self.metric))
        if info is None or info.better is None:
            directed = [name for name, other in known.items() if other.better]
            names = [f"ema/{name}" for name in directed] + directed
            reason = "the metric has no direction" if info else "the problem has no such metric"
            raise UsageError(
                f'Problem "{self.name}": cannot compare methods by "{self.metric}": {reason}.'
                f" Known: {', '.join(names)}."
            )
        return info.better == "smaller"

    def loss(self, metrics: Mapping[str, float | None] | None) -> float:
        """Return what tuning minimises: the metric, negated where larger values are better.

        Infinite where ``metrics`` is None (a run that diverged or failed) or the value is not
        finite, which files store as null.
        """
        value = None if metrics is None else metrics[self.metric]
        if value is None or not math.isfinite(value):
            return math.inf
        return float(value) if self.smaller_is_better() else -float(value)

    def metric_of_loss(self, loss: float) -> float | None:
        """Return the value of the metric that a loss was computed from; None if it is infinite."""
        if not math.isfinite(loss):
            return None
        return loss if self.smaller_is_better() else -loss

    def reaches_target(self, metrics: Mapping[str, float | None] | None) -> bool:
        """Return whether metrics are at the target or beyond it."""
        value = None if metrics is None else metrics[self.metric]
        if self.target is None or value is None:
            return False
        return value <= self.target if self.smaller_is_better() else value >= self.target


class TuningPlan(BaseModel):
    """How every method is tuned on a problem.

    The value of each of the ``trials`` is the mean over ``seeds``. The best ``finalists`` are run
    on ``final_seeds`` too, and the best mean over all of these seeds wins. None of them is a
    reported seed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    trials: int = Field(default=10, ge=1, le=MAX_COUNT)
    seeds: tuple[Seed, ...] = Field(default=(100,), min_length=1, max_length=MAX_COUNT)
    finalists: int = Field(default=3, ge=1, le=MAX_COUNT)
    final_seeds: tuple[Seed, ...] = Field(default=(101,), max_length=MAX_COUNT)

    @model_validator(mode="after")
    def _validate_seeds(self) -> Self:
        if set(self.seeds) & set(self.final_seeds):
            raise ValueError("final_seeds must differ from seeds")
        return self


class Study(BaseModel):
    """Problems × methods × seeds. Without ``tuning``, methods run with their defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[\w+-][\w.+-]*$", max_length=100)
    seeds: int = Field(default=5, ge=1, le=MAX_COUNT)
    tuning: TuningPlan | None = None
    baseline: str
    methods: dict[str, MethodPlan]
    problems: tuple[ProblemPlan, ...]

    @model_validator(mode="after")
    def _validate_names_and_seeds(self) -> Self:
        problem_names = [plan.name for plan in self.problems]
        for key, names in ("problems", problem_names), ("methods", list(self.methods)):
            if not names:
                raise ValueError(f"{key}: the list is empty")
            if len({slug(name) for name in names}) < len(names):
                raise ValueError(
                    f"{key}: two names are equal, or differ in punctuation only; both would have"
                    " the same files"
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
                f'baseline "{self.baseline}" is not a method of the study.'
                + did_you_mean(self.baseline, self.methods)
            )

        tuned = {*self.tuning.seeds, *self.tuning.final_seeds} if self.tuning else set()
        if shared := {seed for seed in tuned if seed < self.seeds}:
            raise ValueError(
                f"tuning: {sorted(shared)} are reported seeds too; tune on others, such as 100"
            )
        return self

    def methods_of(self, plan: ProblemPlan) -> dict[str, MethodPlan]:
        """Return the methods that are compared on a problem, in the study's order."""
        wanted = self.methods if plan.methods is None else plan.methods
        return {name: method for name, method in self.methods.items() if name in wanted}

    def tuning_of(self, plan: ProblemPlan) -> TuningPlan | None:
        """Return how the methods of a problem are tuned."""
        if self.tuning is None or plan.trials is None:
            return self.tuning
        return self.tuning.model_copy(update={"trials": plan.trials})

    def robustness_seeds(self, plan: ProblemPlan) -> range:
        """Return the seeds of a problem's robustness map."""
        return range(min(plan.robustness.seeds, self.seeds)) if plan.robustness else range(0)

    def to_dict(self) -> Tree:
        """Return the study in plain containers, without unset keys."""
        return self.model_dump(mode="json", exclude_none=True)


def slug(name: str) -> str:
    """Return a name as one part of a path, never longer than file systems allow.

    >>> slug("mixture8, leaky_relu")
    'mixture8-leaky_relu'
    """
    return re.sub(r"[^\w.+]+", "-", name).strip("-.")[:_MAX_SLUG].strip("-.") or "-"


def digest(value: Any) -> str:
    """Return a short hash of plain containers."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


# methods by name


_SUBGRADIENT_OPTIMIZERS = {"sign", "signum", "normalized", "grafted", "subgradient"}
_SECOND_ORDER_OPTIMIZERS = {"soap", "pytorch_optimizer:SOAP"}


def method_from_name(name: str) -> MethodPlan:
    """Return the method that a name stands for.

    ``RULE+OPTIMIZER``, a rule with its default optimizer, or an optimizer with the rule
    ``gradient``.

    Raises:
        UsageError: no such rule or optimizer, with a suggestion.

    >>> plan = method_from_name("extragradient+adam")
    >>> plan.rule.name, plan.optimizer.name, plan.family
    ('extragradient', 'adam', 'first-order')
    >>> method_from_name("sign").rule.name, method_from_name("acgd").optimizer
    ('gradient', None)
    """
    rule, plus, optimizer = name.partition("+")
    rule, optimizer = rule.strip(), optimizer.strip()
    if not plus and rule not in registry.RULES:
        rule, optimizer = "gradient", rule
    if rule not in registry.RULES:
        raise UsageError(
            f'Unknown method "{name}": "{rule}" is not a rule.' + did_you_mean(rule, registry.RULES)
        )
    if optimizer and ":" not in optimizer and optimizer not in registry.OPTIMIZERS:
        known = [*registry.OPTIMIZERS] if plus else [*registry.RULES, *registry.OPTIMIZERS]
        raise UsageError(
            f'Unknown method "{name}": "{optimizer}" is not an optimizer.'
            + did_you_mean(optimizer, known)
        )
    if plus and not optimizer:
        raise UsageError(
            f'Method "{name}" has no optimizer after the plus sign. Write {rule}+adam, or {rule}'
            " alone."
        )

    used = optimizer or registry.RECIPES[rule].optimizer["name"]
    if registry.build_recipe_rule(rule).order == 2 or used in _SECOND_ORDER_OPTIMIZERS:
        family: Family = "second-order"
    else:
        family = "subgradient" if used in _SUBGRADIENT_OPTIMIZERS else "first-order"
    ranges = registry.search_space(rule, used)
    return MethodPlan(
        rule=Component(name=rule),
        optimizer=Component(name=optimizer) if optimizer else None,
        family=family,
        space={key: Range(**settings) for key, settings in ranges.items()},
    )


def resolve_methods(value: Any, source: str) -> Tree:
    """Return name → complete method, from a list of names or a mapping of partial methods.

    Args:
        value: as a study file has it. What a partial method leaves out is that of the method its
            name stands for.
        source: where ``value`` comes from, for error messages.

    Raises:
        UsageError: neither a list nor a mapping, or an unknown name.
    """
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        if twice := sorted({name for name in value if value.count(name) > 1}):
            raise UsageError(f'{source}: method "{twice[0]}" is given twice.')
        value = dict.fromkeys(value)
    if not isinstance(value, Mapping):
        raise UsageError(
            f"{source}: methods must be a list of names, or a mapping of names to rule, optimizer,"
            " settings and space."
        )

    methods: Tree = {}
    for name, given in value.items():
        given = given or {}
        if not isinstance(given, Mapping):
            raise UsageError(
                f'{source}: method "{name}" must be a mapping of rule, optimizer, settings and'
                f" space, not {given!r}."
            )
        if not {"rule", "optimizer"} & given.keys():
            named = method_from_name(str(name))
            methods[str(name)] = {**named.model_dump(exclude_none=True), **given}
            continue

        default: MethodPlan | None = None
        with suppress(UsageError):  # a name of the user's own
            default = method_from_name(str(name))
        parts = {
            "rule": _component(given.get("rule"), default.rule.name if default else "gradient")
        }
        rule_name = str(parts["rule"]["name"])
        optimizer = default.optimizer.name if default and default.optimizer else None
        if optimizer is None and "optimizer" in given:
            optimizer = registry.find("rule", registry.RECIPES, rule_name).optimizer["name"]
        if optimizer is None:
            named = method_from_name(rule_name)
        else:
            parts["optimizer"] = _component(given.get("optimizer"), optimizer)
            named = method_from_name(f"{rule_name}+{parts['optimizer']['name']}")
        methods[str(name)] = {"family": named.family, "space": named.space, **given, **parts}
    return methods


def _component(given: Any, default_name: str) -> Tree:
    """Return a rule or an optimizer as a mapping; options without a name are the default's."""
    if given is None:
        return {"name": default_name}
    return {"name": default_name, **given} if isinstance(given, Mapping) else {"name": str(given)}


# reading a study


def read_study(path: Path) -> Study:
    """Read a study from a YAML file.

    Methods may be given as a list of names (as ``--methods`` takes them) or as name → rule,
    optimizer, settings, space; what is left out there is what the name stands for.

    Raises:
        UsageError: the file is missing, not YAML, or not a study; the message names the key.
    """
    return study_from_dict({"name": path.stem, **read_yaml(path)}, str(path))


def study_from_dict(tree: Tree, source: str) -> Study:
    """Return a study from plain containers.

    Raises:
        UsageError: it is not a study; the message names ``source`` and the key.
    """
    if "methods" in tree:
        tree = {**tree, "methods": resolve_methods(tree["methods"], source)}
        tree.setdefault("baseline", next(iter(tree["methods"]), ""))
    try:
        study = Study.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if message[-1] not in ".?":
            message += "."
        raise UsageError(f"{source}: {key}{': ' if key else ''}{message}") from error
    flag = find_bool_as_number(tree, study)
    if flag is not None:
        raise UsageError(f"{source}: {flag}: {BOOL_AS_NUMBER}.")
    return study
