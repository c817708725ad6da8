from __future__ import annotations

import json

import pytest

from saddlepoint.training import RunDirectory, SilentWatcher, Trainer, resolve, train


def small(**options):
    """A configuration that trains in milliseconds and evaluates, samples and saves every fourth
    step."""
    cadence = dict.fromkeys(
        ("evaluate_every", "sample_every", "checkpoint_every", "log_every", "probe_every"), 4
    )
    base = {
        "problem": {"name": "mixture8", "hidden": 8, "latent": 2},
        "steps": 12,
        "batch_size": 8,
        "evaluation_samples": 160,
        "ema": 0.9,
    }
    base["lr_schedule"] = "constant"  # whatever the problem would bring
    return resolve({**base, **cadence, **options})


def run_to_the_end(config, path, interrupted=lambda: None):
    training = Trainer(config)
    run = RunDirectory.create(config, path)
    return training, run, train(training, run, SilentWatcher(), interrupted)


def resume(path, **budget):
    run = RunDirectory.open(path)
    config = run.read_config()
    training = Trainer(config)
    with run.lock():
        state = run.load_checkpoint(config) if run.checkpoint_steps() else None
        if state is not None:
            training.load_state_dict(state)
        training.config = config.model_copy(update=budget)
        run.truncate_after(state)
        return training, run, train(training, run, SilentWatcher())


def lines(path):
    """The lines of metrics.jsonl without what depends on the clock."""
    found = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in found]


@pytest.fixture
def harness():
    class Harness:
        pass

    for function in (small, run_to_the_end, resume, lines):
        setattr(Harness, function.__name__, staticmethod(function))
    Harness.silent = SilentWatcher
    return Harness
