"""Rules: from what is known at a point to each player's update direction."""

from saddlepoint.rules.base import Rule, RuleState, Step
from saddlepoint.rules.first_order import Gradient
from saddlepoint.rules.implicit import AdaptiveCompetitiveGradient, CompetitiveGradient, Newton
from saddlepoint.rules.scalings import RMS

__all__ = ["RMS", "AdaptiveCompetitiveGradient", "CompetitiveGradient", "Gradient", "Newton", "Rule", "RuleState", "Step"]
