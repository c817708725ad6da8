"""Signals as wishes: none is lost, and all processes hear of one after the same step."""

import os
import signal

import pytest

from saddlepoint.distributed import SingleProcess
from saddlepoint.training.interrupts import deferred_interrupts


class _Signalled(SingleProcess):
    """Processes that a signal reaches while they are asked: after this one has given its number,
    before it has the answer."""

    def __init__(self, arriving: list[int]) -> None:
        super().__init__()
        self._arriving = arriving

    def all_reduce_max(self, number: float) -> float:
        while self._arriving:
            os.kill(os.getpid(), self._arriving.pop())
        return number


class _Others(SingleProcess):
    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def all_reduce_max(self, number: float) -> float:
        return max(number, self._number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_arrives_while_the_processes_are_asked_is_told_the_next_time(number):
    with deferred_interrupts() as interrupt:
        distributed = _Signalled([number])
        # the others do not know of it: this step is taken by all
        assert interrupt.all_reduce(distributed) is None
        assert interrupt.all_reduce(distributed) == number
        assert interrupt.exit_code == 128 + number


def test_a_signal_that_another_process_got_stops_this_one_with_its_exit_code():
    with deferred_interrupts() as interrupt:
        assert interrupt.all_reduce(_Others(signal.SIGTERM)) == signal.SIGTERM
        assert interrupt.exit_code == 143


def test_a_second_ctrl_c_stops_at_once_and_the_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with deferred_interrupts():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
