"""Building problems, rules and optimizers from names and options."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, asdict, fields, is_dataclass
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from saddlepoint.errors import UsageError, did_you_mean
from saddlepoint.io.imports import check_trusted, import_trusted
from saddlepoint.io.schemas import BOOL_AS_NUMBER, find_bool_as_number
from saddlepoint.registry.names import OPTIMIZERS, PROBLEMS
from saddlepoint.registry.rules import RULES

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from saddlepoint.problems import GanProblem
    from saddlepoint.rules import Rule

# far beyond what a machine holds; it keeps products of sizes within what PyTorch counts with
_LARGEST = 1 << 31


def find(kind: str, table: Mapping[str, Any], name: str) -> Any:
    """Return the entry called ``name``; a UsageError suggests the nearest name."""
    if name not in table:
        raise UsageError(f'Unknown {kind} "{name}".' + did_you_mean(name, table))
    return table[name]


def build_problem(name: str, options: Mapping[str, Any]) -> GanProblem:
    """Return the problem called ``name``; options are checked against its fields."""
    problem: GanProblem = _build_dataclass(
        "problem", name, find("problem", PROBLEMS, name).path, options
    )
    return problem


def build_rule(name: str, options: Mapping[str, Any]) -> Rule:
    """Return the rule called ``name``; options are checked against its fields."""
    rule: Rule = _build_dataclass("rule", name, find("rule", RULES, name).path, options)
    return rule


def optimizer_class(name: str) -> type[Optimizer]:
    """Return the optimizer class of a registered name or of an import path such as ``pytorch_optimizer:SOAP``; nothing is called.

    Raises:
        UsageError: no such name or class, one that is no torch optimizer, or a module that
            ``check_trusted`` refuses.
    """
    from torch.optim import Optimizer

    if ":" in name:
        check_trusted(name)
    found = load(name if ":" in name else find("optimizer", OPTIMIZERS, name).path)
    if not (isinstance(found, type) and issubclass(found, Optimizer)):
        raise UsageError(f'Optimizer "{name}" is not a subclass of torch.optim.Optimizer.')
    return found


def build_optimizer(
    name: str, parameters: Iterable[tuple[str, Tensor]], options: Mapping[str, Any]
) -> Optimizer:
    """Return the optimizer called ``name`` over named parameters; options are checked against its signature."""
    kind = optimizer_class(name)
    signature = inspect.signature(kind).parameters
    known = [
        p for p in list(signature)[1:] if signature[p].kind is not inspect.Parameter.VAR_KEYWORD
    ]
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.values())
    for option in options:
        if option not in known and not open_ended:
            raise UsageError(
                f'Optimizer {name} has no option "{option}".' + did_you_mean(option, known)
            )
    for option, value in options.items():
        _check_option(
            f"Optimizer {name}: {option}={value!r} is not valid: ", value, signature.get(option)
        )
    named = (
        list(parameters)
        if kind.__module__.startswith(("torch.", "saddlepoint."))
        else [tensor for _, tensor in parameters]
    )
    try:
        optimizer = kind(named, **options)
    except Exception as error:  # an optimizer's own errors may be of any kind
        what = (
            f"refuses its options {dict(options)}"
            if options
            else "cannot be made of a list of parameters"
        )
        raise UsageError(f"Optimizer {name} {what}: {error}") from error
    for option in options:
        if (
            option not in known
            and option not in optimizer.defaults
            and not hasattr(optimizer, option)
        ):
            raise UsageError(
                f'Optimizer {name} ignores the option "{option}".' + did_you_mean(option, known)
            )
    return optimizer


def _check_option(said: str, value: Any, option: inspect.Parameter | None) -> None:
    """Refuse numbers that are not finite, and truth values and numbers that are taken for each other.

    Args:
        said: how the refusal begins.
        value: of the option.
        option: the parameter of the optimizer's constructor; None where it is one of further
            keywords.
    """
    _check_finite(said, value, None if option is None else option.default)
    if option is None:
        return
    if _holds_flag(value) and not _takes_flag(option):
        raise UsageError(f"{said}{BOOL_AS_NUMBER}.")
    if _is_flag(option) and not (
        isinstance(value, bool) or (value is None and option.default is None)
    ):
        raise UsageError(
            f"{said}it must be true or false{', or null' if option.default is None else ''}."
        )


def _check_finite(said: str, value: Any, default: Any) -> None:
    """Refuse a value that is not finite, or has such a number in it, unless the option's default has one too."""
    if not _is_finite(value) and _is_finite(default):
        raise UsageError(f"{said}it must be finite.")


def _is_finite(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_finite(inner) for inner in value.values())
    if isinstance(value, list | tuple):
        return all(_is_finite(inner) for inner in value)
    return not isinstance(value, float) or math.isfinite(value)


def _holds_flag(value: Any) -> bool:
    """Say whether a value, or one in it where it is a list or a component, is a truth value."""
    if isinstance(value, Mapping):
        return "name" in value and any(_holds_flag(inner) for inner in value.values())
    if isinstance(value, list | tuple):
        return any(_holds_flag(inner) for inner in value)
    return isinstance(value, bool)


def _takes_flag(option: inspect.Parameter) -> bool:
    """Say whether an option of an optimizer may be a truth value, by its default or else its annotation."""
    unknown = option.annotation is inspect.Parameter.empty and option.default in (
        None,
        inspect.Parameter.empty,
    )
    return unknown or isinstance(option.default, bool) or "bool" in str(option.annotation)


def _is_flag(option: inspect.Parameter) -> bool:
    """Say whether an option of an optimizer is a truth value, or None, and nothing else."""
    if option.annotation is inspect.Parameter.empty:
        return isinstance(option.default, bool)
    return option.annotation in (bool, bool | None, "bool", "bool | None", "Optional[bool]")


def load(path: str) -> Any:
    """Return the object at ``package.module:name``."""
    module, _, name = path.partition(":")
    try:
        return getattr(import_trusted(module), name)
    # what a module raises when it is imported may be of any kind
    except (Exception, SystemExit) as error:
        raise UsageError(
            f'Cannot load "{path}": {error}. Expected package.module:name of an installed package.'
        ) from error


def options_of(component: Any) -> dict[str, Any]:
    """Return every option of a problem or rule with its value, in plain containers; rules within rules by their names.

    An option that came in a later version is left out where it has its default: what was made
    before, and its keys, stay what they were.
    """
    found = {}
    for option in fields(component):
        value = getattr(component, option.name)
        if not (option.metadata.get("omit_default") and value == option.default):
            found[option.name] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    if hasattr(value, "direction"):
        return _named(value)
    if isinstance(value, tuple):  # YAML has lists only
        return list(value)
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _named(rule: Any) -> dict[str, Any]:
    """Return a rule as a name with options, the inverse of ``build_rule``."""
    path = f"saddlepoint.rules:{type(rule).__name__}"
    name = next((name for name, entry in RULES.items() if entry.path == path), None)
    if name is None:
        raise UsageError(
            f"The rule {type(rule).__name__} has no name in the registry, so it cannot be written"
            " into a configuration."
        )
    return {"name": name, **options_of(rule)}


def completed(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Return options over those that hold without them.

    An option that is a component itself, a name with options, stays that component unless it is
    given another name. A name alone is the same as a mapping with the name only.

    >>> completed({"preconditioner": {"name": "kronecker", "beta": 0.9}}, {"preconditioner": {"beta": 0.5}})
    {'preconditioner': {'name': 'kronecker', 'beta': 0.5}}
    >>> completed({"preconditioner": {"name": "kronecker", "beta": 0.9}}, {"preconditioner": {"name": "rms"}})
    {'preconditioner': {'name': 'rms'}}
    >>> completed({"preconditioner": {"name": "kronecker", "beta": 0.9}}, {"preconditioner": "kronecker"})
    {'preconditioner': {'name': 'kronecker', 'beta': 0.9}}
    """
    found = dict(ours)
    for key, value in theirs.items():
        before = found.get(key)
        if isinstance(before, str) and isinstance(value, Mapping):
            before = {"name": before}
        if isinstance(before, Mapping) and "name" in before and isinstance(value, str):
            value = {"name": value}
        found[key] = value
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            name = before.get("name")
            found[key] = completed(before, value) if value.get("name", name) == name else value
    return found


def _build_dataclass(kind: str, name: str, path: str, options: Mapping[str, Any]) -> Any:
    return _constructed(f"{kind.capitalize()} {name}", load(path), options)


def _constructed(what: str, cls: Any, options: Mapping[str, Any]) -> Any:
    known = {f.name: f for f in fields(cls) if f.init}
    hints = get_type_hints(cls)
    values = {}
    for option, value in options.items():
        if option not in known:
            raise UsageError(f'{what} has no option "{option}".' + did_you_mean(str(option), known))
        values[option] = _option(what, known[option], hints[option], value)
    missing = [
        name
        for name, f in known.items()
        if name not in values and f.default is MISSING and f.default_factory is MISSING
    ]
    if missing:
        raise UsageError(f"{what} needs a value for {', '.join(missing)}.")
    return cls(**values)


def _option(what: str, option: Field[Any], hint: Any, value: Any) -> Any:
    """Return the value of an option, checked; of one that is a component, what is left out of it is as in the option's default."""
    default = _plain(
        option.default_factory() if option.default_factory is not MISSING else option.default
    )
    kinds = {
        kind.name: kind for kind in get_args(hint) if is_dataclass(kind) and hasattr(kind, "name")
    }
    if (_is_rule(hint) or kinds) and isinstance(value, str | Mapping):
        ours = {option.name: default} if isinstance(default, Mapping) else {}
        value = completed(ours, {option.name: value})[option.name]
    if _is_rule(hint):
        return _inner_rule(value)
    if kinds and isinstance(value, str | Mapping):
        own = {"name": value} if isinstance(value, str) else value
        if "name" not in own:
            raise UsageError(
                f"{what}: {option.name}={value!r} does not say which one it is. Give its name too:"
                f" {' or '.join(kinds)}."
            )
        if not isinstance(own["name"], str) or own["name"] not in kinds:
            raise UsageError(
                f'{what}: {option.name} "{own["name"]}" is unknown.'
                + did_you_mean(str(own["name"]), kinds)
            )
        return _constructed(f"{what}, {option.name} {own['name']}", kinds[own["name"]], own)
    return _converted(what, option.name, value, hint, default)


def _is_rule(hint: Any) -> bool:
    return isinstance(hint, type) and hasattr(hint, "direction")


def _inner_rule(value: Any) -> Rule:
    """Build a rule within a rule from its name, or from a name with options."""
    if isinstance(value, str):
        return build_rule(value, {})
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise UsageError(
            f"A rule within a rule is a name, or a mapping with a name and options, not {value!r}."
        )
    return build_rule(value["name"], {key: inner for key, inner in value.items() if key != "name"})


def _converted(what: str, option: str, value: Any, hint: Any, default: Any) -> Any:
    try:
        found = TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        raise UsageError(
            f"{what}: {option}={value!r} is not valid: {error.errors()[0]['msg']}."
        ) from error
    if find_bool_as_number(value, found) is not None:
        raise UsageError(f"{what}: {option}={value!r} is not valid: {BOOL_AS_NUMBER}.")
    _check_finite(f"{what}: {option}={value!r} is not valid: ", found, default)
    if isinstance(found, int) and abs(found) > _LARGEST:
        raise UsageError(
            f"{what}: {option}={value!r} is not valid: no size or count is above {_LARGEST:,}."
        )
    return found
