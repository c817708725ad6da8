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
    from saddlepoint.curvature import Cost, Jacobian, Linearization, SolveInfo, linearize
    from saddlepoint.distributed import Distributed
    from saddlepoint.errors import (
        CorruptFileWarning,
        CurvatureWarning,
        DistributedError,
        DivergenceError,
        DoubleBackwardError,
        MissingExtraError,
        SaddlepointError,
        SolverWarning,
        UsageError,
    )
    from saddlepoint.game import Game
    from saddlepoint.game_optimizer import GameOptimizer
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
    from saddlepoint.rules import (
        LOLA,
        AdaptiveCompetitiveGradient,
        Averaged,
        Clipped,
        CompetitiveGradient,
        CompleteNewton,
        Consensus,
        Every,
        Extragradient,
        FollowTheRidge,
        GradientDescent,
        GradientNewton,
        Hamiltonian,
        JacobianRegularized,
        KroneckerPreconditioner,
        LinearizedCompetitiveGradient,
        Lookahead,
        Newton,
        Optimistic,
        PastExtragradient,
        PerPlayer,
        ProximalPoint,
        RandomizedSmoothing,
        RMSPreconditioner,
        Rule,
        RungeKutta,
        SimultaneousPerturbation,
        StableOpponentShaping,
        Step,
        StochasticHamiltonian,
        SymplecticGradientAdjustment,
        TotalGradient,
        Unrolled,
    )
    from saddlepoint.step_result import StepResult
    from saddlepoint.vectors import Vector

# Loaded on first use, so that the command line answers without waiting for torch.
_HOMES = {
    "curvature": ["Cost", "Linearization", "Jacobian", "SolveInfo", "linearize"],
    "errors": [
        "CurvatureWarning",
        "CorruptFileWarning",
        "DivergenceError",
        "DoubleBackwardError",
        "MissingExtraError",
        "DistributedError",
        "SaddlepointError",
        "SolverWarning",
        "UsageError",
    ],
    "game": ["Game"],
    "game_optimizer": ["GameOptimizer"],
    "distributed": ["Distributed"],
    "step_result": ["StepResult"],
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
        "RMSPreconditioner",
        "AdaptiveCompetitiveGradient",
        "Averaged",
        "Clipped",
        "CompetitiveGradient",
        "CompleteNewton",
        "Consensus",
        "Every",
        "Extragradient",
        "FollowTheRidge",
        "GradientDescent",
        "GradientNewton",
        "Hamiltonian",
        "JacobianRegularized",
        "KroneckerPreconditioner",
        "LinearizedCompetitiveGradient",
        "Lookahead",
        "Newton",
        "LOLA",
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
        "SymplecticGradientAdjustment",
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
    "LOLA",
    "SOAP",
    "AdaptiveCompetitiveGradient",
    "Averaged",
    "Clipped",
    "CompetitiveGradient",
    "CompleteNewton",
    "Consensus",
    "CorruptFileWarning",
    "Cost",
    "CurvatureWarning",
    "Distributed",
    "DistributedError",
    "DivergenceError",
    "DoubleBackwardError",
    "Every",
    "Extragradient",
    "FollowTheRidge",
    "Game",
    "GameOptimizer",
    "GradientDescent",
    "GradientNewton",
    "GradientOptimizer",
    "Grafted",
    "Hamiltonian",
    "Jacobian",
    "JacobianRegularized",
    "KroneckerPreconditioner",
    "Linearization",
    "LinearizedCompetitiveGradient",
    "Lookahead",
    "MissingExtraError",
    "MomentumSGD",
    "Newton",
    "NormalizedSubgradient",
    "Optimistic",
    "PastExtragradient",
    "PerPlayer",
    "ProximalPoint",
    "RMSPreconditioner",
    "RandomCoordinate",
    "RandomizedSmoothing",
    "Rule",
    "RungeKutta",
    "SaddlepointError",
    "SignSubgradient",
    "SimultaneousPerturbation",
    "SolveInfo",
    "SolverWarning",
    "StableOpponentShaping",
    "Step",
    "StepResult",
    "StochasticHamiltonian",
    "Subgradient",
    "SymplecticGradientAdjustment",
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
