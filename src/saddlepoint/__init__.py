"""Optimisation of differentiable games, such as the training of GANs.

A *game* has players, each minimising its own loss. A *rule* turns the losses into a direction for
each player. A *GameOptimizer* combines one rule with one ordinary torch optimizer per player.
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

# module → its public names; imported on first use, so that the command line starts without torch
_EXPORTS = {
    "curvature": [
        "Cost",
        "Jacobian",
        "Linearization",
        "SolveInfo",
        "linearize",
    ],
    "distributed": [
        "Distributed",
    ],
    "errors": [
        "CorruptFileWarning",
        "CurvatureWarning",
        "DistributedError",
        "DivergenceError",
        "DoubleBackwardError",
        "MissingExtraError",
        "SaddlepointError",
        "SolverWarning",
        "UsageError",
    ],
    "game": [
        "Game",
    ],
    "game_optimizer": [
        "GameOptimizer",
    ],
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
        "GradientOptimizer",
        "Grafted",
        "MomentumSGD",
        "NormalizedSubgradient",
        "RandomCoordinate",
        "SOAP",
        "SignSubgradient",
        "Subgradient",
    ],
    "rules": [
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
        "LOLA",
        "LinearizedCompetitiveGradient",
        "Lookahead",
        "Newton",
        "Optimistic",
        "PastExtragradient",
        "PerPlayer",
        "ProximalPoint",
        "RMSPreconditioner",
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
    "step_result": [
        "StepResult",
    ],
    "vectors": [
        "Vector",
    ],
}
_MODULE_OF: dict[str, str] = {}
for _module, _names in _EXPORTS.items():
    _MODULE_OF.update(dict.fromkeys(_names, _module))
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
    if name in _MODULE_OF:
        return getattr(import_module(f"saddlepoint.{_MODULE_OF[name]}"), name)
    if name in _SUBPACKAGES:
        return import_module(f"saddlepoint.{name}")
    raise AttributeError(f"module 'saddlepoint' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF, *_SUBPACKAGES])
