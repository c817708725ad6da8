"""Values of metrics with the conditions they were measured under, and their comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import torch

from saddlepoint.errors import UsageError
from saddlepoint.metrics.measure import Measure

Weights = Literal["raw", "ema", "average"]
_TEXTS = ("metric", "split", "extractor", "extractor_hash", "resize", "weights")
_INTEGERS = ("replicates", "generated", "real", "seed")
_NUMBERS = ("value", "level")
MEASURED = ("value", "interval")
"""The fields that may differ between comparable results; all others are conditions."""


@dataclass(frozen=True, kw_only=True)
class MetricResult:
    """A metric's value with its interval and the conditions under which it was measured.

    Two results are comparable if their conditions are equal, see ``difference``.

    Args:
        metric: the metric's name.
        value: its value.
        interval: its bootstrap interval (low, high); None without one.
        level: the interval's level.
        replicates: number of bootstrap replicates; 0 without an interval.
        generated: number of generated samples.
        real: number of real samples.
        split: the part of the data that it is compared with.
        extractor: the feature extractor, "none" for raw samples.
        extractor_hash: SHA-256 of its weights; "" without an extractor.
        resize: how images were resized.
        weights: "raw" for the generator itself, "ema" or "average" for an average of its iterates.
        seed: seed of the evaluation: of the generator's noise and of the replicates.

    Raises:
        UsageError: unknown ``weights``.

    >>> measure = Measure(4.0, generated=10, real=10, split="test", extractor="none")
    >>> result = MetricResult.from_measure(measure, metric="gap", weights="raw", seed=0)
    >>> result.value, result.interval
    (4.0, None)
    >>> MetricResult.from_dict(result.to_dict()) == result
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
                f'Result of metric {self.metric}: weights "{self.weights}" is unknown. Choose'
                ' "raw", "ema" or "average".'
            )

    @classmethod
    def from_measure(
        cls,
        measure: Measure,
        *,
        metric: str,
        weights: Weights,
        seed: int,
        extractor_hash: str = "",
        replicates: int = 0,
        generator: torch.Generator | None = None,
        level: float = 0.95,
    ) -> MetricResult:
        """Return the result of a measure, without interval if it has no replicates.

        Args:
            measure: the value and what it was measured on.
            metric: the metric's name.
            weights: "raw", "ema" or "average".
            seed: the seed of the noise and of ``generator``.
            extractor_hash: SHA-256 of the extractor's weights; "" without an extractor.
            replicates: number of bootstrap replicates, 0 for no interval.
            generator: source of the resampled indices, needed for an interval.
            level: the interval's level.

        Raises:
            UsageError: from 1 to 19 replicates, replicates without a generator, or unknown
                ``weights``.
        """
        count, interval = 0 if measure.replicate is None else replicates, None
        if count:
            if generator is None:
                raise UsageError(
                    f"Result of metric {metric}: {replicates} replicates need a generator. Pass"
                    " generator=."
                )
            interval = measure.interval(count, generator, level=level)
        return cls(
            metric=metric,
            value=measure.value,
            interval=interval,
            level=level,
            replicates=count,
            generated=measure.generated,
            real=measure.real,
            split=measure.split,
            extractor=measure.extractor,
            extractor_hash=extractor_hash,
            resize=measure.resize,
            weights=weights,
            seed=seed,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values that JSON can hold."""
        return asdict(self) | {"interval": None if self.interval is None else list(self.interval)}

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> MetricResult:
        """Return the result that ``to_dict`` wrote.

        Raises:
            UsageError: a key is missing or unknown, or a value has the wrong type.
        """
        names = {field.name for field in fields(cls)}
        problems = []
        for kind, keys in (
            ("missing", names - set(entries)),
            ("unknown", set(entries) - names),
        ):
            if keys:
                problems.append(f"{kind}: {', '.join(sorted(keys))}")
        if problems:
            raise UsageError(
                f"This is not the result of a metric ({'; '.join(problems)}). It was written by"
                " another version; evaluate again."
            )

        kinds: dict[str, tuple[type, ...]] = {
            **dict.fromkeys(_TEXTS, (str,)),
            **dict.fromkeys(_INTEGERS, (int,)),
            **dict.fromkeys(_NUMBERS, (int, float)),
        }
        for name, allowed in kinds.items():
            if type(entries[name]) not in allowed:
                raise UsageError(
                    f"This is not the result of a metric: {name} has the type"
                    f" {type(entries[name]).__name__}. Evaluate again."
                )

        interval = entries["interval"]
        if interval is not None:
            is_pair = isinstance(interval, list | tuple) and len(interval) == 2
            if not is_pair or any(type(bound) not in (int, float) for bound in interval):
                raise UsageError(
                    f"This is not the result of a metric: interval {interval!r} is not a pair"
                    " of numbers or null. Evaluate again."
                )
            interval = float(interval[0]), float(interval[1])
        return cls(**{**entries, "interval": interval})


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The difference of two comparable results.

    Args:
        value: the first value minus the second.
        overlap: whether their intervals overlap; None if one has no interval. If they do not
            overlap, sampling error does not explain the difference; if they do, it may still be
            real.
    """

    value: float
    overlap: bool | None


def difference(a: MetricResult, b: MetricResult) -> Difference:
    """Return a − b and whether the intervals overlap, for results of equal conditions.

    Args:
        a: the first result.
        b: the second result.

    Raises:
        UsageError: a field other than value and interval differs, including the seed of the
            evaluation; the message names every such field with both values.

    >>> from dataclasses import replace
    >>> measure = Measure(0.75, generated=10, real=10, split="test", extractor="none")
    >>> a = MetricResult.from_measure(measure, metric="precision", weights="raw", seed=0)
    >>> difference(a, replace(a, value=0.5))
    Difference(value=0.25, overlap=None)
    """
    names = [field.name for field in fields(MetricResult) if field.name not in MEASURED]
    unlike = [
        f"{name} ({getattr(a, name)!r} and {getattr(b, name)!r})"
        for name in names
        if getattr(a, name) != getattr(b, name)
    ]
    if unlike:
        raise UsageError(
            f"These two results cannot be compared: they differ in {', '.join(unlike)}. Evaluate"
            " both under the same conditions."
        )
    overlap = None
    if a.interval is not None and b.interval is not None:
        overlap = max(a.interval[0], b.interval[0]) <= min(a.interval[1], b.interval[1])
    return Difference(value=a.value - b.value, overlap=overlap)
