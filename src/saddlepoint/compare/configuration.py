"""From a plan and hyperparameters to the configuration of a run."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from saddlepoint.compare.study import RATIO, MethodPlan, ProblemPlan, Space
from saddlepoint.errors import UsageError
from saddlepoint.registry import optimizer_class
from saddlepoint.training.config import RunConfig, Tree, resolve, with_values


def configuration(
    plan: ProblemPlan, method: MethodPlan, parameters: Mapping[str, Any], *, seed: int = 0
) -> RunConfig:
    """Return the configuration of one run.

    Precedence: what rule and optimizer bring, the problem's settings, the method's, the tuned
    parameters.

    Raises:
        UsageError: an unknown key, name or option, or a value out of range.
    """
    tree: Tree = {"problem": plan.problem.model_dump(), "rule": method.rule.model_dump()}
    if method.optimizer is not None:
        tree["optimizer"] = method.optimizer.model_dump()
    for values in (plan.settings, method.settings, settings_of(parameters)):
        tree = with_values(tree, values)
    budget = {name: int(bound) if name == "steps" else bound for name, bound in plan.budget.items()}
    return resolve(tree | budget | {"seed": seed})


def settings_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return tuned parameters as key paths of a run's configuration.

    >>> settings_of({"optimizer.lr": 0.25, "ratio": 0.5})
    {'optimizer.lr': 0.25, 'optimizer.players.discriminator.lr': 0.125}
    """
    settings = {key: value for key, value in parameters.items() if key != RATIO}
    if RATIO in parameters:
        rate, ratio = parameters.get("optimizer.lr"), parameters[RATIO]
        if not isinstance(rate, int | float) or not isinstance(ratio, int | float):
            raise UsageError(
                '"ratio" is a number that optimizer.lr, a number too, is multiplied by, not'
                f" {ratio!r} and {rate!r}."
            )
        settings["optimizer.players.discriminator.lr"] = rate * ratio
    return settings


def space_of(plan: ProblemPlan, method: MethodPlan) -> Space:
    """Return what is searched for a method on a problem: the problem's space, and the method's."""
    return {**plan.space, **method.space}


def starting_point(plan: ProblemPlan, method: MethodPlan) -> dict[str, Any]:
    """Return what the method brings by itself, as a point of its space; values that are no choice there are left out."""
    config = configuration(plan, method, {}).model_dump(mode="json")
    optimizer = config["optimizer"]
    if optimizer["lr"] is None:
        optimizer["lr"] = (
            inspect.signature(optimizer_class(optimizer["name"])).parameters["lr"].default
        )
    found = {}
    for path, where in space_of(plan, method).items():
        value: Any = config
        if path == RATIO:
            rates = optimizer["players"].get("discriminator", {})
            value = rates.get("lr", optimizer["lr"]) / optimizer["lr"]
        else:
            for key in path.split("."):
                value = value.get(key) if isinstance(value, Mapping) else None
        nearest = None if value is None else where.nearest(value)
        if nearest is not None:
            found[path] = nearest
    return found
