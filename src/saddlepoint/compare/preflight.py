"""What is checked before a study starts: a mistake is reported at once, not after an hour."""

from __future__ import annotations

import torch

from saddlepoint import registry
from saddlepoint.compare.runs import run_config, search_space
from saddlepoint.compare.study import RATIO, MethodPlan, ProblemPlan, Study
from saddlepoint.errors import UsageError
from saddlepoint.game_optimizer import GameOptimizer
from saddlepoint.problems.base import DISCRIMINATOR, GENERATOR
from saddlepoint.training.evaluator import weights_prefix
from saddlepoint.training.inner_optimizers import try_optimizer


def validate_study(study: Study) -> None:
    """Look up every metric; build every method on every problem, at every choice of its space.

    Raises:
        UsageError: the message names the problem and the method.
    """
    for plan in study.problems:
        plan.smaller_is_better()
        if weights_prefix(plan.metric) == "average/":
            raise UsageError(
                f'Problem "{plan.name}": cannot compare methods by "{plan.metric}": not every'
                " method has averaged weights. Use ema/ or no prefix."
            )
        for name, method in study.methods_of(plan).items():
            try:
                _validate_method(plan, method)
            except UsageError as error:
                raise UsageError(f'Problem "{plan.name}", method "{name}": {error}') from error


def _validate_method(plan: ProblemPlan, method: MethodPlan) -> None:
    """Build a method's optimizers over stand-in parameters, at every choice of its space."""
    space = search_space(plan, method)
    if RATIO in space and "optimizer.lr" not in space:
        raise UsageError(
            '"ratio" is searched only together with optimizer.lr. Add optimizer.lr to the space.'
        )
    tried: list[dict[str, object]] = [{}]
    for path, values in space.items():
        for value in values.choices or values.log or values.uniform or ():
            lr = {"optimizer.lr": 1e-3} if path == RATIO else {}
            tried.append({**lr, path: value})

    for parameters in tried:
        config = run_config(plan, method, parameters)
        name, rule = config.optimizer.name, config.rule
        optimizers = {}
        for player in (DISCRIMINATOR, GENERATOR):
            options = config.optimizer.options_for(player)
            try_optimizer(player, name, options, [("weight", (2, 2)), ("bias", (2,))])
            stand_in = ("weight", torch.zeros(2, 2, requires_grad=True))
            optimizers[player] = registry.build_optimizer(name, [stand_in], options)
        GameOptimizer(optimizers, registry.build_rule(rule.name, rule.options))
