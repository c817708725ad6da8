"""Whether the state of a checkpoint is one of this training: every part is looked at before any of it is used."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saddlepoint.errors import SaddlepointError, UsageError

if TYPE_CHECKING:
    from saddlepoint.training.training import Training

ENVELOPE = frozenset({"format", "saddlepoint"})
"""What a run directory puts around a state."""

_DEPTH = 40
_VALUES = 1_000_000  # that a state holds
_LARGEST = 10**15  # of a step, and of whatever is counted
_WRONG = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    RuntimeError,
    ArithmeticError,
    AssertionError,
)


class _UnfitError(Exception):
    """A part of a state is not as it must be."""


def check_state(training: Training, state: Mapping[str, Any]) -> None:
    """Compare a state with what the training's own would be: keys, kinds of values, shapes and types of tensors.

    Raises:
        UsageError: it names the first part that does not fit.
    """
    try:
        _check(training, state)
    except _UnfitError as error:
        raise UsageError(
            f"The checkpoint's state does not fit this run: {error}. It is damaged, or another"
            " program wrote it."
        ) from error


@contextmanager
def blamed_on_state() -> Iterator[None]:
    """Say of what goes wrong inside that the state of a checkpoint is to blame: for loading it, and for the first step."""
    try:
        yield
    except (SaddlepointError, torch.OutOfMemoryError):
        raise
    except _WRONG as error:
        said = str(error).partition("\n")[0]
        raise UsageError(
            "The checkpoint's state does not fit this run: using it ends in"
            f" {type(error).__name__}: {said}. It is damaged, or another program wrote it."
        ) from error


def _check(training: Training, state: Mapping[str, Any]) -> None:
    _check_plain(state)
    own = training.state_dict()
    _keys({key: value for key, value in state.items() if key not in ENVELOPE}, own, "the state")
    for key in ("step", "rollbacks", "checkpointed"):
        _count(state[key], key)
    for key, most in (("seconds", math.inf), ("rate_factor", 1.0)):
        if not _real(state[key]) or not 0 <= state[key] <= most or math.isinf(state[key]):
            raise _UnfitError(f"{key} is {_said(state[key])}")
    for key in ("networks", "ema"):
        _alike(state[key], own[key], key)
    if "iterates" in own:
        _alike(state["iterates"], own["iterates"], "iterates")
    _random(state["random"], own["random"])
    _numbers(state["metrics"], "metrics")
    if state["best"] is not None:
        _numbers(state["best"], "best")
        _keys(state["best"], {"score": 0, "step": 0}, "best")
    _optimizer(training, state["optimizer"], own["optimizer"])
    _trace(state["trace"], own["networks"])
    shapes = {
        player: [p.shape for p in network.parameters() if p.requires_grad]
        for player, network in training.networks.items()
    }
    for where, (step, kept) in _pairs(state["updates"], 2, "updates"):
        _count(step, where)
        _tensors(kept, shapes, where)


def _optimizer(training: Training, found: Any, own: Mapping[str, Any]) -> None:
    _keys(found, own, "optimizer")
    _kind(found["rule"], str, "optimizer.rule")
    _keys(found["cost"], own["cost"], "optimizer.cost")
    for name, count in [*found["cost"].items(), ("unconverged", found["unconverged"])]:
        _count(count, f"optimizer.{name}")
    _keys(found["optimizers"], own["optimizers"], "optimizer.optimizers")
    for key in ("rule_options", "parameters", "classes"):
        if not _same(found[key], own[key]):
            raise _UnfitError(f"optimizer.{key} are those of another run")
    for player, inner in training.optimizer.optimizers.items():
        parameters = [p for group in inner.param_groups for p in group["params"]]
        exact = (
            type(inner).__module__.startswith(("torch.optim.", "saddlepoint."))
            and type(inner).__name__ != "Adafactor"
        )
        _inner(
            found["optimizers"][player],
            own["optimizers"][player],
            [p.shape for p in parameters],
            exact,
            f"optimizer.{player}",
        )
    shapes = {
        player: {name: shape for name, shape, _ in parameters}
        for player, parameters in own["parameters"].items()
    }
    _rule_state(found["rule_state"], shapes, "optimizer.rule_state", 0)


def _inner(
    found: Any, own: Mapping[str, Any], shapes: list[torch.Size], exact: bool, where: str
) -> None:
    """Check a torch optimizer's state.

    ``exact`` says that it is of one that is known: a tensor in it has its parameter's shape or one
    entry, options keep their kinds, and nothing is kept for all parameters together.
    """
    _keys(found, own, where)
    # a wrapper's, of a form of its own
    if not exact and not {"param_groups", "state"} <= own.keys():
        return
    _kind(found["param_groups"], list, f"{where}.param_groups")
    if len(found["param_groups"]) != len(own["param_groups"]):
        raise _UnfitError(
            f"{where} has {len(found['param_groups'])} groups of parameters instead of"
            f" {len(own['param_groups'])}"
        )
    for group, ours in zip(found["param_groups"], own["param_groups"], strict=True):
        _kind(group, dict, f"{where}.param_groups")
        for option, value in group.items():
            _kind(option, str, f"{where}.param_groups")
            if exact and option in ours:
                _alike(value, ours[option], f"{where}.{option}")
        if group.get("params") != ours["params"]:
            raise _UnfitError(f"{where} has other parameters")
    _kind(found["state"], dict, f"{where}.state")
    for index, kept in found["state"].items():
        place = f"{where}.state.{_said(index)}"
        # of all parameters; loading and the first step say whether it fits
        if not exact and isinstance(index, str):
            continue
        if type(index) is not int or not 0 <= index < len(shapes):
            raise _UnfitError(f"{place} is of no parameter")
        _kind(kept, dict, place)
        for name, value in kept.items():
            _kind(name, str, place)
            if (
                exact
                and isinstance(value, Tensor)
                and value.numel() != 1
                and value.shape != shapes[index]
            ):
                raise _UnfitError(
                    f"{place}.{name} has the shape {tuple(value.shape)} instead of"
                    f" {tuple(shapes[index])}"
                )


def _rule_state(
    found: Any, shapes: Mapping[str, Mapping[str, list[int]]], where: str, depth: int
) -> None:
    if depth > _DEPTH:
        raise _UnfitError(f"{where[:80]}… is nested too deeply")
    _keys(found, {"parameters": 0, "numbers": 0, "children": 0}, where)
    _numbers(found["numbers"], f"{where}.numbers")
    for part in ("parameters", "children"):
        _kind(found[part], dict, f"{where}.{part}")
        for name in found[part]:
            _kind(name, str, f"{where}.{part}")
    for player, own in found["parameters"].items():
        if player not in shapes:
            raise _UnfitError(f"{where} is of unknown players")
        _kind(own, dict, f"{where}.{player}")
        for name, entry in own.items():
            if name not in shapes[player]:
                raise _UnfitError(
                    f"{where}.{player} has {_said(name)}, which is none of its parameters"
                )
            _entry(entry, shapes[player][name], f"{where}.{player}.{name}")
    for name, child in found["children"].items():
        _rule_state(child, shapes, f"{where}.{name}", depth + 1)


def _entry(found: Any, shape: list[int], where: str) -> None:
    """Check what a rule remembers of one parameter: tensors of its shape, square matrices of its sides, counts."""
    _kind(found, dict, where)
    for what, value in found.items():
        _kind(what, str, where)
        if isinstance(value, Tensor):
            if list(value.shape) != shape or not (value.is_floating_point() or value.is_complex()):
                raise _UnfitError(
                    f"{where}.{what} is a tensor of shape {tuple(value.shape)} instead of"
                    f" {tuple(shape)}"
                )
        elif isinstance(value, list):
            if len(value) != len(shape):
                raise _UnfitError(
                    f"{where}.{what} has {len(value)} matrices instead of {len(shape)}"
                )
            for side, matrix in zip(shape, value, strict=True):
                fits = (
                    isinstance(matrix, Tensor)
                    and matrix.is_floating_point()
                    and list(matrix.shape) == [side, side]
                )
                if matrix is not None and not fits:
                    raise _UnfitError(
                        f"{where}.{what} has no matrix of {side} rows and columns where one is due"
                    )
        else:
            _count(value, f"{where}.{what}")


def _tensors(found: Any, shapes: Mapping[str, list[torch.Size]], where: str) -> None:
    """Check player → tensors of the parameters' shapes."""
    _kind(found, dict, where)
    if not found.keys() <= shapes.keys():
        raise _UnfitError(f"{where} is of unknown players")
    for player, tensors in found.items():
        _kind(tensors, list, where)
        if not all(isinstance(t, Tensor) and t.is_floating_point() for t in tensors):
            raise _UnfitError(f"{where}.{player} is not a list of tensors")
        if [t.shape for t in tensors] != shapes[player]:
            raise _UnfitError(f"{where}.{player} has tensors of other shapes than the {player}")


def _trace(found: Any, players: Mapping[str, Any]) -> None:
    for where, (step, losses, projections) in _pairs(found, 3, "trace"):
        _count(step, where)
        for numbers in (losses, projections):
            _numbers(numbers, where)
            if not numbers.keys() <= players.keys():
                raise _UnfitError(f"{where} is of unknown players")
        if projections.keys() != players.keys():
            raise _UnfitError(f"{where} lacks a player")


def _random(found: Any, own: Mapping[str, Tensor]) -> None:
    _keys(found, own, "random")
    _alike(found["cpu"], own["cpu"], "random.cpu")
    try:
        torch.Generator().set_state(found["cpu"])
    except RuntimeError as error:
        raise _UnfitError("random.cpu is no state of a random generator") from error
    cuda = found["cuda"]
    if cuda is not None and not (
        isinstance(cuda, Tensor) and cuda.dtype == torch.uint8 and cuda.numel() == 16
    ):
        raise _UnfitError("random.cuda is no state of a random generator")


def _alike(found: Any, own: Any, where: str) -> None:
    """Check that two trees have the same keys and kinds of values, their tensors the same shapes and types."""
    if isinstance(own, Tensor):
        if not isinstance(found, Tensor):
            raise _UnfitError(f"{where} is {_said(found)} instead of a tensor")
        if found.shape != own.shape or found.dtype != own.dtype:
            ours = f"{tuple(own.shape)}, {own.dtype}"
            raise _UnfitError(
                f"{where} is a tensor of {tuple(found.shape)}, {found.dtype}, instead of {ours}"
            )
    elif isinstance(own, Mapping):
        _keys(found, own, where)
        for key, value in own.items():
            _alike(found[key], value, f"{where}.{key}")
    elif isinstance(own, list | tuple):
        if not isinstance(found, list | tuple) or len(found) != len(own):
            raise _UnfitError(f"{where} is {_said(found)} instead of {len(own)} values")
        for index, pair in enumerate(zip(found, own, strict=True)):
            _alike(*pair, f"{where}.{index}")
    elif _real(own):
        if not _real(found):
            raise _UnfitError(f"{where} is {_said(found)} instead of a number")
    elif type(found) is not type(own):
        raise _UnfitError(f"{where} is {_said(found)} instead of {_said(own)}")


def _same(found: Any, own: Any) -> bool:
    """Say whether two plain trees are equal; tensors and other foreign things are not."""
    if type(found) is not type(own):
        return False
    if isinstance(own, dict):
        return found.keys() == own.keys() and all(
            _same(found[key], value) for key, value in own.items()
        )
    if isinstance(own, list):
        return len(found) == len(own) and all(map(_same, found, own))
    return bool(found == own)


def _check_plain(state: Mapping[str, Any]) -> None:
    """Check that a state is of plain containers, and that its tensors take the memory that was read for them and no more."""
    waiting: list[tuple[Any, str, int]] = [(state, "", 0)]
    values, entries, memory = 0, 0, dict[int, int]()
    while waiting:
        value, where, depth = waiting.pop()
        values += 1
        if depth > _DEPTH or values > _VALUES:
            raise _UnfitError(
                f"{where[:80]} is nested too deeply, or in more values than a state has"
            )
        if isinstance(value, Tensor):
            if value.layout != torch.strided or value.requires_grad:
                raise _UnfitError(f"{where} is no plain tensor")
            entries += value.nbytes
            memory[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        elif isinstance(value, dict):
            waiting += [(inner, f"{where}.{_said(key)}", depth + 1) for key, inner in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(inner, where, depth + 1) for inner in value]
        elif not isinstance(value, str | int | float | bool | None):
            raise _UnfitError(f"{where} is {_said(value)}")
    if entries > 2 * sum(memory.values()):
        raise _UnfitError("its tensors stand for more entries than there are in the file")


def _pairs(found: Any, size: int, where: str) -> Iterator[tuple[str, Any]]:
    _kind(found, list, where)
    for index, entry in enumerate(found):
        if not isinstance(entry, list | tuple) or len(entry) != size:
            raise _UnfitError(f"{where}.{index} is {_said(entry)}")
        yield f"{where}.{index}", entry


def _numbers(found: Any, where: str) -> None:
    _kind(found, dict, where)
    for name, value in found.items():
        if not isinstance(name, str) or not _real(value):
            raise _UnfitError(f"{where}.{_said(name)} is {_said(value)} instead of a number")


def _keys(found: Any, own: Mapping[str, Any], where: str) -> None:
    if not isinstance(found, dict):
        raise _UnfitError(f"{where} is {_said(found)} instead of keys and values")
    if missing := [key for key in own if key not in found]:
        raise _UnfitError(f"{where} lacks {_said(missing[0])}")
    if unknown := [key for key in found if key not in own]:
        raise _UnfitError(f"{where} has {_said(unknown[0])}, which is none of its keys")


def _kind(found: Any, kind: type, where: str) -> None:
    if not isinstance(found, kind):
        raise _UnfitError(f"{where} is {_said(found)} instead of a {kind.__name__}")


def _count(found: Any, where: str) -> None:
    if type(found) is not int or not 0 <= found <= _LARGEST:
        raise _UnfitError(f"{where} is {_said(found)} instead of a count")


def _real(found: Any) -> bool:
    return isinstance(found, float) or (type(found) is int and abs(found) <= 10**300)


def _said(value: Any) -> str:
    """Return a value in few words, however large it is."""
    if isinstance(value, str):
        return repr(value[:40])
    plain = (
        value is None
        or isinstance(value, bool | float)
        or (isinstance(value, int) and abs(value) <= 10**30)
    )
    return str(value) if plain else f"a {type(value).__name__}"
