"""Losses at many displaced points in one pass, with torch.func.vmap over stacked parameters."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from saddlepoint.errors import UsageError
from saddlepoint.game import Closure, Players, read_terms, select_losses, total
from saddlepoint.vectors import Vector


class _Game(nn.Module):
    """The closure as a forward pass of a module that contains the networks.

    ``functional_call`` can then replace their parameters while the closure runs.
    """

    def __init__(
        self, modules: Sequence[nn.Module], closure: Closure, only: Collection[str] | None
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)
        # in a tuple, so that a closure that is a module itself is not registered as a submodule
        self._closure = (closure,)
        self._only = only

    def forward(self) -> dict[str, Tensor]:
        terms = read_terms(select_losses(self._closure[0](), self._only))
        return {player: total(own) for player, own in terms.items()}


def losses_in_batch(
    closure: Closure,
    modules: Sequence[nn.Module],
    players: Players,
    displacements: Vector,
    *,
    only: Collection[str] | None = None,
) -> dict[str, Tensor]:
    """Return player → the losses at θ − d for every d of a stack, shape (n,), float64 on the CPU.

    The n evaluations share one draw of every random number. The parameters themselves do not
    change: the modules have stacked ones while the closure runs.

    Args:
        closure: returns the losses of the active players; it must read the displaced parameters
            through ``modules``.
        modules: networks that hold every displaced parameter.
        players: player → parameters.
        displacements: player → for each parameter of shape s a tensor of shape (n, *s).
        only: the players whose losses are returned; all that the closure returns by default.

    Raises:
        UsageError: a displaced parameter is in none of the modules, or vmap refuses an operation of
            the closure.

    >>> net = nn.Linear(1, 1, bias=False, device="meta").to_empty(device="cpu")
    >>> _ = nn.init.ones_(net.weight)
    >>> steps = Vector({"x": [torch.tensor([0.0, 1.0, 3.0]).view(3, 1, 1)]})
    >>> closure = lambda: {"x": (net.weight**2).sum()}
    >>> losses_in_batch(closure, [net], {"x": (net.weight,)}, steps)["x"].tolist()
    [1.0, 0.0, 4.0]
    """
    game = _Game(modules, closure, only)
    names = {id(parameter): name for name, parameter in game.named_parameters()}
    stacked: dict[str, Tensor] = {}
    for player, stacks in displacements.items():
        for index, (parameter, stack) in enumerate(zip(players[player], stacks, strict=True)):
            if id(parameter) not in names:
                raise UsageError(
                    f'batched=True: parameter {index} of player "{player}", shape'
                    f" {tuple(parameter.shape)}, is in none of the modules that the optimizer"
                    " knows. Name all networks as GameOptimizer(..., modules=[G, D]), or use"
                    " batched=False."
                )
            stacked[names[id(parameter)]] = parameter.detach() - stack
    try:
        with torch.no_grad():
            found: Mapping[str, Tensor] = vmap(
                lambda parameters: functional_call(game, parameters, ()), randomness="same"
            )(stacked)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise UsageError(
            "batched=True: the closure cannot be evaluated at many points in one pass. The usual"
            " reasons are BatchNorm that updates its statistics, .item(), and control flow that"
            f" depends on values. PyTorch says: {str(error).splitlines()[0]} Use batched=False."
        ) from error
    return {player: losses.double().cpu() for player, losses in found.items()}
