"""A fixed number of cases of every parser; ``scripts/fuzz.py`` takes as many as one likes."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.reliability.fuzzing import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_ends_in_a_result_or_a_sentence(name):
    target, strategy, cases = TARGETS[name]

    @settings(
        max_examples=cases,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(strategy)
    def run(case):
        target(case)

    run()
