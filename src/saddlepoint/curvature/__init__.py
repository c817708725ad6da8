"""Derivatives of a game at one point: losses, gradient, Jacobian products and the solvers that use them."""

from saddlepoint.curvature.backward_check import check_backward
from saddlepoint.curvature.evaluation import Accumulated, Cost, Evaluation, linearize
from saddlepoint.curvature.operators import Jacobian, Operator
from saddlepoint.curvature.solvers import (
    SOLVERS,
    Solution,
    Solve,
    Solver,
    cg,
    gmres,
    minres,
    saddle_free,
    schur_cg,
)
from saddlepoint.curvature.spectrum import Eigenvalues, SchurComplement, eigenvalues

__all__ = [
    "SOLVERS",
    "Accumulated",
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
    "check_backward",
    "eigenvalues",
    "gmres",
    "linearize",
    "minres",
    "saddle_free",
    "schur_cg",
]
