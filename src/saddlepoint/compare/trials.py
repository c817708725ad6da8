"""Trials, shared by all processes that work on the same search."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from saddlepoint.compare.storage import (
    damaged,
    last_sign,
    parameters_of,
    read_attributes,
    read_trials,
    stored,
)
from saddlepoint.compare.study import Space
from saddlepoint.compare.workers import this_process, worker_of
from saddlepoint.training.config import Tree

Beat = Callable[[], None]
Work = Callable[[optuna.Trial, int, Beat], tuple[float, Tree]]
"""Makes the trial of a place: its value, and what else is to be kept of it. Calls ``Beat`` now and then."""

# seconds; the clocks of machines that share a search may differ by the difference
_HEARTBEAT, _GRACE = 10, 120
_POLL = 1.0
_RANDOM_TRIALS = 5

OF_SHARING = ("beat", "place", "worker")
"""Attributes of a trial that say who works on it; all others are of what came of it."""

_SUPERSEDED = "superseded "


def share(
    search: optuna.Study,
    places: int,
    work: Work,
    go_on: Beat,
    *,
    waiting: Callable[[str], None] = lambda whom: None,
    again: Callable[[FrozenTrial], bool] = lambda trial: False,
) -> list[FrozenTrial]:
    """Finish one trial for every place, together with whoever else does so; return them in the order of the places.

    A trial that is interrupted fails, and its place is free again. So is that of a process that has
    ended: on this machine it is known at once, of another machine when it has not been heard of for
    two minutes.

    Args:
        search: where the trials are.
        places: how many.
        work: makes a trial.
        go_on: called now and then; what it raises passes on.
        waiting: is told which process is waited for.
        again: says which finished trials are made again.

    Raises:
        UsageError: the database holds what this program has not written so.
    """
    for finished in _finished(search).values():
        if again(finished):
            search.set_user_attr(f"{_SUPERSEDED}{finished.number}", True)
    while (place := _free_place(search, places, go_on, waiting)) is not None:
        # draws nothing: what is drawn depends on the place
        search.sampler = optuna.samplers.RandomSampler()
        trial = search.ask()
        try:
            trial.set_user_attr("worker", this_process().to_dict())
            trial.set_user_attr("place", place)
            if not _holds(search, trial, place, go_on, waiting):
                search.tell(trial, state=TrialState.FAIL)
                continue
            value, kept = work(trial, place, _Heart(trial, go_on))
        except BaseException:
            search.tell(trial, state=TrialState.FAIL)
            raise
        for key, what in kept.items():
            trial.set_user_attr(key, what)
        search.tell(trial, value)
        if place not in _finished(search):  # it would be made again for ever
            raise damaged(search.study_name, f"trial {trial.number} was finished, and is not there")
    found = _finished(search)
    return [found[place] for place in range(places)]


def draw(search: optuna.Study, trial: optuna.Trial, place: int, space: Space, start: Tree) -> Tree:
    """Draw a trial's parameters: a function of its place and of the trials that are finished.

    The first is ``start``, completed at random; the next ones are drawn at random, and after five
    by Optuna's TPE sampler.
    """
    drawn = optuna.samplers.TPESampler(seed=place, n_startup_trials=_RANDOM_TRIALS)
    search.sampler = (
        drawn if place else _Start({key: stored(value) for key, value in start.items()}, drawn)
    )
    for key, where in sorted(space.items()):  # the order of a file's keys must not matter
        if where.choices is not None:
            trial.suggest_categorical(key, [stored(choice) for choice in where.choices])
        else:
            low, high = where.log or where.uniform or (0.0, 0.0)
            trial.suggest_float(key, low, high, log=where.log is not None)
    return parameters_of(trial)


def any_superseded(search: optuna.Study) -> bool:
    """Say whether a finished trial of a search was made again."""
    return any(name.startswith(_SUPERSEDED) for name in read_attributes(search))


def _free_place(
    search: optuna.Study, places: int, go_on: Beat, waiting: Callable[[str], None]
) -> int | None:
    """Return a place that nobody is at; None when all are finished. Waits while others are at work on the last ones."""
    while True:
        alive = _running(search)
        running = {trial.user_attrs.get("place") for trial in alive}
        # read after those that run: in the other order one that ends in between is in neither
        finished = _finished(search).keys()
        free = next((place for place in range(places) if place not in running | finished), None)
        if free is not None or finished >= set(range(places)):
            return free
        _say_who(alive, waiting)
        go_on()
        time.sleep(_POLL)


def _holds(
    search: optuna.Study,
    trial: optuna.Trial,
    place: int,
    go_on: Beat,
    waiting: Callable[[str], None],
) -> bool:
    """Say whether a trial has the place that it took: of several that took it in the same moment, the one with the lowest number has.

    A trial of a lower number that has not said yet which place it takes is waited for, as in
    Lamport's bakery.
    """
    while True:
        others = _running(search, below=trial.number)
        before = [other.user_attrs.get("place") for other in others]
        if place in before or place in _finished(search):
            return False
        if None not in before:
            return True
        _say_who([other for other in others if "place" not in other.user_attrs], waiting)
        go_on()
        time.sleep(_POLL)


def _finished(search: optuna.Study) -> dict[int, FrozenTrial]:
    """Return place → its trial, without those that are made again.

    Where a process that was given up for dead came back and finished too, the earlier one counts.
    """
    found: dict[int, FrozenTrial] = {}
    # before what is made again: a trial that replaces another comes later
    trials = read_trials(search, TrialState.COMPLETE)
    superseded = read_attributes(search)
    for trial in trials:
        if f"{_SUPERSEDED}{trial.number}" not in superseded:
            found.setdefault(trial.user_attrs["place"], trial)
    return found


def _running(search: optuna.Study, below: float = math.inf) -> list[FrozenTrial]:
    """Return the trials of lower numbers that are being worked on; those of processes that have ended are ended too."""
    alive = []
    for trial in read_trials(search, TrialState.RUNNING):
        if trial.number >= below:
            continue
        if _is_alive(trial):
            alive.append(trial)
            continue
        with suppress(ValueError, RuntimeError):  # another process was quicker to say so
            search.tell(trial.number, state=TrialState.FAIL)
    return alive


def _is_alive(trial: FrozenTrial) -> bool:
    """Say whether somebody works on a trial: a process that is not known to have ended, and was heard of in the last two minutes."""
    worker = worker_of(trial)
    if worker is not None and worker.is_alive() is False:
        return False
    # from the future: the clock was set back since
    return abs(time.time() - last_sign(trial)) <= _GRACE


def _say_who(trials: Sequence[FrozenTrial], waiting: Callable[[str], None]) -> None:
    """Say which other processes' trials are waited for."""
    names = []
    for trial in trials:
        worker = worker_of(trial)
        if worker is None:
            names.append(f"trial {trial.number} of an unknown process")
        elif worker != this_process():
            names.append(f"trial {trial.number} of {worker}")
    if names:
        waiting(f"{', '.join(names)} (given up when nothing was heard of it for {_GRACE:g} s)")


class _Heart:
    """Says in the storage, every ten seconds, that a trial is still being worked on."""

    def __init__(self, trial: optuna.Trial, go_on: Beat) -> None:
        self._trial, self._go_on = trial, go_on
        self._last = -math.inf
        self()

    def __call__(self) -> None:
        self._go_on()
        if time.monotonic() - self._last >= _HEARTBEAT:
            self._last = time.monotonic()
            self._trial.set_user_attr("beat", time.time())


class _Start(optuna.samplers.BaseSampler):
    """Gives the values that a method brings, and has another sampler draw what it does not bring."""

    def __init__(self, start: Mapping[str, Any], other: optuna.samplers.BaseSampler) -> None:
        self._start, self._other = start, other

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, Any]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: optuna.distributions.BaseDistribution,
    ) -> Any:
        if param_name in self._start:
            return self._start[param_name]
        return self._other.sample_independent(study, trial, param_name, param_distribution)
