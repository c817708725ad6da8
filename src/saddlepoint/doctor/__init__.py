"""Checks of a generator and a discriminator before training."""

from saddlepoint.doctor.costs import CostEstimate
from saddlepoint.doctor.examination import Examination, examine
from saddlepoint.doctor.findings import Finding
from saddlepoint.doctor.pair import load_factory

__all__ = ["CostEstimate", "Examination", "Finding", "examine", "load_factory"]
