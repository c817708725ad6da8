"""Comparing methods fairly: the same start, data and evaluation, equal budgets, equal tuning."""

from saddlepoint.extras import needs

with needs("tune", "saddlepoint.compare"):
    from saddlepoint.compare.comparison import compare, tune_method
    from saddlepoint.compare.study import (
        MethodPlan,
        ProblemPlan,
        Range,
        Study,
        TuningPlan,
        method_from_name,
        read_study,
    )
    from saddlepoint.compare.tuning import SearchResult, tune

__all__ = [
    "MethodPlan",
    "ProblemPlan",
    "Range",
    "SearchResult",
    "Study",
    "TuningPlan",
    "compare",
    "method_from_name",
    "read_study",
    "tune",
    "tune_method",
]
