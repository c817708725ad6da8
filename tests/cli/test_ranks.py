"""How processes part."""

import threading

import pytest
from torch.distributed import HashStore

from saddlepoint.cli import ranks


def test_a_process_waits_for_those_that_leave_with_it(monkeypatch):
    monkeypatch.setattr(ranks, "PARTING", 60.0)
    store, left = HashStore(), threading.Event()

    def leave() -> None:
        ranks._part(store, 0, range(2))
        left.set()

    thread = threading.Thread(target=leave)
    thread.start()
    assert not left.wait(0.2)
    ranks._part(store, 1, range(2))
    assert left.wait(30)
    thread.join()


@pytest.mark.parametrize("leaving", [range(1), range(2)], ids=["alone", "the other never ends"])
def test_a_process_does_not_wait_for_ever(monkeypatch, leaving):
    monkeypatch.setattr(ranks, "PARTING", 0.05)
    ranks._part(HashStore(), 0, leaving)
