"""The runs of a study: their names, configurations, and the keys that decide whether one is new."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from saddlepoint.compare.provenance import input_hashes
from saddlepoint.compare.study import RATIO, MethodPlan, ProblemPlan, Space, Study, digest, slug
from saddlepoint.errors import UsageError
from saddlepoint.registry import optimizer_class
from saddlepoint.training.config import RunConfig, Tree, resolve, validate, with_values


@dataclass(frozen=True)
class RunId:
    """Which run of a study it is.

    Attributes:
        problem, method: their names.
        seed: of the run.
        factor: what the tuned learning rates are multiplied by; 1 for the reported runs, others for
            the robustness map.
    """

    problem: str
    method: str
    seed: int
    factor: float = 1.0

    @property
    def name(self) -> str:
        """The run's name among those of its problem and method."""
        return f"seed-{self.seed}" if self.factor == 1 else f"seed-{self.seed}-lr-x{self.factor:g}"

    @property
    def file(self) -> Path:
        """The file of the run's result in the study's directory."""
        return Path("runs") / slug(self.problem) / slug(self.method) / f"{self.name}.json"

    @property
    def pictures(self) -> Path:
        """The directory of the run's pictures in the study's directory."""
        return Path("pictures") / slug(self.problem) / slug(self.method) / self.name


@dataclass(frozen=True)
class Job:
    """A run to execute.

    Attributes:
        config: a complete configuration.
        metric: measured at every point, with the prefix of the weights.
        points: number of evaluations, evenly spaced over the budget; the last is at its end.
        all_metrics: whether the last evaluation measures all metrics of the same weights.
        pictures: whether a picture is kept of every point.
    """

    config: Tree
    metric: str
    points: int
    all_metrics: bool = False
    pictures: bool = False

    def key(self) -> str:
        """Return a hash of what the user decides: configuration, measurements, and input files.

        Versions are not in it: a result records what it was made with.
        """
        config = validate(self.config)
        return digest({**asdict(self), "config": config.non_defaults(), **input_hashes(config)})


def jobs_of(
    study: Study, plan: ProblemPlan, method: str, parameters: Tree
) -> Iterator[tuple[RunId, Job]]:
    """Yield the runs of a method at its tuned parameters: reported runs, then the robustness map.

    All metrics are measured in reported runs only; pictures are kept of the first seed.
    """
    for seed in range(study.seeds):
        config = run_config(plan, study.methods[method], parameters, seed=seed)
        yield (
            RunId(plan.name, method, seed),
            Job(
                config.model_dump(mode="json"),
                plan.metric,
                plan.points,
                all_metrics=True,
                pictures=seed == 0,
            ),
        )
    for factor in plan.robustness.factors if plan.robustness else ():
        if factor == 1:
            continue
        for seed in study.robustness_seeds(plan):
            config = run_config(plan, study.methods[method], parameters, seed=seed)
            tree: dict[str, Any] = config.model_dump(mode="json")
            optimizer = tree["optimizer"]
            optimizer["lr"] *= factor
            for own in optimizer["players"].values():
                if "lr" in own:
                    own["lr"] *= factor
            yield RunId(plan.name, method, seed, factor), Job(tree, plan.metric, 1)


def run_config(
    plan: ProblemPlan, method: MethodPlan, parameters: Mapping[str, Any], *, seed: int = 0
) -> RunConfig:
    """Return the configuration of one run.

    Precedence, lowest first: defaults of rule and optimizer, the problem's settings, the method's
    settings, the tuned parameters.

    Raises:
        UsageError: an unknown key, name or option, or a value out of range.
    """
    tree: Tree = {"problem": plan.problem.model_dump(), "rule": method.rule.model_dump()}
    if method.optimizer is not None:
        tree["optimizer"] = method.optimizer.model_dump()
    for values in (plan.settings, method.settings, parameters_to_settings(parameters)):
        tree = with_values(tree, values)
    budget = {name: int(bound) if name == "steps" else bound for name, bound in plan.budget.items()}
    return resolve(tree | budget | {"seed": seed})


def parameters_to_settings(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return tuned parameters as key paths of a run's configuration.

    >>> parameters_to_settings({"optimizer.lr": 0.25, "ratio": 0.5})
    {'optimizer.lr': 0.25, 'optimizer.players.discriminator.lr': 0.125}
    """
    settings = {key: value for key, value in parameters.items() if key != RATIO}
    if RATIO in parameters:
        lr, ratio = parameters.get("optimizer.lr"), parameters[RATIO]
        if not isinstance(lr, int | float) or not isinstance(ratio, int | float):
            raise UsageError(
                '"ratio" multiplies optimizer.lr, and both must be numbers, not'
                f" {ratio!r} and {lr!r}."
            )
        settings["optimizer.players.discriminator.lr"] = lr * ratio
    return settings


def search_space(plan: ProblemPlan, method: MethodPlan) -> Space:
    """Return the search space of a method on a problem: the problem's and the method's ranges."""
    return {**plan.space, **method.space}


def default_parameters(plan: ProblemPlan, method: MethodPlan) -> dict[str, Any]:
    """Return the method's own values as a point of its search space.

    Numbers outside of a range are moved to its nearest value; other values that are not in the
    space are left out.
    """
    config = run_config(plan, method, {}).model_dump(mode="json")
    optimizer = config["optimizer"]
    if optimizer["lr"] is None:
        signature = inspect.signature(optimizer_class(optimizer["name"]))
        optimizer["lr"] = signature.parameters["lr"].default
    found = {}
    for path, values in search_space(plan, method).items():
        value: Any = config
        if path == RATIO:
            own = optimizer["players"].get("discriminator", {})
            value = own.get("lr", optimizer["lr"]) / optimizer["lr"]
        else:
            for key in path.split("."):
                value = value.get(key) if isinstance(value, Mapping) else None
        nearest = None if value is None else values.nearest(value)
        if nearest is not None:
            found[path] = nearest
    return found
