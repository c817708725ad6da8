"""Whether the gradient that autograd gives is that of the loss: custom backwards can be anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from saddlepoint.errors import DoubleBackwardError
from saddlepoint.vectors import Vector

if TYPE_CHECKING:
    from saddlepoint.curvature.linearization import Linearization

LossesAt = Callable[[Vector], Mapping[str, float]]
"""Takes a displacement d; returns player → loss at θ − d, with the randomness of the evaluation that is checked."""


@dataclass(frozen=True)
class _Direction:
    """Where a player's loss is looked at: a unit vector, and what autograd says of the loss along it."""

    player: str
    unit: Vector
    slope: float
    share: float  # of the gradient's length that comes through custom backwards
    width: float
    rounding: float  # of a difference of losses, before it is divided by the width

    def measured(self, width: float, losses_at: LossesAt) -> float:
        """Return the slope by central differences."""
        ahead, back = losses_at(self.unit * -width), losses_at(self.unit * width)
        return (ahead[self.player] - back[self.player]) / (2 * width)

    def differs(self, width: float, losses_at: LossesAt) -> bool:
        error = abs(self.measured(width, losses_at) - self.slope)
        return error > 0.1 * self.share + self.rounding / width


def check_backward(point: Linearization, losses_at: LossesAt) -> None:
    """Compare what comes through ``torch.autograd.Function`` classes in a gradient with differences of the losses.

    A gradient reversal layer, a straight-through estimator or a wrong backward gives a gradient
    that is not that of the loss. Products with the Jacobian rely on the Hessian of each loss being
    symmetric, which is then wrong.

    Args:
        point: an evaluation of order 2; its graph cannot be used afterwards where it contains such
            classes.
        losses_at: evaluates the losses at displaced parameters; called only where the graph
            contains such classes.

    Raises:
        DoubleBackwardError: a gradient is not that of the loss; it names the classes.
    """
    nodes = point.custom_functions()
    if not nodes:
        return
    directions = []
    for i in point.active:
        row, through = (
            point.loss_gradient_with_graph(i).detach(),
            point.loss_gradient_through(i, nodes),
        )
        for j in point.active:
            part = through.only([j])
            share = float(part.norm())
            if share > 0:
                directions.append(
                    _direction(
                        point, i, j, part / share, share, float(row.only([j]).dot(part / share))
                    )
                )
    for direction in directions:
        # two widths: one may lie across a kink of a piecewise-linear network
        if direction.differs(direction.width, losses_at) and direction.differs(
            direction.width / 8, losses_at
        ):
            names = sorted({node.name().removesuffix("Backward") for node in nodes})
            measured = direction.measured(direction.width, losses_at)
            raise DoubleBackwardError(
                f'The loss of player "{direction.player}" contains {" and ".join(names)}, a'
                " torch.autograd.Function whose backward is not the derivative of its forward:"
                f" along one direction autograd gives the slope {direction.slope:.3g}, differences"
                f" of the loss give {measured:.3g}. A gradient reversal layer and a"
                " straight-through estimator do this on purpose; Jacobian products are wrong with"
                " them. Give each player a loss of its own instead of reversing gradients, or"
                " choose a first-order rule."
            )


def _direction(
    point: Linearization, i: str, j: str, unit: Vector, share: float, slope: float
) -> _Direction:
    eps = max(torch.finfo(t.dtype).eps for t in unit.tensors)
    size = 1 + float(Vector({j: point.players[j]}).detach().norm())
    return _Direction(i, unit, slope, share, size * eps ** (1 / 3), 20 * eps * abs(point.losses[i]))
