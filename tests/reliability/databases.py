"""Databases of trials: a small finished one, and what another program or a bad disk may write."""

import contextlib
import json
import shutil
import sqlite3
import tempfile
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import strategies as st
from optuna.trial import FrozenTrial

from saddlepoint.compare.storage import open_search, open_storage
from saddlepoint.compare.study import Range
from saddlepoint.compare.tuning import run_trials, suggest

N_TRIALS = 3
SPACE = {
    "optimizer.lr": Range(log=(1e-4, 1e-1)),
    "optimizer.betas": Range(choices=[[0.0, 0.9], [0.5, 0.999]]),
}
KEPT = {"status": "finished", "error": None, "steps": 10, "seconds": 1.0}


def searched(path: Path) -> list[FrozenTrial]:
    """Finish a search in the database, as tuning does."""
    with open_storage(f"sqlite:///{path}") as storage:
        search = open_search(storage, "search")

        def work(trial: Any, index: int, _heartbeat: Any) -> tuple[float, Any]:
            parameters = suggest(search, trial, index, SPACE, {"optimizer.lr": 1e-3})
            return parameters["optimizer.lr"], KEPT

        return run_trials(search, N_TRIALS, work, lambda: None)


@cache
def finished() -> Path:
    """Return a database in which the search is finished."""
    path = Path(tempfile.mkdtemp(prefix="search-")) / "tuning.db"
    searched(path)
    return path


TABLES = {
    "trials": ["trial_id", "number", "study_id", "state", "datetime_start", "datetime_complete"],
    "trial_params": ["trial_id", "param_name", "param_value", "distribution_json"],
    "trial_values": ["objective", "value", "value_type"],
    "trial_user_attributes": ["key", "value_json"],
    "trial_system_attributes": ["key", "value_json"],
    "studies": ["study_id", "study_name"],
    "study_directions": ["direction", "objective"],
    "version_info": ["schema_version", "library_version"],
    "alembic_version": ["version_num"],
}
CELLS = st.sampled_from(
    [(table, column) for table, columns in TABLES.items() for column in columns]
)
VALUES = st.one_of(
    st.none(),
    st.integers(-2, 2**40),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=8),
    st.sampled_from(
        [
            "null",
            "{}",
            "[]",
            "NaN",
            "1e999",
            "RUNNING",
            "WAITING",
            "COMPLETE",
            "FAIL",
            "INF_POS",
            "[" * 5000,
            '"index"',
            "true",
        ]
    ),
    st.sampled_from(["index", "heartbeat", "status", "fixed_params", "optimizer.lr"]),
    st.builds(
        lambda name, attributes: json.dumps({"name": name, "attributes": attributes}),
        st.sampled_from(
            ["FloatDistribution", "CategoricalDistribution", "IntDistribution", "Other"]
        ),
        st.dictionaries(
            st.sampled_from(["low", "high", "log", "step", "choices"]),
            st.none() | st.floats() | st.lists(st.text()),
            max_size=4,
        ),
    ),
)
CHANGES = st.lists(st.tuples(CELLS, VALUES, st.booleans()), min_size=1, max_size=3)
"""(table, column), what stands there, and whether in every row or the first."""


def go_on_with(case: Any) -> None:
    """Finish the search in a database whose cells were changed, or that has other bytes."""
    path = finished().with_name("case.db")
    if isinstance(case, bytes):
        path.write_bytes(case)
    else:
        shutil.copy(finished(), path)
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("PRAGMA ignore_check_constraints=1")
            for (table, column), value, everywhere in case:
                where = "" if everywhere else f" WHERE rowid = (SELECT min(rowid) FROM {table})"
                with contextlib.suppress(sqlite3.IntegrityError):
                    connection.execute(f"UPDATE {table} SET {column} = ?{where}", (value,))
    # what seems to be worked on is dead
    with mock.patch.multiple("saddlepoint.compare.tuning", _GRACE=0.5, _POLL=0.01):
        assert len(searched(path)) == N_TRIALS
