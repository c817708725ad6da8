"""Which parameter is which: what messages call it, and whether a saved state belongs to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim.optimizer import Optimizer

from saddlepoint.errors import UsageError

_KEY = "saved_by"
"""Where a saved parameter group says which optimizer it comes from, with which options, and the shapes of its parameters."""


def labels(optimizer: Optimizer) -> dict[Tensor, str]:
    """Return parameter → its quoted name where the optimizer was given names, else its place among all parameters.

    Neither depends on which parameters have a gradient in a step.

    >>> import torch
    >>> x, y = (torch.ones(1, requires_grad=True) for _ in range(2))
    >>> [labels(torch.optim.SGD(given))[y] for given in ([x, y], [("a", x), ("b", y)])]
    ['1', '"b"']
    """
    found: dict[Tensor, str] = {}
    used: set[str] = set()
    for group in optimizer.param_groups:
        names = group.get("param_names")
        for index, parameter in enumerate(group["params"]):
            label = f'"{names[index]}"' if names else str(len(found))
            found[parameter] = label if label not in used else f"{label} ({len(found)})"
            used.add(label)
    return found


def signed(
    optimizer: Optimizer, state: dict[str, Any], made_with: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a state_dict whose groups say what they were saved by; ``made_with`` are options that are in no group."""
    groups = []
    for saved, group in zip(state["param_groups"], optimizer.param_groups, strict=True):
        shapes = [list(p.shape) for p in group["params"]]
        groups.append(
            {
                **saved,
                _KEY: {
                    "optimizer": type(optimizer).__name__,
                    "shapes": shapes,
                    "options": dict(made_with),
                },
            }
        )
    return {**state, "param_groups": groups}


def checked(
    optimizer: Optimizer, state: Mapping[str, Any], made_with: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a state_dict as torch loads it: without signatures, and parameters that have names in this optimizer's order.

    A state without a signature, saved by an earlier version, is compared in what it has.

    Raises:
        UsageError: the state is of another optimizer, or was made with other options or for other
            parameters.
    """
    kind = type(optimizer).__name__
    if not isinstance(state, Mapping) or not {"state", "param_groups"} <= state.keys():
        raise UsageError(f"{kind}: what is to be loaded is not the state_dict of an optimizer.")
    saved_groups, groups = state["param_groups"], optimizer.param_groups
    counts, own = (
        [len(saved["params"]) for saved in saved_groups],
        [len(group["params"]) for group in groups],
    )
    if counts != own:
        raise UsageError(
            f"{kind}: the state has parameter groups of {counts} parameters, this optimizer of"
            f" {own}. Give it the same parameters, in the same groups, before loading."
        )
    ready = []
    for index, (saved, group) in enumerate(zip(saved_groups, groups, strict=True)):
        signature = saved.get(_KEY)
        if signature is None:
            _check_options_known(optimizer, saved, group)
        else:
            _check_signature(optimizer, signature, made_with)
        found = _in_order(kind, index, saved, group)
        for place, (parameter, shape) in enumerate(
            zip(group["params"], found.pop("shapes"), strict=True)
        ):
            if shape is not None and list(parameter.shape) != list(shape):
                raise _other_shape(optimizer, parameter, f"entry {place} of group {index}", shape)
        ready.append(found)
    return {**state, "param_groups": ready}


def check_entries(optimizer: Optimizer, state: Mapping[str, Any], names: tuple[str, ...]) -> None:
    """Raise UsageError where what a state keeps under ``names`` does not have its parameter's shape; for states without signatures."""
    for group, saved in zip(optimizer.param_groups, state["param_groups"], strict=True):
        for parameter, key in zip(group["params"], saved["params"], strict=True):
            for name, value in state["state"].get(key, {}).items():
                if name in names and value.shape != parameter.shape:
                    raise _other_shape(optimizer, parameter, f'"{name}"', value.shape)


def _check_signature(
    optimizer: Optimizer, signature: Mapping[str, Any], made_with: Mapping[str, Any]
) -> None:
    kind = type(optimizer).__name__
    if signature["optimizer"] not in [base.__name__ for base in type(optimizer).__mro__]:
        raise UsageError(
            f"{kind}: the state belongs to the optimizer {signature['optimizer']}. Load it into one"
            " of that class."
        )
    for option, value in signature["options"].items():
        if option in made_with and made_with[option] != value:
            raise UsageError(
                f"{kind}: the state was made with {option}={value!r}, this optimizer with"
                f" {option}={made_with[option]!r}. Construct it with the same option before"
                " loading."
            )


def _check_options_known(
    optimizer: Optimizer, saved: Mapping[str, Any], group: Mapping[str, Any]
) -> None:
    """Tell the state of another optimizer by its options: it has some that are foreign here, and lacks some of ours."""
    foreign = saved.keys() - group.keys() - {"initial_lr", "param_names"}
    missing = optimizer.defaults.keys() - saved.keys() - {"differentiable"}
    if foreign and missing:
        raise UsageError(
            f"{type(optimizer).__name__}: the state belongs to another optimizer; it has"
            f" {', '.join(sorted(foreign))} and lacks {', '.join(sorted(missing))}. Load it into"
            " one of its own class."
        )


def _in_order(
    kind: str, index: int, saved: Mapping[str, Any], group: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a saved group without its signature but with its shapes, sorted by this optimizer's names where both have names."""
    shapes = saved.get(_KEY, {}).get("shapes") or [None] * len(saved["params"])
    found = {option: value for option, value in saved.items() if option != _KEY}
    found["shapes"] = shapes
    theirs, ours = saved.get("param_names"), group.get("param_names")
    if not theirs or not ours or theirs == ours or len(set(ours)) < len(ours):
        return found
    if sorted(theirs) != sorted(ours):
        missing, foreign = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
        raise UsageError(
            f"{kind}: group {index} of the state has parameters of other names:"
            f" {', '.join(foreign[:3])} instead of {', '.join(missing[:3])}. Load it into an"
            " optimizer over the network that it was saved from."
        )
    order = [theirs.index(name) for name in ours]
    for option in ("params", "shapes"):
        found[option] = [found[option][place] for place in order]
    found["param_names"] = list(ours)
    return found


def _other_shape(optimizer: Optimizer, parameter: Tensor, what: str, shape: Any) -> UsageError:
    return UsageError(
        f"{type(optimizer).__name__}: parameter {labels(optimizer)[parameter]} has the shape"
        f" {tuple(parameter.shape)}, {what} of the state {tuple(shape)}. Give the optimizer the"
        " parameters in the order in which they were when it was saved, or construct both with"
        " network.named_parameters(), which are matched by name."
    )
