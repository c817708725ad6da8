"""Whether a saved state of a game optimizer belongs to this one: everything is compared before anything is replaced."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from saddlepoint.errors import UsageError
from saddlepoint.rules import Rule

_KEYS = (
    "rule",
    "rule_options",
    "rule_state",
    "parameters",
    "classes",
    "optimizers",
    "cost",
    "unconverged",
)


def class_of(optimizer: Optimizer) -> str:
    """Return the class of an optimizer with the package that it comes from, such as "torch.Adam"."""
    kind = type(optimizer)
    return f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"


def kinds_of(rule: Rule) -> tuple[Any, ...]:
    """Return the class of a rule and of those inside it: what decides which memory is whose."""
    inside: list[Any] = (
        [getattr(rule, field.name) for field in fields(rule)] if is_dataclass(rule) else []
    )
    return (type(rule), *(kinds_of(inner) for inner in inside if isinstance(inner, Rule)))


def options_of(rule: Rule) -> dict[str, Any]:
    """Return option → value of a rule and, under dotted names, of the rules and preconditioners inside it; plain values.

    >>> from saddlepoint.rules import Lookahead
    >>> options_of(Lookahead(k=6))
    {'rule': 'Gradient', 'k': 6, 'alpha': 0.5}
    """
    return _options(rule, "")


def _options(described: Any, prefix: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for field in fields(described) if is_dataclass(described) else ():
        name, value = prefix + field.name, getattr(described, field.name)
        if is_dataclass(value):
            options[name] = type(value).__name__
            options |= _options(value, f"{name}.")
        elif isinstance(value, list | tuple):
            options[name] = list(value)
        else:
            options[name] = (
                value if isinstance(value, str | int | float | None) else _described(value)
            )
    return options


def _described(value: object) -> str:
    """Return what a value is, the same in every process: functions by name, objects without their address."""
    return getattr(value, "__qualname__", None) or re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def check_state(state: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Raise UsageError, naming the first difference, unless a state is one of the optimizer whose present state is ``own``."""
    try:
        _compare(state, own)
    except UsageError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UsageError(
            f"The state is damaged: reading it ends in {type(error).__name__}: {error}. Nothing was"
            " loaded."
        ) from error


def _compare(state: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    for key in _KEYS:
        if key not in state:
            raise UsageError(
                f'The state lacks "{key}": it was not made by GameOptimizer.state_dict() of this'
                " version. Nothing was loaded."
            )
    if state["rule"] != own["rule"]:
        raise _different(
            f"The state belongs to the rule {state['rule']}, this optimizer has {own['rule']}."
        )
    for name in own["rule_options"]:
        theirs, ours = state["rule_options"].get(name), own["rule_options"][name]
        if theirs != ours:
            raise _different(
                f"The state belongs to {own['rule']} with {name}={theirs!r}, this optimizer has"
                f" {name}={ours!r}."
            )
    if set(state["parameters"]) != set(own["parameters"]):
        raise _different(
            f"The state has the players {sorted(state['parameters'])}, this optimizer"
            f" {sorted(own['parameters'])}."
        )
    for player, parameters in own["parameters"].items():
        theirs, ours = state["classes"].get(player), own["classes"][player]
        if theirs != ours:
            raise _different(
                f'Player "{player}": the state belongs to {theirs}, this optimizer has {ours}.'
            )
        _check_parameters(player, state["parameters"][player], parameters)
        _check_groups(player, state["optimizers"][player], own["optimizers"][player])
    _check_memory(state["rule_state"], own["parameters"])
    if set(state["cost"]) != set(own["cost"]) or not isinstance(state["unconverged"], int):
        raise _different("The state's counters are not those of this version.")


def _different(difference: str) -> UsageError:
    return UsageError(
        f"{difference} Nothing was loaded. Build the optimizer as it was when the state was saved,"
        " or start without the state."
    )


def _check_parameters(player: str, theirs: list[list[Any]], ours: list[list[Any]]) -> None:
    if len(theirs) != len(ours):
        raise _different(
            f'Player "{player}": the state has {len(theirs)} parameters, this optimizer'
            f" {len(ours)}."
        )
    known = {name: (shape, dtype) for name, shape, dtype in theirs}
    for place, (name, own_shape, own_dtype) in enumerate(ours):
        where = f'Player "{player}", parameter {name}'
        if name not in known:
            raise _different(
                f"{where}: the state has none of this name, but {theirs[place][0]} in its place."
            )
        shape, dtype = known[name]
        if list(shape) != own_shape:
            raise _different(
                f"{where}: its shape is {tuple(shape)} in the state, {tuple(own_shape)} here."
            )
        if dtype != own_dtype:
            raise _different(f"{where}: its dtype is {dtype} in the state, {own_dtype} here.")


def _check_groups(player: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    sizes = [len(group["params"]) for group in theirs["param_groups"]]
    own_sizes = [len(group["params"]) for group in ours["param_groups"]]
    if sizes != own_sizes:
        raise _different(
            f'Player "{player}": the state has parameter groups of {sizes} parameters, this'
            f" optimizer of {own_sizes}."
        )
    for number, (group, own) in enumerate(
        zip(theirs["param_groups"], ours["param_groups"], strict=True)
    ):
        if set(group.get("param_names", ())) != set(own.get("param_names", ())):
            raise _different(
                f'Player "{player}": group {number} of the state has other parameters than that of'
                " this optimizer."
            )


def in_order(saved: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """Return an inner optimizer's state with each group's parameters in the order of this optimizer's names; torch goes by position.

    The optimizers of ``saddlepoint.optim`` sort their states themselves, and sign them.
    """
    groups = []
    for theirs, ours in zip(saved["param_groups"], optimizer.param_groups, strict=True):
        names, own = theirs.get("param_names"), ours.get("param_names")
        if (
            names
            and own
            and names != own
            and len(set(own)) == len(own)
            and "saved_by" not in theirs
        ):
            params = dict(zip(names, theirs["params"], strict=True))
            theirs = {**theirs, "params": [params[name] for name in own], "param_names": list(own)}
        groups.append(theirs)
    return {**saved, "param_groups": groups}


def _check_memory(rule_state: Mapping[str, Any], parameters: Mapping[str, list[list[Any]]]) -> None:
    shapes = {player: {name: shape for name, shape, _ in own} for player, own in parameters.items()}
    for player, own in rule_state["parameters"].items():
        for name, entry in own.items():
            if name not in shapes.get(player, {}):
                raise _different(
                    f'The rule remembers parameter {name} of player "{player}", which this'
                    " optimizer lacks."
                )
            for what, value in entry.items():
                if isinstance(value, Tensor) and list(value.shape) != shapes[player][name]:
                    raise _different(
                        f'Player "{player}", parameter {name}: what the rule remembers as "{what}"'
                        " has another shape."
                    )
    for child in rule_state["children"].values():
        _check_memory(child, parameters)
