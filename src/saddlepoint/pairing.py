"""Which inner optimizers a rule can work with, and what is said where it cannot."""

from __future__ import annotations

import warnings

from torch.optim import LBFGS, SGD, Optimizer

from saddlepoint.errors import CurvatureWarning, UsageError
from saddlepoint.optim import GradientOptimizer
from saddlepoint.rules import Averaged, Gradient, Lookahead, Rule


def check_pair(player: str, optimizer: Optimizer, rule: Rule) -> None:
    """Raise UsageError where the optimizer of a player cannot apply the directions of the rule; warn where it changes them."""
    name, kind = type(rule).__name__, type(optimizer).__name__
    if isinstance(optimizer, LBFGS):
        raise UsageError(f'Player "{player}": LBFGS evaluates its own closure, which a game step does not have. Use any other optimizer.')
    if isinstance(optimizer, GradientOptimizer) and optimizer.needs_loss and not _follows_the_gradient(rule):
        raise UsageError(
            f'Player "{player}": this {kind} uses the value of the loss, and directions of {name} are not its gradient at that point. '
            "Use it with Gradient, or choose another step size or average."
        )
    for group in optimizer.param_groups:
        if group.get("maximize"):
            raise UsageError(f'Player "{player}": maximize=True. Every player minimises its own loss; negate the loss instead.')
        plain = isinstance(optimizer, SGD) and not (group["momentum"] or group["weight_decay"])
        if rule.units == "step" and not plain:
            raise UsageError(
                f'Player "{player}": {name} gives steps that contain the learning rate already, so its inner optimizer must be '
                f"torch.optim.SGD without momentum and weight decay, not {kind}. Use SGD, or a rule in units of gradients."
            )
        if rule.order == 2 and group.get("weight_decay"):
            warnings.warn(
                f'Player "{player}": weight decay of {kind} acts outside the curvature of {name} and changes its step. '
                "Add the decay to the loss instead to keep the rule exact.",
                CurvatureWarning,
                stacklevel=3,
            )


def _follows_the_gradient(rule: Rule) -> bool:
    """Say whether a rule's directions are the players' gradients at the current point, so that they belong to its losses."""
    return isinstance(rule, Gradient) or (isinstance(rule, Averaged | Lookahead) and _follows_the_gradient(rule.rule))
