"""Several discriminator steps work with every rule."""

import pytest

from saddlepoint import registry
from saddlepoint.training.config import resolve
from saddlepoint.training.trainer import Trainer

SMALL = {
    "problem": {"name": "mixture8", "hidden": 8},
    "batch_size": 16,
    "steps": 2,
    "device": "cpu",
}


def trained(rule, **settings):
    training = Trainer(resolve({**SMALL, "rule": rule, **settings}))
    records = []
    for _ in range(2):
        records += training.train_step()
    return training, records


@pytest.mark.filterwarnings("ignore::saddlepoint.SolverWarning")
@pytest.mark.parametrize("rule", registry.RULES)
def test_the_discriminator_moves_more_often(rule):
    training, records = trained(rule, discriminator_steps=3)
    moved = [tuple(record.losses) for record in records]
    joint = (
        training.optimizer.rule.needs_all_players or training.config.update_scheme == "simultaneous"
    )
    due = (
        [("discriminator",)] * 2 + [("discriminator", "generator")]
        if joint
        else [("discriminator",)] * 3 + [("generator",)]
    )
    assert moved == 2 * due
    assert training.is_finite()
