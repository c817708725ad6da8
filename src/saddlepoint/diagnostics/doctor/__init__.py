"""The doctor: checks a pair of networks before training."""

from saddlepoint.diagnostics.doctor.costs import CostEstimate
from saddlepoint.diagnostics.doctor.examination import Examination, examine
from saddlepoint.diagnostics.doctor.factory import load_factory
from saddlepoint.diagnostics.doctor.remarks import Remark

__all__ = ["CostEstimate", "Examination", "Remark", "examine", "load_factory"]
