"""The configuration of a run: its schema, how it is read, and how what the user left out is filled in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from saddlepoint import registry
from saddlepoint.errors import UsageError, did_you_mean
from saddlepoint.io.limits import MAX_YAML_BYTES, dump_yaml, parse_yaml, read_bytes
from saddlepoint.io.schemas import BOOL_AS_NUMBER, find_bool_as_number

if TYPE_CHECKING:
    from saddlepoint.problems import GanProblem

Tree = dict[str, Any]

_DEEPEST = 20

MOST_STEPS = 10**12
"""Of a run; at a thousand steps a second it takes thirty years."""

BUDGETS = frozenset({"steps", "seconds", "gradient_equivalents"})
"""The keys that bound a run."""


class Component(BaseModel):
    """A registered name and the options of its constructor, side by side."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def options(self) -> Tree:
        """Everything but the declared fields."""
        return dict(self.__pydantic_extra__ or {})


class OptimizerConfig(Component):
    """An inner optimizer for all players, with its learning rate and, where players differ, their own options."""

    lr: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    players: dict[str, Tree] = {}

    def options_for(self, player: str) -> Tree:
        """Return the constructor's options for one player."""
        shared = self.options if self.lr is None else {"lr": self.lr, **self.options}
        return registry.completed(shared, self.players.get(player, {}))


class ModelConfig(BaseModel):
    """How networks are evaluated, whatever they are.

    ``checkpoint`` keeps the activations of segments of layers only and computes the others again
    when they are needed; ``precision="bf16"`` evaluates matrix products and convolutions in
    bfloat16, parameters, losses, gradients and every vector staying in single precision.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    checkpoint: bool = False
    precision: Literal["float32", "bf16"] = "float32"


class RunConfig(BaseModel):
    """Everything that decides a run.

    ``steps``, ``seconds`` (training time, evaluation excluded) or ``gradient_equivalents``
    (``Cost.equivalents``) bounds it; a run bounded by seconds reproduces only on a machine of the
    same speed. ``schedule="linear"`` takes the learning rates to zero over the budget. ``ema`` is
    the decay of the generator's moving average; early on it looks back over a ninth of the run.

    ``best_by`` names the metric that decides the best checkpoint, the problem's own score where it
    is left out; with ``patience`` training stops after so many evaluations without a better one.
    ``on_divergence`` is "stop" or "roll-back": to the last checkpoint with half the learning rates,
    at most ``max_rollbacks`` times.

    ``batch_size`` counts the samples of a step, over all processes where several train together.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    problem: Component
    rule: Component
    optimizer: OptimizerConfig
    scheme: Literal["alternating", "simultaneous"]
    discriminator_steps: int = Field(default=1, ge=1, le=10_000)
    steps: int | None = Field(default=None, ge=1, le=MOST_STEPS)
    seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    gradient_equivalents: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    batch_size: int = Field(default=64, ge=1, le=1 << 24)
    schedule: Literal["constant", "linear"]
    ema: float = Field(default=0.999, ge=0, lt=1)
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    device: Literal["cpu", "cuda"] = "cpu"
    evaluation_samples: int = Field(ge=1, le=1 << 24)
    evaluation_seed: int = Field(default=0, ge=0, lt=1 << 63)
    evaluate_every: int = Field(ge=1)
    sample_every: int = Field(ge=1)
    checkpoint_every: int = Field(ge=1)
    probe_every: int = Field(ge=1)
    trace_every: int = Field(ge=1)
    best_by: str | None = None
    patience: int | None = Field(default=None, ge=1)
    on_divergence: Literal["stop", "roll-back"] = "stop"
    max_rollbacks: int = Field(default=3, ge=0)
    log_every: int = Field(default=50, ge=1)
    keep_checkpoints: int = Field(default=3, ge=1)
    model: ModelConfig = ModelConfig()

    def to_yaml(self) -> str:
        """Return the configuration as YAML that ``read_yaml`` reads back to the same."""
        return dump_yaml(self.model_dump(mode="json"))

    def essentials(self) -> Tree:
        """Return what differs from the schema's own defaults, so that a key which is new in a later version changes nothing."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def digest(self) -> str:
        """Return a hash of everything that decides the trajectory: all but the budget, the device and what is merely recorded."""
        recorded = {
            *BUDGETS,
            "device",
            "log_every",
            "probe_every",
            "trace_every",
            "best_by",
            "patience",
            "keep_checkpoints",
        }
        if self.model == ModelConfig():
            recorded.add("model")  # a key that earlier versions did not have
        text = json.dumps(self.model_dump(mode="json", exclude=recorded), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def resolve(tree: Tree) -> RunConfig:
    """Fill in what the user left out, build every part once to check its options, and return the complete configuration.

    A problem may bring the method that trains it best; a rule or an optimizer that the user names
    comes with its own optimizer, learning rate, loss, scheme and length instead. Every option of
    problem and rule is written out.

    Raises:
        UsageError: an unknown key, name or option (with a suggestion), or a value out of range.
    """
    _check_keys(tree)
    _check_paths(tree)
    for key in ("problem", "rule", "optimizer", "scheme", "data_dir"):
        if key in tree and tree[key] in (None, ""):
            raise UsageError(f"Configuration: {key} has no value. Give one, or leave the key out.")
    tree = {key: value for key, value in tree.items() if value is not None}
    problem_name, problem_options = _component(tree.get("problem", {}), "digits")
    known_problem: registry.ProblemEntry = registry.find("problem", registry.PROBLEMS, problem_name)
    tree = _over(known_problem.method, tree)
    rule_name, rule_options = _component(tree.get("rule", {}), "gradient")
    entry: registry.RuleEntry = registry.find("rule", registry.RULES, rule_name)
    natural = known_problem.loss or entry.loss
    if "data_dir" in tree:
        if problem_name != "mnist":
            raise UsageError(
                f"Problem {problem_name} has its data with it and takes no --data-dir. Did you mean"
                ' "mnist"?'
            )
        problem_options["data_dir"] = str(tree.pop("data_dir"))
    problem = registry.build_problem(problem_name, {"loss": natural, **problem_options})
    rule = registry.build_rule(rule_name, registry.completed(entry.options, rule_options))
    if not BUDGETS & tree.keys():
        tree["steps"] = entry.steps
    optimizer = _optimizer(tree.get("optimizer", {}), entry)
    known = registry.OPTIMIZERS.get(optimizer["name"])
    steps = tree["steps"] if isinstance(tree.get("steps"), int) else 0
    every = -(-steps // 6) if steps else 1000  # rounded up: else one would lie just before the end
    complete = {
        "scheme": "simultaneous" if rule.needs_all_players else entry.scheme,
        "schedule": known.schedule if known else "constant",
        "evaluation_samples": problem.evaluation_samples,
        "evaluate_every": max(every, problem.min_evaluate_every),
        "sample_every": every,
        "checkpoint_every": every,
        "probe_every": max(1, every // 2, problem.min_evaluate_every // 4),
        "trace_every": max(1, steps // 500) if steps else 10,
        **tree,
        "problem": {"name": problem_name, **registry.options_of(problem)},
        "rule": {"name": rule_name, **registry.options_of(rule)},
        "optimizer": optimizer,
        "device": _device(str(tree.get("device", "auto"))),
    }
    config = validate(complete)
    if rule.needs_all_players and config.scheme == "alternating":
        raise UsageError(
            f"Rule {rule_name} needs all players at once, so the scheme cannot be alternating. Use"
            " scheme=simultaneous."
        )
    if config.best_by is not None:
        _check_best_by(config.best_by, problem)
    for player in config.optimizer.players:
        if player not in ("discriminator", "generator"):
            raise UsageError(
                f'optimizer.players: unknown player "{player}".'
                + did_you_mean(player, ("discriminator", "generator"))
            )
    _check_readable(config)
    return config


def _check_readable(config: RunConfig) -> None:
    """Refuse what could be written and not be read again: the run would not be resumed."""
    text = config.to_yaml()
    try:
        parse_yaml(text)
    except yaml.YAMLError as error:
        raise UsageError(
            "Configuration: once written it could not be read:"
            f" {' '.join(str(error).split())[:300]}."
        ) from error
    if len(text.encode()) > MAX_YAML_BYTES:
        raise UsageError(
            f"Configuration: written out it has more than {MAX_YAML_BYTES >> 10} KiB, the most that is"
            " read."
        )


def _check_best_by(name: str, problem: GanProblem) -> None:
    directed = [metric for metric, what in problem.metric_names.items() if what.better is not None]
    known = [prefix + metric for prefix in ("ema/", "", "average/") for metric in directed]
    if name not in known:
        raise UsageError(
            f'Configuration: best_by="{name}" is no metric of {problem.name} by which one is'
            " better." + did_you_mean(name, known)
        )


def validate(tree: Tree) -> RunConfig:
    """Return a complete configuration as a RunConfig; a UsageError names the first field that is wrong."""
    try:
        config = RunConfig.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"Configuration: {where}={first['input']!r} is not valid: {first['msg']}."
        ) from error
    flag = find_bool_as_number(tree, config)
    if flag is not None:
        raise UsageError(f"Configuration: {flag} is not valid: {BOOL_AS_NUMBER}.")
    return config


def read_yaml(path: Path) -> Tree:
    """Read a configuration file; numbers such as 1e-3 are numbers.

    Raises:
        UsageError: the file is missing, not YAML, or not a mapping.
    """
    try:
        tree = parse_yaml(read_bytes(path, MAX_YAML_BYTES).decode())
    except OSError as error:
        raise UsageError(
            f"Cannot read the configuration {path}: {error.strerror or error}."
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"The configuration {path} is not text.") from error
    except yaml.YAMLError as error:
        raise UsageError(
            f"The configuration {path} is not YAML: {' '.join(str(error).split())}."
        ) from error
    if not isinstance(tree, dict):
        raise UsageError(f"The configuration {path} must be a mapping of keys to values.")
    return tree


def with_settings(tree: Tree, settings: Iterable[str]) -> Tree:
    """Return the tree with ``key.path=value`` settings applied, values read as YAML.

    >>> with_settings({"rule": "acgd"}, ["rule.beta=0.9", "batch_size=32"])
    {'rule': {'name': 'acgd', 'beta': 0.9}, 'batch_size': 32}
    """
    values = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        path = path.strip()
        if not equals or not all(path.split(".")):
            raise UsageError(
                f'--set "{setting}" is not of the form key.path=value, for example --set'
                " rule.damping=0.1."
            )
        if not text.strip():
            raise UsageError(
                f'--set "{setting}": the value is empty. Write null to leave a setting out, "" for'
                " an empty text."
            )
        try:
            values[path] = parse_yaml(text)
        except yaml.YAMLError as error:
            raise UsageError(
                f'--set "{setting}": the value is not YAML: {" ".join(str(error).split())}.'
            ) from error
    return with_values(tree, values)


def with_values(tree: Tree, values: Mapping[str, Any]) -> Tree:
    """Return the tree with the values put at their key paths; a name that gets options becomes a mapping.

    Shorter paths are put first, whatever the order, so that a name does not remove options that are
    given beside it.

    >>> with_values({"rule": "acgd"}, {"rule.beta": 0.9, "batch_size": 32})
    {'rule': {'name': 'acgd', 'beta': 0.9}, 'batch_size': 32}
    >>> with_values({}, {"optimizer.lr": 0.5, "optimizer": "sgd"})
    {'optimizer': {'name': 'sgd', 'lr': 0.5}}
    """
    tree = json.loads(json.dumps(tree, default=str))
    for path, value in sorted(values.items(), key=lambda pair: pair[0].count(".")):
        *parents, last = path.split(".")
        if len(parents) > _DEEPEST:
            raise UsageError(
                f'The key "{path[:40]}…" has more than {_DEEPEST} points in it; no setting lies so'
                " deep."
            )
        place = tree
        for key in parents:
            place[key] = _opened(path, key, place.get(key))
            place = place[key]
        place[last] = renamed(place.get(last), value) if isinstance(value, str) else value
    return tree


def _opened(path: str, key: str, value: Any) -> Tree:
    """Return what stands at a key as a mapping that further keys go into."""
    if value is None:
        return {}
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, Mapping):
        raise UsageError(
            f'The key "{path}" leads into {key}, which is {value!r} and has no keys in it. Give one'
            " of the two."
        )
    return dict(value)


def renamed(component: Any, name: str) -> Any:
    """Return the component with this name; its options stay only if it had the name already."""
    keeps = isinstance(component, Mapping) and component.get("name", name) == name
    return {**component, "name": name} if keeps else name


def _component(value: Any, default: str) -> tuple[str, Tree]:
    """Return name and options of a problem or rule that may be given as a name, a mapping, or options of the default."""
    if isinstance(value, str):
        return value, {}
    name = value.get("name", default) if isinstance(value, Mapping) else None
    if not isinstance(name, str):
        raise UsageError(
            f"Configuration: expected a name, or a mapping with a name and options, not {value!r}."
        )
    return name, {key: inner for key, inner in value.items() if key != "name"}


def _over(method: Mapping[str, Any], tree: Tree) -> Tree:
    """Return the tree over what a problem brings; a rule or an optimizer that is named comes with its own instead."""
    given = [tree.get(part, {}) for part in ("rule", "optimizer")]
    if not method or any(not isinstance(part, Mapping) or "name" in part for part in given):
        return tree
    ours = {
        key: value
        for key, value in method.items()
        if key not in BUDGETS or not BUDGETS & tree.keys()
    }
    optimizer, own = dict(method["optimizer"]), dict(tree.get("optimizer", {}))
    if "lr" in own:  # the user's rate is for both players
        optimizer.pop("players", None)
    rule = registry.completed(method.get("rule", {}), tree.get("rule", {}))
    return {**ours, **tree, "optimizer": registry.completed(optimizer, own), "rule": rule}


def _optimizer(value: Any, entry: registry.RuleEntry) -> Tree:
    if not isinstance(value, str | Mapping):
        raise UsageError(f"Configuration: optimizer must be a name or a mapping, not {value!r}.")
    chosen = {"name": value} if isinstance(value, str) else dict(value)
    natural = dict(entry.optimizer)
    name = chosen.setdefault("name", natural["name"])
    known = registry.OPTIMIZERS.get(name) if isinstance(name, str) else None
    if known is None:
        registry.optimizer_class(str(name))  # an import path, or an error with a suggestion
    defaults = dict(known.options) if known else {}
    if name == natural["name"]:
        defaults |= natural
    if "lr" in chosen:  # the user's rate is for both players, whatever ours would be
        defaults.pop("players", None)
    return registry.completed(defaults, chosen)


def _device(name: str) -> str:
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f'Unknown device "{name}".' + did_you_mean(name, ("auto", "cpu", "cuda")))
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "Device cuda: PyTorch finds no CUDA device on this machine. Use --device cpu or auto."
        )
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def _check_keys(tree: Tree) -> None:
    known = [*RunConfig.model_fields, "data_dir"]
    for key in tree:
        if key not in known:
            meant = _paths_of(str(key), tree)
            hint = (
                f" Did you mean {' or '.join(meant)}?" if meant else did_you_mean(str(key), known)
            )
            raise UsageError(f'Configuration: unknown key "{key}".{hint}')


def _paths_of(option: str, tree: Tree) -> list[str]:
    """Return the key paths under which there is an option of this name."""
    problem = registry.PROBLEMS.get(_name_in(tree, "problem", "digits"))
    rule = registry.RULES.get(_name_in(tree, "rule", "gradient"))
    options = {
        "problem": (
            [] if problem is None else [field.name for field in fields(registry.load(problem.path))]
        ),
        "rule": [] if rule is None else [field.name for field in fields(registry.load(rule.path))],
        "optimizer": ["lr", "players", "betas", "momentum", "weight_decay", "eps"],
        "model": list(ModelConfig.model_fields),
    }
    return [f'"{part}.{option}"' for part, known in options.items() if option in known]


def _name_in(tree: Tree, part: str, default: str) -> str:
    value = tree.get(part)
    return str(value.get("name", default)) if isinstance(value, Mapping) else str(value or default)


def _check_paths(tree: Tree) -> None:
    """Refuse a path that no text in a file can hold: what is written into the configuration is read again."""
    try:
        str(tree.get("data_dir", "")).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"The data directory {str(tree['data_dir'])!a} has bytes in its name that are no UTF-8"
            " text, which a configuration cannot hold. Rename it, or give a symbolic link to it."
        ) from error
