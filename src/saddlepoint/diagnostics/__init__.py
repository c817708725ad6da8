"""Looking at training: probes that measure, and findings that say what the numbers mean."""

from saddlepoint.diagnostics.bands import BANDS, Band
from saddlepoint.diagnostics.findings import Finding, Level, ranked
from saddlepoint.diagnostics.gradients import GradientHealth, gradient_health
from saddlepoint.diagnostics.history import History, Series
from saddlepoint.diagnostics.oscillation import Oscillation, dominant_oscillation
from saddlepoint.diagnostics.probe import Probe, spread
from saddlepoint.diagnostics.provenance import Provenance, find_nonfinite
from saddlepoint.diagnostics.rotation import (
    Cosine,
    PathAngle,
    Rotation,
    cosine,
    path_angle,
    rotation,
)
from saddlepoint.diagnostics.saturation import accuracy, memory, saturation
from saddlepoint.diagnostics.spectrum import GameSpectrum, game_spectrum
from saddlepoint.diagnostics.traces import Projection, Trace
from saddlepoint.diagnostics.verdicts import VERDICTS, judge
from saddlepoint.diagnostics.verdicts.gradients import vanishing_gradients

__all__ = [
    "BANDS",
    "VERDICTS",
    "Band",
    "Cosine",
    "Finding",
    "GameSpectrum",
    "GradientHealth",
    "History",
    "Level",
    "Oscillation",
    "PathAngle",
    "Probe",
    "Projection",
    "Provenance",
    "Rotation",
    "Series",
    "Trace",
    "accuracy",
    "cosine",
    "dominant_oscillation",
    "find_nonfinite",
    "game_spectrum",
    "gradient_health",
    "judge",
    "memory",
    "path_angle",
    "ranked",
    "rotation",
    "saturation",
    "spread",
    "vanishing_gradients",
]
