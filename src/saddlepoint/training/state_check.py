"""Validation of the state in a checkpoint: every part is checked before any of it is used."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from saddlepoint.errors import SaddlepointError, UsageError

if TYPE_CHECKING:
    from saddlepoint.training.trainer import Trainer

ENVELOPE = frozenset({"format", "saddlepoint"})
"""Keys that the checkpoint format adds to a state."""

_MAX_DEPTH = 40
_MAX_VALUES = 1_000_000  # containers and values in a state
_MAX_COUNT = 10**15  # of a step, and of everything that is counted
_ERRORS = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    RuntimeError,
    ArithmeticError,
    AssertionError,
)


class _MismatchError(Exception):
    """A part of a state does not match the run."""


def validate_state(trainer: Trainer, state: Mapping[str, Any]) -> None:
    """Compare a state with the trainer's own: keys, types, and shapes and types of tensors.

    Raises:
        UsageError: it names the first part that does not match.
    """
    try:
        _validate(trainer, state)
    except _MismatchError as error:
        raise UsageError(
            f"The checkpoint's state does not fit this run: {error}. It is damaged, or another"
            " program wrote it."
        ) from error


@contextmanager
def as_checkpoint_error() -> Iterator[None]:
    """Report errors inside as errors of the checkpoint: while it is loaded, and in the first step.

    Raises:
        UsageError: in place of a built-in exception.
    """
    try:
        yield
    except (SaddlepointError, torch.OutOfMemoryError):
        raise
    except _ERRORS as error:
        first_line = str(error).partition("\n")[0]
        raise UsageError(
            "The checkpoint's state does not fit this run: using it raised"
            f" {type(error).__name__}: {first_line}. It is damaged, or another program wrote it."
        ) from error


def _validate(trainer: Trainer, state: Mapping[str, Any]) -> None:
    _check_plain(state)
    own = trainer.state_dict()
    _check_keys(
        {key: value for key, value in state.items() if key not in ENVELOPE}, own, "the state"
    )
    for key in ("step", "rollbacks", "checkpointed"):
        _check_count(state[key], key)
    for key, most in (("seconds", math.inf), ("lr_factor", 1.0)):
        if not _is_real(state[key]) or not 0 <= state[key] <= most or math.isinf(state[key]):
            raise _MismatchError(f"{key} is {_short(state[key])}")
    for key in ("networks", "ema"):
        _check_alike(state[key], own[key], key)
    if "iterates" in own:
        _check_alike(state["iterates"], own["iterates"], "iterates")
    _check_numbers(state["metrics"], "metrics")
    if state["best"] is not None:
        _check_numbers(state["best"], "best")
        _check_keys(state["best"], {"score": 0, "step": 0}, "best")

    # states of the random generators
    found = state["random"]
    _check_keys(found, own["random"], "random")
    _check_alike(found["cpu"], own["random"]["cpu"], "random.cpu")
    try:
        torch.Generator().set_state(found["cpu"])
    except RuntimeError as error:
        raise _MismatchError("random.cpu is no state of a random generator") from error
    cuda = found["cuda"]
    if cuda is not None and not (
        isinstance(cuda, Tensor) and cuda.dtype == torch.uint8 and cuda.numel() == 16
    ):
        raise _MismatchError("random.cuda is no state of a random generator")

    # the game optimizer: its counts and inner optimizers, and the memory of its rule
    found, mine = state["optimizer"], own["optimizer"]
    _check_keys(found, mine, "optimizer")
    _check_type(found["rule"], str, "optimizer.rule")
    _check_keys(found["cost"], mine["cost"], "optimizer.cost")
    for name, count in [*found["cost"].items(), ("unconverged", found["unconverged"])]:
        _check_count(count, f"optimizer.{name}")
    _check_keys(found["optimizers"], mine["optimizers"], "optimizer.optimizers")
    for key in ("rule_options", "parameters", "classes"):
        if not _is_same(found[key], mine[key]):
            raise _MismatchError(f"optimizer.{key} are those of another run")
    for player, inner in trainer.optimizer.optimizers.items():
        _check_inner(
            found["optimizers"][player], mine["optimizers"][player], inner, f"optimizer.{player}"
        )
    named_shapes = {}
    for player, parameters in mine["parameters"].items():
        named_shapes[player] = {name: shape for name, shape, _ in parameters}
    _check_rule_state(found["rule_state"], named_shapes, "optimizer.rule_state", 0)

    # the trace: points of losses and projections
    players = own["networks"].keys()
    for where, (step, losses, projections) in _entries(state["trace"], 3, "trace"):
        _check_count(step, where)
        for numbers in (losses, projections):
            _check_numbers(numbers, where)
            if not numbers.keys() <= players:
                raise _MismatchError(f"{where} has unknown players")
        if projections.keys() != players:
            raise _MismatchError(f"{where} lacks a player")

    # the parameters of the last steps
    for where, (step, kept) in _entries(state["updates"], 2, "updates"):
        _check_count(step, where)
        _check_type(kept, dict, where)
        if not kept.keys() <= trainer.networks.keys():
            raise _MismatchError(f"{where} has unknown players")
        for player, tensors in kept.items():
            _check_type(tensors, list, where)
            if not all(isinstance(t, Tensor) and t.is_floating_point() for t in tensors):
                raise _MismatchError(f"{where}.{player} is not a list of tensors")
            trained = [p for p in trainer.networks[player].parameters() if p.requires_grad]
            if [t.shape for t in tensors] != [p.shape for p in trained]:
                raise _MismatchError(
                    f"{where}.{player} has tensors of other shapes than the {player}"
                )


def _check_inner(found: Any, own: Mapping[str, Any], inner: Optimizer, where: str) -> None:
    """Check an inner optimizer's state.

    In one of torch's or this library's optimizers, a tensor has its parameter's shape or one entry,
    options keep their types, and every entry belongs to one parameter.
    """
    shapes = [p.shape for group in inner.param_groups for p in group["params"]]
    exact = (
        type(inner).__module__.startswith(("torch.optim.", "saddlepoint."))
        and type(inner).__name__ != "Adafactor"
    )
    _check_keys(found, own, where)
    # the state of a wrapper may have any form
    if not exact and not {"param_groups", "state"} <= own.keys():
        return
    _check_type(found["param_groups"], list, f"{where}.param_groups")
    if len(found["param_groups"]) != len(own["param_groups"]):
        raise _MismatchError(
            f"{where} has {len(found['param_groups'])} groups of parameters instead of"
            f" {len(own['param_groups'])}"
        )
    for group, ours in zip(found["param_groups"], own["param_groups"], strict=True):
        _check_type(group, dict, f"{where}.param_groups")
        for option, value in group.items():
            _check_type(option, str, f"{where}.param_groups")
            if exact and option in ours:
                _check_alike(value, ours[option], f"{where}.{option}")
        if group.get("params") != ours["params"]:
            raise _MismatchError(f"{where} has other parameters")
    _check_type(found["state"], dict, f"{where}.state")
    for index, kept in found["state"].items():
        place = f"{where}.state.{_short(index)}"
        # belongs to all parameters; loading and the first step show whether it fits
        if not exact and isinstance(index, str):
            continue
        if type(index) is not int or not 0 <= index < len(shapes):
            raise _MismatchError(f"{place} belongs to no parameter")
        _check_type(kept, dict, place)
        for name, value in kept.items():
            _check_type(name, str, place)
            if (
                exact
                and isinstance(value, Tensor)
                and value.numel() != 1
                and value.shape != shapes[index]
            ):
                raise _MismatchError(
                    f"{place}.{name} has the shape {tuple(value.shape)} instead of"
                    f" {tuple(shapes[index])}"
                )


def _check_rule_state(
    found: Any, shapes: Mapping[str, Mapping[str, list[int]]], where: str, depth: int
) -> None:
    """Check the memory of a rule and of the rules inside it.

    A parameter has tensors of its shape, square matrices for its dimensions, and counts.
    """
    if depth > _MAX_DEPTH:
        raise _MismatchError(f"{where[:80]}… is nested too deeply")
    _check_keys(found, {"parameters": 0, "numbers": 0, "children": 0}, where)
    _check_numbers(found["numbers"], f"{where}.numbers")
    for part in ("parameters", "children"):
        _check_type(found[part], dict, f"{where}.{part}")
        for name in found[part]:
            _check_type(name, str, f"{where}.{part}")
    for player, own in found["parameters"].items():
        if player not in shapes:
            raise _MismatchError(f"{where} has unknown players")
        _check_type(own, dict, f"{where}.{player}")
        for name, entry in own.items():
            if name not in shapes[player]:
                raise _MismatchError(f"{where}.{player} has an unknown parameter, {_short(name)}")
            shape, place = shapes[player][name], f"{where}.{player}.{name}"
            _check_type(entry, dict, place)
            for what, value in entry.items():
                _check_type(what, str, place)
                _check_memory(value, shape, f"{place}.{what}")
    for name, child in found["children"].items():
        _check_rule_state(child, shapes, f"{where}.{name}", depth + 1)


def _check_memory(value: Any, shape: list[int], where: str) -> None:
    if isinstance(value, Tensor):
        if list(value.shape) != shape or not (value.is_floating_point() or value.is_complex()):
            raise _MismatchError(
                f"{where} is a tensor of shape {tuple(value.shape)} instead of {tuple(shape)}"
            )
    elif isinstance(value, list):
        if len(value) != len(shape):
            raise _MismatchError(f"{where} has {len(value)} matrices instead of {len(shape)}")
        for side, matrix in zip(shape, value, strict=True):
            fits = (
                isinstance(matrix, Tensor)
                and matrix.is_floating_point()
                and list(matrix.shape) == [side, side]
            )
            if matrix is not None and not fits:
                raise _MismatchError(f"{where} lacks a matrix of {side} rows and columns")
    else:
        _check_count(value, where)


def _check_alike(found: Any, own: Any, where: str) -> None:
    """Check that two trees have the same keys, types, and shapes and types of tensors."""
    if isinstance(own, Tensor):
        if not isinstance(found, Tensor):
            raise _MismatchError(f"{where} is {_short(found)} instead of a tensor")
        if found.shape != own.shape or found.dtype != own.dtype:
            ours = f"{tuple(own.shape)}, {own.dtype}"
            raise _MismatchError(
                f"{where} is a tensor of {tuple(found.shape)}, {found.dtype}, instead of {ours}"
            )
    elif isinstance(own, Mapping):
        _check_keys(found, own, where)
        for key, value in own.items():
            _check_alike(found[key], value, f"{where}.{key}")
    elif isinstance(own, list | tuple):
        if not isinstance(found, list | tuple) or len(found) != len(own):
            raise _MismatchError(f"{where} is {_short(found)} instead of {len(own)} values")
        for index, pair in enumerate(zip(found, own, strict=True)):
            _check_alike(*pair, f"{where}.{index}")
    elif _is_real(own):
        if not _is_real(found):
            raise _MismatchError(f"{where} is {_short(found)} instead of a number")
    elif type(found) is not type(own):
        raise _MismatchError(f"{where} is {_short(found)} instead of {_short(own)}")


def _is_same(found: Any, own: Any) -> bool:
    """Return whether two plain trees are equal; tensors and other objects never are."""
    if type(found) is not type(own):
        return False
    if isinstance(own, dict):
        return found.keys() == own.keys() and all(
            _is_same(found[key], value) for key, value in own.items()
        )
    if isinstance(own, list):
        return len(found) == len(own) and all(map(_is_same, found, own))
    return bool(found == own)


def _check_plain(state: Mapping[str, Any]) -> None:
    """Check that a state consists of plain values, and that its tensors fit the memory read."""
    waiting: list[tuple[Any, str, int]] = [(state, "", 0)]
    values, entries, memory = 0, 0, dict[int, int]()
    while waiting:
        value, where, depth = waiting.pop()
        values += 1
        if depth > _MAX_DEPTH or values > _MAX_VALUES:
            raise _MismatchError(
                f"{where[:80]} is nested too deeply, or the state has too many values"
            )
        if isinstance(value, Tensor):
            if value.layout != torch.strided or value.requires_grad:
                raise _MismatchError(f"{where} is no plain tensor")
            entries += value.nbytes
            memory[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        elif isinstance(value, dict):
            waiting += [
                (inner, f"{where}.{_short(key)}", depth + 1) for key, inner in value.items()
            ]
        elif isinstance(value, list | tuple):
            waiting += [(inner, where, depth + 1) for inner in value]
        elif not isinstance(value, str | int | float | bool | None):
            raise _MismatchError(f"{where} is {_short(value)}")
    if entries > 2 * sum(memory.values()):
        raise _MismatchError("its tensors have more entries than the file holds")


def _entries(found: Any, size: int, where: str) -> Iterator[tuple[str, Any]]:
    _check_type(found, list, where)
    for index, entry in enumerate(found):
        if not isinstance(entry, list | tuple) or len(entry) != size:
            raise _MismatchError(f"{where}.{index} is {_short(entry)}")
        yield f"{where}.{index}", entry


def _check_numbers(found: Any, where: str) -> None:
    _check_type(found, dict, where)
    for name, value in found.items():
        if not isinstance(name, str) or not _is_real(value):
            raise _MismatchError(f"{where}.{_short(name)} is {_short(value)} instead of a number")


def _check_keys(found: Any, own: Mapping[str, Any], where: str) -> None:
    if not isinstance(found, dict):
        raise _MismatchError(f"{where} is {_short(found)} instead of keys and values")
    if missing := [key for key in own if key not in found]:
        raise _MismatchError(f"{where} lacks {_short(missing[0])}")
    if unknown := [key for key in found if key not in own]:
        raise _MismatchError(f"{where} has {_short(unknown[0])}, an unknown key")


def _check_type(found: Any, kind: type, where: str) -> None:
    if not isinstance(found, kind):
        raise _MismatchError(f"{where} is {_short(found)} instead of a {kind.__name__}")


def _check_count(found: Any, where: str) -> None:
    if type(found) is not int or not 0 <= found <= _MAX_COUNT:
        raise _MismatchError(f"{where} is {_short(found)} instead of a count")


def _is_real(found: Any) -> bool:
    return isinstance(found, float) or (type(found) is int and abs(found) <= 10**300)


def _short(value: Any) -> str:
    """Return a value as a short text, however large it is."""
    if isinstance(value, str):
        return repr(value[:40])
    plain = (
        value is None
        or isinstance(value, bool | float)
        or (isinstance(value, int) and abs(value) <= 10**30)
    )
    return str(value) if plain else f"a {type(value).__name__}"
