import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import saddlepoint as sp
from saddlepoint.diagnostics import Finding, History, Series, ranked


def finding(name="mode-loss", player="generator", message="3 of 8 modes.", **options):
    return Finding(name, player, message, {"modes": 3.0}, **options)


class TestFinding:
    @pytest.mark.parametrize(
        ("message", "numbers"),
        [("3 of 8 modes.", {}), ("Modes are missing.", {"modes": 3.0}), ("", {"modes": 3.0})],
    )
    def test_without_a_number_it_is_refused(self, message, numbers):
        with pytest.raises(
            sp.UsageError,
            match=(
                r'^The finding "mode-loss" has no number\. Give the number that it is based on in'
                r" `numbers` and"
            ),
        ):
            Finding("mode-loss", "generator", message, numbers)

    def test_zero_may_be_a_word(self):
        assert finding(message="The gradient is exactly zero.").level == "warning"

    def test_kind_and_player_make_it_the_same(self):
        assert (
            finding().key
            == finding(message="2 of 8 modes.", since=9, level="alarm").key
            == "mode-loss generator"
        )
        assert len({finding().key, finding(name="copying").key, finding(player="game").key}) == 3

    def test_plain_containers(self):
        assert finding(since=4).to_dict() == {
            "name": "mode-loss",
            "player": "generator",
            "message": "3 of 8 modes.",
            "numbers": {"modes": 3.0},
            "level": "warning",
            "since": 4,
        }


levels = st.sampled_from(["alarm", "warning", "note"])


class TestRanked:
    @given(st.lists(levels))
    def test_worst_first_and_otherwise_in_their_order(self, drawn):
        """Causes come before effects, so a level keeps the order of the checks."""
        findings = [finding(name=str(number), level=level) for number, level in enumerate(drawn)]
        assert ranked(findings) == [
            one for level in ("alarm", "warning", "note") for one in findings if one.level == level
        ]


class TestSeries:
    @given(st.lists(st.tuples(st.integers(1, 5), st.booleans())))
    def test_since_is_the_start_of_the_last_unbroken_stretch(self, drawn):
        steps = np.cumsum([gap for gap, _ in drawn], dtype=int)
        holds = np.array([held for _, held in drawn], dtype=bool)
        began = None
        for step, held in zip(steps, holds, strict=True):
            began = (int(step) if began is None else began) if held else None
        found = Series(steps, np.zeros(len(steps))).since(holds)
        assert found == began
        assert found is None or type(found) is int  # it goes into JSON

    def test_the_last_value_of_none_is_nan(self):
        empty = Series(np.array([], dtype=int), np.array([]))
        assert math.isnan(empty.last)
        assert len(empty) == 0
        assert Series(np.array([3]), np.array([2.0])).last == 2.0


def history(*lines):
    return History(loss="minimax", lines=lines)


class TestHistory:
    def test_series_are_the_finite_numbers_at_a_path(self):
        values = [1.0, None, math.nan, math.inf, -math.inf, True, "2", {"deeper": 1.0}, [1.0], 3]
        lines = [{"step": 10 * k, "losses": {"generator": value}} for k, value in enumerate(values)]
        found = history(
            *lines, {"step": 100}, {"step": 110, "losses": None}, {"step": 120, "losses": 5.0}
        ).series("losses", "generator")
        assert found.steps.tolist() == [0, 90]
        assert found.values.tolist() == [1.0, 3.0]
        assert found.values.dtype == float

    def test_nothing_is_there(self):
        assert history().last_step == 0
        assert len(history().series("losses", "generator")) == 0
        assert len(history().trace("losses", "generator")) == 0
        assert history().probes() == []
        assert history().moved_by_gradient() == set()

    def test_traces_run_on_over_lines_and_leave_gaps_out(self):
        first = {
            "steps": [1, 2],
            "losses": {"generator": [0.1, None]},
            "projections": {"generator": [7.0, 8.0]},
        }
        later = {
            "steps": [3, 4],
            "losses": {"generator": [math.nan, 0.4]},
            "projections": {"generator": [9.0, None]},
        }
        log = history(
            {"step": 2, "trace": first},
            {"step": 3},
            {"step": 4, "trace": later},
            {"step": 5, "trace": None},
        )
        assert log.trace("losses", "generator").steps.tolist() == [1, 4]
        assert log.trace("losses", "generator").values.tolist() == [0.1, 0.4]
        assert log.trace("projections", "generator").values.tolist() == [7.0, 8.0, 9.0]
        assert len(log.trace("losses", "discriminator")) == 0

    def test_probes_and_movers(self):
        log = history(
            {"step": 0, "probe": {"accuracy": 0.5}},
            {"step": 1, "gradient_norms": {"generator": None}},
            {"step": 2, "probe": None},
        )
        assert log.probes() == [(0, {"accuracy": 0.5})]
        assert log.moved_by_gradient() == {"generator"}  # its norm was NaN, but it has one
        log.add({"step": 3, "gradient_norms": {"discriminator": 1.0}})
        assert log.moved_by_gradient() == {"generator", "discriminator"}
        assert log.last_step == 3
