"""Diagnostics of training: probes that measure, and checks that interpret the log of a run."""

from saddlepoint.diagnostics.checks import CHECKS, diagnose, vanishing_gradients
from saddlepoint.diagnostics.findings import Finding, Level, ranked
from saddlepoint.diagnostics.gradients import GradientHealth, gradient_health
from saddlepoint.diagnostics.history import History, Series
from saddlepoint.diagnostics.loss_ranges import LOSS_RANGES, LossRange
from saddlepoint.diagnostics.nonfinite import NonFiniteOrigin, find_nonfinite
from saddlepoint.diagnostics.oscillation import Oscillation, dominant_oscillation
from saddlepoint.diagnostics.probe import (
    Probe,
    accuracy,
    mean_pairwise_distance,
    membership_auc,
    saturation,
)
from saddlepoint.diagnostics.rotation import (
    Cosine,
    PathAngle,
    Rotation,
    cosine,
    path_angle,
    rotation,
)
from saddlepoint.diagnostics.spectrum import GameSpectrum, game_spectrum
from saddlepoint.diagnostics.traces import Projection, Trace

__all__ = [
    "CHECKS",
    "LOSS_RANGES",
    "Cosine",
    "Finding",
    "GameSpectrum",
    "GradientHealth",
    "History",
    "Level",
    "LossRange",
    "NonFiniteOrigin",
    "Oscillation",
    "PathAngle",
    "Probe",
    "Projection",
    "Rotation",
    "Series",
    "Trace",
    "accuracy",
    "cosine",
    "diagnose",
    "dominant_oscillation",
    "find_nonfinite",
    "game_spectrum",
    "gradient_health",
    "mean_pairwise_distance",
    "membership_auc",
    "path_angle",
    "ranked",
    "rotation",
    "saturation",
    "vanishing_gradients",
]
