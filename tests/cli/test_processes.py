"""How processes end together."""

import threading

import pytest
from torch.distributed import HashStore

from saddlepoint.cli import processes


def test_a_process_waits_for_those_that_leave_with_it(monkeypatch):
    monkeypatch.setattr(processes, "LEAVE_TIMEOUT", 60.0)
    store, left = HashStore(), threading.Event()

    def leave() -> None:
        processes._leave(store, 0, range(2))
        left.set()

    thread = threading.Thread(target=leave)
    thread.start()
    assert not left.wait(0.2)
    processes._leave(store, 1, range(2))
    assert left.wait(30)
    thread.join()


@pytest.mark.parametrize("leaving", [range(1), range(2)], ids=["alone", "the other never ends"])
def test_a_process_does_not_wait_for_ever(monkeypatch, leaving):
    monkeypatch.setattr(processes, "LEAVE_TIMEOUT", 0.05)
    processes._leave(HashStore(), 0, leaving)
