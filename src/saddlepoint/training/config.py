"""The configuration of a run: its schema, reading, and the defaults of what the user leaves out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from saddlepoint import registry
from saddlepoint.errors import UsageError, did_you_mean
from saddlepoint.io.limits import MAX_YAML_BYTES, dump_yaml, parse_yaml, read_bytes
from saddlepoint.io.schemas import BOOL_AS_NUMBER, find_bool_as_number

if TYPE_CHECKING:
    from saddlepoint.rules import Rule

Tree = dict[str, Any]

FORMAT = 5
"""Format of run directories; since format 5 it is the key ``format`` in ``config.yaml``."""

MAX_STEPS = 10**12
"""Most steps of a run: thirty years at a thousand steps a second."""

BUDGETS = frozenset({"steps", "seconds", "gradient_equivalents"})
"""The keys that bound a run."""

_MAX_KEY_PARTS = 20
_MAX_DEPTH, _MAX_DIGITS, _MAX_CHARACTERS = 40, 19, 1 << 20  # the limits of ``parse_yaml``


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
        """All options: the keys other than the declared fields."""
        return dict(self.__pydantic_extra__ or {})


class OptimizerConfig(Component):
    """An inner optimizer for all players, its learning rate, and options of single players."""

    lr: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    players: dict[str, Tree] = {}

    def options_for(self, player: str) -> Tree:
        """Return the constructor's options for one player."""
        shared = self.options if self.lr is None else {"lr": self.lr, **self.options}
        return registry.completed(shared, self.players.get(player, {}))


class ModelConfig(BaseModel):
    """How networks are evaluated.

    ``checkpoint`` enables activation checkpointing: only the activations between segments of layers
    are stored, and the others are computed again in the backward pass. ``precision="bf16"``
    evaluates matrix products and convolutions in bfloat16; parameters, losses, gradients and all
    vectors stay in single precision.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    checkpoint: bool = False
    precision: Literal["float32", "bf16"] = "float32"


class RunConfig(BaseModel):
    """The complete configuration of a run.

    ``steps``, ``seconds`` (training time without evaluation) and ``gradient_equivalents``
    (``Cost.equivalents``) bound the run; a run bounded by seconds is reproducible only on a machine
    of the same speed. ``lr_schedule="linear"`` decays the learning rates to zero over the budget.
    ``ema`` is the decay of the generator's moving average; early in the run it averages over a
    ninth of the steps so far.

    ``best_by`` names the metric that selects the best checkpoint; by default the problem's own
    score. With ``patience``, training stops after so many evaluations without a better one.
    ``on_divergence`` is "stop" or "roll_back": restore the last checkpoint with halved learning
    rates, at most ``max_rollbacks`` times.

    ``batch_size`` is the number of samples per step, over all processes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    problem: Component
    rule: Component
    optimizer: OptimizerConfig
    update_scheme: Literal["alternating", "simultaneous"]
    discriminator_steps: int = Field(default=1, ge=1, le=10_000)
    steps: int | None = Field(default=None, ge=1, le=MAX_STEPS)
    seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    gradient_equivalents: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    batch_size: int = Field(default=64, ge=1, le=1 << 24)
    lr_schedule: Literal["constant", "linear"]
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
    on_divergence: Literal["stop", "roll_back"] = "stop"
    max_rollbacks: int = Field(default=3, ge=0)
    log_every: int = Field(default=50, ge=1)
    keep_checkpoints: int = Field(default=3, ge=1)
    model: ModelConfig = ModelConfig()

    @cached_property
    def built_rule(self) -> Rule:
        """The rule, built once; it is immutable, so several runs can share it."""
        return registry.build_rule(self.rule.name, self.rule.options)

    def to_yaml(self) -> str:
        """Return the configuration as YAML; ``validate`` of what ``read_yaml`` reads is equal."""
        return dump_yaml(self.model_dump(mode="json"))

    def non_defaults(self) -> Tree:
        """Return the keys whose values differ from the schema's defaults.

        A key that a later version adds does not change the result.
        """
        return self.model_dump(mode="json", exclude_defaults=True)

    def digest(self) -> str:
        """Return a hash of what determines the trajectory.

        The budget, the device and the keys about recording are left out.
        """
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
        text = json.dumps(self.model_dump(mode="json", exclude=recorded), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def resolve(tree: Tree) -> RunConfig:
    """Return the complete configuration: defaults are filled in, and names and options are checked.

    A problem may have a recommended method. If the user names a rule or an optimizer, the recipe of
    the rule (``registry.RECIPES``) gives optimizer, learning rate, loss, update scheme and length
    instead. All options of problem and rule are written out.

    Raises:
        UsageError: an unknown key, name or option (with a suggestion), or a value out of range.
    """
    _check_keys(tree)
    tree = {key: value for key, value in tree.items() if key != "format"}
    for key in ("problem", "rule", "optimizer", "update_scheme", "data_dir"):
        if key in tree and tree[key] in (None, ""):
            raise UsageError(f"Configuration: {key} has no value. Give one, or leave the key out.")
    tree = {key: value for key, value in tree.items() if value is not None}
    problem_name, problem_options = _component(tree.get("problem", {}), "digits")
    known_problem: registry.ProblemEntry = registry.find("problem", registry.PROBLEMS, problem_name)
    tree = _with_recommended_method(known_problem.method, tree)
    rule_name, rule_options = _component(tree.get("rule", {}), "gradient")
    recipe: registry.Recipe = registry.find("rule", registry.RECIPES, rule_name)
    if "data_dir" in tree:
        if problem_name != "mnist":
            raise UsageError(
                f"Problem {problem_name} includes its data and takes no --data-dir. Did you mean"
                ' "mnist"?'
            )
        problem_options["data_dir"] = str(tree.pop("data_dir"))
    problem_options = {"loss": known_problem.loss or recipe.loss, **problem_options}
    problem = registry.build_problem(problem_name, problem_options)
    rule = registry.build_rule(rule_name, registry.completed(recipe.options, rule_options))
    if not BUDGETS & tree.keys():
        tree["steps"] = recipe.steps
    optimizer = _complete_optimizer(tree.get("optimizer", {}), recipe)
    known = registry.OPTIMIZERS.get(optimizer["name"])
    steps = tree["steps"] if isinstance(tree.get("steps"), int) else 0
    # rounded up, so that the last one is not just before the end
    every = -(-steps // 6) if steps else 1000

    device = str(tree.get("device", "auto"))
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(
            f'Unknown device "{device}".' + did_you_mean(device, ("auto", "cpu", "cuda"))
        )
    if device != "cpu":
        import torch

        if device == "cuda" and not torch.cuda.is_available():
            raise UsageError(
                "Device cuda: PyTorch finds no CUDA device on this machine. Use --device cpu or"
                " auto."
            )
        device = "cuda" if torch.cuda.is_available() else "cpu"

    config = validate(
        {
            "update_scheme": "simultaneous" if rule.needs_all_players else recipe.update_scheme,
            "lr_schedule": known.lr_schedule if known else "constant",
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
            "device": device,
        }
    )
    vars(config)["built_rule"] = rule  # what the cached property would build again

    if rule.needs_all_players and config.update_scheme == "alternating":
        raise UsageError(
            f"Rule {rule_name} needs all players in every step, so update_scheme cannot be"
            " alternating. Use update_scheme=simultaneous."
        )
    if config.best_by is not None:
        directed = [name for name, metric in problem.metric_names.items() if metric.better]
        known_metrics: list[str] = []
        for prefix in ("ema/", "", "average/"):
            known_metrics += [prefix + name for name in directed]
        if config.best_by not in known_metrics:
            raise UsageError(
                f'Configuration: cannot select the best checkpoint by best_by="{config.best_by}":'
                f" it is no metric of {problem.name} with a direction."
                + did_you_mean(config.best_by, known_metrics)
            )
    for player in config.optimizer.players:
        if player not in ("discriminator", "generator"):
            raise UsageError(
                f'optimizer.players: unknown player "{player}".'
                + did_you_mean(player, ("discriminator", "generator"))
            )
    _check_writable(config)
    return config


def _check_writable(config: RunConfig) -> None:
    """Refuse a configuration whose YAML file could not be read again to resume the run."""
    problem, characters = "", 0
    waiting: list[tuple[Any, int]] = [(config.model_dump(mode="json"), 0)]
    while waiting and not problem:
        value, depth = waiting.pop()
        characters += 1
        if depth > _MAX_DEPTH:
            problem = f"it is nested deeper than {_MAX_DEPTH} levels"
        elif isinstance(value, Mapping):
            if not all(isinstance(key, str) for key in value):
                problem = "a key is no text"
            waiting += [(inner, depth + 1) for pair in value.items() for inner in pair]
        elif isinstance(value, list | tuple):
            waiting += [(inner, depth + 1) for inner in value]
        elif isinstance(value, str):
            characters += len(value)
            if any("\ud800" <= character <= "\udfff" for character in value):
                problem = "a text holds half a character"
        elif isinstance(value, int) and len(str(value)) > _MAX_DIGITS + 2:
            problem = f"a whole number has more than {_MAX_DIGITS} digits"
        if characters > _MAX_CHARACTERS:
            problem = f"it has more than {_MAX_CHARACTERS:,} characters"
    if problem:
        raise UsageError(f"Configuration: its file could not be read again: {problem}.")
    if len(config.to_yaml().encode()) > MAX_YAML_BYTES:
        raise UsageError(
            f"Configuration: its file would be larger than {MAX_YAML_BYTES >> 10} KiB, the"
            " limit for a file that is read."
        )


def validate(tree: Tree) -> RunConfig:
    """Return a complete configuration as a RunConfig.

    Raises:
        UsageError: it names the first field that is wrong.
    """
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
    """Return the tree with values set at key paths; a name that gets options becomes a mapping.

    Shorter paths are set first, so that a name does not remove options that are given with it.

    >>> with_values({"rule": "acgd"}, {"rule.beta": 0.9, "batch_size": 32})
    {'rule': {'name': 'acgd', 'beta': 0.9}, 'batch_size': 32}
    >>> with_values({}, {"optimizer.lr": 0.5, "optimizer": "sgd"})
    {'optimizer': {'name': 'sgd', 'lr': 0.5}}
    """
    tree = json.loads(json.dumps(tree, default=str))
    for path, value in sorted(values.items(), key=lambda pair: pair[0].count(".")):
        *parents, last = path.split(".")
        if len(parents) > _MAX_KEY_PARTS:
            raise UsageError(
                f'The key "{path[:40]}…" has more than {_MAX_KEY_PARTS} points; no setting is'
                " nested so deeply."
            )
        branch = tree
        for key in parents:
            inner = branch.get(key)
            if isinstance(inner, str):
                inner = {"name": inner}
            if inner is not None and not isinstance(inner, Mapping):
                raise UsageError(
                    f'The key "{path}" is inside {key}, which is {inner!r} and has no keys. Give'
                    " one of the two."
                )
            branch[key] = dict(inner or {})
            branch = branch[key]
        branch[last] = renamed(branch.get(last), value) if isinstance(value, str) else value
    return tree


def renamed(component: Any, name: str) -> Any:
    """Return the component with this name; it keeps its options only if the name is the same."""
    keeps = isinstance(component, Mapping) and component.get("name", name) == name
    return {**component, "name": name} if keeps else name


def _component(value: Any, default: str) -> tuple[str, Tree]:
    """Return name and options of a problem or rule.

    It may be given as a name, as a mapping with a name, or as options of the default.
    """
    if isinstance(value, str):
        return value, {}
    name = value.get("name", default) if isinstance(value, Mapping) else None
    if not isinstance(name, str):
        raise UsageError(
            f"Configuration: expected a name, or a mapping with a name and options, not {value!r}."
        )
    return name, {key: inner for key, inner in value.items() if key != "name"}


def _with_recommended_method(method: Mapping[str, Any], tree: Tree) -> Tree:
    """Return the tree over a problem's method, unless it names a rule or an optimizer."""
    for part in ("rule", "optimizer"):
        given = tree.get(part, {})
        if not method or not isinstance(given, Mapping) or "name" in given:
            return tree
    defaults = {
        key: value
        for key, value in method.items()
        if key not in BUDGETS or not BUDGETS & tree.keys()
    }
    optimizer, own = dict(method["optimizer"]), dict(tree.get("optimizer", {}))
    if "lr" in own:  # the user's learning rate is for both players
        optimizer.pop("players", None)
    rule = registry.completed(method.get("rule", {}), tree.get("rule", {}))
    return {**defaults, **tree, "optimizer": registry.completed(optimizer, own), "rule": rule}


def _complete_optimizer(value: Any, recipe: registry.Recipe) -> Tree:
    if not isinstance(value, str | Mapping):
        raise UsageError(f"Configuration: optimizer must be a name or a mapping, not {value!r}.")
    chosen = {"name": value} if isinstance(value, str) else dict(value)
    name = chosen.setdefault("name", recipe.optimizer["name"])
    known = registry.OPTIMIZERS.get(name) if isinstance(name, str) else None
    if known is None:
        registry.optimizer_class(str(name))  # an import path, or an error with a suggestion
    defaults = dict(known.options) if known else {}
    if name == recipe.optimizer["name"]:
        defaults |= recipe.optimizer
    if "lr" in chosen:  # the user's learning rate is for both players
        defaults.pop("players", None)
    return registry.completed(defaults, chosen)


def _check_keys(tree: Tree) -> None:
    """Refuse unknown keys, another format, and a data directory that YAML cannot hold."""
    known = [*RunConfig.model_fields, "data_dir"]
    for key in tree:
        if key in known or (key == "format" and tree[key] == FORMAT):
            continue
        if key == "format":
            raise UsageError(
                f"Configuration: it has format {tree[key]!r}; this version reads format {FORMAT}."
            )
        # the option may belong to a component
        classes: dict[str, Mapping[str, Any]] = {
            "problem": registry.PROBLEMS,
            "rule": registry.RULES,
        }
        options = {
            "problem": ["digits"],
            "rule": ["gradient"],
            "optimizer": ["lr", "players", "betas", "momentum", "weight_decay", "eps"],
            "model": list(ModelConfig.model_fields),
        }
        for part, table in classes.items():
            value = tree.get(part)
            name = value.get("name") if isinstance(value, Mapping) else value
            entry = table.get(str(name or options[part][0]))
            options[part] = [f.name for f in fields(registry.load(entry.path))] if entry else []
        meant = [f'"{part}.{key}"' for part, names in options.items() if key in names]
        hint = f" Did you mean {' or '.join(meant)}?" if meant else did_you_mean(str(key), known)
        raise UsageError(f'Configuration: unknown key "{key}".{hint}')
    try:
        str(tree.get("data_dir", "")).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"The data directory {str(tree['data_dir'])!a} has bytes in its name that are no UTF-8"
            " text, which a configuration cannot hold. Rename it, or give a symbolic link to it."
        ) from error
