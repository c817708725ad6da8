"""Optimisation of differentiable games: train GANs and other adversarial models with gradients, curvature and subgradients.

Three words to know: a *game* has players, each minimising its own loss; a *rule* turns the losses into each player's update
direction; a *GameOptimizer* joins one rule with one ordinary torch optimizer per player.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from saddlepoint import optim as optim
    from saddlepoint.curvature import Cost, Evaluation, Jacobian, Solve, linearize
    from saddlepoint.errors import (
        CurvatureWarning,
        DamageWarning,
        DivergenceError,
        DoubleBackwardError,
        MissingExtraError,
        RankError,
        SaddlepointError,
        SolverWarning,
        UsageError,
    )
    from saddlepoint.game import Game
    from saddlepoint.game_optimizer import GameOptimizer, Record
    from saddlepoint.ranks import TorchRanks
    from saddlepoint.rules import RMS, AdaptiveCompetitiveGradient, CompetitiveGradient, Gradient, Kronecker, Newton, Rule, Step
    from saddlepoint.vectors import Vector

# Loaded on first use, so that the command line answers without waiting for torch.
_HOMES = {
    "curvature": ["Cost", "Evaluation", "Jacobian", "Solve", "linearize"],
    "errors": [
        "CurvatureWarning",
        "DamageWarning",
        "DivergenceError",
        "DoubleBackwardError",
        "MissingExtraError",
        "RankError",
        "SaddlepointError",
        "SolverWarning",
        "UsageError",
    ],
    "game": ["Game"],
    "game_optimizer": ["GameOptimizer", "Record"],
    "ranks": ["TorchRanks"],
    "rules": ["RMS", "AdaptiveCompetitiveGradient", "CompetitiveGradient", "Gradient", "Kronecker", "Newton", "Rule", "Step"],
    "vectors": ["Vector"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_SUBPACKAGES = [
    "compare",
    "curvature",
    "data",
    "diagnostics",
    "games",
    "metrics",
    "models",
    "optim",
    "problems",
    "report",
    "rules",
    "testing",
    "training",
]

__all__ = [
    "RMS",
    "AdaptiveCompetitiveGradient",
    "CompetitiveGradient",
    "Cost",
    "CurvatureWarning",
    "DamageWarning",
    "DivergenceError",
    "DoubleBackwardError",
    "Evaluation",
    "Game",
    "GameOptimizer",
    "Gradient",
    "Jacobian",
    "Kronecker",
    "MissingExtraError",
    "Newton",
    "RankError",
    "Record",
    "Rule",
    "SaddlepointError",
    "Solve",
    "SolverWarning",
    "Step",
    "TorchRanks",
    "UsageError",
    "Vector",
    "linearize",
    "optim",
]


def __getattr__(name: str) -> object:
    if name in _HOME_OF:
        return getattr(import_module(f"saddlepoint.{_HOME_OF[name]}"), name)
    if name in _SUBPACKAGES:
        return import_module(f"saddlepoint.{name}")
    raise AttributeError(f"module 'saddlepoint' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF, *_SUBPACKAGES])
