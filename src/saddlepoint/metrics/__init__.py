"""Metrics of generated samples."""

from saddlepoint.extras import needs

with needs("train", "saddlepoint.metrics"):
    from saddlepoint.metrics.coverage import (
        class_coverage,
        class_entropy,
        class_measures,
        gaussian_share,
        mode_counts,
        mode_coverage,
        mode_distance,
        mode_measures,
        nearest_modes,
        reverse_kl,
        stacked_modes,
    )
    from saddlepoint.metrics.digit_cnn import DigitCNN, digit_cnn_hash, load_digit_cnn
    from saddlepoint.metrics.distances import (
        check_features,
        frechet_distance,
        frechet_measure,
        generalisation_gap,
        mmd2,
        mmd2_measure,
        wasserstein_1d,
    )
    from saddlepoint.metrics.fidelity import fidelity_scores, weights_hash
    from saddlepoint.metrics.manifold import Manifold, ball_radii, manifold, manifold_measures
    from saddlepoint.metrics.measure import (
        Measure,
        Origin,
        mean_measure,
        multiplicities,
        redraw,
        resampled,
    )
    from saddlepoint.metrics.neighbours import (
        Memorisation,
        diversity,
        diversity_share,
        mean_distances,
        memorisation,
        memorisation_measures,
        nearest_distances,
    )
    from saddlepoint.metrics.result import Difference, MetricResult, difference

__all__ = [
    "Difference",
    "DigitCNN",
    "Manifold",
    "Measure",
    "Memorisation",
    "MetricResult",
    "Origin",
    "ball_radii",
    "check_features",
    "class_coverage",
    "class_entropy",
    "class_measures",
    "difference",
    "digit_cnn_hash",
    "diversity",
    "diversity_share",
    "fidelity_scores",
    "frechet_distance",
    "frechet_measure",
    "gaussian_share",
    "generalisation_gap",
    "load_digit_cnn",
    "manifold",
    "manifold_measures",
    "mean_distances",
    "mean_measure",
    "memorisation",
    "memorisation_measures",
    "mmd2",
    "mmd2_measure",
    "mode_counts",
    "mode_coverage",
    "mode_distance",
    "mode_measures",
    "multiplicities",
    "nearest_distances",
    "nearest_modes",
    "redraw",
    "resampled",
    "reverse_kl",
    "stacked_modes",
    "wasserstein_1d",
    "weights_hash",
]
