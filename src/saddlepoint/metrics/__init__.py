"""Numbers about samples."""

from saddlepoint.metrics.coverage import class_coverage, mode_coverage
from saddlepoint.metrics.digit_cnn import DigitCNN, digit_cnn_hash, load_digit_cnn
from saddlepoint.metrics.distances import frechet_distance, kernel_distance

__all__ = [
    "DigitCNN",
    "class_coverage",
    "digit_cnn_hash",
    "frechet_distance",
    "kernel_distance",
    "load_digit_cnn",
    "mode_coverage",
]
