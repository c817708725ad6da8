"""What several processes do together, and what they say where they cannot."""

import json

import pytest

from tests.distributed.group import ended, started

pytestmark = pytest.mark.slow


def outcome(directory, case, **options):
    out = directory / "found.json"
    processes = started("tests.distributed.behaviour", 2, directory, case, out, **options)
    try:
        code, output = ended(processes[:1])[0]
    finally:
        for process in processes[1:]:
            if case == "silent":
                process.kill()
            process.communicate(timeout=60)
    assert code == 0, output[-3000:]
    return json.loads(out.read_text())


REFUSALS = {
    "seed": [
        (
            "UsageError: The processes differ in the configuration's seed: 0 in process 0, 1 in"
            " process 1."
        ),
        "Nothing was trained.",
    ],
    "data": ["UsageError: The processes differ in the data: "],
    "code": ["differ in the source code: version 0 in process 0, version 1 in process 1"],
    "drift": [
        "DistributedError: Step 0: The processes differ in the parameters of the generator: "
    ],
    "first": ["ZeroDivisionError: division by zero"],
    "batch": [
        "UsageError: A batch of 9 samples cannot be split over 2 processes. Use a multiple, such as"
        " 8 or 10."
    ],
    "normalised": [
        'Player "discriminator", layer layers.1: batch normalisation',
        "--set problem.batch_norm=false",
    ],
    "sharded": ['UsageError: Player "x": its parameters are sharded', "distributed=Distributed()"],
    "wrapped": ["UsageError: A network is wrapped in DistributedDataParallel"],
}


def test_what_is_shared_and_what_cannot_be(tmp_path):
    """An evaluation that is shared is that of one process; what cannot be shared is refused with
    its name."""
    found = outcome(tmp_path, "together")
    shared, alone, other = found["evaluation"]
    assert list(shared) == list(alone)
    assert len(shared) == 10
    assert shared == alone == other
    for case, sentences in REFUSALS.items():
        for sentence in sentences:
            assert sentence in found[case]


@pytest.mark.parametrize(
    ("case", "sentence"),
    [("silent", "did not answer in time"), ("dead", "another process has ended")],
)
def test_a_process_that_hangs_or_dies_is_noticed(tmp_path, case, sentence):
    said = outcome(tmp_path, case, timeout=20.0)["said"]  # the two may begin some seconds apart
    assert said.startswith("DistributedError: Process 0 of 2 waited for the mean of")
    assert sentence in said
