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
    """A rule: what theory says of it, and what it brings when the user says nothing else.

    Attributes:
        order: 1 for gradients, 2 for Jacobian products, with the rule's default options.
        cost: derivatives of one step of a two-player game; k is the number of solver iterations.
        bilinear: what it does on the bilinear game x·s·y with step h.
        minimax: what it does at local minimax points.
        paper: where it is published.
        optimizer: the natural inner optimizer and its options.
        options: the rule's options for training networks, where its own defaults are those of its paper.
        loss: the natural GAN loss.
        scheme: "alternating" or "simultaneous".
        steps: the length of a default run, about a minute on two cores.
    """

    order: int
    cost: str
    bilinear: str
    minimax: str
    paper: str
    optimizer: Mapping[str, Any] = field(default_factory=lambda: {"name": "adam"})
    options: Mapping[str, Any] = field(default_factory=dict)
    loss: str = "minimax"
    scheme: str = "simultaneous"
    steps: int = 2000


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

_GAN_ORDER = {"leader": "generator", "follower": "discriminator"}

RULES: dict[str, RuleEntry] = {
    "gradient": RuleEntry(
        "saddlepoint.rules:Gradient",
        "each player's own gradient: the usual GAN training",
        order=1,
        cost="2 gradients",
        bilinear="diverges; alternating: circles for hs < 2",
        minimax="may miss them, may find others",
        paper="Arrow et al. 1958",
        scheme="alternating",
        steps=8000,
    ),
    "optimistic": RuleEntry(
        "saddlepoint.rules:Optimistic",
        "2ξ now minus ξ before",
        order=1,
        cost="2 gradients",
        bilinear="converges for hs < 1/√3",
        minimax="may miss them, may find others",
        paper="arXiv:1711.00141",
        steps=8000,
    ),
    "extragradient": RuleEntry(
        "saddlepoint.rules:Extragradient",
        "the gradient where the optimizers would go",
        order=1,
        cost="4 gradients",
        bilinear="converges for hs < 1",
        minimax="may miss them, may find others",
        paper="arXiv:1802.10551",
        steps=5000,
    ),
    "past-extragradient": RuleEntry(
        "saddlepoint.rules:PastExtragradient",
        "extragradient that extrapolates by the last gradient",
        order=1,
        cost="2 gradients",
        bilinear="converges for hs < 1/√3",
        minimax="may miss them, may find others",
        paper="arXiv:1802.10551",
        steps=8000,
    ),
    "lookahead": RuleEntry(
        "saddlepoint.rules:Lookahead",
        "every k steps all players go part of the way back",
        order=1,
        cost="2 gradients",
        bilinear="k=5, α=½: converges for hs < 0.74",
        minimax="as the rule inside",
        paper="arXiv:2006.14567",
        scheme="alternating",
        steps=8000,
        options={"k": 10},
    ),
    "runge-kutta": RuleEntry(
        "saddlepoint.rules:RungeKutta",
        "Runge–Kutta on the joint flow, ODE-GAN's regulariser",
        order=1,
        cost="8 gradients",
        bilinear="4 stages: stable for hs < 2.83",
        minimax="may miss them, may find others",
        paper="arXiv:2010.15040",
        optimizer={"name": "sgd", "lr": 0.05},
        loss="non-saturating",
        steps=2500,
    ),
    "consensus": RuleEntry(
        "saddlepoint.rules:Consensus",
        "ξ + γ Jᵀξ",
        order=2,
        cost="2 gradients, 2 products",
        bilinear="converges for γ > h/2",
        minimax="any critical point attracts for large γ",
        paper="arXiv:1705.10461",
        options={"gamma": 0.1},
        steps=4000,
    ),
    "sga": RuleEntry(
        "saddlepoint.rules:SymplecticAdjustment",
        "ξ ± λ Aᵀξ with the antisymmetric part A",
        order=2,
        cost="2 gradients, 4 products",
        bilinear="converges for small h",
        minimax="may miss them, may find others",
        paper="arXiv:1802.05642",
        options={"strength": 0.1},
        steps=3000,
    ),
    "hamiltonian": RuleEntry(
        "saddlepoint.rules:Hamiltonian",
        "Jᵀξ, the gradient of ½‖ξ‖²",
        order=2,
        cost="2 gradients, 2 products",
        bilinear="converges for hs² < 2",
        minimax="any critical point attracts",
        paper="arXiv:1906.02027",
        steps=4000,
    ),
    "stochastic-hamiltonian": RuleEntry(
        "saddlepoint.rules:StochasticHamiltonian",
        "the same, unbiased, from two mini-batches",
        order=2,
        cost="4 gradients, 4 products",
        bilinear="converges",
        minimax="any critical point attracts",
        paper="arXiv:2007.04202",
        steps=2000,
    ),
    "jare": RuleEntry(
        "saddlepoint.rules:JacobianRegularized",
        "ξ + γ J_oᵀξ with the blocks between players",
        order=2,
        cost="2 gradients, 2 products",
        bilinear="converges for γ > h/2",
        minimax="may miss them, may find others",
        paper="arXiv:1806.09235",
        options={"gamma": 1.0},
        steps=4000,
    ),
    "lola": RuleEntry(
        "saddlepoint.rules:OpponentShaping",
        "counts on the others' next step and on its influence on it",
        order=2,
        cost="2 gradients, 4 products",
        bilinear="converges for small h",
        minimax="may miss them, may find others",
        paper="arXiv:1709.04326",
        options={"alpha": 0.1},
        steps=3000,
    ),
    "sos": RuleEntry(
        "saddlepoint.rules:StableOpponentShaping",
        "LOLA with as much shaping as stays stable",
        order=2,
        cost="2 gradients, 4 products",
        bilinear="converges for small h",
        minimax="avoids strict saddles",
        paper="arXiv:1811.08469",
        options={"alpha": 0.1},
        steps=3000,
    ),
    "cgd": RuleEntry(
        "saddlepoint.rules:CompetitiveGradient",
        "solves for the players' interaction",
        order=2,
        cost="2 gradients, 2k products",
        bilinear="converges for every h",
        minimax="may miss them, may find others",
        paper="arXiv:1905.12103",
        optimizer={"name": "sgd", "lr": 0.02},
        options={"tolerance": 0.1},
        loss="non-saturating",
    ),
    "acgd": RuleEntry(
        "saddlepoint.rules:AdaptiveCompetitiveGradient",
        "the same in the metric of RMSProp",
        order=2,
        cost="2 gradients, 2k products",
        bilinear="nothing proved",
        minimax="nothing proved",
        paper="arXiv:1910.05852",
        optimizer={"name": "sgd", **_rates(2e-3, 1e-3)},
        options={"beta": 0.999, "tolerance": 0.1},
    ),
    "lcgd": RuleEntry(
        "saddlepoint.rules:LinearizedCompetitiveGradient",
        "competitive gradient without the solve",
        order=2,
        cost="2 gradients, 2 products",
        bilinear="converges for hs < 1",
        minimax="may miss them, may find others",
        paper="arXiv:1905.12103",
        optimizer={"name": "sgd", "lr": 0.02},
        loss="non-saturating",
        steps=4000,
    ),
    "newton": RuleEntry(
        "saddlepoint.rules:Newton",
        "damped Newton on own Hessians (part=own) or the whole Jacobian (part=full)",
        order=2,
        cost="2 gradients, 2k products",
        bilinear="own: as gradient; full: converges",
        minimax="full: any critical point attracts",
        paper="arXiv:1406.2572",
        optimizer={"name": "sgd", **_rates(2.0, 1.0)},
        scheme="alternating",
        options={"scaling": {"beta": 0.999}, "damping": 1000.0, "adapt": False, "budget": 3},
    ),
    "proximal-point": RuleEntry(
        "saddlepoint.rules:ProximalPoint",
        "implicit step, linearised: (I + JL) d = ξ",
        order=2,
        cost="2 gradients, 2k products",
        bilinear="converges for every h",
        minimax="any critical point attracts for large h",
        paper="Rockafellar 1976",
        optimizer={"name": "sgd", "lr": 0.02},
        options={"tolerance": 0.1, "budget": 10},
        loss="non-saturating",
    ),
    "follow-the-ridge": RuleEntry(
        "saddlepoint.rules:FollowTheRidge",
        "the follower stays on the ridge as the leader moves",
        order=2,
        cost="2 gradients, 1 + k products",
        bilinear="not defined: follower is linear",
        minimax="converges to them and only them",
        paper="arXiv:1910.07512",
        optimizer={"name": "sgd", "lr": 0.02},
        options={**_GAN_ORDER, "damping": 1.0, "budget": 5},
    ),
    "total-gradient": RuleEntry(
        "saddlepoint.rules:TotalGradient",
        "the leader's total derivative through the follower's answer",
        order=2,
        cost="2 gradients, 1 + k products",
        bilinear="not defined: follower is linear",
        minimax="converges to them and only them, follower faster",
        paper="arXiv:1906.01217",
        options={**_GAN_ORDER, "damping": 1.0, "budget": 5},
    ),
    "gradient-newton": RuleEntry(
        "saddlepoint.rules:GradientNewton",
        "gradient for the leader, then Newton for the follower",
        order=2,
        cost="3 gradients, k products",
        bilinear="not defined: follower is linear",
        minimax="converges to them and only them",
        paper="arXiv:2006.14592",
        optimizer={"name": "sgd", "lr": 0.02},
        options={**_GAN_ORDER, "damping": 1.0, "budget": 5},
    ),
    "complete-newton": RuleEntry(
        "saddlepoint.rules:CompleteNewton",
        "Newton for both",
        order=2,
        cost="3 gradients, 3k products",
        bilinear="not defined: follower is linear",
        minimax="any critical point attracts, quadratically",
        paper="arXiv:2006.14592",
        optimizer={"name": "sgd", "lr": 0.02},
        options={**_GAN_ORDER, "damping": 1.0, "budget": 5},
        steps=1500,
    ),
    "unrolled": RuleEntry(
        "saddlepoint.rules:Unrolled",
        "the leader sees K follower steps ahead, differentiated",
        order=1,
        cost="2K + 2 gradients, K products",
        bilinear="nothing proved",
        minimax="nothing proved",
        paper="arXiv:1611.02163",
        options={**_GAN_ORDER, "rate": 0.1},
        steps=1500,
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
