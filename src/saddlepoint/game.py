"""A game: players and one loss for each, every player minimising its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from torch import Tensor, nn

from saddlepoint.errors import UsageError

Losses = Mapping[str, Tensor | Mapping[str, Tensor]]
"""player → loss; a loss is a scalar tensor or named scalar terms, which are summed."""

Closure = Callable[[], Losses]
"""Computes the losses of the players that move, at the current parameters."""

Players = dict[str, tuple[Tensor, ...]]
"""player → the parameters that it moves."""


class Game:
    """Players, each with its parameters and its own loss to minimise.

    Args:
        players: name → a module, or the tensors that the player moves. Tensors that do not require gradients are left out.
        losses: called without arguments, returns name → loss at the current parameters. A loss may be a mapping of named
            terms, which are summed.

    Raises:
        UsageError: no players, a player without parameters, or a parameter that two players own.

    >>> import torch
    >>> x = torch.ones(2, requires_grad=True)
    >>> game = Game({"x": [x]}, lambda: {"x": (x**2).sum()})
    >>> game.losses()["x"].item()
    2.0
    """

    def __init__(self, players: Mapping[str, nn.Module | Iterable[Tensor]], losses: Closure) -> None:
        self.players = {name: _parameters(owner) for name, owner in players.items()}
        self.losses = losses
        check_players(self.players)


def check_players(players: Players) -> None:
    """Raise UsageError unless every player owns parameters and no two players share one."""
    if not players:
        raise UsageError("A game needs at least one player.")
    owners: dict[int, str] = {}
    for name, parameters in players.items():
        if not parameters:
            raise UsageError(f'Player "{name}" has no parameters that require gradients.')
        for index, parameter in enumerate(parameters):
            owner = owners.setdefault(id(parameter), name)
            if owner != name:
                raise UsageError(
                    f'Parameter {index} of player "{name}", shape {tuple(parameter.shape)}, also belongs to player "{owner}". '
                    "Each parameter is moved by exactly one player; give shared layers to one of them."
                )


def _parameters(owner: nn.Module | Iterable[Tensor]) -> tuple[Tensor, ...]:
    tensors = owner.parameters() if isinstance(owner, nn.Module) else owner
    return tuple(tensor for tensor in tensors if tensor.requires_grad)
