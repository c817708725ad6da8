"""A number that says what it is, and a comparison that refuses numbers of different kinds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import torch

from saddlepoint.errors import UsageError
from saddlepoint.metrics.measure import Measure

Weights = Literal["raw", "ema", "average"]
_KINDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(
        ("metric", "split", "extractor", "extractor_hash", "resize", "weights"), (str,)
    ),
    **dict.fromkeys(("replicates", "generated", "real", "seed"), (int,)),
    **dict.fromkeys(("value", "level"), (int, float)),
}
MEASURED = ("value", "interval")  # all other fields say under which conditions


@dataclass(frozen=True, kw_only=True)
class Card:
    """A metric's value with its interval and everything that must agree before it is compared with another.

    Args:
        metric: the metric's name.
        value: its value.
        interval: ends of its bootstrap interval; None where there is none.
        level: the interval's level.
        replicates: number of bootstrap replicates; 0 without an interval.
        generated: number of generated samples.
        real: number of real samples.
        split: the part of the data compared with.
        extractor: the feature extractor, "none" for samples as they are.
        extractor_hash: SHA-256 of its weights; "" without an extractor.
        resize: how images were resized.
        weights: "raw" for the generator itself, "ema" or "average" for an average of its iterates.
        seed: seed of the evaluation: of the generator's noise and of the replicates.

    Raises:
        UsageError: weights of another name.

    >>> card = Card(
    ...     metric="quality", value=0.9, interval=(0.85, 0.95), level=0.95, replicates=200, generated=2500, real=0, split="known density",
    ...     extractor="none", extractor_hash="", resize="none", weights="ema", seed=0,
    ... )
    >>> Card.from_dict(card.to_dict()) == card
    True
    """

    metric: str
    value: float
    interval: tuple[float, float] | None
    level: float
    replicates: int
    generated: int
    real: int
    split: str
    extractor: str
    extractor_hash: str
    resize: str
    weights: Weights
    seed: int

    def __post_init__(self) -> None:
        if self.weights not in get_args(Weights):
            raise UsageError(
                f'Card of {self.metric}: weights "{self.weights}" is unknown. Choose "raw", "ema"'
                ' or "average".'
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values that JSON can hold."""
        return asdict(self) | {"interval": None if self.interval is None else list(self.interval)}

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Card:
        """Return the card that ``to_dict`` wrote.

        Raises:
            UsageError: keys are missing or unknown, a value is of another kind, or the interval is
                not a pair.
        """
        names = {field.name for field in fields(cls)}
        problems = [("missing", names - set(entries)), ("unknown", set(entries) - names)]
        if any(keys for _, keys in problems):
            said = "; ".join(
                f"{kind}: {', '.join(sorted(keys))}" for kind, keys in problems if keys
            )
            raise UsageError(
                f"This is not a card of a metric ({said}). It was written by another version;"
                " evaluate again."
            )
        for name, kinds in _KINDS.items():
            if type(entries[name]) not in kinds:
                kind = type(entries[name]).__name__
                raise UsageError(
                    f"This is not a card of a metric: {name} is of the kind {kind}. Evaluate again."
                )
        return cls(**{**entries, "interval": _pair(entries["interval"])})


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What two comparable numbers differ by.

    Args:
        value: the first value minus the second.
        overlap: whether their intervals overlap; None where one of them has none. Intervals that do
            not overlap differ by more than sampling explains; ones that overlap may still differ.
    """

    value: float
    overlap: bool | None


def difference(a: Card, b: Card) -> Difference:
    """Return a − b and whether the intervals overlap, for numbers measured under the same conditions.

    Args:
        a: the first card.
        b: the second card.

    Raises:
        UsageError: any field but value and interval differs, the seed of the evaluation included;
            the message names every such field with both values.

    >>> common = dict(metric="precision", interval=None, level=0.95, replicates=0, generated=10, real=10, split="test")
    >>> common |= dict(extractor="none", extractor_hash="", resize="none", weights="raw", seed=0)
    >>> difference(Card(value=0.75, **common), Card(value=0.5, **common))
    Difference(value=0.25, overlap=None)
    """
    names = [field.name for field in fields(Card) if field.name not in MEASURED]
    unlike = [
        f"{name} ({getattr(a, name)!r} and {getattr(b, name)!r})"
        for name in names
        if getattr(a, name) != getattr(b, name)
    ]
    if unlike:
        raise UsageError(
            f"These two numbers must not be compared: they differ in {', '.join(unlike)}. Evaluate"
            " both under the same conditions."
        )
    return Difference(value=a.value - b.value, overlap=_overlap(a.interval, b.interval))


def card_of(
    measure: Measure,
    *,
    metric: str,
    weights: Weights,
    seed: int,
    extractor_hash: str,
    replicates: int,
    generator: torch.Generator,
    level: float = 0.95,
) -> Card:
    """Return the card of a measure; with 0 replicates, or for a measure that has none, without an interval.

    Args:
        measure: the value and what it was measured on.
        metric: the metric's name.
        weights: "raw", "ema" or "average".
        seed: the seed that noise and ``generator`` come from.
        extractor_hash: SHA-256 of the extractor's weights; "" without an extractor.
        replicates: number of bootstrap replicates.
        generator: source of the redrawn indices.
        level: the interval's level.

    Raises:
        UsageError: from 1 to 19 replicates; weights of another name.

    >>> measure = Measure(4.0, generated=10, real=10, split="test", extractor="none")
    >>> g = torch.Generator().manual_seed(0)
    >>> card_of(measure, metric="gap", weights="raw", seed=0, extractor_hash="", replicates=200, generator=g).interval is None
    True
    """
    count = 0 if measure.replicate is None else replicates
    interval = measure.interval(count, generator, level=level) if count else None
    return Card(
        metric=metric, value=measure.value, interval=interval, level=level, replicates=count, generated=measure.generated,
        real=measure.real, split=measure.split, extractor=measure.extractor, extractor_hash=extractor_hash, resize=measure.resize,
        weights=weights, seed=seed,
    )  # fmt: skip


def _pair(interval: Any) -> tuple[float, float] | None:
    if interval is None:
        return None
    if not isinstance(interval, list | tuple) or len(interval) != 2:
        raise UsageError(
            f"This is not a card of a metric: interval {interval!r} is not a pair of numbers or"
            " null. Evaluate again."
        )
    low, high = interval
    if type(low) not in (int, float) or type(high) not in (int, float):
        raise UsageError(
            "This is not a card of a metric: its interval is not a pair of numbers or null."
            " Evaluate again."
        )
    return float(low), float(high)


def _overlap(a: tuple[float, float] | None, b: tuple[float, float] | None) -> bool | None:
    if a is None or b is None:
        return None
    return max(a[0], b[0]) <= min(a[1], b[1])
