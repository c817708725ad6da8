"""Derivatives of a game at one point: losses, gradient, Jacobian products and the solvers that use them."""

from saddlepoint.curvature.evaluation import Cost, Evaluation, linearize
from saddlepoint.curvature.operators import Jacobian, Operator
from saddlepoint.curvature.solvers import SOLVERS, Solution, Solve, Solver, cg, gmres, minres, saddle_free, schur_cg

__all__ = [
    "SOLVERS",
    "Cost",
    "Evaluation",
    "Jacobian",
    "Operator",
    "Solution",
    "Solve",
    "Solver",
    "cg",
    "gmres",
    "linearize",
    "minres",
    "saddle_free",
    "schur_cg",
]
