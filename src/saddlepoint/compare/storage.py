"""The Optuna storage of trials: opening it, validating what is read from it, and its errors."""

from __future__ import annotations

import json
import math
import os
import platform
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError

from saddlepoint.errors import UsageError
from saddlepoint.extras import install
from saddlepoint.training.config import Tree

STATEMENT_SECONDS = 30.0
"""Computing time of one SQLite statement; waiting for a lock does not count."""

LAST_STATEMENT_SECONDS = 2.0
"""The same after a statement was interrupted, or when the search is being cancelled."""

_INSTRUCTIONS = 100_000
"""SQLite instructions between two checks of the time, some milliseconds; hardly any statement of a
search needs as many."""

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


# the database


@contextmanager
def open_storage(url: str, cancelled: threading.Event | None = None) -> Iterator[RDBStorage]:
    """Open Optuna's storage at a database URL.

    A statement on which SQLite computes for more than half a minute is interrupted: a file from
    someone else may have triggers that never end.

    Args:
        url: such as ``sqlite:///study.db`` or ``postgresql+psycopg://user@host/base``.
        cancelled: set when the search is being cancelled: then statements get two seconds.

    Raises:
        UsageError: the URL is malformed, its driver is not installed, the database cannot be
            reached, or it fails while it is used.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.startswith("sqlite"):
        path = url.partition("://")[2].removeprefix("/")
        if path.partition("?")[0] == "" or ":memory:" in path or "mode=memory" in path:
            raise UsageError(
                f"The storage {url} is in memory: its trials would be lost. Give a database file,"
                " such as sqlite:///study.db."
            )
        limit = _StatementLimit(cancelled or threading.Event())
        connect_args = {"timeout": 120, "factory": partial(_LimitedConnection, limit=limit)}
        options = {"connect_args": connect_args}
    try:
        storage = _create_storage(url, options)
    except ImportError as error:  # the database's driver
        raise UsageError(
            f"Cannot open the storage {without_password(url)}: the database's driver is not"
            f" installed ({error.__cause__ or error}). Install it; the driver of"
            f" postgresql+psycopg is installed by: {install('postgresql')}"
        ) from error
    except Exception as error:  # every driver has exceptions of its own
        # SQLAlchemy's own message may contain the URL with its password
        message = str(getattr(error, "orig", None) or "").partition("\n")[0]
        reason = f"{type(error).__name__}: {message}" if message else type(error).__name__
        raise UsageError(
            f"Cannot open the storage {without_password(url)} ({reason}). Give the URL of a"
            " database that can be reached and whose driver is installed, such as"
            " sqlite:///study.db or postgresql+psycopg://user@host/base."
        ) from error

    try:
        yield storage
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        # the driver's message, without the statement
        original = getattr(cause, "orig", None)
        reason = (str(original or cause).strip() or type(cause).__name__).partition("\n")[0]
        if isinstance(original, sqlite3.OperationalError) and str(original) == "interrupted":
            reason = f"a statement did not end within {STATEMENT_SECONDS:g} s"
        raise UsageError(
            f"The storage {without_password(url)} failed: {reason}. Finished trials are kept; run"
            " the command again when the cause is removed. A damaged file can be deleted: then its"
            " trials are made again."
        ) from error
    finally:
        storage.remove_session()
        storage.engine.dispose()


class _StatementLimit:
    """How long a statement may compute.

    Less when the search is being cancelled, or after a statement was interrupted, which Optuna
    retries several times.
    """

    def __init__(self, cancelled: threading.Event) -> None:
        self._cancelled = cancelled
        self.interrupted = False

    @property
    def seconds(self) -> float:
        if self.interrupted or self._cancelled.is_set():
            return LAST_STATEMENT_SECONDS
        return STATEMENT_SECONDS


class _LimitedConnection(sqlite3.Connection):
    """A connection that interrupts statements after a time limit."""

    def __init__(self, *arguments: Any, limit: _StatementLimit, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._limit, self._since = limit, math.inf
        self.set_progress_handler(self._exceeds_limit, _INSTRUCTIONS)

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        """Return a cursor; SQLAlchemy makes one for every statement."""
        self._since = math.inf
        return super().cursor(*arguments, **options)

    def _exceeds_limit(self) -> bool:
        """Return whether SQLite must interrupt the statement; called while it computes."""
        now = time.monotonic()
        self._since = min(self._since, now)
        if now - self._since <= self._limit.seconds:
            return False
        self._limit.interrupted = True
        return True


def _create_storage(url: str, options: dict[str, Any]) -> RDBStorage:
    """Open the storage; retry where another process creates the same tables at the same time."""
    for _ in range(4):
        with suppress(IntegrityError, OperationalError, ProgrammingError):
            return RDBStorage(url, engine_kwargs=options)
        time.sleep(0.5)
    return RDBStorage(url, engine_kwargs=options)


def without_password(url: str) -> str:
    """Return a database URL without user and password, as it may be printed.

    >>> without_password("postgresql+psycopg://me:secret@host/base")
    'postgresql+psycopg://host/base'
    """
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if "@" in rest else url


# searches


def open_search(storage: RDBStorage, name: str) -> optuna.Study:
    """Return the search of a name, created if there is none; smaller values are better."""
    with _malformed_reported(name):
        return optuna.create_study(
            storage=storage, study_name=name, direction="minimize", load_if_exists=True
        )


def read_trials(search: optuna.Study, state: TrialState) -> list[FrozenTrial]:
    """Return the trials of a state in the order of their numbers.

    Raises:
        UsageError: the database holds, in whatever state, a trial that this program did not write.
    """
    with _malformed_reported(search.study_name):
        trials = search.get_trials(deepcopy=False)
        for trial in trials:
            finished, index = trial.state == TrialState.COMPLETE, trial.user_attrs.get("index")
            if type(index) is not int and (finished or index is not None):
                raise ValueError(f"its index is {str(index)[:40]}")
            if finished and (trial.value is None or math.isnan(trial.value)):
                raise ValueError("it has no value")
            if not math.isfinite(last_heartbeat(trial)):
                raise ValueError("its time is not finite")
            trial_parameters(trial)
    return [trial for trial in trials if trial.state == state]


def read_attributes(search: optuna.Study) -> Tree:
    """Return the user attributes of a search.

    Raises:
        UsageError: they are damaged.
    """
    with _malformed_reported(search.study_name):
        return dict(search.user_attrs)


@contextmanager
def _malformed_reported(search_name: str) -> Iterator[None]:
    """Report rows that Optuna has not written."""
    try:
        yield
    except _MALFORMED as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
        raise damaged_search(search_name, reason) from error


def damaged_search(name: str, reason: str) -> UsageError:
    """Return the error that the trials of a search cannot be read."""
    return UsageError(
        f'The storage holds a trial of the search "{name}" that is damaged, or that another program'
        f" wrote ({reason}). Delete the storage, or give another one with --storage; the trials are"
        " made again."
    )


def last_heartbeat(trial: FrozenTrial) -> float:
    """Return the time of a trial's last heartbeat, else of its start, in seconds since 1970."""
    heartbeat = trial.user_attrs.get("heartbeat")
    if heartbeat is not None:
        return float(heartbeat)
    return trial.datetime_start.timestamp() if trial.datetime_start else 0.0


def trial_parameters(trial: optuna.Trial | FrozenTrial) -> Tree:
    """Return a trial's parameters, numbers rounded to four digits, which are easy to type."""
    return {
        key: float(f"{value:.4g}") if isinstance(value, float) else json.loads(value)
        for key, value in trial.params.items()
    }


def to_stored(value: Any) -> Any:
    """Return a parameter as the database stores it: floats unchanged, all else as JSON."""
    return value if isinstance(value, float) else json.dumps(value)


# workers


class Worker(BaseModel):
    """The process that works on a trial.

    Attributes:
        host: the name of its machine.
        pid: its process id there.
        start_time: in the kernel's clock ticks, as ids are reused; empty where it cannot be read.
        pid_namespace: the boot of the machine and the container that the id belongs to; empty where
            they cannot be read.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    host: str
    pid: int
    start_time: str
    pid_namespace: str

    @classmethod
    def current(cls) -> Worker:
        """Return this process."""
        return cls(
            host=platform.node(),
            pid=os.getpid(),
            start_time=_start_time(os.getpid()),
            pid_namespace=_pid_namespace(),
        )

    @classmethod
    def of(cls, trial: FrozenTrial) -> Worker | None:
        """Return who works on a trial; None where the database does not have that, or not so."""
        try:
            return cls.model_validate(trial.user_attrs.get("worker"))
        except ValidationError:
            return None

    def is_alive(self) -> bool | None:
        """Return whether the process still runs; None where that cannot be known here."""
        if not self.pid_namespace or not self.start_time or self.pid_namespace != _pid_namespace():
            return None
        return _start_time(self.pid) == self.start_time

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def _start_time(pid: int) -> str:
    """Return when a process started; empty where it does not exist, or has ended (a zombie)."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if state in "ZX" else fields[18]


def _pid_namespace() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
