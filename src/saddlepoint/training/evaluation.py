"""Evaluating a run afterwards: cards with intervals, comparison of cards, and the best of its evaluations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from saddlepoint.data import generator_for
from saddlepoint.errors import UsageError
from saddlepoint.io.limits import MAX_JSON_BYTES, parse_json, read_bytes
from saddlepoint.metrics import Card, card_of, difference
from saddlepoint.metrics.card import Weights
from saddlepoint.training.run_directory import RunDirectory
from saddlepoint.training.training import Training

Cards = dict[str, dict[str, Card]]
"""prefix of the weights → metric → card."""

WEIGHTS: dict[str, Weights] = {"": "raw", "ema/": "ema", "average/": "average"}


def make_cards(
    training: Training,
    *,
    samples: int | None = None,
    seed: int | None = None,
    replicates: int = 200,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Cards:
    """Measure the generator and its averages; return a card with a bootstrap interval for every metric.

    Args:
        training: at the point that is evaluated.
        samples: generated samples; as in training by default.
        seed: of the noise and of the replicates; as in training by default.
        replicates: of each interval; 0 for none.
        progress: called with the number of finished cards and of all.
    """
    seed = training.config.evaluation_seed if seed is None else seed
    measured, hashes = training.measures(samples, seed), training.problem.extractors()
    total, cards = sum(len(own) for own in measured.values()), dict[str, dict[str, Card]]()
    for prefix, own in measured.items():
        cards[prefix] = {}
        for name, measure in own.items():
            progress(sum(len(done) for done in cards.values()), total)
            cards[prefix][name] = card_of(
                measure,
                metric=name,
                weights=WEIGHTS[prefix],
                seed=seed,
                extractor_hash=hashes.get(measure.extractor, ""),
                replicates=replicates,
                generator=generator_for(seed, f"bootstrap {name}"),
            )
    return cards


def read_cards(path: Path) -> list[Card]:
    """Return the cards in an ``evaluation.json``.

    Raises:
        UsageError: the file is missing or holds no cards.
    """
    try:
        return [
            Card.from_dict(card)
            for card in parse_json(read_bytes(path, MAX_JSON_BYTES).decode())["cards"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(
            f"{path} holds no cards ({type(error).__name__}). Give the evaluation.json that"
            " `saddlepoint evaluate` wrote."
        ) from error


def differences(cards: Cards, others: list[Card]) -> list[tuple[str, float, bool | None]]:
    """Return (metric, this − other, whether the intervals overlap) of every card that both have.

    Raises:
        UsageError: they have none in common, or two of them were not measured alike.
    """
    known = {(card.metric, card.weights): card for card in others}
    pairs = [
        (prefix + name, card, known[name, card.weights])
        for prefix, own in cards.items()
        for name, card in own.items()
        if (name, card.weights) in known
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
