"""Problems: data, networks, losses, metrics and pictures that belong together."""

from saddlepoint.extras import needs

with needs("train", "saddlepoint.problems"):
    from saddlepoint.problems.base import Batch, GanProblem, Metric
    from saddlepoint.problems.binary_digits import DigitsBinary
    from saddlepoint.problems.digits import Digits, Mnist
    from saddlepoint.problems.mixture1d import Mixture1d
    from saddlepoint.problems.mixtures import Mixture8, Mixture8Saturated, Mixture25
    from saddlepoint.problems.stacked_digits import StackedDigits

__all__ = [
    "Batch",
    "Digits",
    "DigitsBinary",
    "GanProblem",
    "Metric",
    "Mixture1d",
    "Mixture8",
    "Mixture8Saturated",
    "Mixture25",
    "Mnist",
    "StackedDigits",
]
