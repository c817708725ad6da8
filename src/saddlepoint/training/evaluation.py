"""Evaluation of a run: metrics with intervals, their comparison, and the best evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from saddlepoint.data import generator_for
from saddlepoint.errors import UsageError
from saddlepoint.io.limits import MAX_JSON_BYTES, parse_json, read_bytes
from saddlepoint.metrics import MetricResult, difference
from saddlepoint.metrics.result import Weights
from saddlepoint.training.run_directory import RunDirectory
from saddlepoint.training.training import Training

Results = dict[str, dict[str, MetricResult]]
"""prefix of the weights → metric → result."""

WEIGHTS: dict[str, Weights] = {"": "raw", "ema/": "ema", "average/": "average"}


def evaluate_metrics(
    training: Training,
    *,
    samples: int | None = None,
    seed: int | None = None,
    replicates: int = 200,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Results:
    """Return every metric of the generator and its averages, with bootstrap intervals.

    Args:
        training: at the point that is evaluated.
        samples: generated samples; as in training by default.
        seed: of the noise and of the replicates; as in training by default.
        replicates: of each interval; 0 for none.
        progress: called with the number of finished metrics and of all.
    """
    seed = training.config.evaluation_seed if seed is None else seed
    measured, hashes = training.measures(samples, seed), training.problem.extractors()
    total, results = sum(len(own) for own in measured.values()), Results()
    for prefix, own in measured.items():
        results[prefix] = {}
        for name, measure in own.items():
            progress(sum(len(done) for done in results.values()), total)
            results[prefix][name] = MetricResult.from_measure(
                measure,
                metric=name,
                weights=WEIGHTS[prefix],
                seed=seed,
                extractor_hash=hashes.get(measure.extractor, ""),
                replicates=replicates,
                generator=generator_for(seed, f"bootstrap {name}"),
            )
    return results


def read_results(path: Path) -> list[MetricResult]:
    """Return the results in an ``evaluation.json``.

    Raises:
        UsageError: the file is missing or holds no results.
    """
    try:
        return [
            MetricResult.from_dict(result)
            for result in parse_json(read_bytes(path, MAX_JSON_BYTES).decode())["results"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(
            f"{path} holds no results ({type(error).__name__}). Give the evaluation.json that"
            " `saddlepoint evaluate` wrote."
        ) from error


def differences(
    results: Results, others: list[MetricResult]
) -> list[tuple[str, float, bool | None]]:
    """Return (metric, this − other, whether the intervals overlap) of every result that both have.

    Raises:
        UsageError: they have none in common, or two of them were not measured alike.
    """
    known = {(result.metric, result.weights): result for result in others}
    pairs = [
        (prefix + name, result, known[name, result.weights])
        for prefix, own in results.items()
        for name, result in own.items()
        if (name, result.weights) in known
    ]
    if not pairs:
        raise UsageError(
            "The two evaluations have no metric in common; they are of different problems."
        )
    found = [(name, difference(ours, theirs)) for name, ours, theirs in pairs]
    return [(name, between.value, between.overlap) for name, between in found]


@dataclass(frozen=True)
class BestEvaluation:
    """The best evaluation of a run.

    Attributes:
        metric: by which one.
        step: when it was.
        evaluations: (step, value) of all.
        checkpoint: where its state is kept, or None.
    """

    metric: str
    step: int
    evaluations: list[tuple[int, float]]
    checkpoint: Path | None


def best_evaluation(run: RunDirectory, metric: str | None = None) -> BestEvaluation:
    """Return the best evaluation in a run's log by a metric; without one, that by which training chose.

    Raises:
        UsageError: the run has no evaluation, or a metric by which none is better.
    """
    training = Training(run.read_config())
    lines = [line for line in run.read_log() if line.get("metrics")]
    if not lines:
        raise UsageError(
            f"{run.path} has no evaluation yet. Train it further, or evaluate more often with"
            " evaluate_every."
        )
    name = metric if metric is not None else training.config.best_by
    scores = [(line["step"], training.score(line["metrics"], name)) for line in lines]
    step = min(scores, key=lambda pair: pair[1])[0]
    title = name if name is not None else "the problem's score (smaller is better)"
    shown = scores if name is None else [(line["step"], line["metrics"][name]) for line in lines]
    return BestEvaluation(title, step, shown, run.checkpoint_of(training.config, step))
