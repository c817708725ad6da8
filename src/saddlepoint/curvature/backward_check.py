"""Check that the backward of custom autograd functions is the derivative of their forward."""

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
"""Takes a displacement d; returns player → loss at θ − d, with unchanged randomness."""


@dataclass(frozen=True)
class _Direction:
    """A unit vector along which the slope of a player's loss is compared with differences."""

    player: str
    unit: Vector
    slope: float  # by autograd
    custom_slope: float  # the part of it that passes through custom backwards
    width: float  # of the central difference
    rounding: float  # of a difference of losses, before it is divided by the width

    def measure(self, width: float, losses_at: LossesAt) -> float:
        """Return the slope by central differences."""
        ahead, back = losses_at(self.unit * -width), losses_at(self.unit * width)
        return (ahead[self.player] - back[self.player]) / (2 * width)

    def differs(self, width: float, losses_at: LossesAt) -> bool:
        """Return whether the slopes differ by more than a tenth of the custom part."""
        error = abs(self.measure(width, losses_at) - self.slope)
        return error > 0.1 * self.custom_slope + self.rounding / width


def check_backward(linearization: Linearization, losses_at: LossesAt) -> None:
    """Check gradients that pass through ``torch.autograd.Function`` classes by finite differences.

    With a gradient reversal layer, a straight-through estimator or a wrong backward, the gradient
    of autograd is not that of the loss. Products with the Jacobian rely on the symmetry of the
    Hessian of each loss, and are then wrong.

    Args:
        linearization: of order 2; where its graph contains such classes, it is unusable afterwards.
        losses_at: evaluates the losses at displaced parameters; called only where the graph
            contains such classes.

    Raises:
        DoubleBackwardError: a gradient is not that of the loss; it names the classes.
    """
    nodes = linearization.custom_functions()
    if not nodes:
        return
    directions = []
    for i in linearization.active:
        gradient = linearization.loss_gradient_with_graph(i).detach()
        through_custom = linearization.loss_gradient_through(i, nodes)
        for j in linearization.active:
            part = through_custom.only([j])
            custom_slope = float(part.norm())
            if custom_slope > 0:
                unit = part / custom_slope
                slope = float(gradient.only([j]).dot(unit))
                eps = max(torch.finfo(t.dtype).eps for t in unit.tensors)
                size = 1 + float(Vector({j: linearization.players[j]}).detach().norm())
                width, rounding = size * eps ** (1 / 3), 20 * eps * abs(linearization.losses[i])
                directions.append(_Direction(i, unit, slope, custom_slope, width, rounding))
    for direction in directions:
        # two widths, because one difference may straddle a kink of a piecewise-linear network
        width = direction.width
        if direction.differs(width, losses_at) and direction.differs(width / 8, losses_at):
            names = sorted({node.name().removesuffix("Backward") for node in nodes})
            measured = direction.measure(width, losses_at)
            raise DoubleBackwardError(
                f'The loss of player "{direction.player}" contains {" and ".join(names)}, a'
                " torch.autograd.Function whose backward is not the derivative of its forward:"
                f" along one direction autograd gives the slope {direction.slope:.3g}, differences"
                f" of the loss give {measured:.3g}. A gradient reversal layer and a"
                " straight-through estimator do this on purpose; Jacobian products are wrong with"
                " them. Give each player a loss of its own instead of reversing gradients, or"
                " choose a first-order rule."
            )
