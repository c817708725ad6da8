"""Names and order of the inner optimizers' parameters, and a signature to detect changes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from saddlepoint.errors import UsageError
from saddlepoint.game import Players

_MINIMUM_LR = -1e-12
"""Schedulers that end at zero, such as torch's LinearLR, may end slightly below by rounding."""


class Layout:
    """The parameters of each player in the order of its optimizer, and their names.

    A parameter has the name that was given to the optimizer (``named_parameters``), otherwise
    "group.position". If a name occurs more than once, as for a player with two networks, the
    position is appended to all but the first.

    Attributes:
        parameters: player → name → parameter, including frozen ones.
        players: player → the parameters that require gradients.
        names: player → the names of these parameters.
        frozen: the parameters of all players that do not require gradients.
    """

    def __init__(self, optimizers: Mapping[str, Optimizer]) -> None:
        self.parameters: dict[str, dict[str, Tensor]] = {}
        for player, optimizer in optimizers.items():
            own = self.parameters[player] = {}
            for number, group in enumerate(optimizer.param_groups):
                given = group.get("param_names")
                for position, parameter in enumerate(group["params"]):
                    name = given[position] if given else f"{number}.{position}"
                    own[name if name not in own else f"{name} ({number}.{position})"] = parameter
        self.players: Players = {}
        self.names: dict[str, tuple[str, ...]] = {}
        self.frozen: list[Tensor] = []
        for player, own in self.parameters.items():
            trainable = {name: p for name, p in own.items() if p.requires_grad}
            self.players[player], self.names[player] = tuple(trainable.values()), tuple(trainable)
            self.frozen += [p for p in own.values() if not p.requires_grad]

    def renamed(self, player: str, later: Layout) -> dict[str, str]:
        """Return old name → name in a later layout, of a player's parameters that are in both."""
        names = {id(p): name for name, p in later.parameters.get(player, {}).items()}
        own = self.parameters[player]
        return {name: names[id(p)] for name, p in own.items() if id(p) in names}

    def describe(self) -> dict[str, list[list[Any]]]:
        """Return player → [name, shape, dtype] of every parameter, in plain containers."""
        described: dict[str, list[list[Any]]] = {}
        for player, own in self.parameters.items():
            described[player] = [[name, list(p.shape), str(p.dtype)] for name, p in own.items()]
        return described


def signature(optimizers: Mapping[str, Optimizer], rule: object) -> list[Any]:
    """Return values that change whenever the layout or the compatibility with the rule may change.

    They are compared in every step, so computing them is cheap.

    Raises:
        UsageError: a learning rate is negative, NaN or infinite.
    """
    result: list[Any] = [id(rule)]
    for player, optimizer in optimizers.items():
        for group in optimizer.param_groups:
            get = group.get
            lr = get("lr", 0.0)
            if (
                not _MINIMUM_LR
                <= (lr if type(lr) is float else _lr_as_float(player, lr))
                < math.inf
            ):
                raise UsageError(
                    f'Player "{player}": the learning rate is {float(lr)}. It must be finite and at'
                    " least 0; check the scheduler that set it. To move a player the other way,"
                    " negate its loss."
                )
            flags = (bool(get("maximize")), bool(get("weight_decay")), bool(get("momentum")))
            result.append(
                (player, id(optimizer), flags, [(id(p), p.requires_grad) for p in group["params"]])
            )
    return result


def _lr_as_float(player: str, lr: object) -> float:
    """Return a learning rate as a float, 0 if it is on a GPU: reading it would wait for the GPU."""
    if isinstance(lr, Tensor) and lr.numel() == 1:
        return 0.0 if lr.is_cuda else float(lr)
    if isinstance(lr, int | float) and not isinstance(lr, bool):
        return float(lr)
    raise UsageError(f'Player "{player}": the learning rate is {lr!r}. It must be a number.')
