"""Losses, gradient and Jacobian of a game at one point, linear solvers and eigenvalues."""

from saddlepoint.curvature.backward_check import check_backward
from saddlepoint.curvature.linearization import (
    Cost,
    Linearization,
    linearize,
)
from saddlepoint.curvature.operators import Jacobian, Operator
from saddlepoint.curvature.solvers import (
    SOLVERS,
    Solution,
    SolveInfo,
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
    "Cost",
    "Eigenvalues",
    "Jacobian",
    "Linearization",
    "Operator",
    "SchurComplement",
    "Solution",
    "SolveInfo",
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
