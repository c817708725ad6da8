"""Rules: from what is known at a point to each player's update direction."""

from saddlepoint.rules.adjusted import (
    Consensus,
    Hamiltonian,
    JacobianRegularized,
    OpponentShaping,
    StableOpponentShaping,
    StochasticHamiltonian,
    SymplecticAdjustment,
)
from saddlepoint.rules.base import Rule, Step
from saddlepoint.rules.first_order import (
    Extragradient,
    Gradient,
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
from saddlepoint.rules.scalings import RMS, Kronecker, Metric, Scaling
from saddlepoint.rules.stackelberg import (
    CompleteNewton,
    FollowTheRidge,
    GradientNewton,
    TotalGradient,
    Unrolled,
)
from saddlepoint.rules.state import RuleState
from saddlepoint.rules.wrappers import Averaged, Clipped, Every, Lookahead, PerPlayer
from saddlepoint.rules.zeroth_order import RandomizedSmoothing, SimultaneousPerturbation

__all__ = [
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
    "Metric",
    "Newton",
    "OpponentShaping",
    "Optimistic",
    "PastExtragradient",
    "PerPlayer",
    "ProximalPoint",
    "RandomizedSmoothing",
    "Rule",
    "RuleState",
    "RungeKutta",
    "Scaling",
    "SimultaneousPerturbation",
    "StableOpponentShaping",
    "Step",
    "StochasticHamiltonian",
    "SymplecticAdjustment",
    "TotalGradient",
    "Unrolled",
]
