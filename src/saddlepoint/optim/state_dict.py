"""State dicts of optimizers: parameter labels, comparison with an optimizer, matching by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim.optimizer import Optimizer

from saddlepoint.errors import UsageError

_MARK = "saved_by"
"""Key of a saved group: class and options of its optimizer, and the shapes of its parameters."""


def parameter_labels(optimizer: Optimizer) -> dict[Tensor, str]:
    """Return parameter → its quoted name, or its index among all parameters if it has no name.

    Labels do not depend on which parameters have a gradient.

    >>> import torch
    >>> x, y = (torch.ones(1, requires_grad=True) for _ in range(2))
    >>> optimizers = torch.optim.SGD([x, y]), torch.optim.SGD([("a", x), ("b", y)])
    >>> [parameter_labels(optimizer)[y] for optimizer in optimizers]
    ['1', '"b"']
    """
    labels: dict[Tensor, str] = {}
    used: set[str] = set()
    for group in optimizer.param_groups:
        names = group.get("param_names")
        for index, parameter in enumerate(group["params"]):
            label = f'"{names[index]}"' if names else str(len(labels))
            labels[parameter] = label if label not in used else f"{label} ({len(labels)})"
            used.add(label)
    return labels


def group_difference(
    saved_groups: Sequence[Mapping[str, Any]], groups: Sequence[Mapping[str, Any]]
) -> str | None:
    """Describe the first difference between saved parameter groups and an optimizer's.

    Groups are compared by their numbers of parameters, and by the names of their parameters where
    both have names. Returns None if they agree.
    """
    saved_sizes = [len(saved["params"]) for saved in saved_groups]
    sizes = [len(group["params"]) for group in groups]
    if saved_sizes != sizes:
        return (
            f"the state has parameter groups of {saved_sizes} parameters, this optimizer of {sizes}"
        )
    for index, (saved, group) in enumerate(zip(saved_groups, groups, strict=True)):
        saved_names, names = saved.get("param_names"), group.get("param_names")
        if saved_names and names and sorted(saved_names) != sorted(names):
            foreign = sorted(set(saved_names) - set(names))
            missing = sorted(set(names) - set(saved_names))
            return (
                f"group {index} of the state has parameters of other names:"
                f" {', '.join(foreign[:3])} instead of {', '.join(missing[:3])}"
            )
    return None


def match_by_name(state: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """Return a state_dict with the parameters of each group in the order of the optimizer's names.

    torch matches parameters by position only. Groups without names, or with a name that occurs
    twice, keep their order.
    """
    groups = []
    for saved, group in zip(state["param_groups"], optimizer.param_groups, strict=True):
        saved_names, names = saved.get("param_names"), group.get("param_names")
        matched = dict(saved)
        if saved_names and names and saved_names != names and len(set(names)) == len(names):
            order = [saved_names.index(name) for name in names]
            matched["params"] = [saved["params"][index] for index in order]
            matched["param_names"] = list(names)
            if saved.get(_MARK, {}).get("shapes"):
                shapes = [saved[_MARK]["shapes"][index] for index in order]
                matched[_MARK] = {**saved[_MARK], "shapes": shapes}
        groups.append(matched)
    return {**state, "param_groups": groups}


def mark_state_dict(
    optimizer: Optimizer, state: dict[str, Any], constructor_values: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a state_dict whose groups name the optimizer, its options and parameter shapes.

    ``constructor_values`` are the options of the constructor that no parameter group contains.
    """
    groups = []
    for saved, group in zip(state["param_groups"], optimizer.param_groups, strict=True):
        mark = {
            "optimizer": type(optimizer).__name__,
            "shapes": [list(p.shape) for p in group["params"]],
            "options": dict(constructor_values),
        }
        groups.append({**saved, _MARK: mark})
    return {**state, "param_groups": groups}


def validate_state_dict(
    optimizer: Optimizer, state: Mapping[str, Any], constructor_values: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a state_dict as torch loads it: without marks, named parameters in the right order.

    A state without marks, saved by an earlier version, is compared by its options.

    Raises:
        UsageError: the state belongs to another optimizer, to one with other options, or to other
            parameters.
    """
    kind = type(optimizer).__name__
    if not isinstance(state, Mapping) or not {"state", "param_groups"} <= state.keys():
        raise UsageError(f"{kind}: the object to be loaded is not the state_dict of an optimizer.")

    difference = group_difference(state["param_groups"], optimizer.param_groups)
    for saved, group in zip(state["param_groups"], optimizer.param_groups, strict=False):
        mark = saved.get(_MARK)
        if mark is None:
            # another optimizer's state has options unknown here, and lacks some that are known
            foreign = saved.keys() - group.keys() - {"initial_lr", "param_names"}
            missing = optimizer.defaults.keys() - saved.keys() - {"differentiable"}
            if foreign and missing:
                raise UsageError(
                    f"{kind}: the state belongs to another optimizer; it has"
                    f" {', '.join(sorted(foreign))} and lacks {', '.join(sorted(missing))}. Load"
                    " it into an optimizer of its own class."
                )
            continue
        if mark["optimizer"] not in [base.__name__ for base in type(optimizer).__mro__]:
            raise UsageError(
                f"{kind}: the state belongs to the optimizer {mark['optimizer']}. Load it into an"
                " optimizer of that class."
            )
        for option, value in mark["options"].items():
            if option in constructor_values and constructor_values[option] != value:
                raise UsageError(
                    f"{kind}: the state was saved with {option}={value!r}, this optimizer has"
                    f" {option}={constructor_values[option]!r}. Construct it with the same option"
                    " before loading."
                )
    if difference is not None:
        raise UsageError(
            f"{kind}: {difference}. Load the state into an optimizer with the same parameters, in"
            " the same groups."
        )

    matched = match_by_name(state, optimizer)
    for index, group in enumerate(optimizer.param_groups):
        saved = matched["param_groups"][index]
        shapes = saved.pop(_MARK, {}).get("shapes") or [None] * len(group["params"])
        for position, (parameter, shape) in enumerate(zip(group["params"], shapes, strict=True)):
            if shape is not None and list(parameter.shape) != list(shape):
                what = f"entry {position} of group {index}"
                raise _shape_error(optimizer, parameter, what, shape)
    return matched


def check_shapes(optimizer: Optimizer, state: Mapping[str, Any], names: tuple[str, ...]) -> None:
    """Raise UsageError if a state tensor in ``names`` does not have the shape of its parameter.

    This check is for states without marks.
    """
    for group, saved in zip(optimizer.param_groups, state["param_groups"], strict=True):
        for parameter, key in zip(group["params"], saved["params"], strict=True):
            for name, value in state["state"].get(key, {}).items():
                if name in names and value.shape != parameter.shape:
                    raise _shape_error(optimizer, parameter, f'"{name}"', value.shape)


def _shape_error(optimizer: Optimizer, parameter: Tensor, what: str, shape: Any) -> UsageError:
    return UsageError(
        f"{type(optimizer).__name__}: parameter {parameter_labels(optimizer)[parameter]} has the"
        f" shape {tuple(parameter.shape)}, {what} of the state {tuple(shape)}. Pass the parameters"
        " to the optimizer in the order in which they were saved, or construct both optimizers"
        " with network.named_parameters(), which are matched by name."
    )
