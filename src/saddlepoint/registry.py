"""Names of problems, rules and optimizers, and how to build each from a configuration.

Adding one is one row here. Paths are text, so that listing names loads no torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from saddlepoint.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from saddlepoint.problems import GanProblem
    from saddlepoint.rules import Rule


@dataclass(frozen=True)
class Entry:
    """A name's class and one line about it."""

    path: str
    summary: str


@dataclass(frozen=True)
class RuleEntry(Entry):
    """A rule with what it brings when the user says nothing else.

    Attributes:
        cost: derivatives of one step of a two-player game.
        options: the rule's options for training networks, where its own defaults are those of its paper.
        optimizer: the natural inner optimizer and its options.
        loss: the natural GAN loss.
        scheme: "alternating" or "simultaneous".
        steps: the length of a default run, about a minute on two cores.
    """

    cost: str
    optimizer: Mapping[str, Any]
    loss: str
    scheme: str
    steps: int
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OptimizerEntry(Entry):
    """An inner optimizer with default options and the schedule of its learning rate."""

    options: Mapping[str, Any] = field(default_factory=dict)
    schedule: str = "constant"


def _rates(generator: float, discriminator: float) -> dict[str, Any]:
    """Two time scales, as in Heusel et al. (2017), arXiv:1706.08500; the values are the best found on ``digits``."""
    return {"lr": generator, "players": {"discriminator": {"lr": discriminator}}}


PROBLEMS: dict[str, Entry] = {
    "digits": Entry("saddlepoint.problems:Digits", "10,000 embedded handwritten digits, 28 x 28, MLP GAN"),
    "mnist": Entry("saddlepoint.problems:Mnist", "the full MNIST from a directory of yours (--data-dir), MLP GAN"),
    "mixture8": Entry("saddlepoint.problems:Mixture8", "ring of 8 Gaussians in the plane"),
    "mixture25": Entry("saddlepoint.problems:Mixture25", "5 x 5 grid of Gaussians in the plane"),
}

RULES: dict[str, RuleEntry] = {
    "gradient": RuleEntry(
        "saddlepoint.rules:Gradient",
        "each player's own gradient: the usual GAN training",
        cost="2 gradients",
        optimizer={"name": "adam"},
        loss="minimax",
        scheme="alternating",
        steps=8000,
    ),
    "newton": RuleEntry(
        "saddlepoint.rules:Newton",
        "damped Newton on own Hessians, saddle-free (part=own), or on the whole Jacobian (part=full)",
        cost="2 gradients, 2k products, 2 losses",
        optimizer={"name": "sgd", **_rates(2.0, 1.0)},
        loss="minimax",
        scheme="alternating",
        steps=2000,
        options={"scaling": {"beta": 0.999}, "damping": 1000.0, "adapt": False, "budget": 3},
    ),
    "cgd": RuleEntry(
        "saddlepoint.rules:CompetitiveGradient",
        "competitive gradient descent: solves for the players' interaction",
        cost="2 gradients, 2k products",
        optimizer={"name": "sgd", "lr": 0.02},
        loss="non-saturating",
        scheme="simultaneous",
        steps=2000,
        options={"tolerance": 0.1},
    ),
    "acgd": RuleEntry(
        "saddlepoint.rules:AdaptiveCompetitiveGradient",
        "competitive gradient descent in the metric of RMSProp",
        cost="2 gradients, 2k products",
        optimizer={"name": "sgd", **_rates(2e-3, 1e-3)},
        loss="minimax",
        scheme="simultaneous",
        steps=2000,
        options={"beta": 0.999, "tolerance": 0.1},
    ),
}

_ADAM = {**_rates(2e-3, 1e-3), "betas": [0.0, 0.999], "fused": True}

OPTIMIZERS: dict[str, OptimizerEntry] = {
    "adam": OptimizerEntry("torch.optim:Adam", "Adam without momentum, discriminator at half the rate", _ADAM),
    "adamw": OptimizerEntry("torch.optim:AdamW", "the same with decoupled weight decay", _ADAM),
    "rmsprop": OptimizerEntry("torch.optim:RMSprop", "RMSProp", {"lr": 3e-4}),
    "sgd": OptimizerEntry("torch.optim:SGD", "stochastic gradient descent", {"lr": 0.1}),
    "sign": OptimizerEntry(
        "saddlepoint.optim:SignSubgradient", "fixed step against the sign of the gradient, decaying", _rates(3e-3, 1e-3), schedule="linear"
    ),
}


def find(kind: str, table: Mapping[str, Any], name: str) -> Any:
    """Return the entry called ``name``; a UsageError suggests the nearest name."""
    if name not in table:
        raise UsageError(f'Unknown {kind} "{name}".' + did_you_mean(name, table))
    return table[name]


def build_problem(name: str, options: Mapping[str, Any]) -> GanProblem:
    """Return the problem called ``name``; options are checked against its fields."""
    problem: GanProblem = _build_dataclass("problem", name, find("problem", PROBLEMS, name).path, options)
    return problem


def build_rule(name: str, options: Mapping[str, Any]) -> Rule:
    """Return the rule called ``name``; options are checked against its fields."""
    rule: Rule = _build_dataclass("rule", name, find("rule", RULES, name).path, options)
    return rule


def optimizer_class(name: str) -> type[Optimizer]:
    """Return the optimizer class of a registered name or of an import path such as ``pytorch_optimizer:SOAP``."""
    from torch.optim import Optimizer

    path = name if ":" in name else find("optimizer", OPTIMIZERS, name).path
    found = load(path)
    if not (isinstance(found, type) and issubclass(found, Optimizer)):
        raise UsageError(f'Optimizer "{name}" is not a subclass of torch.optim.Optimizer.')
    return found


def build_optimizer(name: str, parameters: Iterable[tuple[str, Tensor]], options: Mapping[str, Any]) -> Optimizer:
    """Return the optimizer called ``name`` over named parameters; options are checked against its signature."""
    kind = optimizer_class(name)
    signature = inspect.signature(kind).parameters
    known = [p for p in list(signature)[1:] if signature[p].kind is not inspect.Parameter.VAR_KEYWORD]
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.values())
    for option in options:
        if option not in known and not open_ended:
            raise UsageError(f'Optimizer {name} has no option "{option}".' + did_you_mean(option, known))
    named = list(parameters) if kind.__module__.startswith(("torch.", "saddlepoint.")) else [tensor for _, tensor in parameters]
    try:
        return kind(named, **options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"Optimizer {name} refuses its options {dict(options)}: {error}") from error


def load(path: str) -> Any:
    """Return the object at ``package.module:name``."""
    module, _, name = path.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f'Cannot load "{path}": {error}. Expected package.module:name of an installed package.') from error


def _build_dataclass(kind: str, name: str, path: str, options: Mapping[str, Any]) -> Any:
    cls = load(path)
    known = [f.name for f in fields(cls) if f.init]
    hints = get_type_hints(cls)
    values = {}
    for option, value in options.items():
        if option not in known:
            raise UsageError(f'{kind.capitalize()} {name} has no option "{option}".' + did_you_mean(option, known))
        try:
            values[option] = TypeAdapter(hints[option], config=ConfigDict(str_strip_whitespace=True)).validate_python(value)
        except ValidationError as error:
            raise UsageError(f"{kind.capitalize()} {name}: {option}={value!r} is not valid: {error.errors()[0]['msg']}.") from error
    return cls(**values)
