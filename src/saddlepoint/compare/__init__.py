"""Comparing methods fairly: the same start, data and evaluation for all, equal budgets, equal tuning, and every outcome counted."""

from saddlepoint.extras import needs

with needs("tune", "saddlepoint.compare"):
    from saddlepoint.compare.comparison import compare, tune_method
    from saddlepoint.compare.methods import method_called
    from saddlepoint.compare.reading import read_study
    from saddlepoint.compare.study import MethodPlan, ProblemPlan, Range, Study, TuningPlan
    from saddlepoint.compare.tuning import Tuned, tune

__all__ = [
    "MethodPlan",
    "ProblemPlan",
    "Range",
    "Study",
    "Tuned",
    "TuningPlan",
    "compare",
    "method_called",
    "read_study",
    "tune",
    "tune_method",
]
