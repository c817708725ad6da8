"""What is looked at before a study starts, so that a mistake in it is said at once and not after an hour."""

from __future__ import annotations

import torch

from saddlepoint import registry
from saddlepoint.compare.configuration import configuration, space_of
from saddlepoint.compare.study import RATIO, MethodPlan, ProblemPlan, Study
from saddlepoint.compare.tuning import smaller_is_better
from saddlepoint.errors import UsageError
from saddlepoint.game_optimizer import GameOptimizer
from saddlepoint.problems.base import DISCRIMINATOR, GENERATOR
from saddlepoint.training.config import RunConfig
from saddlepoint.training.evaluator import weights_prefix
from saddlepoint.training.inner_optimizers import try_optimizer


def check(study: Study) -> None:
    """Build every method of every problem once, at every choice of its space, on stand-in networks, and look up every metric.

    Raises:
        UsageError: it names the problem and the method.
    """
    for plan in study.problems:
        smaller_is_better(plan)
        if weights_prefix(plan.metric) == "average/":
            raise UsageError(
                f'Problem "{plan.name}": metric "{plan.metric}" is of weights that not every method'
                " has. Use ema/ or no prefix."
            )
        for name, method in study.methods_of(plan).items():
            try:
                _check_method(plan, method)
            except UsageError as error:
                raise UsageError(f'Problem "{plan.name}", method "{name}": {error}') from error


def _check_method(plan: ProblemPlan, method: MethodPlan) -> None:
    _build(configuration(plan, method, {}))
    space = space_of(plan, method)
    if RATIO in space and "optimizer.lr" not in space:
        raise UsageError(
            '"ratio" is searched only together with optimizer.lr. Add optimizer.lr to the space.'
        )
    for path, where in space.items():
        for value in where.choices or (where.log or where.uniform or ()):
            rate = {"optimizer.lr": 1e-3} if path == RATIO else {}
            _build(configuration(plan, method, {**rate, path: value}))


def _build(config: RunConfig) -> None:
    """Build the optimizer of a configuration over stand-in parameters; a UsageError says what does not go together."""
    stand_ins = {
        player: [("weight", torch.zeros(2, 2, requires_grad=True))]
        for player in (DISCRIMINATOR, GENERATOR)
    }
    for player in stand_ins:
        try_optimizer(
            player,
            config.optimizer.name,
            config.optimizer.options_for(player),
            [("weight", (2, 2)), ("bias", (2,))],
        )
    GameOptimizer(
        {
            p: registry.build_optimizer(config.optimizer.name, own, config.optimizer.options_for(p))
            for p, own in stand_ins.items()
        },
        registry.build_rule(config.rule.name, config.rule.options),
    )
