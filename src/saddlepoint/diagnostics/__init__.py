"""Looking at training: probes that measure, and findings that say what the numbers mean."""

from saddlepoint.diagnostics.findings import Finding, vanishing_gradients
from saddlepoint.diagnostics.gradients import GradientHealth, gradient_health
from saddlepoint.diagnostics.saturation import saturation

__all__ = ["Finding", "GradientHealth", "gradient_health", "saturation", "vanishing_gradients"]
