"""Checks for your own code: conformance of a rule, and whether a slope is a subgradient."""

from saddlepoint.testing.rules import ANALYTIC_GAMES, check_rule
from saddlepoint.testing.subgradients import check_subgradient

__all__ = ["ANALYTIC_GAMES", "check_rule", "check_subgradient"]
