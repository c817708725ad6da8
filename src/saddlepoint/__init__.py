"""Optimisation of differentiable games: train GANs and other adversarial models with gradients, curvature and subgradients.

Three words to know: a *game* has players, each minimising its own loss; a *rule* turns the losses
into each player's update direction; a *GameOptimizer* joins one rule with one ordinary torch
optimizer per player.
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
    from saddlepoint.games import (
        GAN_LOSSES,
        critic_generator,
        gradient_penalty,
        hinge_discriminator,
        minimax_discriminator,
        minimax_generator,
        non_saturating_generator,
        wasserstein_discriminator,
    )
    from saddlepoint.optim import (
        SOAP,
        GradientOptimizer,
        Grafted,
        MomentumSGD,
        NormalizedSubgradient,
        RandomCoordinate,
        SignSubgradient,
        Subgradient,
    )
    from saddlepoint.ranks import TorchRanks
    from saddlepoint.rules import (
        RMS,
        AdaptiveCompetitiveGradient,
        Averaged,
        Clipped,
        CompetitiveGradient,
        CompleteNewton,
        Consensus,
        Every,
        Extragradient,
        FollowTheRidge,
        Gradient,
        GradientNewton,
        Hamiltonian,
        JacobianRegularized,
        Kronecker,
        LinearizedCompetitiveGradient,
        Lookahead,
        Newton,
        OpponentShaping,
        Optimistic,
        PastExtragradient,
        PerPlayer,
        ProximalPoint,
        RandomizedSmoothing,
        Rule,
        RungeKutta,
        SimultaneousPerturbation,
        StableOpponentShaping,
        Step,
        StochasticHamiltonian,
        SymplecticAdjustment,
        TotalGradient,
        Unrolled,
    )
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
    "games": [
        "GAN_LOSSES",
        "critic_generator",
        "gradient_penalty",
        "hinge_discriminator",
        "minimax_discriminator",
        "minimax_generator",
        "non_saturating_generator",
        "wasserstein_discriminator",
    ],
    "optim": [
        "SOAP",
        "GradientOptimizer",
        "Grafted",
        "MomentumSGD",
        "NormalizedSubgradient",
        "RandomCoordinate",
        "SignSubgradient",
        "Subgradient",
    ],
    "rules": [
        "RMS",
        "AdaptiveCompetitiveGradient",
        "Averaged",
        "Clipped",
        "CompetitiveGradient",
        "CompleteNewton",
        "Consensus",
        "Every",
        "Extragradient",
        "FollowTheRidge",
        "Gradient",
        "GradientNewton",
        "Hamiltonian",
        "JacobianRegularized",
        "Kronecker",
        "LinearizedCompetitiveGradient",
        "Lookahead",
        "Newton",
        "OpponentShaping",
        "Optimistic",
        "PastExtragradient",
        "PerPlayer",
        "ProximalPoint",
        "RandomizedSmoothing",
        "Rule",
        "RungeKutta",
        "SimultaneousPerturbation",
        "StableOpponentShaping",
        "Step",
        "StochasticHamiltonian",
        "SymplecticAdjustment",
        "TotalGradient",
        "Unrolled",
    ],
    "vectors": ["Vector"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_SUBPACKAGES = [
    "compare",
    "curvature",
    "data",
    "diagnostics",
    "doctor",
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
    "GAN_LOSSES",
    "RMS",
    "SOAP",
    "AdaptiveCompetitiveGradient",
    "Averaged",
    "Clipped",
    "CompetitiveGradient",
    "CompleteNewton",
    "Consensus",
    "Cost",
    "CurvatureWarning",
    "DamageWarning",
    "DivergenceError",
    "DoubleBackwardError",
    "Evaluation",
    "Every",
    "Extragradient",
    "FollowTheRidge",
    "Game",
    "GameOptimizer",
    "Gradient",
    "GradientNewton",
    "GradientOptimizer",
    "Grafted",
    "Hamiltonian",
    "Jacobian",
    "JacobianRegularized",
    "Kronecker",
    "LinearizedCompetitiveGradient",
    "Lookahead",
    "MissingExtraError",
    "MomentumSGD",
    "Newton",
    "NormalizedSubgradient",
    "OpponentShaping",
    "Optimistic",
    "PastExtragradient",
    "PerPlayer",
    "ProximalPoint",
    "RandomCoordinate",
    "RandomizedSmoothing",
    "RankError",
    "Record",
    "Rule",
    "RungeKutta",
    "SaddlepointError",
    "SignSubgradient",
    "SimultaneousPerturbation",
    "Solve",
    "SolverWarning",
    "StableOpponentShaping",
    "Step",
    "StochasticHamiltonian",
    "Subgradient",
    "SymplecticAdjustment",
    "TorchRanks",
    "TotalGradient",
    "Unrolled",
    "UsageError",
    "Vector",
    "critic_generator",
    "gradient_penalty",
    "hinge_discriminator",
    "linearize",
    "minimax_discriminator",
    "minimax_generator",
    "non_saturating_generator",
    "optim",
    "wasserstein_discriminator",
]


def __getattr__(name: str) -> object:
    if name in _HOME_OF:
        return getattr(import_module(f"saddlepoint.{_HOME_OF[name]}"), name)
    if name in _SUBPACKAGES:
        return import_module(f"saddlepoint.{name}")
    raise AttributeError(f"module 'saddlepoint' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF, *_SUBPACKAGES])
