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
from saddlepoint.registry.recipes import RECIPES
from saddlepoint.registry.rules import RULES

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from saddlepoint.problems import GanProblem
    from saddlepoint.rules import Rule

# beyond the memory of any machine; products of such sizes still fit PyTorch's 64-bit integers
_MAX_INTEGER = 1 << 31


def find(kind: str, table: Mapping[str, Any], name: str) -> Any:
    """Return the entry called ``name``.

    Raises:
        UsageError: there is none; the nearest name is suggested.
    """
    if name not in table:
        raise UsageError(f'Unknown {kind} "{name}".' + did_you_mean(name, table))
    return table[name]


def build_problem(name: str, options: Mapping[str, Any]) -> GanProblem:
    """Return the problem called ``name``.

    Raises:
        UsageError: an unknown name or option, or a value that is not valid.
    """
    path = find("problem", PROBLEMS, name).path
    problem: GanProblem = _construct(f"Problem {name}", load(path), options)
    return problem


def build_rule(name: str, options: Mapping[str, Any]) -> Rule:
    """Return the rule called ``name``.

    Raises:
        UsageError: an unknown name or option, or a value that is not valid.
    """
    path = find("rule", RULES, name).path
    rule: Rule = _construct(f"Rule {name}", load(path), options)
    return rule


def build_recipe_rule(name: str) -> Rule:
    """Return the rule called ``name`` with the options of its recipe."""
    return build_rule(name, find("rule", RECIPES, name).options)


def optimizer_class(name: str) -> type[Optimizer]:
    """Return the class of a registered name, or of a path such as ``pytorch_optimizer:SOAP``.

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
    """Return the optimizer called ``name`` over named parameters.

    Options are checked against the signature of its class: numbers must be finite, and booleans and
    numbers are not accepted for each other.

    Raises:
        UsageError: an unknown name or option, or a value that is not valid.
    """
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
        invalid = f"Optimizer {name}: {option}={value!r} is not valid: "
        parameter = signature.get(option)  # None for one of the further keywords
        _check_finite(invalid, value, None if parameter is None else parameter.default)
        if parameter is None:
            continue
        unannotated = parameter.annotation is inspect.Parameter.empty
        takes_flag = (
            isinstance(parameter.default, bool)
            or "bool" in str(parameter.annotation)
            or (unannotated and parameter.default in (None, inspect.Parameter.empty))
        )
        if _holds_flag(value) and not takes_flag:
            raise UsageError(f"{invalid}{BOOL_AS_NUMBER}.")
        flags = (bool, bool | None, "bool", "bool | None", "Optional[bool]")
        takes_only_flag = (
            isinstance(parameter.default, bool) if unannotated else parameter.annotation in flags
        )
        optional = parameter.default is None
        if takes_only_flag and not (isinstance(value, bool) or (value is None and optional)):
            raise UsageError(f"{invalid}it must be true or false{', or null' if optional else ''}.")
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
            else "cannot be constructed from a list of parameters"
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


def _check_finite(invalid: str, value: Any, default: Any) -> None:
    """Refuse a value that is not finite, or contains such a number, unless the default does too."""
    if not _is_finite(value) and _is_finite(default):
        raise UsageError(f"{invalid}it must be finite.")


def _is_finite(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_finite(inner) for inner in value.values())
    if isinstance(value, list | tuple):
        return all(_is_finite(inner) for inner in value)
    return not isinstance(value, float) or math.isfinite(value)


def _holds_flag(value: Any) -> bool:
    """Return whether a value, or one in a list or component, is a boolean."""
    if isinstance(value, Mapping):
        return "name" in value and any(_holds_flag(inner) for inner in value.values())
    if isinstance(value, list | tuple):
        return any(_holds_flag(inner) for inner in value)
    return isinstance(value, bool)


def load(path: str) -> Any:
    """Return the object at ``package.module:name``."""
    module, _, name = path.partition(":")
    try:
        return getattr(import_trusted(module), name)
    # importing a module may raise anything
    except (Exception, SystemExit) as error:
        raise UsageError(
            f'Cannot load "{path}": {error}. Expected package.module:name of an installed package.'
        ) from error


def options_of(component: Any) -> dict[str, Any]:
    """Return every option of a problem or rule with its value, in plain containers.

    A rule inside a rule becomes its name with its options. An option that a later version added is
    left out if it has its default, so that existing keys stay the same.
    """
    found = {}
    for option in fields(component):
        value = getattr(component, option.name)
        if not (option.metadata.get("omit_default") and value == option.default):
            found[option.name] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    """Return the value of an option in plain containers, the inverse of ``_option``."""
    if hasattr(value, "direction"):
        path = f"saddlepoint.rules:{type(value).__name__}"
        name = next((name for name, entry in RULES.items() if entry.path == path), None)
        if name is None:
            raise UsageError(
                f"The rule {type(value).__name__} has no name in the registry, so it cannot be"
                " written into a configuration."
            )
        return {"name": name, **options_of(value)}
    if isinstance(value, tuple):  # YAML has lists only
        return list(value)
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def completed(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults ``ours`` updated with ``theirs``.

    If an option is a component (a name with options), its options are updated, too, unless it gets
    another name. A name alone is the same as a mapping with only the name.

    >>> default = {"preconditioner": {"name": "kronecker", "beta": 0.9}}
    >>> completed(default, {"preconditioner": {"beta": 0.5}})
    {'preconditioner': {'name': 'kronecker', 'beta': 0.5}}
    >>> completed(default, {"preconditioner": {"name": "rms"}})
    {'preconditioner': {'name': 'rms'}}
    >>> completed(default, {"preconditioner": "kronecker"})
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


def _construct(what: str, cls: Any, options: Mapping[str, Any]) -> Any:
    """Return an instance of a dataclass with checked options; ``what`` names it in messages."""
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
    """Return the checked value of an option; a component is completed with the option's default."""
    factory = option.default_factory
    default = _plain(option.default if factory is MISSING else factory())
    is_rule = isinstance(hint, type) and hasattr(hint, "direction")
    kinds = {
        kind.name: kind for kind in get_args(hint) if is_dataclass(kind) and hasattr(kind, "name")
    }
    is_component = isinstance(value, str | Mapping)
    if (is_rule or kinds) and is_component:
        ours = {option.name: default} if isinstance(default, Mapping) else {}
        value = completed(ours, {option.name: value})[option.name]
    own = {"name": value} if isinstance(value, str) else value

    if is_rule:
        if not isinstance(own, Mapping) or not isinstance(own.get("name"), str):
            raise UsageError(
                f"A rule inside a rule is a name, or a mapping with a name and options, not"
                f" {value!r}."
            )
        return build_rule(own["name"], {key: inner for key, inner in own.items() if key != "name"})

    if kinds and is_component:
        if "name" not in own:
            raise UsageError(
                f"{what}: {option.name}={value!r} has no name. Add the name: {' or '.join(kinds)}."
            )
        if not isinstance(own["name"], str) or own["name"] not in kinds:
            raise UsageError(
                f'{what}: {option.name} "{own["name"]}" is unknown.'
                + did_you_mean(str(own["name"]), kinds)
            )
        return _construct(f"{what}, {option.name} {own['name']}", kinds[own["name"]], own)

    invalid = f"{what}: {option.name}={value!r} is not valid: "
    try:
        found = TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        raise UsageError(f"{invalid}{error.errors()[0]['msg']}.") from error
    if find_bool_as_number(value, found) is not None:
        raise UsageError(f"{invalid}{BOOL_AS_NUMBER}.")
    _check_finite(invalid, found, default)
    if isinstance(found, int) and abs(found) > _MAX_INTEGER:
        raise UsageError(f"{invalid}no size or count may exceed {_MAX_INTEGER:,}.")
    return found
