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
from saddlepoint.rules.base import Rule, RuleState, Step
from saddlepoint.rules.first_order import Extragradient, Gradient, Optimistic, PastExtragradient, RungeKutta
from saddlepoint.rules.implicit import (
    AdaptiveCompetitiveGradient,
    CompetitiveGradient,
    LinearizedCompetitiveGradient,
    ProximalPoint,
)
from saddlepoint.rules.newton import Newton
from saddlepoint.rules.scalings import RMS
from saddlepoint.rules.stackelberg import CompleteNewton, FollowTheRidge, GradientNewton, TotalGradient, Unrolled
from saddlepoint.rules.wrappers import Averaged, Clipped, Every, Lookahead

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
    "LinearizedCompetitiveGradient",
    "Lookahead",
    "Newton",
    "OpponentShaping",
    "Optimistic",
    "PastExtragradient",
    "ProximalPoint",
    "Rule",
    "RuleState",
    "RungeKutta",
    "StableOpponentShaping",
    "Step",
    "StochasticHamiltonian",
    "SymplecticAdjustment",
    "TotalGradient",
    "Unrolled",
]
