"""Comparison of a saved state of a game optimizer with the optimizer that is to load it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from saddlepoint.errors import UsageError
from saddlepoint.optim.state_dict import group_difference
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


def optimizer_class(optimizer: Optimizer) -> str:
    """Return the class of an optimizer and its top-level package, such as "torch.Adam"."""
    kind = type(optimizer)
    return f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"


def rule_classes(rule: Rule) -> tuple[Any, ...]:
    """Return the class of a rule and of the rules inside it, which decide whose state is whose."""
    classes: list[Any] = [type(rule)]
    if is_dataclass(rule):
        for field in fields(rule):
            inner = getattr(rule, field.name)
            if isinstance(inner, Rule):
                classes.append(rule_classes(inner))
    return tuple(classes)


def rule_options(rule: object, prefix: str = "") -> dict[str, Any]:
    """Return option → value of a rule, and of the rules and preconditioners inside it.

    Names of inner options are prefixed with that of the outer one and a dot. Values are plain.

    >>> from saddlepoint.rules import Lookahead
    >>> rule_options(Lookahead(k=6))
    {'rule': 'GradientDescent', 'k': 6, 'alpha': 0.5}
    """
    options: dict[str, Any] = {}
    for field in fields(rule) if is_dataclass(rule) else ():
        name, value = prefix + field.name, getattr(rule, field.name)
        if is_dataclass(value):
            options[name] = type(value).__name__
            options |= rule_options(value, f"{name}.")
        elif isinstance(value, list | tuple):
            options[name] = list(value)
        elif isinstance(value, str | int | float | None):
            options[name] = value
        else:
            # the same in every process: functions by name, other objects without their address
            address = r" at 0x[0-9a-f]+"
            options[name] = getattr(value, "__qualname__", None) or re.sub(address, "", repr(value))
    return options


def check_state(state: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Raise UsageError, naming the first difference, unless the state belongs to the optimizer.

    Args:
        state: the state to be loaded.
        own: the present state of the optimizer that is to load it.
    """
    try:
        _compare(state, own)
    except UsageError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UsageError(
            f"The state is corrupt: reading it raised {type(error).__name__}: {error}. Nothing was"
            " loaded."
        ) from error


def _compare(state: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    for key in _KEYS:
        if key not in state:
            raise UsageError(
                f'The state lacks "{key}": it was not saved by GameOptimizer.state_dict() of this'
                " version. Nothing was loaded."
            )

    if state["rule"] != own["rule"]:
        raise _mismatch(
            f"The state belongs to the rule {state['rule']}, this optimizer has {own['rule']}."
        )
    for name, value in own["rule_options"].items():
        saved_value = state["rule_options"].get(name)
        if saved_value != value:
            raise _mismatch(
                f"The state belongs to {own['rule']} with {name}={saved_value!r}, this optimizer"
                f" has {name}={value!r}."
            )
    if set(state["parameters"]) != set(own["parameters"]):
        raise _mismatch(
            f"The state has the players {sorted(state['parameters'])}, this optimizer"
            f" {sorted(own['parameters'])}."
        )

    for player, parameters in own["parameters"].items():
        saved_class, own_class = state["classes"].get(player), own["classes"][player]
        if saved_class != own_class:
            raise _mismatch(
                f'Player "{player}": the state belongs to {saved_class}, this optimizer has'
                f" {own_class}."
            )
        _compare_parameters(player, state["parameters"][player], parameters)
        difference = group_difference(
            state["optimizers"][player]["param_groups"], own["optimizers"][player]["param_groups"]
        )
        if difference is not None:
            raise _mismatch(f'Player "{player}": {difference}.')

    _check_rule_state(state["rule_state"], own["parameters"])
    if set(state["cost"]) != set(own["cost"]) or not isinstance(state["unconverged"], int):
        raise _mismatch("The counters of the state are not those of this version.")


def _compare_parameters(player: str, saved: list[list[Any]], own: list[list[Any]]) -> None:
    if len(saved) != len(own):
        raise _mismatch(
            f'Player "{player}": the state has {len(saved)} parameters, this optimizer {len(own)}.'
        )
    known = {name: (shape, dtype) for name, shape, dtype in saved}
    for index, (name, own_shape, own_dtype) in enumerate(own):
        where = f'Player "{player}", parameter {name}'
        if name not in known:
            raise _mismatch(
                f"{where}: the state has no parameter of this name, but {saved[index][0]} in its"
                " place."
            )
        shape, dtype = known[name]
        if list(shape) != own_shape:
            raise _mismatch(
                f"{where}: its shape is {tuple(shape)} in the state, {tuple(own_shape)} here."
            )
        if dtype != own_dtype:
            raise _mismatch(f"{where}: its dtype is {dtype} in the state, {own_dtype} here.")


def _check_rule_state(
    rule_state: Mapping[str, Any], parameters: Mapping[str, list[list[Any]]]
) -> None:
    for player, own in rule_state["parameters"].items():
        shapes = {name: shape for name, shape, _ in parameters.get(player, ())}
        for name, entry in own.items():
            if name not in shapes:
                raise _mismatch(
                    f'The rule state contains parameter {name} of player "{player}", which this'
                    " optimizer lacks."
                )
            for key, value in entry.items():
                if isinstance(value, Tensor) and list(value.shape) != shapes[name]:
                    raise _mismatch(
                        f'Player "{player}", parameter {name}: "{key}" in the rule state has'
                        " another shape."
                    )
    for child in rule_state["children"].values():
        _check_rule_state(child, parameters)


def _mismatch(difference: str) -> UsageError:
    return UsageError(
        f"{difference} Nothing was loaded. Build the optimizer as it was when the state was saved,"
        " or start without the state."
    )
