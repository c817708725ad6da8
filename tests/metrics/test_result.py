import dataclasses
import json

import pytest
import torch

import saddlepoint as sp
from saddlepoint.metrics import Measure, MetricResult, difference, mean_measure

OTHER = {
    "metric": "recall",
    "level": 0.9,
    "replicates": 100,
    "generated": 11,
    "real": 21,
    "split": "train",
    "extractor": "none",
    "extractor_hash": "def",
    "resize": "28",
    "weights": "ema",
    "seed": 1,
}


def result(**changes):
    fields = {
        "metric": "precision",
        "value": 0.5,
        "interval": (0.4, 0.6),
        "level": 0.95,
        "replicates": 200,
        "generated": 10,
        "real": 20,
        "split": "test",
        "extractor": "digit-cnn",
        "extractor_hash": "abc",
        "resize": "none",
        "weights": "raw",
        "seed": 0,
    }
    return MetricResult(**(fields | changes))


class TestDifference:
    def test_of_numbers_under_the_same_conditions(self):
        found = difference(result(value=0.75, interval=(0.65, 0.85)), result())
        assert found.value == 0.25
        assert found.overlap is False

    @pytest.mark.parametrize(
        ("other", "overlap"),
        [((0.6, 0.7), True), ((0.1, 0.9), True), ((0.61, 0.7), False), (None, None)],
    )
    def test_overlap(self, other, overlap):
        assert difference(result(), result(interval=other)).overlap is overlap
        assert difference(result(interval=other), result()).overlap is overlap

    @pytest.mark.parametrize("field", OTHER)
    def test_any_other_condition_is_refused_by_name(self, field):
        with pytest.raises(sp.UsageError, match="These two results cannot be compared") as raised:
            difference(result(), result(**{field: OTHER[field]}))
        assert f"{field} ({getattr(result(), field)!r} and {OTHER[field]!r})" in str(raised.value)

    def test_every_difference_is_named(self):
        with pytest.raises(sp.UsageError) as raised:
            difference(result(), result(**OTHER))
        assert all(f"{field} (" in str(raised.value) for field in OTHER)

    def test_no_field_is_forgotten(self):
        assert {field.name for field in dataclasses.fields(MetricResult)} == {
            *OTHER,
            "value",
            "interval",
        }


class TestRoundTrip:
    @pytest.mark.parametrize("interval", [(0.25, 0.75), None])
    def test_through_json(self, interval):
        assert MetricResult.from_dict(
            json.loads(json.dumps(result(interval=interval).to_dict()))
        ) == result(interval=interval)

    def test_missing_and_unknown_keys(self):
        entries = result().to_dict()
        del entries["split"]
        with pytest.raises(sp.UsageError, match=r"missing: split; unknown: colour, size"):
            MetricResult.from_dict(entries | {"size": 3, "colour": "red"})

    def test_an_interval_that_is_none(self):
        with pytest.raises(sp.UsageError, match="is not a pair of numbers or null"):
            MetricResult.from_dict(result().to_dict() | {"interval": [1, 2, 3]})

    @pytest.mark.parametrize("interval", [[1, "2"], [True, 2], 3])
    def test_an_interval_of_another_type(self, interval):
        with pytest.raises(sp.UsageError, match="is not a pair of numbers or null"):
            MetricResult.from_dict(result().to_dict() | {"interval": interval})

    def test_unknown_weights(self):
        with pytest.raises(sp.UsageError, match='weights "swa" is unknown'):
            result(weights="swa")


class TestFromMeasure:
    def about(self, **changes):
        generator = torch.Generator().manual_seed(0)
        return {
            "metric": "m",
            "weights": "ema",
            "seed": 3,
            "extractor_hash": "",
            "replicates": 50,
            "generator": generator,
        } | changes

    def measure(self):
        return mean_measure(
            torch.arange(9.0), generated=9, real=4, split="train", extractor="none", resize="8 x 8"
        )

    def test_everything_arrives(self):
        found = MetricResult.from_measure(self.measure(), **self.about())
        low, high = self.measure().interval(50, torch.Generator().manual_seed(0))
        assert found == MetricResult(
            metric="m",
            value=4.0,
            interval=(low, high),
            level=0.95,
            replicates=50,
            generated=9,
            real=4,
            split="train",
            extractor="none",
            extractor_hash="",
            resize="8 x 8",
            weights="ema",
            seed=3,
        )

    def test_without_replicates(self):
        found = MetricResult.from_measure(self.measure(), **self.about(replicates=0))
        assert (found.interval, found.replicates) == (None, 0)
        alone = Measure(1.0, generated=1, real=1, split="test", extractor="none")
        assert MetricResult.from_measure(alone, **self.about()).replicates == 0

    def test_replicates_need_a_generator(self):
        with pytest.raises(sp.UsageError, match="50 replicates need a generator"):
            MetricResult.from_measure(self.measure(), **self.about(generator=None))
