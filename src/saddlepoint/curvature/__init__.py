"""Derivatives of a game at one point: losses, gradient, Jacobian products and the solvers that use them."""

from saddlepoint.curvature.evaluation import Cost, Evaluation, linearize
from saddlepoint.curvature.operators import Jacobian, Operator
from saddlepoint.curvature.solvers import SOLVERS, Solution, Solve, Solver, cg, gmres, minres, saddle_free, schur_cg
from saddlepoint.curvature.spectrum import Eigenvalues, SchurComplement, eigenvalues

__all__ = [
    "SOLVERS",
    "Cost",
    "Eigenvalues",
    "Evaluation",
    "Jacobian",
    "Operator",
    "SchurComplement",
    "Solution",
    "Solve",
    "Solver",
    "cg",
    "eigenvalues",
    "gmres",
    "linearize",
    "minres",
    "saddle_free",
    "schur_cg",
]
