"""Which parameters the inner optimizers hold, under which names, and what makes that out of date."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from saddlepoint.errors import UsageError
from saddlepoint.game import Players

_ROUNDING = -1e-12
"""What a schedule that ends at zero may end at: torch's LinearLR multiplies its way there."""


class Layout:
    """The parameters of each player in the order of its optimizer, frozen ones set apart.

    A parameter's name is the one that the optimizer was given (``named_parameters``), otherwise
    "group.position"; of several with one name, as where two networks are one player, all but the
    first have their place added.

    Attributes:
        parameters: player → name → parameter, all of them.
        players: player → the parameters that require gradients.
        names: player → the names of these.
        frozen: the others, of all players.
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
        for player, own in self.parameters.items():
            moving = {name: parameter for name, parameter in own.items() if parameter.requires_grad}
            self.players[player], self.names[player] = tuple(moving.values()), tuple(moving)
        everything = (parameter for own in self.parameters.values() for parameter in own.values())
        self.frozen = [parameter for parameter in everything if not parameter.requires_grad]

    def renamed(self, player: str, later: Layout) -> dict[str, str]:
        """Return old name → name in a later layout of those parameters of a player that are still there."""
        names = {
            id(parameter): name for name, parameter in later.parameters.get(player, {}).items()
        }
        own = self.parameters[player]
        return {
            name: names[id(parameter)] for name, parameter in own.items() if id(parameter) in names
        }

    def describe(self) -> dict[str, list[list[Any]]]:
        """Return player → [name, shape, dtype] of every parameter, in plain containers."""
        described: dict[str, list[list[Any]]] = {}
        for player, own in self.parameters.items():
            described[player] = [[name, list(p.shape), str(p.dtype)] for name, p in own.items()]
        return described


def signature(optimizers: Mapping[str, Optimizer], rule: object) -> list[Any]:
    """Return what decides the layout and whether an optimizer fits its rule; cheap, it is compared at every step.

    Raises:
        UsageError: a learning rate is negative, NaN or infinite.
    """
    found: list[Any] = [id(rule)]
    for player, optimizer in optimizers.items():
        for group in optimizer.param_groups:
            get = group.get
            lr = get("lr", 0.0)
            if not _ROUNDING <= (lr if type(lr) is float else _number(player, lr)) < math.inf:
                raise UsageError(
                    f'Player "{player}": the learning rate is {float(lr)}. It must be finite and at'
                    " least 0; look at the scheduler that set it. To move a player the other way,"
                    " negate its loss."
                )
            flags = (bool(get("maximize")), bool(get("weight_decay")), bool(get("momentum")))
            found.append(
                (player, id(optimizer), flags, [(id(p), p.requires_grad) for p in group["params"]])
            )
    return found


def _number(player: str, lr: object) -> float:
    """Return a learning rate that is no float as one; one on a GPU is not looked at, which would wait for it."""
    if isinstance(lr, Tensor) and lr.numel() == 1:
        return 0.0 if lr.is_cuda else float(lr)
    if isinstance(lr, int | float) and not isinstance(lr, bool):
        return float(lr)
    raise UsageError(f'Player "{player}": the learning rate is {lr!r}. It must be a number.')
