"""Methods by name: which rule and optimizer a name stands for, and the space in which its hyperparameters are searched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saddlepoint import registry
from saddlepoint.compare.study import RATIO, Family, MethodPlan, Range, Space
from saddlepoint.errors import UsageError, did_you_mean
from saddlepoint.training.config import Component, Tree

_SUBGRADIENTS = {"sign", "signum", "normalized", "grafted", "subgradient"}
_CURVED = {"soap", "pytorch_optimizer:SOAP"}


def _log(low: float, high: float) -> Range:
    return Range(log=(low, high))


def _any_of(*choices: Any) -> Range:
    return Range(choices=choices)


_RATIO: Space = {RATIO: _any_of(0.25, 0.5, 1.0, 2.0)}
_BETAS: Space = {"optimizer.betas": _any_of([0.0, 0.999], [0.5, 0.999], [0.9, 0.999])}


def _rate(low: float, high: float) -> Space:
    return {"optimizer.lr": _log(low, high), **_RATIO}


OPTIMIZER_SPACES: Mapping[str, Space] = {
    "adam": _rate(3e-4, 1e-2) | _BETAS,
    "adamw": _rate(3e-4, 1e-2) | _BETAS,
    "rmsprop": _rate(1e-4, 1e-2),
    "sgd": _rate(1e-3, 1.0),
    "momentum-sgd": _rate(1e-3, 1.0) | {"optimizer.momentum": _any_of(-0.1, -0.3, -0.5)},
    "sign": _rate(1e-4, 1e-2),
    "signum": _rate(1e-4, 1e-2) | {"optimizer.momentum": _any_of(0.5, 0.9)},
    "normalized": _rate(1e-2, 1.0),
    "grafted": _rate(3e-4, 1e-2),
    "subgradient": _rate(0.1, 10.0),
    "random-coordinate": _rate(1e-2, 1.0),
    **dict.fromkeys(
        _CURVED,
        _rate(1e-3, 3e-2) | {"optimizer.betas": _any_of([0.0, 0.95], [0.5, 0.95], [0.95, 0.95])},
    ),
}
"""optimizer → its space, for rules in units of gradients."""

_DAMPING: Space = {"rule.damping": _log(1e-2, 10.0)}

RULE_SPACES: Mapping[str, Space] = {
    "lookahead": {"rule.k": _any_of(5, 10, 50)},
    "consensus": {"rule.gamma": _log(1e-2, 10.0)},
    "jare": {"rule.gamma": _log(1e-2, 100.0)},
    "sga": {"rule.strength": _log(1e-2, 1.0)},
    "lola": {"rule.alpha": _log(1e-2, 1.0)},
    "sos": {"rule.alpha": _log(1e-2, 1.0)},
    "unrolled": {"rule.rate": _log(1e-2, 1.0)},
    "total-gradient": _DAMPING,
    # rules in units of steps: the rate is that of the rule, whatever the optimizer's range would be
    "cgd": _rate(1e-3, 0.3),
    "lcgd": _rate(1e-3, 0.3),
    "proximal-point": _rate(1e-3, 0.3),
    "kronecker-cgd": _rate(5e-4, 3e-2),
    "acgd": _rate(5e-4, 3e-2) | {"rule.beta": _any_of(0.9, 0.99, 0.999)},
    "newton": _rate(0.3, 10.0),
    "follow-the-ridge": _rate(1e-3, 1.0) | _DAMPING,
    "gradient-newton": _rate(1e-3, 1.0) | _DAMPING,
    "complete-newton": _rate(1e-3, 1.0) | _DAMPING,
}
"""rule → what is searched beside, or instead of, the optimizer's space."""

_ANY_OPTIMIZER = _rate(1e-4, 1e-1)


def method_called(name: str) -> MethodPlan:
    """Return the method that a name stands for: ``rule+optimizer``, a rule with its natural optimizer, or an optimizer under ``gradient``.

    Raises:
        UsageError: no such rule or optimizer, with a suggestion.

    >>> plan = method_called("extragradient+adam")
    >>> plan.rule.name, plan.optimizer.name, plan.family
    ('extragradient', 'adam', 'first-order')
    >>> method_called("sign").rule.name, method_called("acgd").optimizer
    ('gradient', None)
    """
    rule, plus, optimizer = name.partition("+")
    rule, optimizer = rule.strip(), optimizer.strip()
    if not plus and rule not in registry.RULES:
        rule, optimizer = "gradient", rule
    known = [*registry.OPTIMIZERS] if plus else [*registry.RULES, *registry.OPTIMIZERS]
    if rule not in registry.RULES:
        raise UsageError(
            f'Unknown method "{name}": "{rule}" is no rule.' + did_you_mean(rule, registry.RULES)
        )
    if optimizer and ":" not in optimizer and optimizer not in registry.OPTIMIZERS:
        raise UsageError(
            f'Unknown method "{name}": "{optimizer}" is no optimizer.'
            + did_you_mean(optimizer, known)
        )
    if plus and not optimizer:
        raise UsageError(
            f'Method "{name}" names no optimizer after the plus. Write {rule}+adam, or {rule}'
            " alone."
        )
    component = Component(name=optimizer) if optimizer else None
    natural = optimizer or registry.RECIPES[rule].optimizer["name"]
    return MethodPlan(
        rule=Component(name=rule),
        optimizer=component,
        family=family_of(rule, natural),
        space=natural_space(rule, natural),
    )


def family_of(rule: str, optimizer: str) -> Family:
    """Return the family of a method: by its optimizer where that is a subgradient method or SOAP's, by the rule's order otherwise."""
    if registry.build_recipe_rule(rule).order == 2 or optimizer in _CURVED:
        return "second-order"
    return "subgradient" if optimizer in _SUBGRADIENTS else "first-order"


def natural_space(rule: str, optimizer: str) -> Space:
    """Return where the hyperparameters of a rule with an optimizer are searched."""
    own = RULE_SPACES.get(rule, {})
    return (
        dict(own)
        if "optimizer.lr" in own
        else {**OPTIMIZER_SPACES.get(optimizer, _ANY_OPTIMIZER), **own}
    )


def completed_methods(value: Any, where: str) -> Tree:
    """Return name → everything about a method, from a list of names or a mapping in which names stand for what is left out.

    Raises:
        UsageError: neither a list nor a mapping, or an unknown name.
    """
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        twice = sorted({name for name in value if value.count(name) > 1})
        if twice:
            raise UsageError(f'{where}: method "{twice[0]}" is given twice.')
        value = dict.fromkeys(value)
    if not isinstance(value, Mapping):
        raise UsageError(
            f"{where}: methods must be a list of names, or a mapping of names to rule, optimizer,"
            " settings and space."
        )
    return {str(name): _completed(str(name), own or {}, where) for name, own in value.items()}


def _completed(name: str, own: Any, where: str) -> Tree:
    if not isinstance(own, Mapping):
        raise UsageError(
            f'{where}: method "{name}" must be a mapping of rule, optimizer, settings and space,'
            f" not {own!r}."
        )
    if not {"rule", "optimizer"} & own.keys():
        return {**method_called(name).model_dump(exclude_none=True), **own}
    stands_for = _named_method(name)
    rule = _component(own.get("rule"), stands_for.rule.name if stands_for else "gradient")
    brought = stands_for.optimizer.name if stands_for and stands_for.optimizer else None
    if brought is None and "optimizer" in own:  # what is left out of it is as the rule brings it
        brought = registry.find("rule", registry.RECIPES, str(rule["name"])).optimizer["name"]
    optimizer = None if brought is None else _component(own.get("optimizer"), brought)
    natural = method_called(
        str(rule["name"]) if optimizer is None else f"{rule['name']}+{optimizer['name']}"
    )
    parts = {"rule": rule} if optimizer is None else {"rule": rule, "optimizer": optimizer}
    return {"family": natural.family, "space": natural.space, **own, **parts}


def _named_method(name: str) -> MethodPlan | None:
    """Return the method that a name stands for, None where it is a name of the user's own."""
    try:
        return method_called(name)
    except UsageError:
        return None


def _component(given: Any, name: str) -> Tree:
    """Return a rule or an optimizer as a mapping; options without a name are those of the component called ``name``."""
    if given is None:
        return {"name": name}
    return {"name": name, **given} if isinstance(given, Mapping) else {"name": str(given)}
