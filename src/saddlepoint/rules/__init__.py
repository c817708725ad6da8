"""Rules, which turn losses, gradients and curvature into each player's direction."""

from saddlepoint.rules.adjusted import (
    LOLA,
    Consensus,
    Hamiltonian,
    JacobianRegularized,
    StableOpponentShaping,
    StochasticHamiltonian,
    SymplecticGradientAdjustment,
)
from saddlepoint.rules.base import Rule
from saddlepoint.rules.first_order import (
    Extragradient,
    GradientDescent,
    Optimistic,
    PastExtragradient,
    RungeKutta,
)
from saddlepoint.rules.implicit import (
    AdaptiveCompetitiveGradient,
    CompetitiveGradient,
    LinearizedCompetitiveGradient,
    ProximalPoint,
)
from saddlepoint.rules.newton import Newton
from saddlepoint.rules.preconditioners import (
    KroneckerPreconditioner,
    Preconditioner,
    PreconditionerMatrix,
    RMSPreconditioner,
)
from saddlepoint.rules.stackelberg import (
    CompleteNewton,
    FollowTheRidge,
    GradientNewton,
    TotalGradient,
    Unrolled,
)
from saddlepoint.rules.state import RuleState
from saddlepoint.rules.step import Step
from saddlepoint.rules.wrappers import Averaged, Clipped, Every, Lookahead, PerPlayer
from saddlepoint.rules.zeroth_order import RandomizedSmoothing, SimultaneousPerturbation

__all__ = [
    "LOLA",
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
    "Optimistic",
    "PastExtragradient",
    "PerPlayer",
    "Preconditioner",
    "PreconditionerMatrix",
    "ProximalPoint",
    "RMSPreconditioner",
    "RandomizedSmoothing",
    "Rule",
    "RuleState",
    "RungeKutta",
    "SimultaneousPerturbation",
    "StableOpponentShaping",
    "Step",
    "StochasticHamiltonian",
    "SymplecticGradientAdjustment",
    "TotalGradient",
    "Unrolled",
]
