import dataclasses
import json

import pytest
import torch

import saddlepoint as sp
from saddlepoint.metrics import Card, Measure, card_of, difference, mean_measure

OTHER = {
    "metric": "recall", "level": 0.9, "replicates": 100, "generated": 11, "real": 21, "split": "train", "extractor": "none",
    "extractor_hash": "def", "resize": "28", "weights": "ema", "seed": 1,
}  # fmt: skip


def card(**changes):
    fields = {
        "metric": "precision", "value": 0.5, "interval": (0.4, 0.6), "level": 0.95, "replicates": 200, "generated": 10, "real": 20,
        "split": "test", "extractor": "digit-cnn", "extractor_hash": "abc", "resize": "none", "weights": "raw", "seed": 0,
    }  # fmt: skip
    return Card(**(fields | changes))


class TestDifference:
    def test_of_numbers_under_the_same_conditions(self):
        found = difference(card(value=0.75, interval=(0.65, 0.85)), card())
        assert found.value == 0.25
        assert found.overlap is False

    @pytest.mark.parametrize(
        ("other", "overlap"),
        [((0.6, 0.7), True), ((0.1, 0.9), True), ((0.61, 0.7), False), (None, None)],
    )
    def test_overlap(self, other, overlap):
        assert difference(card(), card(interval=other)).overlap is overlap
        assert difference(card(interval=other), card()).overlap is overlap

    @pytest.mark.parametrize("field", OTHER)
    def test_any_other_condition_is_refused_by_name(self, field):
        with pytest.raises(sp.UsageError, match="These two numbers must not be compared") as raised:
            difference(card(), card(**{field: OTHER[field]}))
        assert f"{field} ({getattr(card(), field)!r} and {OTHER[field]!r})" in str(raised.value)

    def test_every_difference_is_named(self):
        with pytest.raises(sp.UsageError) as raised:
            difference(card(), card(**OTHER))
        assert all(f"{field} (" in str(raised.value) for field in OTHER)

    def test_no_field_is_forgotten(self):
        assert {field.name for field in dataclasses.fields(Card)} == {*OTHER, "value", "interval"}


class TestRoundTrip:
    @pytest.mark.parametrize("interval", [(0.25, 0.75), None])
    def test_through_json(self, interval):
        assert Card.from_dict(json.loads(json.dumps(card(interval=interval).to_dict()))) == card(
            interval=interval
        )

    def test_missing_and_unknown_keys(self):
        entries = card().to_dict()
        del entries["split"]
        with pytest.raises(sp.UsageError, match=r"missing: split; unknown: colour, size"):
            Card.from_dict(entries | {"size": 3, "colour": "red"})

    def test_an_interval_that_is_none(self):
        with pytest.raises(sp.UsageError, match="is not a pair of numbers or null"):
            Card.from_dict(card().to_dict() | {"interval": [1, 2, 3]})

    def test_unknown_weights(self):
        with pytest.raises(sp.UsageError, match='weights "swa" is unknown'):
            card(weights="swa")


class TestCardOf:
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
        found = card_of(self.measure(), **self.about())
        low, high = self.measure().interval(50, torch.Generator().manual_seed(0))
        assert found == Card(
            metric="m", value=4.0, interval=(low, high), level=0.95, replicates=50, generated=9, real=4, split="train",
            extractor="none", extractor_hash="", resize="8 x 8", weights="ema", seed=3,
        )  # fmt: skip

    def test_without_replicates(self):
        found = card_of(self.measure(), **self.about(replicates=0))
        assert (found.interval, found.replicates) == (None, 0)
        alone = Measure(1.0, generated=1, real=1, split="test", extractor="none")
        assert card_of(alone, **self.about()).replicates == 0
