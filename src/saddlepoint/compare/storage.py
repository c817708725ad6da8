"""The database of trials: opened, read as a stranger's, and its failures said in a sentence."""

from __future__ import annotations

import json
import math
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError

from saddlepoint.errors import UsageError
from saddlepoint.extras import install
from saddlepoint.training.config import Tree

_MALFORMED = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
)
"""What Optuna, and the checks here, raise for rows that Optuna has not written."""


LONGEST_CALL, LAST_CALL = 30.0, 2.0
"""Seconds that SQLite may compute for one statement; the same after one was ended or the search is being stopped. Waiting for a lock is
not computing."""

_INSTRUCTIONS = 100_000
"""Instructions of SQLite's machine between two looks at the clock, some milliseconds; hardly any statement of a search has so many."""


@contextmanager
def opened_storage(url: str, stopping: threading.Event | None = None) -> Iterator[RDBStorage]:
    """Open Optuna's storage at a database URL, such as ``sqlite:///study.db`` or ``postgresql+psycopg://user@host/base``.

    A statement on which SQLite computes for longer than half a minute is ended: a file of somebody
    else's may have triggers without an end.

    Args:
        url: where the database is.
        stopping: set when the search is being stopped: then a statement has two seconds.

    Raises:
        UsageError: the URL is malformed, its driver is not installed, the database cannot be
            reached, or it fails while it is used.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if _is_in_memory(url):
        raise UsageError(
            f"The storage {url} is in memory: its trials would be lost. Give a database file, such"
            " as sqlite:///study.db."
        )
    limited = partial(_LimitedConnection, hurry=_Hurry(stopping or threading.Event()))
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.startswith("sqlite"):
        options = {"connect_args": {"timeout": 120, "factory": limited}}
    try:
        storage = _made_storage(url, options)
    except ImportError as error:  # the database's driver
        raise UsageError(
            f"Cannot open the storage {without_password(url)}: the database's driver is not"
            f" installed ({error.__cause__ or error}). Install it; that of postgresql+psycopg comes"
            f" with: {install('postgresql')}"
        ) from error
    except Exception as error:  # every driver has exceptions of its own
        raise UsageError(
            f"Cannot open the storage {without_password(url)} ({_kind(error)}). Give the URL of a"
            " database that can be reached and whose driver is installed, such as"
            " sqlite:///study.db or postgresql+psycopg://user@host/base."
        ) from error
    try:
        yield storage
    except (SQLAlchemyError, StorageInternalError) as error:
        raise UsageError(
            f"The storage {without_password(url)} failed: {_reason(error)}. What is finished is"
            " kept; give the command again when the cause is gone. A damaged file can be deleted:"
            " then its trials are made again."
        ) from error
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _is_in_memory(url: str) -> bool:
    if not url.startswith("sqlite"):
        return False
    place = url.partition("://")[2].removeprefix("/")
    return place.partition("?")[0] == "" or ":memory:" in place or "mode=memory" in place


class _Hurry:
    """Whether statements must end soon: the search is being stopped, or one was ended before, which Optuna tries several times again."""

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping
        self.ended_one = False

    @property
    def seconds(self) -> float:
        """How long a statement may compute."""
        return LAST_CALL if self.ended_one or self._stopping.is_set() else LONGEST_CALL


class _LimitedConnection(sqlite3.Connection):
    """A connection whose statements do not compute for ever."""

    def __init__(self, *arguments: Any, hurry: _Hurry, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._hurry, self._since = hurry, math.inf
        self.set_progress_handler(self._is_too_long, _INSTRUCTIONS)

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        """Return a cursor; SQLAlchemy makes one for every statement."""
        self._since = math.inf
        return super().cursor(*arguments, **options)

    def _is_too_long(self) -> bool:
        """Say whether SQLite must give the statement up; called while it computes."""
        now = time.monotonic()
        self._since = min(self._since, now)
        if now - self._since <= self._hurry.seconds:
            return False
        self._hurry.ended_one = True
        return True


def _made_storage(url: str, options: dict[str, Any]) -> RDBStorage:
    """Open the storage; where another process makes the same tables at the same moment, one of the two finds them half made and waits."""
    for _ in range(4):
        with suppress(IntegrityError, OperationalError, ProgrammingError):
            return RDBStorage(url, engine_kwargs=options)
        time.sleep(0.5)
    return RDBStorage(url, engine_kwargs=options)


def _reason(error: Exception) -> str:
    """Return what the driver said, without the statement that it was said of."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    if (
        isinstance(getattr(cause, "orig", None), sqlite3.OperationalError)
        and str(getattr(cause, "orig", None)) == "interrupted"
    ):
        return f"a statement had no end within {LONGEST_CALL:g} s"
    return (str(getattr(cause, "orig", None) or cause).strip() or type(cause).__name__).partition(
        "\n"
    )[0]


def _kind(error: Exception) -> str:
    """Return an error's type, and what the driver said: SQLAlchemy's own words may hold the URL with its password."""
    said = str(getattr(error, "orig", None) or "").partition("\n")[0]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def opened_search(storage: RDBStorage, name: str) -> optuna.Study:
    """Return the search of a name, made where there is none yet; smaller values are better."""
    try:
        return optuna.create_study(
            storage=storage, study_name=name, direction="minimize", load_if_exists=True
        )
    except _MALFORMED as error:
        raise damaged(name, _said(error)) from error


def read_trials(search: optuna.Study, state: TrialState) -> list[FrozenTrial]:
    """Return the trials of a state in the order of their numbers.

    Raises:
        UsageError: the database holds, in whatever state, one that this program has not written so.
    """
    try:
        trials = search.get_trials(deepcopy=False)
        for trial in trials:
            _check(trial)
    except _MALFORMED as error:
        raise damaged(search.study_name, _said(error)) from error
    return [trial for trial in trials if trial.state == state]


def read_attributes(search: optuna.Study) -> Tree:
    """Return what is kept of a search as a whole; a UsageError says that it is damaged."""
    try:
        return dict(search.user_attrs)
    except _MALFORMED as error:
        raise damaged(search.study_name, _said(error)) from error


def _check(trial: FrozenTrial) -> None:
    finished, place = trial.state == TrialState.COMPLETE, trial.user_attrs.get("place")
    if type(place) is not int and (finished or place is not None):
        raise ValueError(f"its place is {str(place)[:40]}")
    if finished and (trial.value is None or math.isnan(trial.value)):
        raise ValueError("it has no value")
    if not math.isfinite(last_sign(trial)):
        raise ValueError("its time is not finite")
    parameters_of(trial)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0][:200]


def damaged(name: str, why: str) -> UsageError:
    """Return the mistake that the trials of a search cannot be read."""
    return UsageError(
        f'The storage holds a trial of the search "{name}" that is damaged, or that another program'
        f" wrote ({why}). Delete the storage, or give another one with --storage; the trials are"
        " made again."
    )


def last_sign(trial: FrozenTrial) -> float:
    """Return when a trial was last heard of, in seconds since 1970: its heartbeat, or its start."""
    beat = trial.user_attrs.get("beat")
    if beat is not None:
        return float(beat)
    return trial.datetime_start.timestamp() if trial.datetime_start else 0.0


def parameters_of(trial: optuna.Trial | FrozenTrial) -> Tree:
    """Return a trial's parameters, numbers with four digits: that is all of a learning rate that a reader wants to type."""
    return {
        key: float(f"{value:.4g}") if isinstance(value, float) else json.loads(value)
        for key, value in trial.params.items()
    }


def stored(value: Any) -> Any:
    """Return a value as the database keeps it: numbers as they are, all else as JSON."""
    return value if isinstance(value, float) else json.dumps(value)


def without_password(url: str) -> str:
    """Return a database URL as it may be shown.

    >>> without_password("postgresql+psycopg://me:secret@host/base")
    'postgresql+psycopg://host/base'
    """
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if "@" in rest else url
